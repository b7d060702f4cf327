//! How many addresses are missing, and the fewest calls that bring them.

use crate::action::{Want, Work};
use crate::add::count;
use crate::backoff::Need;
use crate::config::{AllocationMode, Provisioning, WarmTarget};
use crate::core::Core;
use crate::eni::Eni;
use crate::event::Refusal;
use crate::subnets::Ask;
use crate::{BootTime, Now};

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
        let missing = self.missing();
        if missing == 0 {
            self.short_since = None;
            self.first_fill &= !self.seen_ec2;
            return;
        }
        // After a run that our files know nothing of, what the ENIs hold is not known before a view that can be believed.
        let known = self.seen_ec2 && self.rest_unknown.is_none();
        let may = known && self.config.provisioning == Provisioning::Full;
        if may && self.growth_is_due(now.boot) {
            let left = self.grow_on_enis(missing, now.boot);
            self.grow_by_enis(left, now);
        }
    }

    /// Fills slots of ENIs that are there; what is still missing then.
    fn grow_on_enis(&mut self, mut missing: u32, now: BootTime) -> u32 {
        for id in self.growable(now) {
            let eni = &self.pool.enis[&id];
            let (room, ask) = (self.slots_free(eni), self.ask_of(&eni.subnet, self.need()));
            let want = self.want(ask, missing, room);
            let at = self.backoffs.allocate.next_try(self.need()).max(ask.not_before);
            if missing == 0 || want.slots() == 0 || self.is_asking(ask) || !self.due(at, now) {
                return missing;
            }
            self.start(Work::AllocateAddresses { eni: id, want });
            missing = missing.saturating_sub(want.addresses());
        }
        missing
    }

    fn grow_by_enis(&mut self, mut missing: u32, Now { boot: now, wall }: Now) {
        while missing > 0 && self.enis_left() > 0 {
            let Some(subnet) = self.subnets_for_new_eni(self.need()).into_iter().next() else {
                return;
            };
            let ask = self.ask_of(&subnet, self.need());
            let want = self.want(ask, missing, self.config.node.slots_per_eni);
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
            missing = missing.saturating_sub(want.addresses());
        }
    }

    /// A scarce subnet is asked one question at a time.
    fn is_asking(&self, ask: Ask) -> bool {
        ask.is_scarce() && self.under_way() > 0
    }

    /// What one call should ask for, with `room` slots.
    fn want(&self, ask: Ask, missing: u32, room: u16) -> Want {
        let addresses = match self.config.target {
            // In ENI mode an ENI is always filled: that is what the variable means.
            WarmTarget::Enis(_) => u32::from(self.config.node.slots_per_eni),
            WarmTarget::Prefixes(_) | WarmTarget::Addresses { .. } | WarmTarget::Adaptive => missing,
        };
        let waiting = count(self.waiting.len());
        let addresses = match ask.is_scarce() {
            // It serves those who wait first.
            true if waiting > 0 => addresses.min(waiting),
            true | false => addresses,
        };
        let slots = |n: u32| small(n).min(room).min(ask.at_most.unwrap_or(u16::MAX));
        match ask.kind {
            AllocationMode::Addresses => Want::Addresses(slots(addresses)),
            AllocationMode::Prefixes => Want::Prefixes(slots(addresses.div_ceil(16))),
        }
    }

    pub(crate) fn need(&self) -> Need {
        if self.waiting.is_empty() {
            Need::Refill
        } else {
            Need::Starving
        }
    }

    /// Addresses that are neither there nor on their way.
    fn missing(&self) -> u32 {
        let supply = self.pool.supply();
        let waiting = count(self.waiting.len());
        let coming = supply.arriving + self.under_way();
        let usable = supply.free + coming;
        match self.config.target {
            WarmTarget::Enis(warm) => {
                let per_eni = u32::from(self.config.node.slots_per_eni);
                (u32::from(warm) * per_eni)
                    .max(1)
                    .saturating_add(waiting)
                    .saturating_sub(usable)
            }
            WarmTarget::Prefixes(warm) => (u32::from(warm) * 16)
                .max(1)
                .saturating_add(waiting)
                .saturating_sub(usable),
            WarmTarget::Adaptive => 2u32.saturating_add(waiting).saturating_sub(usable),
            WarmTarget::Addresses { warm, minimum } => {
                let total = supply.total + self.under_way();
                warm.saturating_add(waiting)
                    .saturating_sub(usable)
                    .max(minimum.saturating_sub(total))
            }
        }
    }

    /// Addresses asked for in calls that have not ended.
    pub(crate) fn under_way(&self) -> u32 {
        let asked = self.ops.values().map(|record| match record.work {
            Work::AllocateAddresses { want, .. } | Work::CreateEni { want, .. } => want.addresses(),
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
    fn growth_is_due(&mut self, now: BootTime) -> bool {
        let timers = self.config.timers;
        let short_since = *self.short_since.get_or_insert(now);
        let first_waiter = self.waiting.front().map(|waiter| waiter.since.after(timers.coalesce));
        let at = match first_waiter {
            Some(at) => at,
            None if self.first_fill => now,
            None => short_since.after(timers.refill_delay),
        };
        self.due(at, now)
    }

    /// ENIs with free slots and no call under way, the one with most room first: fewest calls.
    fn growable(&self, now: BootTime) -> Vec<vpc_types::EniId> {
        let open = |eni: &&Eni| eni.serves() && eni.ec2_op.is_none() && eni.not_before <= now;
        let mut enis: Vec<&Eni> = self
            .pool
            .enis
            .values()
            .filter(open)
            .filter(|eni| self.slots_free(eni) > 0)
            .collect();
        enis.sort_by_key(|eni| (std::cmp::Reverse(self.slots_free(eni)), eni.device));
        enis.into_iter().map(|eni| eni.id.clone()).collect()
    }

    pub(crate) fn slots_free(&self, eni: &Eni) -> u16 {
        self.config.node.slots_per_eni.saturating_sub(eni.slots_used())
    }

    /// ENIs that the instance still takes.
    fn enis_left(&self) -> u16 {
        let creating = self
            .ops
            .values()
            .filter(|record| matches!(record.work, Work::CreateEni { .. }))
            .count();
        // One on its way out keeps its slot at EC2 until it is deleted.
        let there = u16::try_from(self.pool.enis.len()).unwrap_or(u16::MAX);
        self.max_enis
            .saturating_sub(there)
            .saturating_sub(small(count(creating)))
    }

    /// Where growth could still happen, limits alone considered.
    pub(crate) fn room(&self) -> Option<Room> {
        let growable = self
            .pool
            .enis()
            .any(|eni| eni.role.has_pods() && eni.phase.is_arriving_or_ready() && self.slots_free(eni) > 0);
        let enis_left = if self.config.node.slots_per_eni > 0 {
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

    /// When the next try at growth may go out.
    pub(crate) fn next_growth(&self, now: BootTime) -> Option<BootTime> {
        let backoff = match self.room()? {
            Room::OnEni => &self.backoffs.allocate,
            Room::NewEni => &self.backoffs.create,
        };
        let coalesced = self
            .waiting
            .front()
            .map(|waiter| waiter.since.after(self.config.timers.coalesce));
        // Without a permission the next try has the same end.
        (backoff.last != Some(Refusal::Denied))
            .then(|| backoff.next_try(Need::Starving).max(coalesced.unwrap_or(now)).max(now))
    }
}

fn small(n: u32) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}
