//! `AssignIpv6Addresses` and `UnassignIpv6Addresses`: addresses out of the subnet's /64, prefixes are /80.
//!
//! A /64 is never exhausted, so there is no allocator: what is free is what no ENI of the subnet holds.

use std::net::Ipv6Addr;
use std::time::Duration;

use ipnet::Ipv6Net;
use vpc_types::{EniId, SubnetId};

use super::super::change::{Change, Ipv6Allocation};
use super::super::request::{AssignIpv6Addresses, Ipv6Request, UnassignIpv6Addresses};
use super::super::{Action, Ec2Error, ErrorCode, World};
use super::Operation;
use super::assign::limits_of;

/// Prefix length of a delegated IPv6 prefix.
const PREFIX_LEN: u8 = 80;
/// Length of a single address as a network.
const ADDRESS_LEN: u8 = 128;

/// What a call added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedIpv6 {
    /// The ENI.
    pub eni: EniId,
    /// New addresses.
    pub addresses: Vec<Ipv6Addr>,
    /// New prefixes.
    pub prefixes: Vec<Ipv6Net>,
}

impl Operation for AssignIpv6Addresses {
    type Output = AssignedIpv6;
    const ACTION: Action = Action::AssignIpv6Addresses;

    fn execute(&self, world: &mut World, now: Duration) -> Result<AssignedIpv6, Ec2Error> {
        let eni = world.get_eni(&self.eni, now)?;
        if self.wanted.slots() == 0 {
            return Err(Ec2Error::missing("ipv6AddressCount"));
        }
        let over = |limits: vpc_types::InstanceLimits| {
            // The IPv6 limit of a type equals its IPv4 limit on all types of the table that have IPv6.
            eni.ipv6_slots() + self.wanted.slots() > usize::from(limits.ipv4_per_eni)
        };
        if limits_of(world, &eni).is_some_and(over) {
            return Err(Ec2Error::stock(ErrorCode::PrivateIpAddressLimitExceeded));
        }
        let taken = choose(world, &eni.subnet, &self.wanted)?;
        let (addresses, prefixes) = sort_out(&taken);
        let eni = world.update_eni(now, &eni.id, |eni| {
            eni.ipv6.extend(&addresses);
            eni.ipv6_prefixes.extend(&prefixes);
        });
        for allocation in taken {
            world.report(&eni, |eni| Change::Ipv6Assigned { eni, allocation });
        }
        Ok(AssignedIpv6 {
            eni: eni.id.clone(),
            addresses,
            prefixes,
        })
    }
}

/// Finds free addresses or prefixes, or refuses. Takes nothing: the ENI that records them does.
pub(super) fn choose(
    world: &mut World,
    subnet: &SubnetId,
    wanted: &Ipv6Request,
) -> Result<Vec<Ipv6Allocation>, Ec2Error> {
    let range = world.get_subnet(subnet)?.ipv6_cidr.ok_or_else(|| {
        Ec2Error::value(format!(
            "The subnet '{subnet}' does not have an IPv6 CIDR block associated with it"
        ))
    })?;
    let mut held: Vec<_> = world
        .live_enis()
        .filter(|eni| eni.subnet == *subnet)
        .flat_map(|eni| {
            let singles = eni.ipv6.iter().map(|address| Ipv6Net::from(*address));
            singles.chain(eni.ipv6_prefixes.iter().copied()).collect::<Vec<_>>()
        })
        .collect();
    let named: Vec<_> = match wanted {
        Ipv6Request::Addresses(addresses) => addresses.iter().map(|address| Ipv6Allocation::Ip(*address)).collect(),
        Ipv6Request::Prefixes(prefixes) => prefixes.iter().map(|prefix| Ipv6Allocation::Prefix(*prefix)).collect(),
        Ipv6Request::Count(count) => (0..*count)
            .map(|_| draw(&mut world.picks, range, &mut held, ADDRESS_LEN))
            .collect(),
        Ipv6Request::PrefixCount(count) => (0..*count)
            .map(|_| draw(&mut world.picks, range, &mut held, PREFIX_LEN))
            .collect(),
    };
    if matches!(wanted, Ipv6Request::Addresses(_) | Ipv6Request::Prefixes(_)) {
        for allocation in &named {
            check_named(range, &mut held, *allocation)?;
        }
    }
    Ok(named)
}

fn net_of(allocation: Ipv6Allocation) -> Ipv6Net {
    match allocation {
        Ipv6Allocation::Ip(address) => Ipv6Net::from(address),
        Ipv6Allocation::Prefix(prefix) => prefix,
    }
}

fn overlap(a: Ipv6Net, b: Ipv6Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

fn check_named(range: Ipv6Net, held: &mut Vec<Ipv6Net>, allocation: Ipv6Allocation) -> Result<(), Ec2Error> {
    let net = net_of(allocation);
    let prefix_fits =
        matches!(allocation, Ipv6Allocation::Ip(_)) || (net.prefix_len() == PREFIX_LEN && net.trunc() == net);
    if !range.contains(&net) || !prefix_fits {
        return Err(Ec2Error::value(format!(
            "Address {net} does not fall within the subnet's address range"
        )));
    }
    if held.iter().any(|taken| overlap(*taken, net)) {
        return Err(Ec2Error::new(
            ErrorCode::InvalidIpAddressInUse,
            format!("Address {net} is in use."),
        ));
    }
    held.push(net);
    Ok(())
}

fn draw(dice: &mut fastrand::Rng, range: Ipv6Net, held: &mut Vec<Ipv6Net>, len: u8) -> Ipv6Allocation {
    loop {
        let bits = u128::from(range.network()) | u128::from(dice.u64(..));
        let net = Ipv6Net::new(Ipv6Addr::from(bits), len)
            .expect("64 to 128 are prefix lengths")
            .trunc();
        // The network's own address and the four after it are EC2's.
        let reserved = u128::from(net.network()) < u128::from(range.network()) + 5;
        if !reserved && !held.iter().any(|taken| overlap(*taken, net)) {
            held.push(net);
            return if len == PREFIX_LEN {
                Ipv6Allocation::Prefix(net)
            } else {
                Ipv6Allocation::Ip(net.addr())
            };
        }
    }
}

/// Addresses and prefixes apart.
pub(super) fn sort_out(allocations: &[Ipv6Allocation]) -> (Vec<Ipv6Addr>, Vec<Ipv6Net>) {
    let (mut addresses, mut prefixes) = (Vec::new(), Vec::new());
    for allocation in allocations {
        match allocation {
            Ipv6Allocation::Ip(address) => addresses.push(*address),
            Ipv6Allocation::Prefix(prefix) => prefixes.push(*prefix),
        }
    }
    (addresses, prefixes)
}

impl Operation for UnassignIpv6Addresses {
    type Output = AssignedIpv6;
    const ACTION: Action = Action::UnassignIpv6Addresses;

    /// Answers what was taken away.
    fn execute(&self, world: &mut World, now: Duration) -> Result<AssignedIpv6, Ec2Error> {
        let eni = world.get_eni(&self.eni, now)?;
        if self.addresses.is_empty() && self.prefixes.is_empty() {
            return Err(Ec2Error::missing("ipv6Addresses"));
        }
        let stranger = self.addresses.iter().any(|address| !eni.ipv6.contains(address))
            || self.prefixes.iter().any(|prefix| !eni.ipv6_prefixes.contains(prefix));
        if stranger {
            return Err(Ec2Error::value(format!(
                "Some of the given addresses are not assigned to interface {}",
                eni.id
            )));
        }
        let eni = world.update_eni(now, &eni.id, |eni| {
            eni.ipv6.retain(|address| !self.addresses.contains(address));
            eni.ipv6_prefixes.retain(|prefix| !self.prefixes.contains(prefix));
        });
        let singles = self.addresses.iter().map(|address| Ipv6Allocation::Ip(*address));
        for allocation in singles.chain(self.prefixes.iter().map(|prefix| Ipv6Allocation::Prefix(*prefix))) {
            world.report(&eni, |eni| Change::Ipv6Unassigned { eni, allocation });
        }
        Ok(AssignedIpv6 {
            eni: eni.id.clone(),
            addresses: self.addresses.clone(),
            prefixes: self.prefixes.clone(),
        })
    }
}
