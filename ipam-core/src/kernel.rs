//! What the kernel shows: which pods live, which leases have lost theirs, which leftovers nobody explains.
//!
//! A dump proves absence only for what was there before it began, and the end of a sandbox only when two dumps agree.

use std::net::Ipv4Addr;

use vpc_types::{IpamKey, host_veth_name};

use crate::BootTime;
use crate::action::{Action, Note};
use crate::address::AddressState;
use crate::config::Timers;
use crate::core::Core;
use crate::event::{KernelView, Signs};
use crate::lease::{Lease, LeaseState};
use crate::mutant::defective;

/// What a dump says about the sandbox of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sandbox {
    /// Its veth and its route are there.
    Wired,
    /// One of them is there.
    Partly,
    /// Neither is there.
    Gone,
}

impl Core {
    pub(crate) fn plan_kernel_view(&mut self, now: BootTime) {
        let Some(at) = self.kernel.wanted_at.filter(|_| !self.kernel.in_flight) else {
            return;
        };
        let gap = self.config.timers.kernel_view_gap;
        let at = self
            .last_kernel
            .as_ref()
            .map_or(at, |view| at.max(view.started_at.after(gap)));
        if self.due(at, now) {
            (self.kernel.in_flight, self.kernel.wanted_at) = (true, None);
            self.outbox.now(Action::ViewKernel);
        }
    }

    pub(crate) fn kernel_view_failed(&mut self, now: BootTime) {
        self.kernel.in_flight = false;
        self.kernel.want(now.after(self.config.timers.kernel_view_gap));
    }

    pub(crate) fn kernel_viewed(&mut self, view: KernelView, now: BootTime) {
        if !view.macs.contains(&self.config.node.primary_mac) {
            // A dump without the primary ENI's device is no dump.
            self.kernel_view_failed(now);
            return;
        }
        self.kernel.in_flight = false;
        self.links.clone_from(&view.macs);
        let first = self.last_kernel.is_none();
        if first && self.pool.enis.is_empty() && !view.signs.is_empty() {
            // Pods were here, and no file tells which addresses they had a moment ago.
            self.rest_unknown = Some(self.config.timers.hold_unknown());
        }
        self.judge_leases(&view, now);
        if !defective!(self, IgnoreSigns) {
            self.judge_addresses(&view, now);
        }
        self.last_kernel = Some(view);
    }

    fn judge_leases(&mut self, view: &KernelView, now: BootTime) {
        let judged: Vec<(IpamKey, Sandbox)> = self
            .pool
            .leases
            .values()
            .filter(|lease| lease.state != LeaseState::Draining && lease.since <= view.started_at)
            .map(|lease| (lease.key.clone(), self.sandbox(lease, view)))
            .collect();
        for (key, sandbox) in judged {
            let lease = self
                .pool
                .leases
                .get_mut(&key)
                .expect("the key comes from the lease table");
            if sandbox != Sandbox::Gone {
                lease.gone_since = None;
            }
            match (sandbox, lease.state) {
                (Sandbox::Wired, LeaseState::Granted) => {
                    lease.state = LeaseState::Wired;
                    let lease = lease.clone();
                    self.note_lease(&lease, Some(LeaseState::Wired), "the kernel shows it");
                }
                (Sandbox::Gone, _) => self.strike(&key, view.started_at, now),
                (Sandbox::Wired | Sandbox::Partly, _) => {}
            }
        }
    }

    fn sandbox(&self, lease: &Lease, view: &KernelView) -> Sandbox {
        let container = lease.key.container_id();
        let name = host_veth_name(&self.config.veth_prefix, lease.pod.as_ref(), &lease.key);
        // A veth with another alias is the sandbox of a recreated pod; one without is from software that sets none.
        let own = |(veth, alias): (&String, &Option<String>)| match alias {
            Some(alias) => alias == container,
            None => *veth == name,
        };
        let has_veth = view.veths.iter().any(own);
        let has_route = view
            .signs
            .get(&lease.address)
            .is_some_and(|signs| signs.route_device.is_some());
        match (has_veth, has_route) {
            (true, true) => Sandbox::Wired,
            (false, false) => Sandbox::Gone,
            (true, false) | (false, true) => Sandbox::Partly,
        }
    }

    /// The sandbox of a lease is not there: the first time it is noted, the second time, late enough, the lease ends.
    fn strike(&mut self, key: &IpamKey, started_at: BootTime, now: BootTime) {
        let timers = self.config.timers;
        let lease = self
            .pool
            .leases
            .get_mut(key)
            .expect("the caller found it in the lease table");
        let first = *lease.gone_since.get_or_insert(started_at);
        let ripe = ripe_at(lease, first, &timers);
        if started_at >= ripe || defective!(self, OneStrike) {
            self.drain(key, "its sandbox is gone");
        } else {
            self.kernel.want(ripe.max(now.after(timers.kernel_view_gap)));
        }
    }

    /// When the next lease whose sandbox was not seen may end.
    pub(crate) fn next_sweep(&self) -> Option<BootTime> {
        let struck = |lease: &Lease| lease.gone_since.map(|first| ripe_at(lease, first, &self.config.timers));
        self.pool.leases().filter_map(struck).min()
    }

    /// Addresses that show life although no lease holds them are not granted: a live pod keeps them, leftovers are removed.
    fn judge_addresses(&mut self, view: &KernelView, now: BootTime) {
        let until = now.after(self.config.timers.hold());
        let (mut unexplained, mut changed) = (Vec::new(), false);
        for (address, state) in self.pool.enis.values_mut().flat_map(crate::eni::Eni::addresses_mut) {
            let signs = view.signs.get(&address);
            match state {
                // Life on a free address counts even in a dump that began before the address was found.
                AddressState::Free { .. } => {
                    if let Some(signs) = signs {
                        *state = AddressState::Blocked { since: now };
                        changed = true;
                        unexplained.push((address, signs.clone()));
                    }
                }
                AddressState::Cooling { since, .. } if view.started_at >= *since => {
                    if let Some(signs) = signs {
                        *state = AddressState::Blocked { since: now };
                        changed = true;
                        unexplained.push((address, signs.clone()));
                    }
                }
                AddressState::Blocked { since } if view.started_at > *since && signs.is_none() => {
                    *state = AddressState::Cooling { since: now, until };
                    changed = true;
                }
                AddressState::Blocked { .. } => unexplained.extend(signs.map(|signs| (address, signs.clone()))),
                AddressState::Cooling { .. }
                | AddressState::Leased(_)
                | AddressState::Releasing(_)
                | AddressState::Missing { .. } => {}
            }
        }
        if changed {
            self.outbox.bump();
        }
        for (address, signs) in unexplained {
            self.unexplained_life(address, &signs);
        }
    }

    fn unexplained_life(&mut self, address: Ipv4Addr, signs: &Signs) {
        // A device behind the route that is no veth of ours is somebody's all the same: nothing of it is removed.
        let alive = signs.route_device.is_some();
        self.outbox.note(Note::UnexplainedLife { address });
        if alive {
            // A pod that the file does not know: it keeps its address. Its end will change the kernel, and so be seen.
            return;
        }
        self.clearing.entry(address).or_default();
    }
}

/// When a second look that finds no sandbox either ends the lease: late enough after the first, and after the grant.
fn ripe_at(lease: &Lease, first: BootTime, timers: &Timers) -> BootTime {
    lease.since.after(timers.sweep_grace).max(first.after(timers.sweep_gap))
}
