//! What recent use suggests: the peak that the release window keeps, and the bursts that the adaptive target is ready for.

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

/// Arrivals within this time count as one burst.
const BURST: Duration = Duration::from_secs(10);
/// The largest burst of late loses half its weight in this time; half an hour made no difference.
const HALF_LIFE: Duration = Duration::from_secs(600);
/// More warm addresses than this gained nothing over it.
const MOST: u32 = 8;

/// The largest burst of arrivals of late: what the adaptive target keeps ready.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Arrivals {
    /// The last few, oldest first; more than `MOST` would not change the level.
    recent: VecDeque<BootTime>,
    level: u32,
    /// When the level was reached.
    since: BootTime,
}

impl Arrivals {
    /// A pod came.
    pub(crate) fn record(&mut self, now: BootTime) {
        self.recent.push_back(now);
        while self.recent.len() > MOST as usize || self.recent.front().is_some_and(|at| at.after(BURST) <= now) {
            self.recent.pop_front();
        }
        let burst = u32::try_from(self.recent.len()).unwrap_or(MOST);
        if burst >= self.level(now) {
            (self.level, self.since) = (burst, now);
        }
    }

    /// The largest burst, halved for each half-life since.
    pub(crate) fn level(&self, now: BootTime) -> u32 {
        let halvings = now.since(self.since).as_secs() / HALF_LIFE.as_secs();
        self.level
            .checked_shr(u32::try_from(halvings).unwrap_or(u32::MAX))
            .unwrap_or(0)
    }

    /// When the level falls next.
    pub(crate) fn next_change(&self, now: BootTime) -> Option<BootTime> {
        let halvings = u32::try_from(now.since(self.since).as_secs() / HALF_LIFE.as_secs()).unwrap_or(u32::MAX);
        (self.level(now) > 0).then(|| self.since.after(HALF_LIFE * (halvings + 1)))
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

    #[test]
    fn the_largest_burst_counts_half_after_ten_minutes() {
        let at = |s| BootTime(Duration::from_secs(s));
        let mut arrivals = Arrivals::default();
        [100, 101, 105, 109, 111]
            .into_iter()
            .for_each(|s| arrivals.record(at(s)));
        assert_eq!(arrivals.level(at(111)), 4, "four within any ten seconds");
        assert_eq!((arrivals.level(at(708)), arrivals.level(at(711))), (4, 2));
        assert_eq!(arrivals.next_change(at(712)), Some(at(1309)));
        assert_eq!((arrivals.level(at(9_999)), arrivals.next_change(at(9_999))), (0, None));
        (0..100).for_each(|_| arrivals.record(at(10_000)));
        assert_eq!(arrivals.level(at(10_000)), MOST);
    }
}
