//! What a person sees: ticks, a progress bar, a table.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

use crate::runtime::Pod;

/// Cells of the progress bar.
const BAR: usize = 24;
/// Column at which the figures of a tick begin.
const FIGURES: usize = 68;

/// The terminal, or a file: then without moving the cursor.
#[derive(Debug)]
pub struct Screen {
    interactive: bool,
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

impl Screen {
    /// Standard output.
    pub fn new() -> Self {
        Self {
            interactive: std::io::stdout().is_terminal(),
        }
    }

    /// A check that held, with how long it took.
    pub fn tick(&mut self, text: &str, took: Duration, figures: &str) {
        let pad = FIGURES.saturating_sub(text.chars().count() + 4);
        self.plain(&format!("  ✔ {text}{:pad$} {:>8}   {figures}", "", duration(took)));
    }

    /// Progress of a list; the last call ends the line.
    pub fn progress(&mut self, verb: &str, done: usize, all: usize, note: &str) {
        let filled = BAR * done / all.max(1);
        let line = format!(
            "  {verb} {all} pods {}{} {done}/{all}   {note}",
            "█".repeat(filled),
            "░".repeat(BAR - filled)
        );
        if self.interactive {
            let end = if done == all { "\n" } else { "" };
            self.write(&format!("\r\x1b[2K{line}{end}"));
        } else if done == all {
            self.plain(&line);
        }
    }

    /// A line.
    pub fn plain(&mut self, line: &str) {
        self.write(&format!("{line}\n"));
    }

    /// A reader that has gone is not the demo's problem.
    fn write(&mut self, text: &str) {
        let mut out = std::io::stdout();
        let _ = out.write_all(text.as_bytes());
        let _ = out.flush();
    }
}

/// Seconds, or milliseconds when it is less than one.
pub(super) fn duration(took: Duration) -> String {
    if took >= Duration::from_secs(1) {
        format!("{:.1} s", took.as_secs_f64())
    } else {
        format!("{:.1} ms", took.as_secs_f64() * 1000.0)
    }
}

/// One line with the calls by action, without what all of their names share.
pub(super) fn calls(title: &str, counts: &BTreeMap<String, u64>) -> String {
    let all: u64 = counts.values().sum();
    let short = |action: &str| {
        let parts = [
            "NetworkInterfaceAttribute",
            "NetworkInterfaces",
            "NetworkInterface",
            "PrivateIpAddresses",
        ];
        parts
            .iter()
            .fold(action.to_owned(), |name, part| name.replace(part, ""))
    };
    let parts: Vec<String> = counts
        .iter()
        .map(|(action, count)| format!("{} {count}", short(action)))
        .collect();
    format!("  {title}: {all} ({})", parts.join(", "))
}

/// The pods, one a line.
pub(super) fn pods(pods: &[Pod], eni_of: impl Fn(&Pod) -> String) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["POD", "ADDRESS", "NODE", "ENI", "DEV", "TABLE", "ADD"]);
    for pod in pods {
        let route_table = if pod.table == 254 {
            "main".to_owned()
        } else {
            pod.table.to_string()
        };
        table.add_row([
            pod.identity.label(),
            pod.address.to_string(),
            pod.node.clone(),
            eni_of(pod),
            pod.device.to_string(),
            route_table,
            duration(pod.took),
        ]);
    }
    if let Some(column) = table.column_mut(6) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.lines().map(|line| format!("   {}\n", line.trim_end())).collect()
}

/// The middle one of some durations.
pub(super) fn median(durations: impl Iterator<Item = Duration>) -> Duration {
    let mut all: Vec<Duration> = durations.collect();
    all.sort();
    all.get(all.len() / 2).copied().unwrap_or_default()
}
