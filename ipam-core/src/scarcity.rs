//! What refusals for lack of addresses taught about one subnet: how long to leave it alone, and how little to ask for.
//!
//! Owns the ladder of a prefix that is not to be had: fewer prefixes, then single addresses on the same ENI, and prefixes again
//! after a long while. EC2 shows nowhere whether a free aligned block exists, so only a refusal tells.

use std::time::Duration;

use crate::BootTime;
use crate::action::Want;
use crate::backoff::{Jitter, Need};
use crate::config::{AllocationMode, Timers};
use crate::event::Refusal;

/// Single addresses instead of prefixes for so long: blocks become free at the pace at which pods of other nodes end.
const PREFIX_PAUSE: Duration = Duration::from_secs(600);

/// So often that pause doubles: the last one is ten hours.
const PREFIX_DOUBLINGS: u32 = 6;

/// Longest pause of a refill, in first pauses: 120 s grow to 10 min, and to 32 min where a reading said that nothing is left.
const PAUSES_MAX: u32 = 5;
const PAUSES_MAX_EMPTY: u32 = 16;

/// A subnet that gave this much in one call is no longer taken for scarce.
const PLENTY: u16 = 16;

/// What may be asked of a subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Prefixes, or single addresses where it has none.
    pub(crate) kind: AllocationMode,
    /// Slots in one request; `None`: as many as are wanted.
    pub(crate) at_most: Option<u16>,
    /// Not earlier than this.
    pub(crate) not_before: BootTime,
}

impl Ask {
    /// Whether answers have shown that there is little left, so that one question at a time is asked.
    pub(crate) fn is_scarce(self) -> bool {
        self.at_most.is_some()
    }
}

/// A refusal that nothing has made up for yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shortage {
    pub(crate) refusal: Refusal,
    at: BootTime,
    /// Addresses that the call needed, and those that it would have needed at the least.
    wanted: u32,
    least: u32,
}

/// What is remembered of one subnet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Scarcity {
    /// Pauses in a row.
    pauses: u32,
    /// The epoch stands for: no pause.
    refill_not_before: BootTime,
    starving_not_before: BootTime,
    addresses_at_most: Option<u16>,
    prefixes_at_most: Option<u16>,
    singles_until: Option<BootTime>,
    /// Refusals of a single prefix since the last one that was given.
    prefix_refusals: u32,
    shortage: Option<Shortage>,
    /// Whether the last reading showed nothing at all.
    is_empty: bool,
}

impl Scarcity {
    /// The moments that have come are forgotten.
    pub(crate) fn pass(&mut self, now: BootTime) {
        for at in [&mut self.refill_not_before, &mut self.starving_not_before] {
            if *at <= now {
                *at = BootTime::default();
            }
        }
        self.singles_until = self.singles_until.filter(|until| *until > now);
    }

    pub(crate) fn ask(&self, mode: AllocationMode, need: Need) -> Ask {
        let kind = match mode {
            AllocationMode::Prefixes if self.singles_until.is_some() => AllocationMode::Addresses,
            AllocationMode::Prefixes | AllocationMode::Addresses => mode,
        };
        Ask {
            kind,
            at_most: match kind {
                AllocationMode::Addresses => self.addresses_at_most,
                AllocationMode::Prefixes => self.prefixes_at_most,
            },
            not_before: match need {
                Need::Starving => self.starving_not_before,
                Need::Refill => self.refill_not_before,
            },
        }
    }

    pub(crate) fn shortage(&self) -> Option<Shortage> {
        self.shortage
    }

    /// It refused a call that wanted this beside an address for a new ENI, if it was to make one; `free` is what a fresh reading
    /// says.
    pub(crate) fn refused(
        &mut self,
        (want, own): (Want, u32),
        refusal: Refusal,
        free: Option<u32>,
        now: BootTime,
        timers: &Timers,
        jitter: &mut Jitter,
    ) {
        self.shortage = Some(Shortage {
            refusal,
            at: now,
            wanted: want.addresses() + own,
            least: 1 + own,
        });
        match want {
            Want::Prefixes(count) if free != Some(0) => {
                // All or nothing: something smaller may be had. Each step is another question, so those who wait do not wait
                // for it.
                self.prefixes_at_most = Some((count / 4).max(1));
                if count <= 1 {
                    self.do_without_prefixes(now, jitter);
                }
                let pause = jitter.around(timers.refill_delay);
                self.refill_not_before = self.refill_not_before.max(now.after(pause));
            }
            Want::Addresses(count) | Want::Prefixes(count) => {
                self.addresses_at_most = Some(few(free).unwrap_or(count / 2).max(1));
                self.pause(now, timers, jitter);
            }
        }
    }

    /// Single addresses have to do for a while: for longer each time, so that a node in a subnet that never has a free block, or
    /// on an instance type that takes none, falls silent.
    pub(crate) fn do_without_prefixes(&mut self, now: BootTime, jitter: &mut Jitter) {
        let pause = PREFIX_PAUSE * (1 << self.prefix_refusals.min(PREFIX_DOUBLINGS));
        self.singles_until = Some(now.after(jitter.around(pause)));
        self.prefix_refusals = self.prefix_refusals.saturating_add(1);
    }

    /// Doubles while only the warm target wants it, so that a node that can never reach its target falls silent; short while a
    /// pod waits. Refusals of calls that were under way together are one.
    fn pause(&mut self, now: BootTime, timers: &Timers, jitter: &mut Jitter) {
        if self.starving_not_before > now {
            return;
        }
        let longest = if self.is_empty { PAUSES_MAX_EMPTY } else { PAUSES_MAX };
        let times = (1 << self.pauses.min(10)).min(longest);
        let refill = jitter.around(timers.subnet_retry_refill * times);
        let starving = jitter.around(timers.subnet_retry_starving);
        self.refill_not_before = now.after(refill);
        self.starving_not_before = now.after(starving.min(refill));
        self.pauses = (self.pauses + 1).min(10);
    }

    /// A reading that began at `started_at` found so many free: those who wait ask for them at once, but only once, since the
    /// count may be behind the truth for good.
    pub(crate) fn read(&mut self, free: u32, started_at: BootTime) {
        self.is_empty = free < self.shortage.map_or(1, |shortage| shortage.least);
        let Some(shortage) = self.shortage.filter(|shortage| started_at >= shortage.at) else {
            return;
        };
        if self.addresses_at_most.is_some() && free < shortage.wanted {
            self.addresses_at_most = few(Some(free.max(1)));
        }
        if free > 0 && self.pauses == 1 {
            self.starving_not_before = BootTime::default();
        }
    }

    /// It gave what was asked.
    pub(crate) fn served(&mut self, want: Want) {
        let at_most = match want {
            Want::Addresses(_) => &mut self.addresses_at_most,
            Want::Prefixes(_) => {
                self.prefix_refusals = 0;
                &mut self.prefixes_at_most
            }
        };
        *at_most = at_most
            .map(|count| count.saturating_mul(2))
            .filter(|count| *count < PLENTY);
        (self.pauses, self.is_empty) = (0, false);
        self.shortage = None;
        (self.refill_not_before, self.starving_not_before) = Default::default();
    }
}

/// A free count as a number to ask for.
fn few(free: Option<u32>) -> Option<u16> {
    free.and_then(|free| u16::try_from(free).ok())
}
