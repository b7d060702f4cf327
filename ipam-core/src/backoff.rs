//! Waiting after refused calls, and the pace of calls: per kind of operation.
//!
//! A node makes so few calls that the wait after a refusal decides how hard a throttled account is hit: full jitter, growing
//! fourfold. The pace only binds where something is wrong: it halves with every throttled call and recovers with success.

use std::time::Duration;

use crate::BootTime;
use crate::action::Work;
use crate::config::{NodeFacts, Timers};
use crate::event::{Refusal, Scope};
use crate::side_file::BudgetRow;
use crate::time::{boot, millis};

/// A refill waits so many times longer after a refusal than a call that a pod waits for.
const REFILL_FACTOR: u32 = 10;

/// First wait after a missing permission, or at a limit of the account, while a pod waits and otherwise; both double.
const DENIED: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(60));
/// Longest such waits: an operator who has changed it looks for the effect.
const DENIED_MAX: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(1800));

/// Time between calls of one kind, when all is well.
const PACE: Duration = Duration::from_secs(1);
/// The slowest pace that throttling leads to.
const PACE_MAX: Duration = Duration::from_secs(60);
/// Calls that may go out together.
const BURST: u32 = 5;

/// Longest wait after a refused describe, at least: without the first one nothing goes on.
const DESCRIBE_MAX: Duration = Duration::from_secs(16);
/// EC2 takes 20 describes per second from an account; a node waits for a quarter of what the whole cluster needs.
const NODES_PER_SECOND: u32 = 80;

/// The waiting rule of describes.
pub(crate) fn for_describes(timers: &Timers, node: &NodeFacts) -> Timers {
    let longest = Duration::from_secs((node.cluster_nodes.unwrap_or(0) / NODES_PER_SECOND).into());
    Timers {
        backoff_max: timers.backoff_max.min(longest.max(DESCRIBE_MAX)),
        ..*timers
    }
}

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

    /// A duration of three to five quarters of `mean`.
    pub(crate) fn around(&mut self, mean: Duration) -> Duration {
        mean * 3 / 4 + self.up_to(mean / 2)
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

/// Pace of one kind of call: a token bucket, as the time at which it would be full again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    pub(crate) interval: Duration,
    pub(crate) full_at: BootTime,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            interval: PACE,
            full_at: BootTime::default(),
        }
    }
}

impl Pace {
    fn next(self) -> BootTime {
        BootTime(self.full_at.0.saturating_sub(self.interval * (BURST - 1)))
    }

    fn spend(&mut self, now: BootTime) {
        self.full_at = self.full_at.max(now).after(self.interval);
    }

    fn throttled(&mut self) {
        self.interval = (self.interval * 2).min(PACE_MAX);
    }

    fn succeeded(&mut self) {
        self.interval = (self.interval * 10 / 11).max(PACE);
    }
}

/// Refusals in a row, and when the next try may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Backoff {
    pub(crate) refusals: u32,
    /// While nobody waits.
    pub(crate) not_before: BootTime,
    /// While a pod waits.
    pub(crate) starving_not_before: BootTime,
    pub(crate) pace: Pace,
    /// The last refusal, until a call succeeds.
    pub(crate) last: Option<Refusal>,
}

impl Backoff {
    pub(crate) fn refused(&mut self, refusal: Refusal, now: BootTime, timers: &Timers, jitter: &mut Jitter) {
        let is_for_long = matches!(refusal, Refusal::Denied | Refusal::LimitReached);
        let (starving, refill) = if is_for_long {
            let grown = |(first, _), (longest, _)| doubled(first, self.refusals, longest);
            let swap = |(a, b)| (b, a);
            (
                jitter.around(grown(DENIED, DENIED_MAX)),
                jitter.around(grown(swap(DENIED), swap(DENIED_MAX))),
            )
        } else {
            let limit = timers
                .backoff_start
                .saturating_mul(4u32.saturating_pow(self.refusals))
                .min(timers.backoff_max);
            let wait = jitter.up_to(limit);
            (wait, wait.saturating_mul(REFILL_FACTOR))
        };
        if refusal == Refusal::Throttled {
            self.pace.throttled();
        }
        self.refusals = (self.refusals + 1).min(10);
        self.last = Some(refusal);
        self.starving_not_before = now.after(starving);
        self.not_before = now.after(refill);
    }

    /// Earliest time of the next try, given whether a pod waits for it.
    pub(crate) fn next_try(&self, need: Need) -> BootTime {
        let refused = match need {
            Need::Starving => self.starving_not_before,
            Need::Refill => self.not_before,
        };
        refused.max(self.pace.next())
    }

    /// When a pod that waits may hope for a call; `None` while a permission is missing: the next try would have the same end.
    pub(crate) fn hope(&self, now: BootTime) -> Option<BootTime> {
        let is_denied = self.last == Some(Refusal::Denied) && self.starving_not_before > now;
        (!is_denied).then(|| self.next_try(Need::Starving))
    }

    /// A call goes out.
    pub(crate) fn spend(&mut self, now: BootTime) {
        self.pace.spend(now);
    }

    pub(crate) fn succeeded(&mut self) {
        self.pace.succeeded();
        *self = Self {
            pace: self.pace,
            ..Self::default()
        };
    }
}

fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << times.min(10)).min(longest)
}

/// Waiting rules per kind of call, so that a refusal of one does not stop the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Backoffs {
    pub(crate) create: Backoff,
    pub(crate) attach: Backoff,
    pub(crate) modify: Backoff,
    pub(crate) allocate: Backoff,
    pub(crate) release: Backoff,
    pub(crate) detach: Backoff,
    pub(crate) delete: Backoff,
    pub(crate) describe: Backoff,
    pub(crate) subnets: Backoff,
}

impl Backoffs {
    /// The waiting rule of an EC2 operation; kernel operations have none.
    pub(crate) fn of(&mut self, work: &Work) -> Option<&mut Backoff> {
        match work {
            Work::CreateEni { .. } => Some(&mut self.create),
            Work::Attach { .. } => Some(&mut self.attach),
            Work::DeleteOnTermination { .. } | Work::SetGroups { .. } => Some(&mut self.modify),
            Work::AllocateAddresses { .. } => Some(&mut self.allocate),
            Work::ReleaseAddresses { .. } => Some(&mut self.release),
            Work::Detach { .. } => Some(&mut self.detach),
            Work::DeleteEni { .. } => Some(&mut self.delete),
            Work::SetupEni { .. } | Work::TeardownEni { .. } | Work::ClearPodState { .. } => None,
        }
    }

    /// The waiting rule of a describe.
    pub(crate) fn of_scope(&mut self, scope: Scope) -> &mut Backoff {
        match scope {
            Scope::Subnets => &mut self.subnets,
            Scope::Attached | Scope::OwnAvailable | Scope::Leaked => &mut self.describe,
        }
    }

    /// Names and rules of the kinds that change something, for the file and for people.
    pub(crate) fn mutations(&self) -> [(&'static str, &Backoff); 7] {
        [
            ("CreateNetworkInterface", &self.create),
            ("AttachNetworkInterface", &self.attach),
            ("ModifyNetworkInterfaceAttribute", &self.modify),
            ("AssignPrivateIpAddresses", &self.allocate),
            ("UnassignPrivateIpAddresses", &self.release),
            ("DetachNetworkInterface", &self.detach),
            ("DeleteNetworkInterface", &self.delete),
        ]
    }

    /// When a call that brings addresses, and for which a permission is missing, is tried again.
    pub(crate) fn denied_until(&self) -> Option<BootTime> {
        let growing = [&self.allocate, &self.create, &self.attach];
        let denied = growing
            .into_iter()
            .filter(|backoff| backoff.last == Some(Refusal::Denied));
        denied.map(|backoff| backoff.starving_not_before).min()
    }

    /// What a restart must know, so that ending does not shorten a pause.
    pub(crate) fn rows(&self) -> Vec<BudgetRow> {
        let touched = self
            .mutations()
            .into_iter()
            .filter(|(_, backoff)| **backoff != Backoff::default());
        let row = |(call, backoff): (&'static str, &Backoff)| BudgetRow {
            call: call.into(),
            refusals: backoff.refusals,
            not_before: millis(backoff.not_before),
            starving_not_before: millis(backoff.starving_not_before),
            interval: millis(BootTime(backoff.pace.interval)),
            full_at: millis(backoff.pace.full_at),
            last: backoff.last.map(|refusal| refusal.as_str().into()),
        };
        touched.map(row).collect()
    }

    /// Inverse of `rows`, for times of the same boot.
    pub(crate) fn restore(&mut self, rows: &[BudgetRow], now: BootTime) {
        let soon = |millis: u64| boot(millis).min(now.after(DENIED_MAX.1));
        for row in rows {
            if let Some(backoff) = self.named(&row.call) {
                *backoff = Backoff {
                    refusals: row.refusals.min(10),
                    not_before: soon(row.not_before),
                    starving_not_before: soon(row.starving_not_before),
                    pace: Pace {
                        interval: boot(row.interval).0.clamp(PACE, PACE_MAX),
                        full_at: soon(row.full_at),
                    },
                    last: row.last.as_deref().and_then(Refusal::parse),
                };
            }
        }
    }

    /// Inverse of a name in `mutations`.
    pub(crate) fn named(&mut self, name: &str) -> Option<&mut Backoff> {
        match name {
            "CreateNetworkInterface" => Some(&mut self.create),
            "AttachNetworkInterface" => Some(&mut self.attach),
            "ModifyNetworkInterfaceAttribute" => Some(&mut self.modify),
            "AssignPrivateIpAddresses" => Some(&mut self.allocate),
            "UnassignPrivateIpAddresses" => Some(&mut self.release),
            "DetachNetworkInterface" => Some(&mut self.detach),
            "DeleteNetworkInterface" => Some(&mut self.delete),
            _ => None,
        }
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
            assert!(backoff.starving_not_before.0 <= limit, "try {k}");
            assert_eq!(backoff.not_before.0, backoff.starving_not_before.0 * REFILL_FACTOR);
        }
        backoff.succeeded();
        assert_eq!((backoff.not_before, backoff.last), (BootTime::default(), None));
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
