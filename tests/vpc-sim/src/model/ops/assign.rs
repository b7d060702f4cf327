//! `AssignPrivateIpAddresses` and `UnassignPrivateIpAddresses`.
//!
//! Both take effect at once and in any state of the ENI. EC2 knows nothing of pods: an address given back here can
//! be handed to another ENI in the next call.

use std::net::Ipv4Addr;
use std::time::Duration;

use vpc_types::limits::PrefixDelegation;
use vpc_types::{Allocation, EniId, InstanceLimits, Prefix28};

use super::super::change::Change;
use super::super::record::Eni;
use super::super::request::{AssignPrivateIpAddresses, Ipv4Request, Reassignment, UnassignPrivateIpAddresses};
use super::super::{Action, Ec2Error, ErrorCode, World};
use super::{Operation, check_ipv4_slots};

/// What a call added: only that, never what the ENI held before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedIpv4 {
    /// The ENI.
    pub eni: EniId,
    /// New addresses.
    pub addresses: Vec<Ipv4Addr>,
    /// New prefixes.
    pub prefixes: Vec<Prefix28>,
}

impl Operation for AssignPrivateIpAddresses {
    type Output = AssignedIpv4;
    const ACTION: Action = Action::AssignPrivateIpAddresses;

    fn execute(&self, world: &mut World, now: Duration) -> Result<AssignedIpv4, Ec2Error> {
        let eni = world.get_eni(&self.eni, now)?;
        if self.wanted.slots() == 0 {
            return Err(Ec2Error::missing("secondaryPrivateIpAddressCount"));
        }
        let limits = limits_of(world, &eni);
        check_ipv4_slots(limits.as_ref(), eni.ipv4_slots() + self.wanted.slots())?;
        check_prefix_support(limits.as_ref(), &self.wanted)?;
        if self.reassignment == Reassignment::Allowed {
            take_from_others(world, now, &eni, &self.wanted)?;
        }
        let mut dice = world.picks.clone();
        let taken = world.allocator(&eni).0.take(&self.wanted, &mut dice)?;
        world.picks = dice;
        let (addresses, prefixes) = sort_out(&taken);
        let eni = world.update_eni(now, &eni.id, |eni| {
            eni.secondary.extend(&addresses);
            eni.prefixes.extend(&prefixes);
        });
        for allocation in taken {
            world.report(&eni, |eni| Change::Assigned { eni, allocation });
        }
        Ok(AssignedIpv4 {
            eni: eni.id.clone(),
            addresses,
            prefixes,
        })
    }
}

/// Addresses and prefixes apart.
pub(super) fn sort_out(allocations: &[Allocation]) -> (Vec<Ipv4Addr>, Vec<Prefix28>) {
    let (mut addresses, mut prefixes) = (Vec::new(), Vec::new());
    for allocation in allocations {
        match allocation {
            Allocation::Ip(address) => addresses.push(*address),
            Allocation::Prefix(prefix) => prefixes.push(*prefix),
        }
    }
    (addresses, prefixes)
}

pub(super) fn limits_of(world: &World, eni: &Eni) -> Option<InstanceLimits> {
    let tie = eni.attachment.as_ref()?;
    world
        .instances
        .get(&tie.instance)
        .map(|instance| instance.limits.clone())
}

/// Only Nitro and bare metal take prefixes.
fn check_prefix_support(limits: Option<&InstanceLimits>, wanted: &Ipv4Request) -> Result<(), Ec2Error> {
    let unsupported = limits.is_some_and(|limits| limits.prefix_delegation == PrefixDelegation::Unsupported);
    if unsupported && wanted.is_for_prefixes() {
        let text = "Prefix delegation is not supported on this instance type.";
        return Err(Ec2Error::new(ErrorCode::UnsupportedOperation, text));
    }
    Ok(())
}

/// Named secondary addresses that other ENIs of the subnet hold become free; primaries never do.
fn take_from_others(world: &mut World, now: Duration, eni: &Eni, wanted: &Ipv4Request) -> Result<(), Ec2Error> {
    let Ipv4Request::Addresses(addresses) = wanted else {
        return Err(Ec2Error::combination("AllowReassignment needs named addresses"));
    };
    let subnet = &world.subnets[&eni.subnet];
    if let Some(outside) = addresses.iter().find(|address| !subnet.cidr.contains(*address)) {
        return Err(Ec2Error::value(format!(
            "Address {outside} does not fall within the subnet's address range"
        )));
    }
    let mut moves = Vec::new();
    for address in addresses.iter().filter(|address| subnet.is_taken(**address)) {
        let owner = world
            .live_enis()
            .find(|other| other.secondary.contains(address) && other.id != eni.id);
        let owner = owner.ok_or_else(|| {
            Ec2Error::new(
                ErrorCode::InvalidIpAddressInUse,
                format!("Address {address} is in use."),
            )
        })?;
        moves.push((owner.id.clone(), *address));
    }
    for (owner, address) in moves {
        release(world, now, &owner, &[Allocation::Ip(address)]);
    }
    Ok(())
}

/// Takes allocations off an ENI that holds them.
fn release(world: &mut World, now: Duration, id: &EniId, allocations: &[Allocation]) {
    let (addresses, prefixes) = sort_out(allocations);
    let eni = world.update_eni(now, id, |eni| {
        eni.secondary.retain(|address| !addresses.contains(address));
        eni.prefixes.retain(|prefix| !prefixes.contains(prefix));
    });
    for allocation in allocations {
        world.allocator(&eni).0.give_back(*allocation);
        world.report(&eni, |eni| Change::Unassigned {
            eni,
            allocation: *allocation,
        });
    }
}

impl Operation for UnassignPrivateIpAddresses {
    type Output = ();
    const ACTION: Action = Action::UnassignPrivateIpAddresses;

    fn execute(&self, world: &mut World, now: Duration) -> Result<(), Ec2Error> {
        let eni = world.get_eni(&self.eni, now)?;
        if self.addresses.is_empty() && self.prefixes.is_empty() {
            return Err(Ec2Error::missing("privateIpAddress"));
        }
        if self.addresses.contains(&eni.primary) {
            return Err(Ec2Error::value(format!(
                "The primary address {} of {} cannot be unassigned",
                eni.primary, eni.id
            )));
        }
        let singles = self.addresses.iter().map(|address| Allocation::Ip(*address));
        let mut given: Vec<_> = singles
            .chain(self.prefixes.iter().map(|prefix| Allocation::Prefix(*prefix)))
            .collect();
        given.sort_unstable();
        given.dedup();
        let strangers: Vec<_> = given
            .iter()
            .filter(|one| !eni.allocations().any(|held| held == **one))
            .map(ToString::to_string)
            .collect();
        if !strangers.is_empty() {
            let text = format!(
                "Some of [{}] are not assigned to interface {}",
                strangers.join(", "),
                eni.id
            );
            return Err(Ec2Error::value(text));
        }
        release(world, now, &eni.id, &given);
        Ok(())
    }
}
