//! The peak of recent use: what the release window keeps.

use std::collections::VecDeque;
use std::time::Duration;

use crate::BootTime;

/// Levels over time, reduced to what can still be a peak: earlier entries are strictly higher, so the length is bounded by
/// the highest level.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct UsagePeak {
    level: u32,
    /// Former levels with the moment they ended, descending in level.
    ended: VecDeque<(BootTime, u32)>,
}

impl UsagePeak {
    /// The level is `level` from `now` on.
    pub(crate) fn record(&mut self, level: u32, now: BootTime) {
        if level == self.level {
            return;
        }
        while self.ended.back().is_some_and(|(_, former)| *former <= self.level) {
            self.ended.pop_back();
        }
        self.ended.push_back((now, self.level));
        self.level = level;
    }

    /// Highest level within the last `window`.
    pub(crate) fn peak(&mut self, window: Duration, now: BootTime) -> u32 {
        while self.ended.front().is_some_and(|(end, _)| end.after(window) <= now) {
            self.ended.pop_front();
        }
        self.ended
            .front()
            .map_or(self.level, |(_, former)| self.level.max(*former))
    }

    /// When the peak may fall next.
    pub(crate) fn next_change(&self, window: Duration) -> Option<BootTime> {
        self.ended
            .front()
            .filter(|(_, former)| *former > self.level)
            .map(|(end, _)| end.after(window))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_counts_until_it_has_been_over_for_the_window() {
        let (window, at) = (Duration::from_secs(10), |s| BootTime(Duration::from_secs(s)));
        let mut usage = UsagePeak::default();
        usage.record(3, at(0));
        usage.record(7, at(1));
        usage.record(2, at(5));
        usage.record(4, at(6));
        assert_eq!(usage.peak(window, at(14)), 7);
        assert_eq!(usage.next_change(window), Some(at(15)));
        assert_eq!(usage.peak(window, at(15)), 4);
    }
}
