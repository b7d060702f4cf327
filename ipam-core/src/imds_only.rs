//! IMDS as the only view, where EC2 may not be asked.
//!
//! It may be short, stale or wrong for a while, so one read is nothing: new addresses count after two equal ones, and what is
//! not shown is dropped after three that lie far apart, and only where no pod has it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use vpc_types::{Allocation, EniId};

use crate::BootTime;
use crate::Now;
use crate::address::AddressState;
use crate::core::Core;
use crate::eni::{Backing, Eni};
use crate::event::{Ec2View, Scope};

/// Equal reads after which new addresses count.
const TO_TAKE: u32 = 2;
/// Equal reads, far apart, after which what is not shown is dropped.
const TO_DROP: u32 = 3;

type Reading = BTreeMap<EniId, BTreeSet<Allocation>>;

/// Equal reads in a row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Reads {
    last: Option<Reading>,
    /// All of them.
    equal: u32,
    /// Those that lie far enough apart, and the beginning of the last of these.
    apart: u32,
    apart_at: BootTime,
}

impl Reads {
    fn count(&mut self, reading: Reading, started_at: BootTime, gap: Duration) {
        if self.last.as_ref() != Some(&reading) {
            *self = Self {
                last: Some(reading),
                equal: 1,
                apart: 1,
                apart_at: started_at,
            };
            return;
        }
        self.equal = self.equal.saturating_add(1);
        if started_at >= self.apart_at.after(gap) {
            (self.apart, self.apart_at) = (self.apart.saturating_add(1), started_at);
        }
    }
}

impl Core {
    /// A view of attached ENIs that IMDS gave; it contains the primary one.
    pub(crate) fn imds_only_viewed(&mut self, view: &Ec2View, now: Now) {
        let timers = self.config.timers;
        let reading: Reading = view
            .enis
            .iter()
            .map(|fact| (fact.id.clone(), fact.allocations.clone()))
            .collect();
        self.hints
            .reads
            .count(reading.clone(), view.started_at, timers.confirm_gap);
        if self.hints.reads.equal < TO_TAKE {
            self.wish(Scope::Attached).want(now.boot.after(timers.settle));
            return;
        }
        for fact in &view.enis {
            if let Some(eni) = self.pool.enis.get_mut(&fact.id) {
                (eni.missing_since, eni.backing) = (None, Backing::Sure);
                self.take_in(&fact.id, &fact.allocations, Self::found, now.boot);
            } else {
                self.adopt(fact, now.boot);
            }
        }
        let may_drop = self.hints.reads.apart >= TO_DROP;
        if may_drop {
            self.resolve_unknown(view, now.boot);
        }
        let left = self.drop_unleased(&reading, may_drop, view.started_at);
        self.rehome_leases();
        self.seen_ec2 = true;
        self.end_unknown_past(view, now.boot);
        if left && !may_drop {
            self.wish(Scope::Attached).want(now.boot.after(timers.confirm_gap));
        }
        self.outbox.bump();
    }

    /// Withholds what is not shown and has no pod, or drops it; whether anything is not shown.
    fn drop_unleased(&mut self, reading: &Reading, may_drop: bool, started_at: BootTime) -> bool {
        let mut left = false;
        let none = BTreeSet::new();
        let mut gone = Vec::new();
        let hold = started_at.after(self.config.timers.hold());
        let rests = &mut self.resting_elsewhere;
        for (id, eni) in &mut self.pool.enis {
            let shown = reading.get(id).unwrap_or(&none);
            left |= withhold(eni, shown, started_at, hold, rests);
            if may_drop {
                let has_pod = |state: &AddressState| state.key().is_some();
                eni.blocks
                    .retain(|allocation, block| shown.contains(allocation) || block.values().any(has_pod));
            }
            if !reading.contains_key(id) {
                left = true;
                eni.missing_since.get_or_insert(started_at);
                if eni.leased() == 0 {
                    gone.push(id.clone());
                }
            }
        }
        if may_drop {
            for id in gone {
                self.remove_eni(&id);
                self.note_eni(&id, "forgotten");
            }
        }
        left
    }
}

/// No grants from what is not shown; whether there is any.
fn withhold(
    eni: &mut Eni,
    shown: &BTreeSet<Allocation>,
    started_at: BootTime,
    hold: BootTime,
    rests: &mut BTreeMap<Ipv4Addr, BootTime>,
) -> bool {
    let mut any = false;
    for (_, block) in eni
        .blocks
        .iter_mut()
        .filter(|(allocation, _)| !shown.contains(allocation))
    {
        any = true;
        for (address, state) in block.iter_mut() {
            // One that rests would be free in the end, shown or not.
            match state {
                AddressState::Cooling { until, .. } => rests.insert(*address, *until),
                AddressState::Blocked { .. } => rests.insert(*address, hold),
                AddressState::Free { .. } => None,
                AddressState::Leased(_) | AddressState::Releasing(_) | AddressState::Missing { .. } => continue,
            };
            *state = AddressState::Missing { since: started_at };
        }
    }
    any
}
