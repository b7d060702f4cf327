//! How many addresses are missing, and the fewest calls that bring them.

use crate::action::Work;
use crate::add::count;
use crate::backoff::Need;
use crate::config::WarmTarget;
use crate::core::Core;
use crate::eni::Eni;
use crate::event::{EniRole, Refusal};
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
    pub(crate) fn plan_growth(&mut self, Now { boot: now, wall }: Now) {
        let mut missing = self.missing();
        if missing == 0 {
            self.short_since = None;
            self.first_fill &= !self.seen_ec2;
            return;
        }
        // A scarce subnet is asked one question at a time.
        let asking = self.ask_at_most.is_some() && self.under_way() > 0;
        if !self.seen_ec2 || asking || !self.growth_is_due(now) {
            return;
        }
        for id in self.growable(now) {
            let room = u32::from(self.slots_free(&self.pool.enis[&id]));
            let want = self.chunk(missing).min(room);
            let backoff = self.backoffs.allocate.next_try(self.need());
            if want == 0 || missing == 0 || !self.due(backoff, now) {
                break;
            }
            self.start(Work::AllocateAddresses {
                eni: id,
                count: small(want),
            });
            missing = missing.saturating_sub(want);
            if self.ask_at_most.is_some() {
                return;
            }
        }
        while missing > 0 && self.enis_left() > 0 && self.config.node.slots_per_eni > 0 {
            let backoff = self.backoffs.create.next_try(self.need());
            if !self.due(backoff, now) {
                break;
            }
            let want = self.chunk(missing).min(u32::from(self.config.node.slots_per_eni));
            let token = format!(
                "{}-{:016x}-{}",
                self.config.node.instance, self.config.nonce, self.next_op
            );
            let subnet = self.config.node.subnet.clone();
            self.start(Work::CreateEni {
                token,
                subnet,
                addresses: small(want),
                requested_at: wall,
            });
            missing = missing.saturating_sub(want);
            if self.ask_at_most.is_some() {
                return;
            }
        }
    }

    /// In ENI mode an ENI is always filled: that is what the variable means.
    fn chunk(&self, missing: u32) -> u32 {
        let chunk = match self.config.target {
            WarmTarget::Enis(_) => u32::from(self.config.node.slots_per_eni),
            WarmTarget::Addresses { .. } => missing,
        };
        let Some(limit) = self.ask_at_most else { return chunk };
        // A scarce subnet serves those who wait first.
        let waiting = count(self.waiting.len());
        chunk
            .min(u32::from(limit))
            .min(if waiting > 0 { waiting } else { u32::MAX })
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
            Work::AllocateAddresses { count, .. } => u32::from(count),
            Work::CreateEni { addresses, .. } => u32::from(addresses),
            Work::Attach { .. }
            | Work::DeleteOnTermination { .. }
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
            .any(|eni| eni.role != EniRole::Unmanaged && eni.phase.is_arriving_or_ready() && self.slots_free(eni) > 0);
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
