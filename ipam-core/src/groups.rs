//! Security groups: ENIs of ours follow those of the primary one, and only ENIs that differ are touched.
//!
//! EC2 says which groups the primary ENI has; IMDS only makes us ask. An ENI that differs goes on differing until the call
//! succeeds, so a failed one is repeated without anybody remembering it. With custom networking ENIs keep the groups that they
//! were made with. Called for views and while planning.

use std::collections::BTreeSet;
use std::time::Duration;

use vpc_types::{EniId, SecurityGroupId};

use crate::BootTime;
use crate::action::Work;
use crate::backoff::Need;
use crate::core::Core;
use crate::eni::{Eni, EniPhase};
use crate::event::{Ec2View, EniRole, Life, Placement, Scope, ViewSource};

/// EC2 takes so many filtered describes per second from one account.
const DESCRIBES: u32 = 20;
/// Longest wait before EC2 is asked about groups that IMDS shows.
const ASK_WITHIN: Duration = Duration::from_secs(120);

/// Groups for one ENI, or for all of them.
type Groups = BTreeSet<SecurityGroupId>;

/// What was heard of the primary ENI's groups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct GroupWatch {
    /// Whether EC2 has shown them to this run.
    seen: bool,
    /// Other groups that IMDS showed last.
    hint: Option<Groups>,
    /// Groups of IMDS that EC2 was asked about.
    asked: Option<Groups>,
}

impl Core {
    /// Groups for new ENIs.
    pub(crate) fn groups_for_new_eni(&self) -> BTreeSet<SecurityGroupId> {
        match &self.placement {
            Placement::Given { groups, .. } if !groups.is_empty() => groups.clone(),
            Placement::Given { .. } | Placement::Discovered | Placement::Missing => self.groups.clone(),
        }
    }

    /// EC2 showed the primary ENI.
    pub(crate) fn groups_viewed(&mut self, view: &Ec2View) {
        let primary = self.config.node.primary_mac;
        let fact = view
            .enis
            .iter()
            .find(|fact| fact.mac == primary && !fact.groups.is_empty());
        if let Some(fact) = fact.filter(|_| view.source == ViewSource::Ec2) {
            self.groups.clone_from(&fact.groups);
            self.group_watch.seen = true;
        }
    }

    /// IMDS shows groups: twice the same and not ours, and EC2 is asked, once for each such set. Nodes of a cluster hear of a
    /// change together, so they do not ask in the same second.
    pub(crate) fn imds_groups(&mut self, groups: BTreeSet<SecurityGroupId>, now: BootTime) {
        if groups.is_empty() || groups == self.groups {
            (self.group_watch.hint, self.group_watch.asked) = (None, None);
            return;
        }
        let is_second = self.group_watch.hint.as_ref() == Some(&groups);
        if is_second && self.group_watch.asked.as_ref() != Some(&groups) {
            let nodes = self.config.node.cluster_nodes.unwrap_or(0);
            let spread = Duration::from_secs((nodes / DESCRIBES).into()).min(ASK_WITHIN);
            let at = now.after(self.jitter.up_to(spread));
            self.wish(Scope::Attached).want(at);
            self.group_watch.asked = Some(groups.clone());
        }
        self.group_watch.hint = Some(groups);
    }

    pub(crate) fn plan_groups(&mut self, now: BootTime) {
        let follows = self.placement == Placement::Discovered && self.condition.life == Life::Staying;
        if !follows || !self.may_change_ec2() || !self.group_watch.seen || self.groups.is_empty() {
            return;
        }
        let differs = |eni: &&Eni| {
            let is_ours = matches!(eni.role, EniRole::Managed | EniRole::Efa);
            let is_there = matches!(eni.phase, EniPhase::Attached | EniPhase::Ready) && eni.missing_since.is_none();
            is_ours && is_there && eni.ec2_op.is_none() && eni.groups != self.groups
        };
        let differing: Vec<(EniId, BootTime)> = self
            .pool
            .enis()
            .filter(differs)
            .map(|eni| (eni.id.clone(), eni.not_before))
            .collect();
        for (eni, not_before) in differing {
            let at = self.backoffs.modify.next_try(Need::Refill).max(not_before);
            if self.due(at, now) {
                let groups = self.groups.clone();
                self.start(Work::SetGroups { eni, groups });
            }
        }
    }

    pub(crate) fn groups_set(&mut self, id: &EniId, groups: &BTreeSet<SecurityGroupId>) {
        if let Some(eni) = self.pool.enis.get_mut(id) {
            eni.groups.clone_from(groups);
            (eni.refusals, eni.last_refusal) = (0, None);
        }
    }
}
