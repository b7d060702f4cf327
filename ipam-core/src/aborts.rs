//! Aborts of the daemon, and what they mean for its next start.
//!
//! A broken invariant ends the process, which is right once. A node on which that happens again and again needs its pods
//! served more than its books corrected. Called by the daemon, which keeps the history in a file.

use std::time::Duration;

use crate::BootTime;
use crate::config::StartMode;

/// So many aborts within [`WINDOW`] are too many.
const TOO_MANY: usize = 3;
const WINDOW: Duration = Duration::from_secs(600);
/// A start this long after the last abort is an ordinary one again.
const QUIET: Duration = Duration::from_secs(3_600);
/// Aborts that are remembered.
const REMEMBERED: usize = 16;

/// When the daemon aborted in this boot of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbortHistory {
    boot_id: String,
    at: Vec<BootTime>,
}

impl AbortHistory {
    /// Reads what [`Self::to_text`] wrote. A text of another boot, or one that makes no sense, is an empty history.
    pub fn parse(text: &str, boot_id: &str) -> Self {
        let mut lines = text.lines();
        let same_boot = lines.next() == Some(boot_id);
        let times = lines.filter(|_| same_boot).filter_map(|line| line.parse().ok());
        let mut at: Vec<BootTime> = times.map(|millis| BootTime(Duration::from_millis(millis))).collect();
        at.sort_unstable();
        let boot_id = boot_id.to_owned();
        Self { boot_id, at }
    }

    /// The daemon aborts now.
    pub fn record(&mut self, now: BootTime) {
        self.at.push(now);
        self.at.sort_unstable();
        let excess = self.at.len().saturating_sub(REMEMBERED);
        self.at.drain(..excess);
    }

    /// One line for the boot, and one for each abort.
    pub fn to_text(&self) -> String {
        let times = self.at.iter().map(|at| format!("{}\n", at.0.as_millis()));
        format!("{}\n", self.boot_id) + &times.collect::<String>()
    }

    /// How the daemon should start.
    pub fn start_mode(&self, now: BootTime) -> StartMode {
        let is_quiet = self.at.last().is_none_or(|last| now.since(*last) >= QUIET);
        let crowded = |few: &[BootTime]| few[TOO_MANY - 1].since(few[0]) <= WINDOW;
        if !is_quiet && self.at.windows(TOO_MANY).any(crowded) {
            StartMode::Safe
        } else {
            StartMode::Normal
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(minutes: &[u64]) -> AbortHistory {
        let mut history = AbortHistory::parse("", "boot");
        minutes.iter().for_each(|at| history.record(minute(*at)));
        history
    }

    fn minute(at: u64) -> BootTime {
        BootTime(Duration::from_secs(at * 60))
    }

    #[test]
    fn three_aborts_in_ten_minutes_mean_safe_mode_until_a_quiet_hour_has_passed() {
        assert_eq!(history(&[1, 2]).start_mode(minute(3)), StartMode::Normal);
        assert_eq!(history(&[1, 2, 11]).start_mode(minute(12)), StartMode::Safe);
        assert_eq!(history(&[1, 2, 12]).start_mode(minute(12)), StartMode::Normal);
        assert_eq!(history(&[1, 2, 3]).start_mode(minute(62)), StartMode::Safe);
        assert_eq!(history(&[1, 2, 3]).start_mode(minute(63)), StartMode::Normal);
        // In safe mode it aborts again, once: the hour begins anew.
        assert_eq!(history(&[1, 2, 3, 50]).start_mode(minute(100)), StartMode::Safe);
    }

    #[test]
    fn a_history_is_read_as_it_was_written_and_ends_with_its_boot() {
        let history = history(&[1, 2, 3]);
        assert_eq!(AbortHistory::parse(&history.to_text(), "boot"), history);
        let other = AbortHistory::parse(&history.to_text(), "another");
        assert_eq!(other.start_mode(minute(3)), StartMode::Normal);
        let garbage = AbortHistory::parse("boot\nx\n-1\n\u{0}\n60000\n", "boot");
        assert_eq!(garbage.to_text(), "boot\n60000\n");
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let many: Vec<u64> = (0..1_000).collect();
        assert_eq!(history(&many).to_text().lines().count(), 1 + REMEMBERED);
    }
}
