//! How allocations come into the pool: from views, and from the answers to our own calls.
//!
//! Owns the rule that no address is in the pool twice, neither on two ENIs nor in two kinds on one. EC2 gives an address out once,
//! so whatever it says last is right, and what the pool had in the same place was of another time. `take_in` is the only way in;
//! what a file brings is checked as a whole before it is believed.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use vpc_types::{Allocation, EniId};

use crate::BootTime;
use crate::address::AddressState;
use crate::core::Core;
use crate::eni::Eni;

/// What an address does that is new to the pool.
pub(crate) type FirstState = fn(&Core, Ipv4Addr, BootTime) -> AddressState;

impl Core {
    /// EC2 says that these are on this ENI: all their addresses are in the pool, there and nowhere else; one that was missing
    /// is back. The caller rehomes the leases.
    pub(crate) fn take_in<'a>(
        &mut self,
        id: &EniId,
        allocations: impl IntoIterator<Item = &'a Allocation>,
        first: FirstState,
        now: BootTime,
    ) {
        for allocation in allocations {
            // First, so that what rested elsewhere goes on resting here.
            self.clear_place(id, *allocation);
            let Some(eni) = self.pool.enis.get(id) else { continue };
            let known = eni.blocks.get(allocation);
            let is_new = |address: &Ipv4Addr| {
                let state = known.and_then(|block| block.get(address));
                state.is_none_or(|state| matches!(state, AddressState::Missing { .. }))
            };
            let new = allocation.addresses().filter(is_new);
            let new: Vec<_> = new.map(|address| (address, first(self, address, now))).collect();
            if let Some(eni) = self.pool.enis.get_mut(id) {
                eni.blocks.entry(*allocation).or_default().extend(new);
            }
        }
    }

    /// What is on this ENI is on no other.
    pub(crate) fn take_from_others<'a>(&mut self, id: &EniId, allocations: impl Iterator<Item = &'a Allocation>) {
        for allocation in allocations {
            for eni in self.pool.enis.values_mut().filter(|eni| eni.id != *id) {
                let mut gone = eni.overlapping(*allocation);
                gone.push(*allocation);
                take(eni, &gone, &mut self.resting_elsewhere);
            }
        }
    }

    /// No other allocation has an address of this one. On the ENI itself it would be of the other kind: somebody took that away,
    /// and EC2 gave it out again.
    fn clear_place(&mut self, id: &EniId, allocation: Allocation) {
        self.take_from_others(id, std::iter::once(&allocation));
        if let Some(eni) = self.pool.enis.get_mut(id) {
            let gone = eni.overlapping(allocation);
            take(eni, &gone, &mut self.resting_elsewhere);
        }
    }
}

/// Takes allocations off an ENI; their addresses go on resting, should EC2 give them to us again.
fn take(eni: &mut Eni, gone: &[Allocation], resting: &mut BTreeMap<Ipv4Addr, BootTime>) {
    let states = gone.iter().filter_map(|one| eni.blocks.remove(one)).flatten();
    resting.extend(states.filter_map(|(address, state)| Some((address, state.rests_until()?))));
}
