//! How many addresses are missing, and the fewest calls that bring them.

use std::cmp::Reverse;
use std::time::Duration;

use crate::action::{Want, Work};
use crate::add::count;
use crate::backoff::Need;
use crate::config::{AllocationMode, Provisioning, WarmTarget};
use crate::core::{Core, OpState};
use crate::eni::{Backing, Eni};
use crate::mutant::defective;
use crate::pool::{Counted, Sums};
use crate::shrink::LOT;
use crate::subnets::{ALL_SLACK, Ask};
use crate::targets::{self, Level, Missing, Stock, Unserved};
use crate::{BootTime, Now};

/// An ENI that is on its way for longer may take much longer: others do not wait for it.
const ARRIVING_MAX: Duration = Duration::from_secs(10);

/// Where the next addresses can come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Slots on an ENI that is there.
    OnEni,
    /// A further ENI.
    NewEni,
}

impl Core {
    /// Starts the calls that cover what is missing: first slots of ENIs that are there, then new ENIs with their addresses.
    pub(crate) fn plan_growth(&mut self, now: Now) {
        let missing = self.allowed(self.missing(now.boot));
        if missing.urgent == 0 {
            self.pressed_since = None;
        }
        if missing.wanted == 0 {
            self.short_since = None;
            self.first_fill &= !self.seen_ec2;
            return;
        }
        // After a run that our files know nothing of, what the ENIs hold is not known before a view that can be believed.
        let known = self.seen_ec2 && self.rest_unknown.is_none() && !self.is_learning_subnets();
        let may = known && self.config.provisioning == Provisioning::Full;
        if may && self.growth_is_due(missing, now.boot) {
            let left = self.grow_on_enis(missing, now.boot);
            let left = left.less(self.room_soon(now.boot));
            // Our own target looks at bursts that are over: for the last one or two of it five calls are too many.
            if left.urgent > 0 || left.wanted > self.level(now.boot).no_eni_for {
                self.grow_by_enis(left, now);
            }
        }
    }

    /// Fills slots of ENIs that are there; what is still missing then.
    fn grow_on_enis(&mut self, mut missing: Missing, now: BootTime) -> Missing {
        for id in self.growable(missing.wanted, now) {
            let eni = &self.pool.enis[&id];
            let (room, ask) = (self.slots_free(eni), self.ask_of(&eni.subnet, self.need()));
            let want = self.want(ask, missing, self.room_for(ask, room));
            if missing.wanted == 0 {
                break;
            }
            if want.slots() == 0 || self.is_asking(ask) || !self.due(ask.not_before, now) {
                // The next one may be in another subnet.
                continue;
            }
            if self.due(self.backoffs.allocate.next_try(self.need()), now) {
                self.start(Work::AllocateAddresses { eni: id, want });
            } else if self.has_second_path() {
                break;
            }
            // The slots are there: where only the call has to wait a further ENI would not help.
            missing = missing.less(want.addresses());
        }
        missing
    }

    /// Addresses that still fit on what a call is under way for: waiting for its end is sooner and cheaper than a further ENI.
    fn room_soon(&self, now: BootTime) -> u32 {
        let is_busy = |eni: &&Eni| {
            let young = now < eni.known_since.after(ARRIVING_MAX);
            eni.is_open() && (eni.serves() && eni.ec2_op.is_some() || eni.is_arriving() && young)
        };
        let busy = self.pool.enis().filter(is_busy).map(|eni| self.slots_free(eni));
        let created = self.ops.values().filter_map(|record| match &record.work {
            Work::CreateEni { want, .. } if record.state == OpState::InFlight => {
                Some(self.config.node.slots_per_eni.saturating_sub(want.slots()))
            }
            Work::CreateEni { .. }
            | Work::Attach { .. }
            | Work::DeleteOnTermination { .. }
            | Work::AllocateAddresses { .. }
            | Work::SetGroups { .. }
            | Work::ReleaseAddresses { .. }
            | Work::Detach { .. }
            | Work::DeleteEni { .. }
            | Work::SetupEni { .. }
            | Work::TeardownEni { .. }
            | Work::ClearPodState { .. } => None,
        });
        let per_slot = match self.config.mode {
            AllocationMode::Addresses => 1,
            AllocationMode::Prefixes => 16,
        };
        busy.chain(created).map(u32::from).sum::<u32>() * per_slot
    }

    fn grow_by_enis(&mut self, mut missing: Missing, Now { boot: now, wall }: Now) {
        while missing.wanted > 0 && self.enis_left() > 0 && self.may_make_enis() && self.may_ask_for_eni(now) {
            let Some(subnet) = self.subnets_for_new_eni(self.need()).into_iter().next() else {
                return;
            };
            let ask = self.ask_of(&subnet, self.need());
            let want = self.want(ask, missing, self.room_for(ask, self.config.node.slots_per_eni));
            let at = self.backoffs.create.next_try(self.need()).max(ask.not_before);
            if want.slots() == 0 || self.is_asking(ask) || !self.due(at, now) {
                return;
            }
            let (instance, nonce) = (&self.config.node.instance, self.config.nonce);
            let token = format!("{instance}-{nonce:016x}-{}", self.next_op);
            let groups = self.groups_for_new_eni();
            self.start(Work::CreateEni {
                token,
                subnet,
                groups,
                want,
                requested_at: wall,
            });
            missing = missing.less(want.addresses());
        }
    }

    /// A scarce subnet is asked one question at a time.
    fn is_asking(&self, ask: Ask) -> bool {
        ask.is_scarce() && self.under_way() > 0
    }

    /// Slots that may be filled: where single addresses stand in for prefixes one is left for the prefix to come, unless pods
    /// wait for it.
    fn room_for(&self, ask: Ask, free: u16) -> u16 {
        let stands_in = ask.kind != self.config.mode;
        if stands_in && self.waiting.len() < usize::from(free) {
            free - 1
        } else {
            free
        }
    }

    /// What one call should ask for, with `room` slots.
    fn want(&self, ask: Ask, missing: Missing, room: u16) -> Want {
        let addresses = match (self.config.target, ask.kind) {
            (WarmTarget::Enis(_), AllocationMode::Addresses) if self.fills_enis() => {
                u32::from(self.config.node.slots_per_eni)
            }
            // Our own target says nothing about single addresses that lots would contradict.
            (WarmTarget::Adaptive, AllocationMode::Addresses) => missing.wanted.max(LOT),
            (
                WarmTarget::Enis(_) | WarmTarget::Prefixes(_) | WarmTarget::Addresses { .. } | WarmTarget::Adaptive,
                _,
            ) => missing.wanted,
        };
        let addresses = addresses.min(missing.at_most);
        let waiting = count(self.waiting.len());
        let addresses = match ask.is_scarce() {
            // It serves those who wait first.
            true if waiting > 0 => addresses.min(waiting),
            true | false => addresses,
        };
        let slots = |n: u32| small(n).min(room).min(ask.at_most.unwrap_or(u16::MAX));
        match ask.kind {
            AllocationMode::Addresses => Want::Addresses(slots(addresses)),
            AllocationMode::Prefixes if defective!(self, PrefixIsOneAddress) => Want::Prefixes(slots(addresses)),
            AllocationMode::Prefixes => Want::Prefixes(slots(addresses.div_ceil(16))),
        }
    }

    /// In ENI mode an ENI is always filled: that is what the variable means. Not with single addresses that stand in for prefixes.
    pub(crate) fn fills_enis(&self) -> bool {
        matches!(self.config.target, WarmTarget::Enis(_)) && self.config.mode == AllocationMode::Addresses
    }

    pub(crate) fn need(&self) -> Need {
        if self.waiting.is_empty() {
            Need::Refill
        } else {
            Need::Starving
        }
    }

    /// Addresses that are neither there nor on their way.
    pub(crate) fn missing(&self, now: BootTime) -> Missing {
        let sums = self.sums();
        let under_way = self.under_way();
        let passing = sums.passing.free + sums.passing.arriving;
        let resting = if defective!(self, CoolingIsAvailable) {
            sums.supply.cooling
        } else {
            0
        };
        let stock = Stock {
            total: sums.supply.total + under_way - passing - sums.passing.cooling,
            usable: sums.supply.free + sums.supply.arriving + under_way + resting - passing,
            passing,
        };
        let unserved = Unserved {
            waiting: count(self.waiting.len()),
            announced: self.announced(sums.supply.assigned),
        };
        let mut level = self.level(now);
        if !self.has_open_slot() {
            // What comes next comes with an ENI, which takes ten times as long: the refill begins at once.
            level.refill_below = level.warm.saturating_sub(level.no_eni_for);
        }
        targets::missing(level, stock, unserved, self.config.node.max_pods)
    }

    fn has_open_slot(&self) -> bool {
        let mut enis = self
            .pool
            .enis()
            .filter(|eni| eni.role.has_pods() && eni.phase.is_arriving_or_ready());
        enis.any(|eni| self.slots_free(eni) > 0)
    }

    /// Sums, with what prefixes being switched on or off has left behind also apart.
    pub(crate) fn sums(&self) -> Sums {
        let (mode, mixed) = (self.config.mode, self.stands_in());
        self.pool.sums(|allocation| {
            if mixed || mode.is_kind_of(allocation) {
                Counted::Everywhere
            } else {
                Counted::Apart
            }
        })
    }

    /// Whether single addresses have to do, because a subnet that we use has no free prefix at the moment.
    pub(crate) fn stands_in(&self) -> bool {
        let has_none =
            |eni: &Eni| eni.is_open() && self.ask_of(&eni.subnet, self.need()).kind == AllocationMode::Addresses;
        self.config.mode == AllocationMode::Prefixes && self.pool.enis().any(has_none)
    }

    /// The target in addresses.
    pub(crate) fn level(&self, now: BootTime) -> Level {
        let adaptive = self.arrivals.level(now) * self.slack() / ALL_SLACK;
        let adaptive = adaptive.max(self.adaptive_floor());
        self.config.target.level(self.config.node.slots_per_eni, adaptive)
    }

    /// When the adaptive target falls next, if it can.
    pub(crate) fn level_falls_at(&self, now: BootTime) -> Option<BootTime> {
        let can_fall = self.config.target == WarmTarget::Adaptive && self.arrivals.level(now) > self.adaptive_floor();
        can_fall.then(|| self.arrivals.next_change(now)).flatten()
    }

    /// One prefix serves any first pods; with one single address pods of small bursts had to wait.
    fn adaptive_floor(&self) -> u32 {
        match self.config.mode {
            AllocationMode::Addresses => 2,
            AllocationMode::Prefixes => 1,
        }
    }

    /// Announced pods that the kubelet would admit.
    fn announced(&self, assigned: u32) -> u32 {
        targets::announced(
            self.demand,
            assigned,
            count(self.waiting.len()),
            self.config.node.max_pods,
        )
    }

    /// Notes how many addresses pods have or want, for the peak that shrinking keeps.
    pub(crate) fn record_use(&mut self, now: BootTime) {
        let assigned = self.pool.supply().assigned;
        let waiting = count(self.waiting.len());
        let used = assigned
            .saturating_add(waiting)
            .saturating_add(self.announced(assigned));
        self.usage.record(used, now);
    }

    /// Addresses asked for in calls that have not ended.
    pub(crate) fn under_way(&self) -> u32 {
        let asked = self.ops.values().map(|record| match record.work {
            Work::AllocateAddresses { want, .. } | Work::CreateEni { want, .. } => {
                if defective!(self, PrefixIsOneAddress) {
                    u32::from(want.slots())
                } else {
                    want.addresses()
                }
            }
            Work::Attach { .. }
            | Work::DeleteOnTermination { .. }
            | Work::SetGroups { .. }
            | Work::ReleaseAddresses { .. }
            | Work::Detach { .. }
            | Work::DeleteEni { .. }
            | Work::SetupEni { .. }
            | Work::TeardownEni { .. }
            | Work::ClearPodState { .. } => 0,
        });
        asked.sum()
    }

    /// A burst becomes one call; a refill waits a little, in case pods come back; the first fill waits for nothing.
    fn growth_is_due(&mut self, missing: Missing, now: BootTime) -> bool {
        let timers = self.config.timers;
        let short_since = *self.short_since.get_or_insert(now);
        let pressed = if missing.urgent > 0 {
            let announced = *self.pressed_since.get_or_insert(now);
            Some(
                self.waiting
                    .front()
                    .map_or(announced, |waiter| waiter.since.min(announced)),
            )
        } else {
            None
        };
        let at = match pressed {
            Some(since) => since.after(self.coalesce()),
            None if self.first_fill => self.refill_not_before,
            None => short_since.after(timers.refill_delay).max(self.refill_not_before),
        };
        self.due(at, now)
    }

    pub(crate) fn coalesce(&self) -> Duration {
        match self.config.mode {
            AllocationMode::Addresses => self.config.timers.coalesce,
            AllocationMode::Prefixes => self.config.timers.coalesce_prefixes,
        }
    }

    /// ENIs with free slots and no call under way: first those that take the whole of what is missing, fewest calls; among
    /// them the fullest, so that others drain.
    fn growable(&self, missing: u32, now: BootTime) -> Vec<vpc_types::EniId> {
        // EC2 takes requests for an ENI that is on its way, too.
        let is_recent = |eni: &Eni| now < eni.known_since.after(ARRIVING_MAX);
        let comes = |eni: &Eni| eni.is_arriving() && eni.is_open() && eni.backing == Backing::Sure && is_recent(eni);
        let open = |eni: &&Eni| (eni.serves() || comes(eni)) && eni.ec2_op.is_none() && eni.not_before <= now;
        let slots = match self.config.mode {
            AllocationMode::Addresses => small(missing),
            AllocationMode::Prefixes => small(missing.div_ceil(16)),
        };
        let mut enis: Vec<&Eni> = self
            .pool
            .enis
            .values()
            .filter(open)
            .filter(|eni| self.slots_free(eni) > 0)
            .collect();
        let fit = |eni: &Eni| self.slots_free(eni).min(slots);
        enis.sort_by_key(|eni| (Reverse(fit(eni)), Reverse(eni.leased()), eni.device));
        enis.into_iter().map(|eni| eni.id.clone()).collect()
    }

    pub(crate) fn slots_free(&self, eni: &Eni) -> u16 {
        self.config.node.slots_per_eni.saturating_sub(eni.slots_used())
    }

    /// ENIs that the instance still takes.
    pub(crate) fn enis_left(&self) -> u16 {
        let creating = self
            .ops
            .values()
            .filter(|record| matches!(record.work, Work::CreateEni { .. }))
            .count();
        // One on its way out keeps its slot at EC2 until it is deleted.
        let there = u16::try_from(self.pool.enis.len()).unwrap_or(u16::MAX);
        self.max_enis
            .saturating_sub(self.slots_kept_free())
            .saturating_sub(there)
            .saturating_sub(small(count(creating)))
    }

    /// Where growth could still happen, limits alone considered.
    pub(crate) fn room(&self) -> Option<Room> {
        let growable = self
            .pool
            .enis()
            .any(|eni| eni.is_open() && eni.phase.is_arriving_or_ready() && self.slots_free(eni) > 0);
        let enis_left = if self.config.node.slots_per_eni > 0 && self.may_make_enis() {
            self.enis_left()
        } else {
            0
        };
        match (growable, enis_left) {
            (true, _) => Some(Room::OnEni),
            (false, 1..) => Some(Room::NewEni),
            (false, 0) => None,
        }
    }
}

fn small(n: u32) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}
