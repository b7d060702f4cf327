//! ENIs that nodes of this cluster left behind when they ended: they take addresses and keep subnets from being deleted.
//!
//! Safe: only ENIs of this cluster with a creation tag, available in two views minutes apart, and older than any ENI that a
//! daemon could still be working on. Thrifty: twice a day, by a share of the nodes, a few deletions each, none while EC2
//! refuses. Called for views and while planning; the only calls of an idle node besides the watch of a nearly empty subnet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use vpc_types::{EniId, InstanceId};

use crate::action::Work;
use crate::backoff::Need;
use crate::config::LeakSweep;
use crate::core::Core;
use crate::event::{Ec2View, EniFact, Life, Refusal, Scope};
use crate::{BootTime, Now};

const HOUR: Duration = Duration::from_secs(3600);
/// The first sweep after a start is at a random moment within this time.
const FIRST_WITHIN: Duration = Duration::from_secs(6 * 3600);
/// From sweep to sweep, where the size of the cluster says how many nodes take part, and where every node does.
const PERIOD_OF_SHARE: Duration = Duration::from_secs(12 * 3600);
const PERIOD_OF_ALL: Duration = Duration::from_secs(48 * 3600);
/// About so many nodes of a cluster take part.
const SWEEPERS: u32 = 10;
/// Two views that both show an ENI available must lie this far apart.
const CONFIRM_GAP: Duration = Duration::from_secs(300);
/// Younger ones may still be somebody's work in progress.
const AGE: Duration = Duration::from_secs(1800);
/// Deletions in one sweep.
const DELETIONS: usize = 10;

/// Which view of a sweep comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    #[default]
    First,
    Second,
}

/// Where the sweep stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LeakWatch {
    next: Option<BootTime>,
    stage: Stage,
    /// When the first of the views in a row began that showed them available.
    seen: BTreeMap<EniId, BootTime>,
    doomed: VecDeque<EniId>,
}

impl Core {
    pub(crate) fn plan_leaks(&mut self, now: BootTime) {
        let sweeps = self.config.leak_sweep == LeakSweep::On && self.may_view(Scope::Leaked) && self.takes_part();
        if !sweeps || self.condition.life == Life::Leaving {
            return;
        }
        self.delete_doomed(now);
        let next = match self.leaks.next {
            Some(at) => at,
            None => now.after(self.jitter.up_to(FIRST_WITHIN)),
        };
        self.leaks.next = Some(next);
        if self.due(next, now) && !self.wish(Scope::Leaked).is_open() {
            self.leaks.next = Some(now.after(self.pause_between_sweeps()));
            self.wish(Scope::Leaked).want(now);
        }
    }

    /// A hash picks the nodes, so that none of them has to know of the others.
    fn takes_part(&self) -> bool {
        let node = &self.config.node;
        let share = node.cluster_nodes.map_or(1, |nodes| nodes / SWEEPERS).max(1);
        hash(&node.instance).is_multiple_of(share)
    }

    fn pause_between_sweeps(&mut self) -> Duration {
        let period = match self.config.node.cluster_nodes {
            Some(_) => PERIOD_OF_SHARE,
            None => PERIOD_OF_ALL,
        };
        self.jitter.around(period)
    }

    pub(crate) fn leaked_viewed(&mut self, view: &Ec2View, now: Now) {
        let left_behind: BTreeSet<EniId> = view
            .enis
            .iter()
            .filter(|fact| self.is_left_behind(fact, now))
            .map(|fact| fact.id.clone())
            .collect();
        self.leaks.seen.retain(|id, _| left_behind.contains(id));
        for id in left_behind {
            let since = *self.leaks.seen.entry(id.clone()).or_insert(view.started_at);
            let confirmed = view.started_at.since(since) >= CONFIRM_GAP;
            if confirmed && self.leaks.doomed.len() < DELETIONS && !self.leaks.doomed.contains(&id) {
                self.note_eni(&id, "left behind, to be deleted");
                self.leaks.doomed.push_back(id);
            }
        }
        let looks_again = self.leaks.stage == Stage::First && !self.leaks.seen.is_empty();
        let pause = if looks_again {
            CONFIRM_GAP + self.jitter.up_to(CONFIRM_GAP)
        } else {
            self.pause_between_sweeps()
        };
        self.leaks.stage = if looks_again { Stage::Second } else { Stage::First };
        self.leaks.next = Some(now.boot.after(pause));
    }

    /// Whether nobody can be working on it any more. One of this instance is the business of the look for half-made ENIs.
    fn is_left_behind(&self, fact: &EniFact, now: Now) -> bool {
        let is_others = fact
            .owner
            .as_ref()
            .is_some_and(|owner| *owner != self.config.node.instance);
        let age = fact.created_at.map(|created| now.wall.0.saturating_sub(created.0));
        let is_ours = self.pool.enis.contains_key(&fact.id);
        is_others && !is_ours && fact.attachment.is_none() && age.is_some_and(|age| age >= AGE)
    }

    pub(crate) fn leaked_not_viewed(&mut self, now: BootTime) {
        self.leaks.next = Some(now.after(self.jitter.around(HOUR)));
    }

    fn delete_doomed(&mut self, now: BootTime) {
        if self.backoffs.delete.last == Some(Refusal::Throttled) {
            // Somebody else needs these calls more.
            self.leaks.doomed.clear();
        }
        let at = self.backoffs.delete.next_try(Need::Refill);
        while !self.leaks.doomed.is_empty() && self.waiting.is_empty() && self.due(at, now) {
            let Some(eni) = self.leaks.doomed.pop_front() else {
                return;
            };
            self.leaks.seen.remove(&eni);
            self.start(Work::DeleteEni { eni });
            if self.backoffs.delete.next_try(Need::Refill) > now {
                break;
            }
        }
    }
}

/// FNV-1a: the same on every node and in every release.
fn hash(instance: &InstanceId) -> u32 {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    instance.as_str().bytes().fold(0x811c_9dc5, step)
}
