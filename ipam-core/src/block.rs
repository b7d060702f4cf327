//! The addresses of one allocation, and sums over them that are kept until somebody may have changed a state.
//!
//! Sums are wanted several times per event, over up to some thousand addresses of which an event changes one. Whoever reaches
//! for the states to write them drops the sums of that block; reading never needs them to be there.

use std::collections::{BTreeMap, btree_map};
use std::net::Ipv4Addr;
use std::ops::{Deref, DerefMut};

use crate::BootTime;
use crate::address::AddressState;

/// States of the addresses of one allocation. A single address is a block of one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Block {
    states: BTreeMap<Ipv4Addr, AddressState>,
    kept: Option<Tally>,
}

/// Sums over the addresses of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(crate) total: u32,
    pub(crate) free: u32,
    pub(crate) leased: u32,
    pub(crate) cooling: u32,
    /// When the next rest ends.
    pub(crate) next_rest_end: Option<BootTime>,
    /// The address that has been free for longest.
    pub(crate) longest_free: Option<(BootTime, Ipv4Addr)>,
}

impl Tally {
    fn of(states: &BTreeMap<Ipv4Addr, AddressState>) -> Self {
        let mut tally = Self::default();
        let earlier = |one: Option<BootTime>, other: BootTime| Some(one.map_or(other, |one| one.min(other)));
        for (address, state) in states {
            tally.total += 1;
            match state {
                AddressState::Free { since } => {
                    let this = (*since, *address);
                    tally.free += 1;
                    tally.longest_free = Some(tally.longest_free.map_or(this, |other| other.min(this)));
                }
                AddressState::Leased(_) => tally.leased += 1,
                AddressState::Cooling { until, .. } => {
                    tally.cooling += 1;
                    tally.next_rest_end = earlier(tally.next_rest_end, *until);
                }
                AddressState::Releasing(_) | AddressState::Missing { .. } | AddressState::Blocked { .. } => {}
            }
        }
        tally
    }

    /// Neither grantable soon nor leased.
    pub(crate) fn withheld(self) -> u32 {
        self.total - self.free - self.leased - self.cooling
    }

    /// Whether every address is free.
    pub(crate) fn is_free(self) -> bool {
        self.free == self.total
    }
}

impl Block {
    /// The sums of this moment.
    pub(crate) fn tally(&self) -> Tally {
        self.kept.unwrap_or_else(|| Tally::of(&self.states))
    }

    /// Keeps the sums for later readers.
    pub(crate) fn keep_tally(&mut self) {
        self.kept = Some(self.tally());
    }

    /// Ends the rests that are over at `by`.
    pub(crate) fn end_rests(&mut self, by: BootTime, now: BootTime) {
        if self.tally().next_rest_end.is_some_and(|at| at <= by) {
            for state in self.values_mut() {
                if state.rests_until().is_some_and(|until| until <= by) {
                    *state = AddressState::Free { since: now };
                }
            }
        }
    }
}

impl Deref for Block {
    type Target = BTreeMap<Ipv4Addr, AddressState>;

    fn deref(&self) -> &Self::Target {
        &self.states
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.kept = None;
        &mut self.states
    }
}

/// Kept sums are no part of what a block is.
impl PartialEq for Block {
    fn eq(&self, other: &Self) -> bool {
        self.states == other.states
    }
}

impl Eq for Block {}

impl FromIterator<(Ipv4Addr, AddressState)> for Block {
    fn from_iter<I: IntoIterator<Item = (Ipv4Addr, AddressState)>>(states: I) -> Self {
        Self {
            states: states.into_iter().collect(),
            kept: None,
        }
    }
}

impl IntoIterator for Block {
    type Item = (Ipv4Addr, AddressState);
    type IntoIter = btree_map::IntoIter<Ipv4Addr, AddressState>;

    fn into_iter(self) -> Self::IntoIter {
        self.states.into_iter()
    }
}

impl<'a> IntoIterator for &'a Block {
    type Item = (&'a Ipv4Addr, &'a AddressState);
    type IntoIter = btree_map::Iter<'a, Ipv4Addr, AddressState>;

    fn into_iter(self) -> Self::IntoIter {
        self.states.iter()
    }
}

impl<'a> IntoIterator for &'a mut Block {
    type Item = (&'a Ipv4Addr, &'a mut AddressState);
    type IntoIter = btree_map::IterMut<'a, Ipv4Addr, AddressState>;

    fn into_iter(self) -> Self::IntoIter {
        self.kept = None;
        self.states.iter_mut()
    }
}
