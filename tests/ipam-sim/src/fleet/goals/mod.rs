//! The goals of the pool's policy: the real core beside the reference's formulas, in the same world, with the same seeds.
//!
//! A goal that is not reached is listed with its cause; one that is marked as held and is not fails the run.

mod table;

use std::sync::Mutex;

use table::GOALS;

use super::figures::Figures;
use super::plan::{Mode, Plan, Workload};
use super::world::run;

/// Runs of a burst that are averaged: the phase of the reference's loop alone moves one by seconds.
const BURSTS: u64 = 5;
/// Runs of a join of 1,000 nodes that are averaged: the last node's luck moves one by a tenth.
const JOINS: u64 = 3;
/// Whether a goal is one that must not be lost again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is reached.
    Held,
    /// It is not, and why.
    Missed(&'static str),
}

/// Whether a row takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pace {
    /// Seconds.
    Quick,
    /// Minutes: 5,000 nodes.
    Slow,
}

/// What a figure is held against.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Against {
    /// The same figure of the reference, in this plan.
    Reference(Plan),
    /// A number that needs no run.
    Number(f64),
    /// Nothing: the goal is for our figure itself.
    Nothing,
}

/// One goal.
struct Goal {
    name: &'static str,
    title: &'static str,
    measure: Measure,
    ours: Plan,
    against: Against,
    budget: f64,
    standing: Standing,
    pace: Pace,
}

/// What is looked at in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    /// Seconds until the last pod has its address.
    Last,
    /// Calls until then.
    Calls,
    /// Calls per pod.
    PerPod,
    /// Calls per node.
    PerNode,
    /// Calls per node and day.
    PerNodeDay,
    /// Throttled per accepted call.
    Throttled,
    /// One pod in a hundred waits longer, in seconds.
    Wait,
    /// Share of the pods that wait noticeably.
    Waited,
    /// Addresses held per address used.
    Held,
    /// Pods without address after a minute, at the end.
    Never,
}

impl Measure {
    fn of(self, figures: &Figures) -> f64 {
        match self {
            Self::Last => figures.last_served,
            Self::Calls => figures.calls_until_served as f64,
            Self::PerPod => figures.calls_per_pod(),
            Self::PerNode => figures.calls_per_node(),
            Self::PerNodeDay => figures.calls_per_node_hour() * 24.0,
            Self::Throttled => figures.throttled_per_accepted(),
            Self::Wait => figures.wait_p99,
            Self::Waited => figures.waited as f64 / figures.served.max(1) as f64,
            Self::Held => figures.held_per_used(),
            Self::Never => figures.never_served as f64,
        }
    }
}

/// One judged goal.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its name, stable.
    pub name: &'static str,
    /// What it says.
    pub title: &'static str,
    /// Our figure.
    pub ours: f64,
    /// What it is divided by.
    pub peer: Option<f64>,
    /// The quotient.
    pub ratio: Option<f64>,
    /// The goal for the quotient, or for our figure if it stands alone.
    pub budget: f64,
    /// Whether it is reached.
    pub met: bool,
    /// Whether it has to be.
    pub standing: Standing,
}

impl Row {
    /// As a line of the summary.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "name": self.name, "ours": self.ours, "peer": self.peer, "ratio": self.ratio,
            "budget": self.budget, "met": self.met, "title": self.title,
            "cause": match self.standing { Standing::Held => None, Standing::Missed(cause) => Some(cause) },
        })
    }
}

/// Each plan is run once, whatever number of goals looks at it; two at a time.
struct Results(Vec<(Plan, Vec<Figures>)>);

fn seeds(plan: &Plan) -> u64 {
    match plan.workload {
        Workload::Burst { .. } => BURSTS,
        Workload::Join { .. } if plan.nodes <= 1_000 && plan.policy.mode == Mode::Prefixes => JOINS,
        Workload::Join { .. }
        | Workload::Churn { .. }
        | Workload::Rolling { .. }
        | Workload::Cron { .. }
        | Workload::Batch { .. }
        | Workload::Day { .. }
        | Workload::Steady { .. }
        | Workload::None => 1,
    }
}

impl Results {
    fn of(goals: &[&Goal]) -> Self {
        let mut plans: Vec<Plan> = Vec::new();
        for goal in goals {
            let peer = match goal.against {
                Against::Reference(plan) => Some(plan),
                Against::Number(_) | Against::Nothing => None,
            };
            for plan in std::iter::once(goal.ours).chain(peer) {
                if !plans.contains(&plan) {
                    plans.push(plan);
                }
            }
        }
        let (todo, done) = (Mutex::new(plans), Mutex::new(Vec::new()));
        let work = || {
            loop {
                let next = todo.lock().ok().and_then(|mut plans| plans.pop());
                let Some(plan) = next else { return };
                let figures = (1..=seeds(&plan)).map(|seed| run(&Plan { seed, ..plan })).collect();
                if let Ok(mut done) = done.lock() {
                    done.push((plan, figures));
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(work);
            work();
        });
        Self(done.into_inner().unwrap_or_default())
    }

    fn mean(&self, plan: &Plan, measure: Measure) -> f64 {
        let runs = self.0.iter().find(|(known, _)| known == plan);
        let figures = &runs.expect("every plan of every goal was run").1;
        figures.iter().map(|one| measure.of(one)).sum::<f64>() / figures.len() as f64
    }
}

/// Runs what the goals need and judges them.
pub fn judge(pace: Pace, names: &[String]) -> Vec<Row> {
    let chosen = |goal: &Goal| names.is_empty() || names.iter().any(|name| goal.name.contains(name.as_str()));
    let in_time = GOALS.iter().filter(|goal| goal.pace <= pace);
    let goals: Vec<&Goal> = in_time.filter(|goal| chosen(goal)).collect();
    let results = Results::of(&goals);
    goals.iter().map(|goal| row(goal, &results)).collect()
}

fn row(goal: &Goal, results: &Results) -> Row {
    let ours = results.mean(&goal.ours, goal.measure);
    let peer = match goal.against {
        Against::Reference(plan) => Some(results.mean(&plan, goal.measure)),
        Against::Number(number) => Some(number),
        Against::Nothing => None,
    };
    // A goal of none is none, whatever the peer has.
    let ratio = peer.filter(|_| goal.budget > 0.0).map(|peer| ours / peer);
    Row {
        name: goal.name,
        title: goal.title,
        ours,
        peer,
        ratio,
        budget: goal.budget,
        met: ratio.unwrap_or(ours) <= goal.budget,
        standing: goal.standing,
    }
}
