//! Giving back what the peak of recent use and the targets do not need.
//!
//! Nothing is given back on the lease table's word alone: a kernel dump that began after the address was last touched
//! must show no life on it. An ENI goes as a whole where possible, since that costs two calls for all its addresses.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use vpc_types::{Allocation, EniId};

use crate::action::Work;
use crate::address::AddressState;
use crate::backoff::{Jitter, Need};
use crate::block::Block;
use crate::config::{AllocationMode, StartMode};
use crate::core::Core;
use crate::eni::{Eni, EniPhase};
use crate::event::EniRole;
use crate::mutant::defective;
use crate::pool::Counted;
use crate::subnets::ALL_SLACK;
use crate::{BootTime, OpId, targets};

/// Smallest number of addresses worth a release call: lots of four cut calls by half at the same supply.
pub(crate) const LOT: u32 = 4;

/// The window where a subnet has nothing left: with less pods wait no less, and calls are more.
const SCARCE_WINDOW: Duration = Duration::from_secs(120);

/// Why an address or ENI may not go yet, the weightiest reason last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Evidence {
    /// A new enough dump shows no life.
    Unused,
    /// No dump is new enough.
    TooOld,
    /// The dump shows life.
    Alive,
}

/// Free allocations of one kind on one ENI that could go in one call.
struct Lot {
    eni: EniId,
    allocations: Vec<(Allocation, Evidence)>,
}

impl Core {
    pub(crate) fn plan_shrink(&mut self, now: BootTime) {
        let may = self.may_give_back() && self.config.start == StartMode::Normal;
        if !may || !self.seen_ec2 || !self.waiting.is_empty() || self.growth_under_way() {
            return;
        }
        let grace = self.started_at.after(self.config.timers.start_grace);
        if self.make_room(now) || !self.due(grace, now) {
            return;
        }
        let window = self.release_window();
        let peak = self.usage.peak(window, now);
        if let Some(at) = self.usage.next_change(window) {
            self.wake_at(at);
        }
        if let Some(at) = self.level_falls_at(now) {
            self.wake_at(at);
        }
        let retired = self.may_free_enis() && self.retire_one(peak, now);
        if !retired && !self.empty_closed(now) {
            self.release_lot(peak, now);
        }
    }

    /// The window of this node: up to a quarter longer than the setting, so that nodes that lost their pods together do not
    /// all call in the same second; shorter while a subnet has little left.
    fn release_window(&self) -> Duration {
        let window = self.config.timers.release_window;
        let window = window + Jitter::new(self.config.nonce).up_to(window / 4);
        let scarce = window * self.slack() / ALL_SLACK;
        scarce.max(SCARCE_WINDOW.min(window))
    }

    fn growth_under_way(&self) -> bool {
        self.ops
            .values()
            .any(|r| matches!(r.work, Work::CreateEni { .. } | Work::AllocateAddresses { .. }))
            || self.pool.enis().any(Eni::is_arriving)
    }

    /// Free addresses beyond what targets and the peak ask to keep.
    fn surplus(&self, peak: u32, now: BootTime) -> u32 {
        if defective!(self, ReleaseBelowTarget) {
            return self.pool.supply().free;
        }
        targets::surplus(self.level(now), self.pool.supply(), peak, self.config.node.max_pods)
    }

    /// Retires the emptiest ENI that is not needed; whether one was found.
    fn retire_one(&mut self, peak: u32, now: BootTime) -> bool {
        // An address that left our books with its pod may be on any of them again without our knowledge.
        let rested = self.resting_elsewhere.values().max().copied().unwrap_or_default();
        if !self.due(rested, now) {
            return false;
        }
        let all = self.surplus(peak, now);
        let surplus = all.saturating_sub(self.sums().passing.free);
        let lasting = all.saturating_sub(self.free_left_over());
        let candidates: Vec<EniId> = self
            .pool
            .enis()
            .filter(|eni| {
                let unlooked =
                    defective!(self, DetachWithLease) && eni.role == EniRole::Managed && eni.phase == EniPhase::Ready;
                is_empty(eni) && !self.routes_for_a_lease(eni) || unlooked
            })
            .filter(|eni| !eni.is_open() || count_addresses(eni) <= surplus && self.count_lasting(eni) <= lasting)
            .map(|e| e.id.clone())
            .collect();
        for id in candidates.into_iter().rev() {
            let timers = self.config.timers;
            let eni = &self.pool.enis[&id];
            let due_at = eni
                .idle_since
                .after(timers.eni_idle)
                .max(eni.known_since.after(timers.eni_minimum_life));
            let evidence = eni.blocks.values().map(|block| self.evidence_of(block)).max();
            if !self.due(due_at, now) {
                continue;
            }
            let unlooked = defective!(self, DetachWithLease);
            match evidence.filter(|_| !unlooked).unwrap_or(Evidence::Unused) {
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

    /// Releases free allocations, emptiest ENI first: those that prefixes being switched on or off has left behind, wholly free
    /// prefixes, and single addresses in lots. ENI mode keeps its ENIs filled.
    fn release_lot(&mut self, peak: u32, now: BootTime) {
        let surplus = self.surplus(peak, now);
        if surplus == 0 {
            return;
        }
        let lasting = surplus.saturating_sub(self.free_left_over());
        let mode = self.config.mode;
        let left_over = match mode {
            AllocationMode::Addresses => AllocationMode::Prefixes,
            AllocationMode::Prefixes => AllocationMode::Addresses,
        };
        for kind in [left_over, mode] {
            let Some(least) = self.least_lot(kind, now) else {
                continue;
            };
            let most = if kind == mode { lasting } else { surplus };
            let mut lots = self.lots(kind, most, Eni::serves, now).into_iter();
            if let Some(lot) = lots.find(|lot| lot.allocations.len() >= least) {
                self.release_if_unused(lot, now);
                return;
            }
        }
    }

    /// Free addresses of the kind that the mode does not ask for. Single ones that stand in for prefixes are among them: growth
    /// counts on them only until prefixes are tried again, so they cannot make a prefix superfluous.
    fn free_left_over(&self) -> u32 {
        let mode = self.config.mode;
        let sums = self.pool.sums(|allocation| {
            if mode.is_kind_of(allocation) {
                Counted::Everywhere
            } else {
                Counted::Apart
            }
        });
        sums.passing.free
    }

    /// Addresses of the ENI of the kind that the mode asks for.
    fn count_lasting(&self, eni: &Eni) -> u32 {
        let blocks = eni.blocks.iter();
        let lasting = blocks.filter(|(allocation, _)| self.config.mode.is_kind_of(**allocation));
        lasting.map(|(_, block)| block.tally().total).sum()
    }

    /// The fewest allocations of this kind that are worth a call; `None`: they stay.
    fn least_lot(&self, kind: AllocationMode, now: BootTime) -> Option<usize> {
        let is_left_over = kind != self.config.mode && !self.stands_in();
        match kind {
            // They go as soon as they are empty, once what is to replace them is there.
            _ if is_left_over => (self.missing(now).wanted == 0 || self.room().is_none()).then_some(1),
            AllocationMode::Addresses if self.fills_enis() => None,
            AllocationMode::Addresses => Some(LOT as usize),
            AllocationMode::Prefixes => Some(1),
        }
    }

    /// Where every slot of the instance is taken and prefixes are wanted: gives single addresses back, whose slots bring sixteen
    /// times as many. Not while EC2 refuses: an address in hand is better. Whether it did.
    fn make_room(&mut self, now: BootTime) -> bool {
        let wants_prefixes = self.config.mode == AllocationMode::Prefixes && !self.stands_in();
        if !wants_prefixes || self.backoffs.allocate.last.is_some() || self.room().is_some() {
            return false;
        }
        let missing = self.missing(now).wanted;
        let lots = self.lots(AllocationMode::Addresses, missing.div_ceil(16), Eni::serves, now);
        let Some(mut lot) = lots.into_iter().max_by_key(|lot| lot.allocations.len()) else {
            return false;
        };
        let ask = self.ask_of(&self.pool.enis[&lot.eni].subnet, Need::Refill);
        if ask.is_scarce() {
            // A single address is what one more question is worth.
            lot.allocations.truncate(1);
        }
        self.due(ask.not_before, now) && self.release_if_unused(lot, now)
    }

    /// Gives back what is free on ENIs that no pod may come to any more, whatever the targets say. Whether it did.
    fn empty_closed(&mut self, now: BootTime) -> bool {
        let is_closed = |eni: &Eni| {
            eni.phase == EniPhase::Ready && eni.missing_since.is_none() && eni.role.has_pods() && !eni.is_open()
        };
        if self.is_learning_subnets() {
            return false;
        }
        let kinds = [AllocationMode::Addresses, AllocationMode::Prefixes];
        let mut lots = kinds
            .into_iter()
            .flat_map(|kind| self.lots(kind, u32::MAX, is_closed, now));
        let Some(lot) = lots.next() else {
            return false;
        };
        drop(lots);
        self.release_if_unused(lot, now)
    }

    /// What could go, per ENI, the one with fewest leases first; no lot has more than `most` addresses.
    fn lots(&self, kind: AllocationMode, most: u32, from: impl Fn(&Eni) -> bool, now: BootTime) -> Vec<Lot> {
        let mut enis: Vec<&Eni> = self
            .pool
            .enis()
            .filter(|eni| from(eni) && eni.ec2_op.is_none() && eni.not_before <= now)
            .collect();
        enis.sort_by_key(|eni| (eni.leased(), Reverse(eni.device)));
        let lot = |eni: &&Eni| {
            let free = eni.blocks.iter().filter(|(allocation, block)| {
                let rests = defective!(self, ReleaseCooling) && block.tally().leased == 0;
                kind.is_kind_of(**allocation) && (block.tally().is_free() || rests)
            });
            let mut left = most;
            let mut allocations = Vec::new();
            for (allocation, block) in free {
                let evidence = self.evidence_of(block);
                let size = block.tally().total;
                if size <= left && evidence != Evidence::Alive {
                    left -= size;
                    allocations.push((*allocation, evidence));
                }
            }
            Lot {
                eni: eni.id.clone(),
                allocations,
            }
        };
        enis.iter().map(lot).filter(|lot| !lot.allocations.is_empty()).collect()
    }

    /// Releases a lot if the last kernel dump is new enough for all of it, and asks for one else. Whether it did.
    fn release_if_unused(&mut self, lot: Lot, now: BootTime) -> bool {
        if lot
            .allocations
            .iter()
            .any(|(_, evidence)| *evidence == Evidence::TooOld)
        {
            self.kernel.want(now);
            return false;
        }
        let is_due = self.due(self.backoffs.release.next_try(Need::Refill), now);
        if is_due {
            let allocations = lot.allocations.into_iter().map(|(allocation, _)| allocation).collect();
            self.release(&lot.eni, allocations);
        }
        is_due
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

    fn evidence_of(&self, block: &Block) -> Evidence {
        let verdicts = block.iter().map(|(address, state)| self.evidence(*address, state));
        verdicts.max().unwrap_or(Evidence::Unused)
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
        if defective!(self, ReleaseWithoutDump) {
            return Evidence::Unused;
        }
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
        && eni.tallies().all(crate::block::Tally::is_free)
}

fn count_addresses(eni: &Eni) -> u32 {
    eni.tallies().map(|tally| tally.total).sum()
}
