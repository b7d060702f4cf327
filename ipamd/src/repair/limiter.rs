//! How fast repairs may follow each other: a few at once, then ever more slowly while somebody keeps removing things.
//!
//! Pure: the caller tells the time. Two programs that each put their own state back would otherwise keep a node busy.

use std::time::{Duration, Instant};

/// Repairs without a pause: a start of networkd, or an operator at work, is a few.
const BURST: u32 = 10;
/// The first pause after that; each repair doubles it.
const PAUSE: Duration = Duration::from_secs(5);
/// The longest one.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Without a repair for this long, all is forgotten. Longer than the longest pause, or a fight would never be seen as one.
const QUIET: Duration = Duration::from_secs(120);

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    repairs: u32,
    last: Option<Instant>,
}

impl Limiter {
    /// A repair was needed. The pause until the next one, where there is one.
    pub(crate) fn spend(&mut self, now: Instant) -> Option<Duration> {
        if self.last.is_some_and(|last| now.duration_since(last) >= QUIET) {
            self.repairs = 0;
        }
        self.repairs = self.repairs.saturating_add(1);
        self.last = Some(now);
        self.pause()
    }

    /// Before this, nothing is repaired.
    pub(crate) fn not_before(&self) -> Option<Instant> {
        Some(self.last? + self.pause()?)
    }

    fn pause(&self) -> Option<Duration> {
        let beyond = self.repairs.checked_sub(BURST)?;
        // Six doublings are past the longest pause.
        Some((PAUSE * 2u32.pow(beyond.min(6))).min(PAUSE_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_repairs_are_free_and_each_further_one_doubles_the_pause_up_to_a_minute() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        for _ in 0..9 {
            assert_eq!(limiter.spend(start), None);
            assert_eq!(limiter.not_before(), None);
        }
        let (mut now, mut pauses) = (start, Vec::new());
        for _ in 0..7 {
            let pause = limiter.spend(now).unwrap();
            assert_eq!(limiter.not_before(), Some(now + pause));
            pauses.push(pause.as_secs());
            now += pause;
        }
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60, 60]);
    }

    #[test]
    fn two_quiet_minutes_make_good_for_everything() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        assert!((0..20).filter_map(|_| limiter.spend(start)).count() > 0);
        let later = start + QUIET - Duration::from_secs(1);
        assert!(limiter.spend(later).is_some());
        assert_eq!(limiter.spend(later + QUIET), None);
        assert_eq!(limiter.not_before(), None);
    }
}
