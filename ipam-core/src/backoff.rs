//! Waiting after refused calls: per kind of operation, full jitter, growing fourfold.
//!
//! A node makes so few calls that the wait after a refusal decides how hard a throttled account is hit, not a rate.

use std::time::Duration;

use crate::BootTime;
use crate::config::Timers;
use crate::event::Refusal;

/// A small deterministic generator (SplitMix64): spreads nodes by their nonce, and replays in a simulation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(nonce: u64) -> Self {
        Self(nonce)
    }

    /// A duration between zero and `limit`.
    pub(crate) fn up_to(&mut self, limit: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let per_mille = u32::try_from((z ^ (z >> 31)) % 1001).expect("a remainder below 1001 fits");
        limit * per_mille / 1000
    }
}

/// Who wants a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A pod in line.
    Starving,
    /// The warm target.
    Refill,
}

/// Refusals in a row, and when the next try may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Backoff {
    refusals: u32,
    pub(crate) not_before: BootTime,
    /// The same while a pod waits; earlier only after a pause.
    starving_not_before: BootTime,
    /// The last refusal, until a call succeeds.
    pub(crate) last: Option<Refusal>,
}

impl Backoff {
    pub(crate) fn refused(&mut self, refusal: Refusal, now: BootTime, timers: &Timers, jitter: &mut Jitter) {
        let limit = timers
            .backoff_start
            .saturating_mul(4u32.saturating_pow(self.refusals))
            .min(timers.backoff_max);
        self.refusals = (self.refusals + 1).min(10);
        self.last = Some(refusal);
        self.not_before = now.after(jitter.up_to(limit));
        self.starving_not_before = self.not_before;
    }

    /// After a full subnet: a pause that doubles up to sixteenfold while only the warm target wants it, so that a node that
    /// can never reach its target falls silent, and a short one while a pod waits.
    pub(crate) fn subnet_full(&mut self, refusal: Refusal, now: BootTime, timers: &Timers, jitter: &mut Jitter) {
        let spread = |pause: Duration, jitter: &mut Jitter| now.after(pause * 3 / 4 + jitter.up_to(pause / 2));
        let refill = timers.subnet_retry_refill.saturating_mul(1 << self.refusals.min(4));
        self.not_before = spread(refill, jitter);
        self.starving_not_before = spread(timers.subnet_retry_starving, jitter).min(self.not_before);
        self.refusals = (self.refusals + 1).min(10);
        self.last = Some(refusal);
    }

    /// Ends the pause of a full subnet: another kind of call got addresses from it.
    pub(crate) fn subnet_has_addresses(&mut self) {
        if matches!(self.last, Some(Refusal::SubnetFull | Refusal::SubnetFragmented)) {
            self.succeeded();
        }
    }

    /// Earliest time of the next try, given whether a pod waits for it.
    pub(crate) fn next_try(&self, need: Need) -> BootTime {
        match need {
            Need::Starving => self.starving_not_before,
            Need::Refill => self.not_before,
        }
    }

    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_fourfold_and_stay_below_the_cap() {
        let (timers, mut jitter, mut backoff) = (Timers::default(), Jitter::new(7), Backoff::default());
        for k in 0..12 {
            backoff.refused(Refusal::Throttled, BootTime::default(), &timers, &mut jitter);
            let limit = timers
                .backoff_start
                .saturating_mul(4u32.saturating_pow(k))
                .min(timers.backoff_max);
            assert!(backoff.not_before.0 <= limit, "try {k}");
        }
        backoff.succeeded();
        assert_eq!(backoff, Backoff::default());
    }

    #[test]
    fn jitter_covers_the_range_and_depends_on_the_nonce() {
        let limit = Duration::from_secs(1);
        let draws = |nonce| {
            let mut jitter = Jitter::new(nonce);
            (0..200).map(|_| jitter.up_to(limit)).collect::<Vec<_>>()
        };
        assert!(draws(1).iter().any(|d| *d < limit / 4) && draws(1).iter().any(|d| *d > limit * 3 / 4));
        assert_ne!(draws(1), draws(2));
    }
}
