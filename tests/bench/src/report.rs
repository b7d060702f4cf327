//! The report: a table for people, one for the documentation, and the file for programs. Text only.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};

use crate::rows::Row;

/// For the terminal.
pub fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["", "ours", "p95", "peer", "ratio", "budget", ""]);
    for (group, title) in headed(rows) {
        table.add_row([format!("\n{group}")]);
        for row in title {
            let [ours, p95, peer, ratio, budget, mark] = cells(row);
            table.add_row([format!("  {}", row.title), ours, p95, peer, ratio, budget, mark]);
        }
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

/// For the documentation.
pub fn markdown(rows: &[Row]) -> String {
    let mut text = String::new();
    for (group, rows) in headed(rows) {
        let _ = writeln!(
            text,
            "\n| {group} | ours | p95 | peer | ratio | budget | |\n|---|--:|--:|--:|--:|--:|:-:|"
        );
        for row in rows {
            let _ = writeln!(text, "| {} | {} |", row.title.trim(), cells(row).join(" | "));
        }
    }
    text
}

fn headed(rows: &[Row]) -> Vec<(&'static str, Vec<&Row>)> {
    let mut groups: Vec<(&'static str, Vec<&Row>)> = Vec::new();
    for row in rows {
        match groups.last_mut() {
            Some((group, list)) if *group == row.group => list.push(row),
            _ => groups.push((row.group, vec![row])),
        }
    }
    groups
}

fn cells(row: &Row) -> [String; 6] {
    let amount = |value: f64| {
        let number = if row.unit.is_empty() {
            format!("{value:.0}")
        } else {
            number(value)
        };
        format!("{number} {}", row.unit).trim_end().to_owned()
    };
    let budget = row.budget.map(|budget| match row.ratio {
        Some(_) => format!("≤ {}×", number(budget)),
        None => format!("≤ {}", amount(budget)),
    });
    [
        amount(row.ours),
        if row.n > 1 { amount(row.p95) } else { String::new() },
        row.peer.map(amount).unwrap_or_default(),
        row.ratio.map(|ratio| format!("{ratio:.2}×")).unwrap_or_default(),
        budget.unwrap_or_default(),
        mark(row).to_owned(),
    ]
}

fn mark(row: &Row) -> &'static str {
    match (row.met, row.hard_met) {
        (_, Some(false)) => "✘✘",
        (Some(true), _) => "✔",
        (Some(false), _) => "✘",
        (None, _) => "–",
    }
}

/// Three digits that count.
fn number(value: f64) -> String {
    let decimals = match value {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    match text.strip_suffix('0') {
        Some(_) if text.contains('.') => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        _ => text,
    }
}

/// What fails the run, as sentences.
pub fn violations(rows: &[Row]) -> Vec<String> {
    let broken = rows.iter().filter(|row| row.hard_met == Some(false));
    let sentences = broken.map(|row| {
        let value = row.ratio.unwrap_or(row.ours);
        format!("{}: {value:.2}, never above {}", row.name, row.hard.unwrap_or_default())
    });
    sentences.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_count() {
        assert_eq!(
            [200.0, 16.0, 1.5, 0.2, 2.345, 1234.5].map(number),
            ["200", "16", "1.5", "0.2", "2.35", "1234"]
        );
    }
}
