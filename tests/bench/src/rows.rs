//! Figures judged by the budgets: the lines of the report, and of `summary.json`.

use serde::Serialize;

use crate::budgets::{Against, RULES, Rule, Statistic};
use crate::figures::{Figures, Spread, Who};

/// One judged line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// See [`Rule::name`].
    pub name: String,
    /// Our figure.
    pub ours: f64,
    /// What it is divided by.
    pub peer: Option<f64>,
    /// The quotient.
    pub ratio: Option<f64>,
    /// The goal for the quotient, or for our figure if it stands alone.
    pub budget: Option<f64>,
    /// Whether the goal is reached.
    pub met: Option<bool>,
    /// What fails the run.
    pub hard: Option<f64>,
    /// Whether that limit holds.
    pub hard_met: Option<bool>,
    /// Unit of both figures.
    pub unit: &'static str,
    /// 95 of 100 of our values are at most this.
    pub p95: f64,
    /// Number of our values.
    pub n: usize,
    /// Heading.
    pub group: &'static str,
    /// What it says, for people.
    pub title: &'static str,
}

impl Row {
    /// Whether it depends on who else wants the processor at the moment.
    pub fn is_wall_time(&self) -> bool {
        self.name.contains(".wall.") || self.name.starts_with("rpc.")
    }
}

/// The lines for which there are figures.
pub fn judge(figures: &Figures) -> Vec<Row> {
    RULES.iter().filter_map(|rule| row(rule, figures)).collect()
}

/// Hard limits that have no line, as sentences: without its figure a limit holds whatever happens.
pub fn unjudged(rows: &[Row], is_expected: impl Fn(&Rule) -> bool) -> Vec<String> {
    let limits = RULES.iter().filter(|rule| rule.hard.is_some() && is_expected(rule));
    let lost = limits
        .map(Rule::name)
        .filter(|name| rows.iter().all(|row| row.name != *name));
    lost.map(|name| format!("{name}: has a hard limit, and was not measured"))
        .collect()
}

fn row(rule: &Rule, figures: &Figures) -> Option<Row> {
    let number = |spread: Spread| match rule.statistic {
        Statistic::P50 => spread.p50,
        Statistic::Mean => spread.mean,
        Statistic::Max => spread.max,
    };
    let ours = figures.get(rule.figure, Who::Ours)?;
    let peer = match rule.against {
        Against::Alone => None,
        Against::Other(who) => Some(number(figures.get(rule.figure, who)?)),
        Against::Figure(name) => Some(number(figures.get(name, Who::Ours)?)),
    };
    let ratio = peer.map(|peer| number(ours) / peer);
    let judged = ratio.unwrap_or_else(|| number(ours));
    Some(Row {
        name: rule.name(),
        ours: number(ours),
        peer,
        ratio,
        budget: rule.budget,
        met: rule.budget.map(|budget| judged <= budget),
        hard: rule.hard,
        hard_met: rule.hard.map(|hard| judged <= hard),
        unit: rule.unit,
        p95: ours.p95,
        n: ours.n,
        group: rule.group,
        title: rule.title,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_judged_by_its_ratio_and_a_missing_peer_has_no_line() {
        let mut figures = Figures::default();
        figures.series("add.primary.wall", Who::Ours, &[3.0]);
        figures.series("add.primary.wall", Who::Floor, &[1.4]);
        let rows = judge(&figures);
        let [row] = rows.as_slice() else {
            panic!("one line: {rows:?}")
        };
        assert_eq!((row.met, row.hard_met), (Some(false), Some(false)));
        assert!(row.ratio.is_some_and(|ratio| (2.1..2.2).contains(&ratio)));
        figures.series("calls.first", Who::Ours, &[2.0, 3.0]);
        assert!(
            judge(&figures)
                .iter()
                .any(|row| row.name == "calls.first.max" && row.hard_met == Some(true))
        );
        let lost = unjudged(&judge(&figures), |rule| rule.group == "EC2 calls");
        assert!(lost.iter().any(|text| text.starts_with("calls.restart.max: ")));
        assert!(!lost.iter().any(|text| text.starts_with("calls.first.max: ")));
    }
}
