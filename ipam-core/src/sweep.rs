//! Leases whose sandbox is gone although nobody said so: a DEL may be lost, a runtime may die.
//!
//! One dump ends no lease, and a dump that has lost most sandboxes at once is itself the suspect: it may add to what is known,
//! and takes nothing away until further ones have agreed for minutes.

use std::time::Duration;

use vpc_types::{IpamKey, host_veth_name};

use crate::BootTime;
use crate::action::Note;
use crate::config::{StartMode, Timers};
use crate::core::Core;
use crate::event::KernelView;
use crate::lease::{Lease, LeaseState};
use crate::mutant::defective;

/// Sandboxes that may vanish together without making a dump suspicious.
const MASS_LEAST: usize = 4;
/// Dumps after the first that must agree that most sandboxes are gone, and for how long.
const MASS_LOOKS: u32 = 5;
const MASS_TIME: Duration = Duration::from_secs(600);

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

/// What a dump may change in what is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Everything.
    Whole,
    /// What it shows is there; what it does not show may be there too.
    OnlyWhatItShows,
}

/// Dumps that have lost most sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Suspicion {
    /// Beginning of the first of them.
    since: BootTime,
    looks: u32,
}

impl Core {
    /// How far a dump can be trusted: sandboxes die one by one, or with a DEL for each.
    pub(crate) fn trust(&mut self, view: &KernelView, now: BootTime) -> Trust {
        let started_at = self.started_at;
        let settled = |lease: &&Lease| {
            let was_seen = matches!(lease.state, LeaseState::Wired | LeaseState::Orphan) || lease.since < started_at;
            was_seen && lease.state != LeaseState::Draining && lease.since <= view.started_at
        };
        let settled: Vec<&Lease> = self.pool.leases.values().filter(settled).collect();
        let fresh = |lease: &&&Lease| lease.gone_since.is_none() && self.sandbox(lease, view) == Sandbox::Gone;
        let gone: Vec<IpamKey> = settled.iter().filter(fresh).map(|lease| lease.key.clone()).collect();
        let (leases, least) = (settled.len(), self.suspicion.map_or(MASS_LEAST, |_| 1));
        if gone.len() < least || gone.len() * 2 <= leases {
            self.suspicion = None;
            return Trust::Whole;
        }
        let first = Suspicion {
            since: view.started_at,
            looks: 0,
        };
        let suspicion = self.suspicion.get_or_insert(first);
        suspicion.looks += 1;
        let (since, looks) = (suspicion.since, suspicion.looks);
        if looks == 1 {
            let gone = gone.len();
            self.outbox.note(Note::MassDisappearance { gone, leases });
        }
        if looks > MASS_LOOKS && view.started_at >= since.after(MASS_TIME) {
            for lease in self.pool.leases.values_mut().filter(|lease| gone.contains(&lease.key)) {
                lease.gone_since = Some(since);
            }
            self.suspicion = None;
            return Trust::Whole;
        }
        self.kernel.want(now.after(MASS_TIME / MASS_LOOKS));
        Trust::OnlyWhatItShows
    }

    pub(crate) fn judge_leases(&mut self, view: &KernelView, trust: Trust, now: BootTime) {
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
                (Sandbox::Gone, _) if trust == Trust::Whole => self.strike(&key, view.started_at, now),
                (Sandbox::Wired | Sandbox::Partly | Sandbox::Gone, _) => {}
            }
        }
    }

    fn sandbox(&self, lease: &Lease, view: &KernelView) -> Sandbox {
        let container = lease.key.container_id();
        let name = host_veth_name(&self.config.veth_prefix, lease.pod.as_ref(), &lease.key);
        // A veth with another alias is the sandbox of a recreated pod. One without is from software that sets none, and that
        // names it after the pod: then the route tells which sandbox of the pod has it.
        let own = |(veth, alias): (&String, &Option<String>)| match alias {
            Some(alias) => alias == container,
            None => *veth == name && !self.heir_has(lease, veth, view),
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

    /// Later sandboxes of the same pod.
    fn heirs(&self, lease: &Lease) -> impl Iterator<Item = &Lease> {
        let (pod, container) = (lease.pod.clone(), lease.key.container_id().to_owned());
        let age = (lease.granted_at, lease.since);
        self.pool.leases.values().filter(move |other| {
            let same_pod = pod.is_some() && other.pod == pod && other.key.container_id() != container;
            same_pod && (other.granted_at, other.since) > age
        })
    }

    fn heir_has(&self, lease: &Lease, veth: &str, view: &KernelView) -> bool {
        let device = |heir: &Lease| {
            view.signs
                .get(&heir.address)
                .and_then(|signs| signs.route_device.clone())
        };
        self.heirs(lease).any(|heir| device(heir).as_deref() == Some(veth))
    }

    /// A pod came again in a new sandbox: whether its former one is gone is looked at now, not when something else happens.
    pub(crate) fn hasten_sweep_of_former(&mut self, key: &IpamKey, now: BootTime) {
        let Some(lease) = self.pool.leases.get(key) else { return };
        let former = |other: &Lease| {
            other.pod.is_some() && other.pod == lease.pod && other.key.container_id() != key.container_id()
        };
        if self.pool.leases.values().any(former) {
            self.kernel.want(now.after(self.config.timers.kernel_view_gap));
        }
    }

    /// The sandbox of a lease is not there: the first time it is noted, the second time, late enough, the lease ends.
    fn strike(&mut self, key: &IpamKey, started_at: BootTime, now: BootTime) {
        if self.config.start == StartMode::Safe {
            return;
        }
        let timers = self.config.timers;
        let lease = self
            .pool
            .leases
            .get_mut(key)
            .expect("the caller found it in the lease table");
        let first = *lease.gone_since.get_or_insert(started_at);
        let ripe = self.ripe_at(&self.pool.leases[key], first, &timers);
        if started_at >= ripe || defective!(self, OneStrike) {
            self.drain(key, "its sandbox is gone");
        } else {
            self.kernel.want(ripe.max(now.after(timers.kernel_view_gap)));
        }
    }

    /// When the next lease whose sandbox was not seen may end.
    pub(crate) fn next_sweep(&self) -> Option<BootTime> {
        let timers = self.config.timers;
        let struck = |lease: &Lease| lease.gone_since.map(|first| self.ripe_at(lease, first, &timers));
        self.pool.leases().filter_map(struck).min()
    }

    /// When a second look that finds no sandbox either ends the lease: late enough after the first, and after the grant. Nobody
    /// waits long for the second look at a sandbox whose pod runs in another one already.
    fn ripe_at(&self, lease: &Lease, first: BootTime, timers: &Timers) -> BootTime {
        let has_heir = self.heirs(lease).next().is_some();
        let gap = if has_heir {
            timers.kernel_view_gap
        } else {
            timers.sweep_gap
        };
        lease.since.after(timers.sweep_grace).max(first.after(gap))
    }
}

/// A dump that cannot be trusted whole, completed by what was known before it.
pub(crate) fn completed(mut view: KernelView, before: Option<&KernelView>) -> KernelView {
    let Some(before) = before else { return view };
    view.macs.extend(before.macs.iter().copied());
    for (veth, alias) in &before.veths {
        view.veths.entry(veth.clone()).or_insert_with(|| alias.clone());
    }
    for (address, signs) in &before.signs {
        view.signs.entry(*address).or_insert_with(|| signs.clone());
    }
    view
}
