//! What the daemon believes, and which of it holds still.
//!
//! An account is read before and after everything else is looked at. Only what is the same in both, and not on its way
//! to something else, can be compared with looks that fell between.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use ipam_core::{AddressKind, EniPhase, LeaseState, WallTime};
use vpc_types::{EniId, MacAddress, RouteTableId};

/// An ADD that was granted its address has ended by then, one way or the other: its deadline is 35 s, and taking back what it
/// made has a deadline, too.
const ADD_OVER: Duration = Duration::from_secs(60);

/// One lease.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseAccount {
    /// `namespace/name` of the pod, or the container id.
    pub pod: String,
    /// The sandbox, which is the alias of its host veth.
    pub container: String,
    /// Interface of the sandbox.
    pub interface: String,
    /// Name its host veth would have.
    pub host_veth: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Table of its ENI.
    pub table: RouteTableId,
    /// How far it is.
    pub state: LeaseState,
    /// Nanoseconds since 1970.
    pub granted_at: u64,
}

/// One address of the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressAccount {
    /// What it is doing.
    pub state: AddressKind,
    /// When this state began; 0 if unknown.
    pub since: u64,
}

/// Who fills an ENI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The daemon; it stays for ever.
    Primary,
    /// The daemon.
    Managed,
    /// Somebody else: only its existence is compared.
    Unmanaged,
}

/// One ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniAccount {
    /// MAC of its device.
    pub mac: MacAddress,
    /// Its table.
    pub table: RouteTableId,
    /// Its own address.
    pub primary: Ipv4Addr,
    /// Who fills it.
    pub role: Role,
    /// How far it is.
    pub state: EniPhase,
    /// Something is being done to it.
    pub in_motion: bool,
    /// Addresses for pods.
    pub addresses: BTreeMap<Ipv4Addr, AddressAccount>,
}

/// Everything that the daemon believes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// ENIs.
    pub enis: BTreeMap<EniId, EniAccount>,
    /// Leases.
    pub leases: Vec<LeaseAccount>,
}

/// What two accounts agree on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settled {
    /// Leases that stay.
    pub leases: Vec<LeaseAccount>,
    /// ENIs that stay.
    pub enis: BTreeMap<EniId, EniAccount>,
    /// Resting, free, missing, blocked addresses that stay so, with their state.
    pub unleased: BTreeMap<Ipv4Addr, AddressKind>,
    /// Addresses about which nothing can be said.
    pub moving_addresses: BTreeSet<Ipv4Addr>,
    /// Sandboxes about which nothing can be said: container ids and names of host veths.
    pub moving_sandboxes: BTreeSet<String>,
    /// ENIs about which nothing can be said.
    pub moving_enis: BTreeSet<EniId>,
    /// Addresses of ENIs about which nothing can be said: EC2 may or may not show them.
    pub unsure_at_ec2: BTreeSet<Ipv4Addr>,
    /// Own addresses of all ENIs in either account.
    pub primaries: BTreeSet<Ipv4Addr>,
}

impl LeaseAccount {
    /// Orphans stay as much as wired ones. One that is granted is on its way only as long as its ADD can last: after a restart all
    /// leases are, and one whose route is gone remains so.
    fn stays(&self, now: WallTime) -> bool {
        match self.state {
            LeaseState::Wired | LeaseState::Orphan => true,
            LeaseState::Granted => now.0.saturating_sub(Duration::from_nanos(self.granted_at)) >= ADD_OVER,
            LeaseState::Draining => false,
        }
    }
}

impl Settled {
    /// Compares the two accounts; `now` is when the second one was read.
    pub fn between(before: &Account, after: &Account, now: WallTime) -> Self {
        let mut settled = Self::default();
        settled.add_leases(before, after, now);
        for (id, eni) in before.enis.iter().chain(&after.enis) {
            settled.primaries.insert(eni.primary);
            let same = |account: &Account| account.enis.get(id).is_some_and(|other| other.is_same(eni));
            if same(before) && same(after) && !eni.in_motion {
                settled.enis.insert(id.clone(), eni.clone());
            } else {
                settled.moving_enis.insert(id.clone());
            }
        }
        settled.enis.retain(|id, _| !settled.moving_enis.contains(id));
        let moving = before.enis.iter().chain(&after.enis);
        let moving = moving.filter(|(id, _)| settled.moving_enis.contains(*id));
        settled.unsure_at_ec2 = moving.flat_map(|(_, eni)| eni.addresses.keys().copied()).collect();
        settled.add_addresses(before, after);
        settled
    }

    /// How many things were in motion.
    pub fn in_motion(&self) -> usize {
        self.moving_addresses.len() + self.moving_enis.len()
    }

    fn add_leases(&mut self, before: &Account, after: &Account, now: WallTime) {
        let held: BTreeSet<&LeaseAccount> = after.leases.iter().collect();
        let holds: BTreeSet<&LeaseAccount> = before.leases.iter().collect();
        for lease in holds.union(&held) {
            if lease.stays(now) && holds.contains(lease) && held.contains(lease) {
                self.leases.push((*lease).clone());
            } else {
                self.moving_addresses.insert(lease.address);
                self.moving_sandboxes.insert(lease.container.clone());
                self.moving_sandboxes.insert(lease.host_veth.clone());
            }
        }
    }

    fn add_addresses(&mut self, before: &Account, after: &Account) {
        let (before, after) = (before.addresses(), after.addresses());
        for (address, state) in before.iter().chain(&after) {
            if before.get(address) != after.get(address) || state.state == AddressKind::Releasing {
                self.moving_addresses.insert(*address);
            } else if state.state != AddressKind::Leased {
                self.unleased.insert(*address, state.state);
            }
        }
    }
}

impl EniAccount {
    fn is_same(&self, other: &Self) -> bool {
        let key = |eni: &Self| (eni.mac, eni.table, eni.primary, eni.state, eni.in_motion);
        key(self) == key(other)
    }
}

impl Account {
    fn addresses(&self) -> BTreeMap<Ipv4Addr, &AddressAccount> {
        let all = self.enis.values().flat_map(|eni| &eni.addresses);
        all.map(|(address, account)| (*address, account)).collect()
    }
}
