//! Giving back what the peak of recent use and the targets do not need.
//!
//! Nothing is given back on the lease table's word alone: a kernel dump that began after the address was last touched
//! must show no life on it. An ENI goes as a whole where possible, since that costs two calls for all its addresses.

use std::collections::BTreeSet;

use vpc_types::{Allocation, EniId};

use crate::action::Work;
use crate::add::count;
use crate::address::AddressState;
use crate::config::{Provisioning, StartMode, WarmTarget};
use crate::core::Core;
use crate::eni::{Eni, EniPhase};
use crate::event::EniRole;
use crate::{BootTime, OpId};

/// Smallest number of addresses worth a release call: lots of four cut calls by half at the same supply.
const LOT: u32 = 4;

/// Why an address or ENI may not go yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Evidence {
    /// A new enough dump shows no life.
    Unused,
    /// No dump is new enough.
    TooOld,
    /// The dump shows life.
    Alive,
}

impl Core {
    pub(crate) fn plan_shrink(&mut self, now: BootTime) {
        let may = self.config.provisioning == Provisioning::Full && self.config.start == StartMode::Normal;
        let settled = may && self.seen_ec2 && self.waiting.is_empty() && !self.growth_under_way();
        let grace = self.started_at.after(self.config.timers.start_grace);
        if !settled || self.pool.supply().free == 0 || !self.due(grace, now) {
            return;
        }
        let window = self.config.timers.release_window;
        let peak = self.usage.peak(window, now);
        if let Some(at) = self.usage.next_change(window) {
            self.wake_at(at);
        }
        if !self.retire_one(peak, now) {
            self.release_lot(peak, now);
        }
    }

    fn growth_under_way(&self) -> bool {
        self.ops
            .values()
            .any(|r| matches!(r.work, Work::CreateEni { .. } | Work::AllocateAddresses { .. }))
            || self
                .pool
                .enis()
                .any(|eni| matches!(eni.phase, EniPhase::Available | EniPhase::Attached))
    }

    /// Free addresses beyond what targets and the peak ask to keep.
    fn surplus(&self, peak: u32) -> u32 {
        let supply = self.pool.supply();
        let (warm, minimum) = match self.config.target {
            WarmTarget::Enis(warm) => ((u32::from(warm) * u32::from(self.config.node.slots_per_eni)).max(1), 0),
            WarmTarget::Prefixes(warm) => ((u32::from(warm) * 16).max(1), 0),
            WarmTarget::Addresses { warm, minimum } => (warm, minimum),
            WarmTarget::Adaptive => (2, 0),
        };
        let keep = peak.saturating_add(warm).max(minimum);
        let grantable_soon = supply.total - supply.withheld;
        supply
            .free
            .saturating_sub(warm)
            .min(grantable_soon.saturating_sub(keep))
    }

    /// Retires the emptiest ENI that is not needed; whether one was found.
    fn retire_one(&mut self, peak: u32, now: BootTime) -> bool {
        let surplus = self.surplus(peak);
        let candidates: Vec<EniId> = self
            .pool
            .enis()
            .filter(|eni| is_empty(eni) && !self.routes_for_a_lease(eni) && count_addresses(eni) <= surplus)
            .map(|e| e.id.clone())
            .collect();
        for id in candidates.into_iter().rev() {
            let timers = self.config.timers;
            let eni = &self.pool.enis[&id];
            let due_at = eni
                .idle_since
                .after(timers.eni_idle)
                .max(eni.known_since.after(timers.eni_minimum_life));
            let evidence = eni
                .addresses()
                .map(|(address, state)| self.evidence(address, state))
                .max_by_key(|e| match e {
                    Evidence::Unused => 0,
                    Evidence::TooOld => 1,
                    Evidence::Alive => 2,
                });
            if !self.due(due_at, now) {
                continue;
            }
            match evidence.unwrap_or(Evidence::Unused) {
                Evidence::Unused => {
                    self.retire(&id);
                    return true;
                }
                Evidence::TooOld => self.kernel.want(now),
                Evidence::Alive => {}
            }
        }
        false
    }

    /// Whether a pod's packets leave by this ENI although its address is not in view.
    fn routes_for_a_lease(&self, eni: &Eni) -> bool {
        self.pool.leases().any(|lease| lease.device == eni.device)
    }

    /// Releases single addresses in address mode; ENI mode keeps its ENIs filled.
    fn release_lot(&mut self, peak: u32, now: BootTime) {
        let surplus = self.surplus(peak);
        if surplus < LOT || matches!(self.config.target, WarmTarget::Enis(_)) {
            return;
        }
        let backoff = self.backoffs.release.not_before;
        let emptiest = self
            .pool
            .enis()
            .filter(|eni| eni.serves() && eni.ec2_op.is_none() && eni.not_before <= now)
            .min_by_key(|eni| eni.leased());
        let Some(id) = emptiest.map(|eni| eni.id.clone()) else {
            return;
        };
        if !self.due(backoff, now) {
            return;
        }
        let eni = &self.pool.enis[&id];
        let free = eni
            .blocks
            .iter()
            .filter(|(_, block)| block.values().all(|s| matches!(s, AddressState::Free { .. })));
        let mut lot = BTreeSet::new();
        let mut too_old = false;
        for (allocation, block) in free {
            let fits =
                count(lot.iter().map(|a: &Allocation| a.addresses().count()).sum()) + count(block.len()) <= surplus;
            let verdicts: Vec<Evidence> = block
                .iter()
                .map(|(address, state)| self.evidence(*address, state))
                .collect();
            too_old |= verdicts.contains(&Evidence::TooOld);
            if fits && verdicts.iter().all(|verdict| *verdict == Evidence::Unused) {
                lot.insert(*allocation);
            }
        }
        if too_old {
            self.kernel.want(now);
        }
        if count(lot.len()) >= LOT {
            self.release(&id, lot);
        }
    }

    fn release(&mut self, id: &EniId, allocations: BTreeSet<Allocation>) {
        let op = OpId(self.next_op);
        let eni = self.pool.enis.get_mut(id).expect("the caller found it in the pool");
        eni.mark(&allocations, &AddressState::Releasing(op));
        let started = self.start(Work::ReleaseAddresses {
            eni: id.clone(),
            allocations,
        });
        assert!(started == op, "operations are numbered in order");
    }

    /// What the last kernel dump says about an address that no lease holds.
    fn evidence(&self, address: std::net::Ipv4Addr, state: &AddressState) -> Evidence {
        let since = match state {
            AddressState::Free { since } | AddressState::Cooling { since, .. } | AddressState::Missing { since } => {
                *since
            }
            AddressState::Leased(_) | AddressState::Blocked { .. } | AddressState::Releasing(_) => {
                return Evidence::Alive;
            }
        };
        match &self.last_kernel {
            Some(view) if view.started_at > since && view.signs.contains_key(&address) => Evidence::Alive,
            Some(view) if view.started_at > since => Evidence::Unused,
            _ => Evidence::TooOld,
        }
    }
}

/// Whether nothing but free addresses is on an ENI of ours.
fn is_empty(eni: &Eni) -> bool {
    eni.phase == EniPhase::Ready
        && eni.role == EniRole::Managed
        && eni.ec2_op.is_none()
        && eni.kernel_op.is_none()
        && eni
            .addresses()
            .all(|(_, state)| matches!(state, AddressState::Free { .. }))
}

fn count_addresses(eni: &Eni) -> u32 {
    count(eni.addresses().count())
}
