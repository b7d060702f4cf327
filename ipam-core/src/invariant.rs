//! The invariants that one state can show, each a function with its sentence for a name.
//!
//! They are asserted after every event, in release too: they cost microseconds, and a wrong address costs an outage.

use std::net::Ipv4Addr;

use vpc_types::{EniId, IpamKey};

use crate::OpId;
use crate::action::Work;
use crate::address::AddressState;
use crate::block::Block;
use crate::core::{Core, OpState};
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
    /// I2: a pod's address is on its way out with its ENI.
    #[error("I2: {eni} is leaving with {leased} leased addresses")]
    LeavesWithLeases {
        /// The ENI.
        eni: EniId,
        /// Leased addresses on it.
        leased: usize,
    },
    /// An address waits for the end of a call that does not concern it, and so for ever.
    #[error("{address} waits for the release {op}, which is not under way for it", op = op.0)]
    ReleaseMissing {
        /// The address.
        address: Ipv4Addr,
        /// The call.
        op: OpId,
    },
    /// Two operations of one kind on one ENI.
    #[error("{eni} has more than one EC2 operation under way")]
    TwoMutations {
        /// The ENI.
        eni: EniId,
    },
}

pub(crate) fn check(core: &Core) -> Result<(), Violation> {
    let marks = Marks::of(core);
    no_address_is_leased_twice(core)?;
    every_lease_is_marked_or_an_orphan(core, &marks)?;
    every_leased_mark_has_its_lease(core, &marks)?;
    no_address_is_on_two_enis(&marks)?;
    no_eni_exceeds_its_slots(core)?;
    no_growth_exceeds_the_enis_of_the_instance(core)?;
    no_eni_leaves_with_leases(core)?;
    every_release_is_under_way(core)?;
    one_mutation_per_eni(core)
}

/// All allocations with their ENI and addresses, in order. Built once per check: looking each lease's address up on every ENI
/// took longer than the event that was checked.
struct Marks<'a>(Vec<(u32, &'a EniId, &'a Block)>);

impl<'a> Marks<'a> {
    fn of(core: &'a Core) -> Self {
        let first = |block: &Block| block.keys().next().map(|address| u32::from(*address));
        let of_eni = |eni: &'a crate::eni::Eni| {
            let blocks = eni.blocks.values();
            blocks.filter_map(move |block| Some((first(block)?, &eni.id, block)))
        };
        let mut marks: Vec<_> = core.pool.enis.values().flat_map(of_eni).collect();
        marks.sort_unstable_by_key(|(first, ..)| *first);
        Self(marks)
    }

    fn key(&self, address: Ipv4Addr) -> Option<&IpamKey> {
        let after = self.0.partition_point(|(first, ..)| *first <= u32::from(address));
        let (.., block) = self.0.get(after.checked_sub(1)?)?;
        block.get(&address)?.key()
    }

    fn leased(&self) -> usize {
        self.0.iter().map(|(.., block)| block.tally().leased as usize).sum()
    }

    fn keys(&self) -> impl Iterator<Item = (Ipv4Addr, &IpamKey)> {
        let states = self.0.iter().flat_map(|(.., block)| block.iter());
        states.filter_map(|(address, state)| Some((*address, state.key()?)))
    }
}

fn no_address_is_leased_twice(core: &Core) -> Result<(), Violation> {
    let mut holders: Vec<(Ipv4Addr, &IpamKey)> = core.pool.leases.values().map(|l| (l.address, &l.key)).collect();
    holders.sort_unstable_by_key(|(address, _)| *address);
    match holders.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        None => Ok(()),
        Some(pair) => Err(Violation::LeasedTwice {
            address: pair[0].0,
            first: pair[0].1.clone(),
            second: pair[1].1.clone(),
        }),
    }
}

/// Each lease was found to be marked by its own key, so equal numbers mean that no mark is left over; only else is it worth
/// looking for the one that is.
fn every_leased_mark_has_its_lease(core: &Core, marks: &Marks<'_>) -> Result<(), Violation> {
    let marked = marks.leased();
    let leases = core.pool.leases.values();
    let with_mark = leases
        .filter(|lease| marks.key(lease.address) == Some(&lease.key))
        .count();
    if marked == with_mark {
        return Ok(());
    }
    for (address, key) in marks.keys() {
        if core.pool.leases.get(key).is_none_or(|lease| lease.address != address) {
            return Err(Violation::LeaseMissing {
                address,
                key: key.clone(),
            });
        }
    }
    Ok(())
}

fn every_lease_is_marked_or_an_orphan(core: &Core, marks: &Marks<'_>) -> Result<(), Violation> {
    for lease in core.pool.leases.values() {
        let needs_mark = !matches!(lease.state, LeaseState::Orphan | LeaseState::Draining);
        if needs_mark && marks.key(lease.address) != Some(&lease.key) {
            return Err(Violation::LeaseHomeless {
                address: lease.address,
                key: lease.key.clone(),
            });
        }
    }
    Ok(())
}

fn no_address_is_on_two_enis(marks: &Marks<'_>) -> Result<(), Violation> {
    let last = |block: &Block| block.keys().next_back().map_or(0, |address| u32::from(*address));
    match marks.0.windows(2).find(|pair| last(pair[0].2) >= pair[1].0) {
        None => Ok(()),
        Some(pair) => Err(Violation::OnTwoEnis {
            address: pair[1].0.into(),
            first: pair[0].1.clone(),
            second: pair[1].1.clone(),
        }),
    }
}

fn no_eni_exceeds_its_slots(core: &Core) -> Result<(), Violation> {
    let limit = core.config.node.slots_per_eni;
    for eni in core.pool.enis.values().filter(|eni| eni.role != EniRole::Unmanaged) {
        // What a call of unknown outcome brought may be among those in use already; it will not be repeated.
        let asked = eni
            .ec2_op
            .and_then(|op| core.ops.get(&op))
            .filter(|record| record.state == OpState::InFlight)
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

fn no_eni_leaves_with_leases(core: &Core) -> Result<(), Violation> {
    for eni in core.pool.enis.values().filter(|eni| !eni.phase.is_arriving_or_ready()) {
        let leased = eni.leased();
        if leased > 0 {
            return Err(Violation::LeavesWithLeases {
                eni: eni.id.clone(),
                leased,
            });
        }
    }
    Ok(())
}

/// Only blocks that withhold something are worth a look at their addresses.
fn every_release_is_under_way(core: &Core) -> Result<(), Violation> {
    for eni in core.pool.enis.values() {
        for (allocation, block) in eni.blocks.iter().filter(|(_, block)| block.tally().withheld() > 0) {
            for (address, state) in block {
                let AddressState::Releasing(op) = state else { continue };
                let under_way = core.ops.get(op).is_some_and(|record| match &record.work {
                    Work::ReleaseAddresses { eni: of, allocations } => {
                        *of == eni.id && allocations.contains(allocation)
                    }
                    Work::CreateEni { .. }
                    | Work::Attach { .. }
                    | Work::DeleteOnTermination { .. }
                    | Work::AllocateAddresses { .. }
                    | Work::SetGroups { .. }
                    | Work::Detach { .. }
                    | Work::DeleteEni { .. }
                    | Work::SetupEni { .. }
                    | Work::TeardownEni { .. }
                    | Work::ClearPodState { .. } => false,
                });
                if !under_way {
                    let (address, op) = (*address, *op);
                    return Err(Violation::ReleaseMissing { address, op });
                }
            }
        }
    }
    Ok(())
}
