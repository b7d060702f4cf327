//! ENIs and leases together, and the sums over them.
//!
//! Owns the invariant that a lease and its address agree: the address of a lease that is in view is `Leased` by its key,
//! and every `Leased` address has that lease.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::AddAssign;

use vpc_types::{Allocation, DeviceNumber, EniId, IpamKey};

use crate::address::AddressState;
use crate::block::Tally;
use crate::config::AllocationMode;
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
        self.sums(|_| Counted::Everywhere).supply
    }

    /// The same, with what is in allocations that are to go, according to `counted`, also apart.
    pub(crate) fn sums(&self, counted: impl Fn(Allocation) -> Counted) -> Sums {
        let mut sums = Sums::default();
        let serving = self
            .enis
            .values()
            .filter(|eni| eni.phase.is_arriving_or_ready() && eni.is_open());
        for eni in serving {
            let (serves, arrives) = (eni.serves(), eni.is_arriving());
            for (allocation, block) in &eni.blocks {
                let part = Supply::of(block.tally(), serves, arrives);
                sums.supply += part;
                if counted(*allocation) == Counted::Apart {
                    sums.passing += part;
                }
            }
        }
        sums
    }

    /// Keeps the sums of all blocks, so that those who read them next need not count.
    pub(crate) fn keep_tallies(&mut self) {
        for block in self.enis.values_mut().flat_map(|eni| eni.blocks.values_mut()) {
            block.keep_tally();
        }
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

    /// The address a new lease should get: of the kind that is to stay, from the fullest prefix, then from the ENI with most
    /// leases, so that others drain; among those the longest free.
    pub(crate) fn pick(&self, mode: AllocationMode) -> Option<(EniId, Ipv4Addr)> {
        let mut best = None;
        for eni in self.enis.values().filter(|eni| eni.serves()) {
            let leased = eni.leased();
            for (allocation, block) in &eni.blocks {
                let tally = block.tally();
                let Some(longest_free) = tally.longest_free else {
                    continue;
                };
                let fullest = (mode.is_kind_of(*allocation), tally.leased, leased, Reverse(eni.device));
                let rank = (fullest, Reverse(longest_free));
                if best.as_ref().is_none_or(|(other, _)| rank > *other) {
                    best = Some((rank, &eni.id));
                }
            }
        }
        best.map(|((_, Reverse((_, address))), id)| (id.clone(), address))
    }
}

/// Where an allocation counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    /// As part of the whole.
    Everywhere,
    /// As part of the whole, and apart: it is to go as soon as it is empty.
    Apart,
}

/// Sums over all, and over what is to go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) supply: Supply,
    pub(crate) passing: Supply,
}

impl Supply {
    fn of(tally: Tally, serves: bool, arrives: bool) -> Self {
        let (free, arriving, idle) = match (serves, arrives) {
            (true, _) => (tally.free, 0, 0),
            (false, true) => (0, tally.free, 0),
            (false, false) => (0, 0, tally.free),
        };
        Self {
            total: tally.total,
            assigned: tally.leased,
            cooling: tally.cooling,
            free,
            arriving,
            withheld: tally.withheld() + idle,
        }
    }
}

impl AddAssign for Supply {
    fn add_assign(&mut self, other: Self) {
        self.total += other.total;
        self.assigned += other.assigned;
        self.cooling += other.cooling;
        self.free += other.free;
        self.arriving += other.arriving;
        self.withheld += other.withheld;
    }
}
