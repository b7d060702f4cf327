//! The invariants that one state can show, each a function with its sentence for a name.
//!
//! They are asserted after every event, in release too: they cost microseconds, and a wrong address costs an outage.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use vpc_types::{EniId, IpamKey};

use crate::action::Work;
use crate::address::AddressState;
use crate::core::Core;
use crate::event::EniRole;
use crate::lease::LeaseState;

/// A broken invariant: a defect in this crate, never an operating condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// I1.
    #[error("I1: {address} is leased to {first} and to {second}")]
    LeasedTwice {
        /// The address.
        address: Ipv4Addr,
        /// One holder.
        first: IpamKey,
        /// The other.
        second: IpamKey,
    },
    /// I1: the two tables disagree.
    #[error("I1: {address} is marked leased to {key}, which holds no such lease")]
    LeaseMissing {
        /// The address.
        address: Ipv4Addr,
        /// The marked key.
        key: IpamKey,
    },
    /// I4: a lease lost its address without becoming an orphan.
    #[error("I4: the lease of {key} on {address} is not marked on any ENI and is no orphan")]
    LeaseHomeless {
        /// The address.
        address: Ipv4Addr,
        /// Its key.
        key: IpamKey,
    },
    /// One address on two ENIs.
    #[error("{address} is on {first} and on {second}")]
    OnTwoEnis {
        /// The address.
        address: Ipv4Addr,
        /// One ENI.
        first: EniId,
        /// The other.
        second: EniId,
    },
    /// I5.
    #[error("I5: {eni} has {slots} slots in use or asked for, the limit is {limit}")]
    TooManySlots {
        /// The ENI.
        eni: EniId,
        /// Slots.
        slots: u16,
        /// EC2's limit.
        limit: u16,
    },
    /// I5.
    #[error("I5: {enis} ENIs exist or are asked for, the limit is {limit}")]
    TooManyEnis {
        /// ENIs.
        enis: usize,
        /// The limit.
        limit: u16,
    },
    /// Two operations of one kind on one ENI.
    #[error("{eni} has more than one EC2 operation under way")]
    TwoMutations {
        /// The ENI.
        eni: EniId,
    },
}

pub(crate) fn check(core: &Core) -> Result<(), Violation> {
    no_address_is_leased_twice(core)?;
    every_leased_mark_has_its_lease(core)?;
    every_lease_is_marked_or_an_orphan(core)?;
    no_address_is_on_two_enis(core)?;
    no_eni_exceeds_its_slots(core)?;
    no_growth_exceeds_the_enis_of_the_instance(core)?;
    one_mutation_per_eni(core)
}

fn no_address_is_leased_twice(core: &Core) -> Result<(), Violation> {
    let mut holders: BTreeMap<Ipv4Addr, &IpamKey> = BTreeMap::new();
    for lease in core.pool.leases.values() {
        if let Some(first) = holders.insert(lease.address, &lease.key) {
            let (first, second) = (first.clone(), lease.key.clone());
            return Err(Violation::LeasedTwice {
                address: lease.address,
                first,
                second,
            });
        }
    }
    Ok(())
}

fn every_leased_mark_has_its_lease(core: &Core) -> Result<(), Violation> {
    for (address, state) in core.pool.enis.values().flat_map(crate::eni::Eni::addresses) {
        if let AddressState::Leased(key) = state
            && core.pool.leases.get(key).is_none_or(|lease| lease.address != address)
        {
            return Err(Violation::LeaseMissing {
                address,
                key: key.clone(),
            });
        }
    }
    Ok(())
}

fn every_lease_is_marked_or_an_orphan(core: &Core) -> Result<(), Violation> {
    for lease in core.pool.leases.values() {
        let marked = core
            .pool
            .address(lease.address)
            .is_some_and(|state| state.key() == Some(&lease.key));
        if !marked && !matches!(lease.state, LeaseState::Orphan | LeaseState::Draining) {
            return Err(Violation::LeaseHomeless {
                address: lease.address,
                key: lease.key.clone(),
            });
        }
    }
    Ok(())
}

fn no_address_is_on_two_enis(core: &Core) -> Result<(), Violation> {
    let mut homes: BTreeMap<Ipv4Addr, &EniId> = BTreeMap::new();
    for eni in core.pool.enis.values() {
        for (address, _) in eni.addresses() {
            if let Some(first) = homes.insert(address, &eni.id) {
                return Err(Violation::OnTwoEnis {
                    address,
                    first: first.clone(),
                    second: eni.id.clone(),
                });
            }
        }
    }
    Ok(())
}

fn no_eni_exceeds_its_slots(core: &Core) -> Result<(), Violation> {
    let limit = core.config.node.slots_per_eni;
    for eni in core.pool.enis.values().filter(|eni| eni.role != EniRole::Unmanaged) {
        let asked = eni
            .ec2_op
            .and_then(|op| core.ops.get(&op))
            .map_or(0, |record| record.work.slots_asked());
        let slots = eni.slots_used() + asked;
        // EC2 may show more than the table allows; what counts is that we never ask for more.
        if slots > limit && asked > 0 {
            return Err(Violation::TooManySlots {
                eni: eni.id.clone(),
                slots,
                limit,
            });
        }
    }
    Ok(())
}

/// Views may show more ENIs than expected at any moment, ours or others'; what we ask for fits beside the primary one.
fn no_growth_exceeds_the_enis_of_the_instance(core: &Core) -> Result<(), Violation> {
    let creating = core
        .ops
        .values()
        .filter(|record| matches!(record.work, Work::CreateEni { .. }))
        .count();
    let (enis, limit) = (creating + 1, core.config.node.max_enis);
    if creating > 0 && enis > usize::from(limit) {
        return Err(Violation::TooManyEnis { enis, limit });
    }
    Ok(())
}

fn one_mutation_per_eni(core: &Core) -> Result<(), Violation> {
    for (op, record) in core.ops.iter().filter(|(_, record)| record.work.is_ec2()) {
        if let Some(eni) = record.work.eni().and_then(|id| core.pool.enis.get(id))
            && eni.ec2_op != Some(*op)
        {
            return Err(Violation::TwoMutations { eni: eni.id.clone() });
        }
    }
    Ok(())
}
