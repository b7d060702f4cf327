//! DEL requests, and the way of an address from a lease back to the pool: draining, cooling, free.
//!
//! Rules and route go first, while the address still belongs to the lease; only then does the rest begin, and only then
//! is the runtime told. So a late plugin can never clear the state of the address's next pod.

use std::net::Ipv4Addr;

use vpc_types::{IpamKey, host_veth_name};

use crate::action::{Action, Outcome, Owner, Work};
use crate::address::AddressState;
use crate::core::Core;
use crate::ipam_file::{self, migrated_key};
use crate::lease::{Lease, LeaseState};
use crate::mutant::defective;
use crate::{BootTime, ReqId};

impl Core {
    pub(crate) fn del_requested(&mut self, req: ReqId, key: &IpamKey, now: BootTime) {
        self.cancel_waiting(key, now);
        self.end_other_family(key);
        let migrated = migrated_key(key).filter(|_| !self.pool.leases.contains_key(key));
        let key = migrated
            .as_ref()
            .filter(|key| self.pool.leases.contains_key(key))
            .unwrap_or(key);
        let Some(lease) = self.pool.leases.get_mut(key) else {
            self.outbox.now(Action::Reply {
                req,
                outcome: Outcome::UnknownPod,
            });
            return;
        };
        lease.del_waiters.push(req);
        self.drain(key, "del");
    }

    /// The pod ends, so what another family's daemon had recorded for it is no longer true.
    fn end_other_family(&mut self, key: &IpamKey) {
        let before = self.others.len();
        self.others.retain(|entry| !ipam_file::is_of(entry, key));
        if self.others.len() < before {
            self.outbox.bump();
        }
    }

    /// Begins the end of a lease; does nothing if it has begun.
    pub(crate) fn drain(&mut self, key: &IpamKey, why: &'static str) {
        let Some(lease) = self
            .pool
            .leases
            .get_mut(key)
            .filter(|lease| lease.state != LeaseState::Draining)
        else {
            return;
        };
        lease.state = LeaseState::Draining;
        lease.generation = self.outbox.bump();
        let lease = lease.clone();
        self.note_lease(&lease, Some(LeaseState::Draining), why);
    }

    /// Starts the removal of rules and route for every draining lease that has none under way.
    pub(crate) fn plan_clears(&mut self, now: BootTime) {
        let wanted: Vec<Lease> = self
            .pool
            .leases
            .values()
            .filter(|lease| lease.state == LeaseState::Draining)
            .cloned()
            .collect();
        for lease in wanted {
            let owner = Owner {
                container_id: lease.key.container_id().to_owned(),
                host_veth: host_veth_name(&self.config.veth_prefix, lease.pod.as_ref(), &lease.key),
            };
            self.start_clear(lease.address, Some(owner), now);
        }
        let leftovers: Vec<Ipv4Addr> = self.clearing.keys().copied().collect();
        for address in leftovers {
            if self.draining(address).is_none() {
                self.start_clear(address, None, now);
            }
        }
    }

    fn start_clear(&mut self, address: Ipv4Addr, owner: Option<Owner>, now: BootTime) {
        let work = Work::ClearPodState { address, owner };
        let under_way = self.ops.values().any(|record| record.work == work);
        let not_before = self.clearing.get(&address).copied().unwrap_or_default();
        if !under_way && self.due(not_before, now) {
            self.start(work);
        }
    }

    fn draining(&self, address: Ipv4Addr) -> Option<&Lease> {
        self.pool
            .leases
            .values()
            .find(|lease| lease.address == address && lease.state == LeaseState::Draining)
    }

    /// Rules and route of `address` are gone.
    pub(crate) fn cleared(&mut self, address: Ipv4Addr, owner: Option<&Owner>, now: BootTime) {
        self.clearing.remove(&address);
        if let (Some(_), Some(view)) = (self.suspicion, &mut self.last_kernel) {
            // What a suspected dump did not show was kept; of this address we know better.
            view.signs.remove(&address);
        }
        // A new owner may have kept its state: whether the address shows life is seen before its rest is over.
        self.kernel.want(now);
        let ended = self
            .draining(address)
            .filter(|l| owner.is_some_and(|o| o.container_id == l.key.container_id()));
        let Some(key) = ended.map(|lease| lease.key.clone()) else {
            self.rest(address, None, now);
            self.outbox.bump();
            return;
        };
        let lease = self
            .pool
            .leases
            .remove(&key)
            .expect("the key comes from the lease table");
        self.rest(address, Some(&key), now);
        let generation = self.outbox.bump();
        for req in &lease.del_waiters {
            self.outbox.after(
                generation,
                Action::Reply {
                    req: *req,
                    outcome: Outcome::Deleted(lease.grant()),
                },
            );
        }
        self.note_lease(&lease, None, "cleared");
    }

    /// The kernel refused. The runtime is told so, and asks again; we try again by ourselves too.
    pub(crate) fn not_cleared(&mut self, address: Ipv4Addr, now: BootTime) {
        self.clearing
            .insert(address, now.after(self.config.timers.backoff_start));
        let waiting = self.pool.leases.values_mut().filter(|lease| lease.address == address);
        for req in waiting.flat_map(|lease| std::mem::take(&mut lease.del_waiters)) {
            self.outbox.now(Action::Reply {
                req,
                outcome: Outcome::NotCleared { address },
            });
        }
    }

    /// Begins the rest of an address that was held by `key`, or by nobody known.
    fn rest(&mut self, address: Ipv4Addr, key: Option<&IpamKey>, now: BootTime) {
        let until = now.after(self.config.timers.hold());
        let cooling = AddressState::Cooling { since: now, until };
        match self.pool.address_mut(address) {
            Some(state @ AddressState::Blocked { .. }) => *state = cooling,
            Some(state) if key.is_some() && state.key() == key => *state = cooling,
            // Out of view: it rests all the same, should it come back.
            Some(AddressState::Missing { .. }) | None => {
                self.resting_elsewhere.insert(address, until);
            }
            Some(_) => {}
        }
        if let Some(home) = self.pool.enis.values_mut().find(|eni| eni.address(address).is_some()) {
            home.idle_since = now;
        }
    }

    pub(crate) fn end_rests(&mut self, now: BootTime) {
        let until = if defective!(self, NoCooldown) {
            BootTime(std::time::Duration::MAX)
        } else {
            now
        };
        self.resting_elsewhere.retain(|_, until| *until > now);
        if self.rest_unknown.is_some() {
            // Another run may have given some of them back to EC2: a view that can be believed has to show them first.
            return;
        }
        for block in self.pool.enis.values_mut().flat_map(|eni| eni.blocks.values_mut()) {
            block.end_rests(until, now);
        }
        if let Some(at) = self.next_rest_end() {
            self.wake_at(at);
        }
    }

    pub(crate) fn next_rest_end(&self) -> Option<BootTime> {
        let tallies = self.pool.enis.values().flat_map(crate::eni::Eni::tallies);
        tallies.filter_map(|tally| tally.next_rest_end).min()
    }
}
