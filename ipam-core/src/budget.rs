//! When calls may go out: what the state of the node allows, the spread of refills over a cluster, and when the next address
//! may be had at the earliest.
//!
//! The waiting rules per kind of call live in `backoff`, those per subnet in `scarcity`; this module puts them together.

use std::time::Duration;

use crate::BootTime;
use crate::backoff::{Jitter, Need};
use crate::config::{AllocationMode, NodeFacts, Provisioning, StartMode};
use crate::core::Core;
use crate::event::{EniRole, Life, Placement, Refusal, Scheduling, Scope};
use crate::mutant::defective;
use crate::targets::Missing;

/// EC2 takes so many mutations of one kind per second from one account.
const ACCOUNT_PACE: u32 = 5;
/// Longest spread of refills after a start.
const SPREAD_MAX: Duration = Duration::from_secs(1000);

/// How long a refill waits after a start: nodes of a cluster that start together would otherwise all be refused together.
pub(crate) fn refill_spread(node: &NodeFacts, jitter: &mut Jitter) -> Duration {
    let all = node.cluster_nodes.unwrap_or(0) / ACCOUNT_PACE;
    jitter.up_to(Duration::from_secs(all.into()).min(SPREAD_MAX))
}

impl Core {
    /// What is missing, as far as the node's condition lets it grow: on a cordoned node only for pods that are there.
    pub(crate) fn allowed(&self, missing: Missing) -> Missing {
        let for_targets = self.condition.scheduling == Scheduling::Open && self.condition.life == Life::Staying;
        Missing {
            wanted: if for_targets { missing.wanted } else { missing.urgent },
            ..missing
        }
    }

    /// Whether anything may be changed at EC2 at all.
    pub(crate) fn may_change_ec2(&self) -> bool {
        self.config.provisioning == Provisioning::Full
    }

    /// Whether new ENIs make sense: not on a node that ends within minutes, and not without a place for them.
    pub(crate) fn may_make_enis(&self) -> bool {
        self.condition.life == Life::Staying && self.placement != Placement::Missing
    }

    /// Whether addresses may be given back: an instance that ends does that by ending.
    pub(crate) fn may_give_back(&self) -> bool {
        self.may_change_ec2() && self.condition.life == Life::Staying
    }

    /// Whether ENIs may be given back: an instance that may end at any moment could leave one behind between two calls.
    pub(crate) fn may_free_enis(&self) -> bool {
        self.condition.scheduling == Scheduling::Open && self.condition.life == Life::Staying
    }

    /// Whether EC2 may be asked for this.
    pub(crate) fn may_view(&self, scope: Scope) -> bool {
        let safe = self.config.start == StartMode::Safe;
        match (self.config.provisioning, scope) {
            // What is left behind waits for a run that may delete it; the wish stays on file until then.
            (Provisioning::Full, Scope::OwnAvailable | Scope::Leaked) if safe => false,
            (Provisioning::Full, _) | (_, Scope::Attached) | (Provisioning::Disabled, Scope::Subnets) => true,
            (Provisioning::Disabled, Scope::OwnAvailable | Scope::Leaked) => false,
            (Provisioning::ImdsOnly, Scope::Subnets | Scope::OwnAvailable | Scope::Leaked) => false,
        }
    }

    /// ENI slots that stay free for a trunk.
    pub(crate) fn slots_kept_free(&self) -> u16 {
        let reserved = self.config.node.trunk == crate::TrunkSlot::Reserved;
        let is_there = self.pool.enis().any(|eni| eni.role == EniRole::Trunk);
        u16::from(reserved && !is_there && !defective!(self, IgnoreTrunkSlot))
    }

    /// Whether a further ENI with prefixes may be asked for although there are slots: EC2 counts the two calls apart, and a
    /// pod waits for either.
    pub(crate) fn has_second_path(&self) -> bool {
        self.config.mode == AllocationMode::Prefixes
            && self.need() == Need::Starving
            && self.backoffs.allocate.last == Some(Refusal::Throttled)
    }

    /// When the next try at growth for a pod may go out.
    pub(crate) fn next_growth(&self, now: BootTime) -> Option<BootTime> {
        self.room()?;
        let coalesced = self.waiting.front().map(|waiter| waiter.since.after(self.coalesce()));
        let earliest = coalesced.unwrap_or(now).max(now);
        let on_enis = self.next_on_enis();
        let is_open = on_enis.is_none_or(|at| at > now);
        let on_new = self.next_on_new_eni(now).filter(|_| is_open || self.has_second_path());
        let allocate = self.backoffs.allocate.hope(now);
        let on_enis = on_enis.and_then(|at| Some(at.max(allocate?)));
        on_enis.into_iter().chain(on_new).min().map(|at| at.max(earliest))
    }

    /// When a subnet may be asked for addresses for an ENI that is there.
    fn next_on_enis(&self) -> Option<BootTime> {
        let open = self
            .pool
            .enis()
            .filter(|eni| eni.is_open() && eni.phase.is_arriving_or_ready() && self.slots_free(eni) > 0);
        open.map(|eni| self.ask_of(&eni.subnet, Need::Starving).not_before)
            .min()
    }

    fn next_on_new_eni(&self, now: BootTime) -> Option<BootTime> {
        let possible = self.enis_left() > 0 && self.may_make_enis() && self.config.node.slots_per_eni > 0;
        let subnet = self
            .subnets_for_new_eni(Need::Starving)
            .into_iter()
            .next()
            .filter(|_| possible)?;
        let create = self.backoffs.create.hope(now)?;
        Some(self.ask_of(&subnet, Need::Starving).not_before.max(create))
    }
}
