//! ENIs and leases together, and the sums over them.
//!
//! Owns the invariant that a lease and its address agree: the address of a lease that is in view is `Leased` by its key,
//! and every `Leased` address has that lease.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use vpc_types::{DeviceNumber, EniId, IpamKey};

use crate::address::AddressState;
use crate::eni::{Eni, EniPhase};
use crate::lease::Lease;

/// The node's ENIs and leases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pool {
    pub(crate) enis: BTreeMap<EniId, Eni>,
    pub(crate) leases: BTreeMap<IpamKey, Lease>,
}

/// Sums over the addresses of ENIs that pods use or will use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Supply {
    /// All addresses.
    pub total: u32,
    /// Leased.
    pub assigned: u32,
    /// Resting.
    pub cooling: u32,
    /// Grantable now.
    pub free: u32,
    /// Grantable once their ENI is set up.
    pub arriving: u32,
    /// Being given back, missing, or blocked by unexplained life.
    pub withheld: u32,
}

impl Pool {
    /// ENIs by id.
    pub fn enis(&self) -> impl Iterator<Item = &Eni> {
        self.enis.values()
    }

    /// Leases by key.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// One lease.
    pub fn lease(&self, key: &IpamKey) -> Option<&Lease> {
        self.leases.get(key)
    }

    /// The ENI that carries an address.
    pub(crate) fn find_home(&self, address: Ipv4Addr) -> Option<&Eni> {
        self.enis.values().find(|eni| eni.address(address).is_some())
    }

    pub(crate) fn address_mut(&mut self, address: Ipv4Addr) -> Option<&mut AddressState> {
        self.enis.values_mut().find_map(|eni| eni.address_mut(address))
    }

    pub(crate) fn address(&self, address: Ipv4Addr) -> Option<&AddressState> {
        self.enis.values().find_map(|eni| eni.address(address))
    }

    /// Sums over all ENIs that are not leaving.
    pub fn supply(&self) -> Supply {
        let mut supply = Supply::default();
        let serving = self
            .enis
            .values()
            .filter(|eni| eni.phase.is_arriving_or_ready() && eni.role.has_pods());
        for eni in serving {
            for (_, state) in eni.addresses() {
                supply.total += 1;
                let slot = match state {
                    AddressState::Leased(_) => &mut supply.assigned,
                    AddressState::Cooling { .. } => &mut supply.cooling,
                    AddressState::Free { .. } if eni.serves() => &mut supply.free,
                    AddressState::Free { .. } if eni.is_arriving() => &mut supply.arriving,
                    AddressState::Free { .. }
                    | AddressState::Releasing(_)
                    | AddressState::Missing { .. }
                    | AddressState::Blocked { .. } => &mut supply.withheld,
                };
                *slot += 1;
            }
        }
        supply
    }

    /// ENIs that take a slot of the instance: attached, or about to be, or not yet let go.
    pub fn enis_on_instance(&self) -> u16 {
        u16::try_from(self.enis.values().filter(|eni| eni.phase != EniPhase::Detached).count()).unwrap_or(u16::MAX)
    }

    /// Lowest slot that no ENI has or is promised.
    pub(crate) fn free_device(&self, promised: &[DeviceNumber]) -> DeviceNumber {
        let taken =
            |device: &DeviceNumber| promised.contains(device) || self.enis.values().any(|eni| eni.device == *device);
        (1..)
            .map(DeviceNumber)
            .find(|device| !taken(device))
            .expect("an instance has far fewer ENIs than numbers")
    }

    /// The address a new lease should get: on the ENI with most leases, so that others drain; among its free ones the
    /// longest free.
    pub(crate) fn pick(&self) -> Option<(EniId, Ipv4Addr)> {
        let mut best: Option<(usize, &Eni)> = None;
        for eni in self.enis.values().filter(|eni| eni.serves()) {
            let leased = eni.leased();
            let has_free = eni
                .addresses()
                .any(|(_, state)| matches!(state, AddressState::Free { .. }));
            let better = best.is_none_or(|(most, other)| {
                (leased, std::cmp::Reverse(eni.device)) > (most, std::cmp::Reverse(other.device))
            });
            if has_free && better {
                best = Some((leased, eni));
            }
        }
        let (_, eni) = best?;
        let longest_free = eni.addresses().filter_map(|(address, state)| match state {
            AddressState::Free { since } => Some((*since, address)),
            AddressState::Leased(_)
            | AddressState::Cooling { .. }
            | AddressState::Releasing(_)
            | AddressState::Missing { .. }
            | AddressState::Blocked { .. } => None,
        });
        longest_free.min().map(|(_, address)| (eni.id.clone(), address))
    }
}
