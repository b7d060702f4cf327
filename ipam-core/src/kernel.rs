//! What the kernel shows: which addresses live, and which leftovers nobody explains.
//!
//! A dump proves absence only for what was there before it began.

use std::net::Ipv4Addr;

use crate::BootTime;
use crate::action::{Action, Note};
use crate::address::AddressState;
use crate::config::StartMode;
use crate::core::Core;
use crate::event::{KernelView, Signs};
use crate::mutant::defective;
use crate::sweep::{self, Trust};

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
            self.unknown_until = self.started_at.after(self.config.timers.hold_unknown());
        }
        let trust = self.trust(&view, now);
        let view = match trust {
            Trust::Whole => view,
            Trust::OnlyWhatItShows => sweep::completed(view, self.last_kernel.as_ref()),
        };
        self.judge_leases(&view, trust, now);
        if !defective!(self, IgnoreSigns) {
            self.judge_addresses(&view, now);
        }
        self.last_kernel = Some(view);
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
        let alive = signs.route_device.is_some() || self.config.start == StartMode::Safe;
        self.outbox.note(Note::UnexplainedLife { address });
        if alive {
            // A pod that the file does not know: it keeps its address. Its end will change the kernel, and so be seen.
            return;
        }
        self.clearing.entry(address).or_default();
    }
}
