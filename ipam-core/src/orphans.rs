//! Leases and the addresses that they stand on: a lease whose address leaves the view is kept, and finds it again.

use std::net::Ipv4Addr;

use vpc_types::{EniId, IpamKey};

use crate::address::AddressState;
use crate::core::Core;
use crate::eni::{Eni, EniPhase};
use crate::lease::{Lease, LeaseState};
use crate::mutant::defective;

impl Core {
    /// Leases and addresses agree again after addresses came, went or moved.
    pub(crate) fn rehome_leases(&mut self) {
        self.adopt_orphans();
        self.orphan_homeless();
    }

    fn is_homeless(&self, lease: &Lease) -> bool {
        let state = self.pool.address(lease.address);
        state.is_none_or(|state| state.key() != Some(&lease.key))
    }

    /// Leases whose address is on an ENI again.
    fn adopt_orphans(&mut self) {
        let homeless = self.pool.leases.values().filter(|lease| self.is_homeless(lease));
        let homeless: Vec<(IpamKey, Ipv4Addr)> = homeless.map(|lease| (lease.key.clone(), lease.address)).collect();
        for (key, address) in homeless {
            let Some(home) = self.pool.find_home(address).filter(|eni| may_house(eni)) else {
                continue;
            };
            let (id, device, table) = (home.id.clone(), home.device, home.table());
            let Some(state) = self.pool.address_mut(address).filter(|state| takes_lease(state)) else {
                continue;
            };
            *state = AddressState::Leased(key.clone());
            self.resting_elsewhere.remove(&address);
            self.keep_in_service(&id);
            let lease = self
                .pool
                .leases
                .get_mut(&key)
                .expect("the key comes from the lease table");
            (lease.device, lease.table) = (device, table);
            if lease.state == LeaseState::Orphan {
                lease.state = LeaseState::Granted;
                let lease = lease.clone();
                self.note_lease(&lease, Some(LeaseState::Granted), "its address is in view");
                // The last view of the kernel came before, and there may be no other reason for one: until then nobody knows
                // that the pod lives, and nobody puts its routes back.
                self.kernel.want(lease.since);
            }
        }
    }

    /// An ENI that was about to leave turns out to carry a pod.
    pub(crate) fn keep_in_service(&mut self, id: &EniId) {
        let eni = self.pool.enis.get_mut(id).expect("the caller found it in the pool");
        if matches!(eni.phase, EniPhase::Retiring | EniPhase::TornDown) {
            eni.phase = EniPhase::Attached;
            self.note_eni(id, "kept: a pod has an address on it");
        }
    }

    /// Leases whose address is on no ENI in view are kept as orphans.
    fn orphan_homeless(&mut self) {
        let held = |lease: &&Lease| matches!(lease.state, LeaseState::Granted | LeaseState::Wired);
        let homeless = self
            .pool
            .leases
            .values()
            .filter(held)
            .filter(|lease| self.is_homeless(lease));
        for key in homeless.map(|lease| lease.key.clone()).collect::<Vec<_>>() {
            let lease = self
                .pool
                .leases
                .get_mut(&key)
                .expect("the key comes from the lease table");
            lease.state = LeaseState::Orphan;
            let lease = lease.clone();
            if defective!(self, DropOrphans) {
                self.pool.leases.remove(&lease.key);
            }
            self.note_lease(&lease, Some(LeaseState::Orphan), "EC2 does not show its address");
        }
    }
}

/// Whether a lease may stand on this ENI: not while it is out of view, nor once a call that takes it away may be under way.
pub(crate) fn may_house(eni: &Eni) -> bool {
    let leaves = matches!(eni.phase, EniPhase::Retiring | EniPhase::TornDown) && eni.ec2_op.is_some();
    eni.missing_since.is_none() && !leaves && eni.phase != EniPhase::Detached
}

/// Whether an address may be marked as leased to a lease that has lost it.
fn takes_lease(state: &AddressState) -> bool {
    matches!(
        state,
        AddressState::Free { .. } | AddressState::Cooling { .. } | AddressState::Blocked { .. }
    )
}
