//! What EC2 shows, against what we believe.
//!
//! A view is believed about an ENI only if it began after our last change there had time to settle. It may add, it may
//! resolve an unknown outcome; to take something away it needs a second view that agrees, and leases are never taken
//! away at all: they become orphans until their address shows again or their pod goes.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use vpc_types::EniId;

use crate::action::{Action, Work};
use crate::address::AddressState;
use crate::backoff::{self, Need};
use crate::config::{Provisioning, StartMode};
use crate::core::{Core, OpState};
use crate::eni::{Backing, Eni, EniPhase};
use crate::event::{AttachmentState, Ec2View, EniFact, EniRole, OnTermination, Refusal, Scope, ViewSource};
use crate::mutant::defective;
use crate::{BootTime, Now, OpId};

/// Between two looks for a pod that waits: a runtime tries a refused ADD again about every 15 s.
const LOOK_FOR_WAITING: Duration = Duration::from_secs(60);

impl Core {
    pub(crate) fn plan_views(&mut self, now: BootTime) {
        if self.pool.enis().any(Eni::awaits_view) && !self.wish(Scope::Attached).is_open() {
            let at = now.after(self.config.timers.settle);
            self.wish(Scope::Attached).want(at);
        }
        self.look_for_waiting(now);
        for scope in Scope::ALL {
            if !self.may_view(scope) {
                continue;
            }
            let wish = *self.wish(scope);
            let Some(at) = wish.wanted_at.filter(|_| !wish.in_flight) else {
                continue;
            };
            let at = at.max(self.backoffs.of_scope(scope).next_try(Need::Starving));
            if self.due(at, now) {
                let wish = self.wish(scope);
                (wish.in_flight, wish.wanted_at) = (true, None);
                self.outbox.now(Action::Describe { scope });
            }
        }
        self.plan_kernel_view(now);
    }

    /// Where others bring the addresses, no call of ours would tell what they brought, and IMDS may be stale: a pod that waits
    /// is reason enough to ask, now and then.
    fn look_for_waiting(&mut self, now: BootTime) {
        let others_bring = self.config.provisioning == Provisioning::Disabled;
        if !others_bring || self.waiting.is_empty() || self.wish(Scope::Attached).is_open() {
            return;
        }
        let next = self.looked_for_waiting.map_or(now, |at| at.after(LOOK_FOR_WAITING));
        if self.due(next, now) {
            self.looked_for_waiting = Some(now);
            self.wish(Scope::Attached).want(now);
        }
    }

    pub(crate) fn describe_failed(&mut self, scope: Scope, refusal: Refusal, now: BootTime) {
        self.wish(scope).in_flight = false;
        match scope {
            Scope::Subnets => return self.subnets_not_viewed(refusal, now),
            Scope::Leaked => return self.leaked_not_viewed(now),
            Scope::Attached | Scope::OwnAvailable => {}
        }
        let timers = backoff::for_describes(&self.config.timers, &self.config.node);
        self.backoffs.describe.refused(refusal, now, &timers, &mut self.jitter);
        self.wish(scope).want(now);
    }

    pub(crate) fn ec2_viewed(&mut self, view: &Ec2View, now: Now) {
        let wish = self.wish(view.scope);
        if wish.newest.is_some_and(|newest| view.started_at <= newest) {
            // It came twice, or a newer one overtook it.
            return;
        }
        (wish.in_flight, wish.newest) = (false, Some(view.started_at));
        self.backoffs.describe.succeeded();
        match view.scope {
            Scope::Attached => self.attached_viewed(view, now),
            Scope::OwnAvailable => self.own_available_viewed(view, now),
            Scope::Leaked => self.leaked_viewed(view, now),
            // Subnets have their own event.
            Scope::Subnets => {}
        }
    }

    fn attached_viewed(&mut self, view: &Ec2View, now: Now) {
        let primary = self.config.node.primary_mac;
        if !view.enis.iter().any(|fact| fact.mac == primary) {
            // A view without the primary ENI is no view.
            let at = now.boot.after(self.config.timers.settle);
            self.wish(Scope::Attached).want(at);
            return;
        }
        self.groups_viewed(view);
        if view.source == ViewSource::Imds {
            self.imds_only_viewed(view, now);
            return;
        }
        self.resolve_unknown(view, now.boot);
        let view = &self.without_stale_addresses(view);
        for fact in &view.enis {
            match self.pool.enis.get(&fact.id) {
                None => self.adopt(fact, now.boot),
                Some(eni) if self.believes(view, eni) => self.compare(fact, view.started_at, now.boot),
                Some(_) => {}
            }
        }
        let shown: BTreeSet<&EniId> = view.enis.iter().map(|fact| &fact.id).collect();
        let unseen: Vec<EniId> = self
            .pool
            .enis
            .values()
            .filter(|eni| !shown.contains(&eni.id) && self.believes(view, eni))
            .map(|eni| eni.id.clone())
            .collect();
        for id in unseen {
            self.not_shown(&id, view.started_at, now.boot);
        }
        self.rehome_leases();
        self.look_at_blocked(now.boot);
        self.seen_ec2 = true;
        if self
            .pool
            .enis()
            .any(|eni| eni.is_doubtful() && !self.believes(view, eni))
        {
            // The look that should settle the doubt came too soon after a change of ours.
            let at = now.boot.after(self.config.timers.settle);
            self.wish(Scope::Attached).want(at);
        }
        self.end_unknown_past(view, now.boot);
        self.outbox.bump();
    }

    /// Once a late enough view is believed about everything, no address has an unknown past any more.
    pub(crate) fn end_unknown_past(&mut self, view: &Ec2View, now: BootTime) {
        let settle = self.config.timers.settle;
        // What is on its way out gives no address.
        let matters = |eni: &&Eni| eni.phase != EniPhase::Detached;
        let all_believed = self.pool.enis().filter(matters).all(|eni| self.believes(view, eni));
        // Without a journal nobody knows which calls of that run are still on their way.
        let late = view.started_at >= self.started_at.after(self.config.timers.call_life + settle);
        if late && all_believed && self.last_kernel.is_some() {
            // An earlier view may not have shown all that the former run had.
            self.rest_unknown = None;
        } else if self.rest_unknown.is_some() {
            // Ever rarer: a call of unknown outcome may be denied for hours.
            let pause = settle.max(now.since(self.started_at) / 4);
            self.wish(Scope::Attached).want(now.after(pause));
        }
    }

    /// A deleted ENI may be shown for a while. An address is on one ENI at a time: where the view shows one of ours
    /// elsewhere, it has moved if the view is newer than our last change of its former ENI; otherwise the view is older
    /// than the move.
    fn without_stale_addresses(&mut self, view: &Ec2View) -> Ec2View {
        let believed = view;
        let mut view = view.clone();
        let settle = self.config.timers.settle;
        self.deleted.retain(|_, at| view.started_at < at.after(settle));
        view.enis.retain(|fact| !self.deleted.contains_key(&fact.id));
        for fact in &mut view.enis {
            let mut stale = BTreeSet::new();
            for allocation in &fact.allocations {
                // One on its way to deletion has no say: what it had may be somewhere else already.
                let has = |eni: &Eni| eni.blocks.contains_key(allocation) || !eni.overlapping(*allocation).is_empty();
                let other = |eni: &&Eni| eni.id != fact.id && eni.phase != EniPhase::Detached && has(eni);
                // A prefix may have addresses in common with several.
                let mut others = self.pool.enis().filter(other);
                if others.any(|eni| !self.believes(believed, eni)) {
                    stale.insert(*allocation);
                }
            }
            fact.allocations.retain(|allocation| !stale.contains(allocation));
            let shown = fact.allocations.clone();
            self.take_from_others(&fact.id, shown.iter());
        }
        view
    }

    /// Whether a view can be believed about an ENI.
    fn believes(&self, view: &Ec2View, eni: &Eni) -> bool {
        defective!(self, TrustStaleViews) || eni.settled(view.started_at, self.config.timers.settle)
    }

    /// An ENI on this instance that we did not know.
    pub(crate) fn adopt(&mut self, fact: &EniFact, now: BootTime) {
        let detaching = fact
            .attachment
            .as_ref()
            .is_some_and(|a| a.state == AttachmentState::Detaching);
        let phase = if detaching {
            EniPhase::Detached
        } else {
            EniPhase::Attached
        };
        self.insert_eni(Eni::from_fact(fact, self.spare_device(), phase, now));
        if fact.role.has_pods() {
            self.take_in(&fact.id, &fact.allocations, Self::found, now);
        }
        self.eni_of_unknown_subnet(now);
        self.note_eni(&fact.id, "found");
    }

    /// State of an address that a view shows and we did not know.
    pub(crate) fn found(&self, address: Ipv4Addr, now: BootTime) -> AddressState {
        let state = self.fresh(address, now);
        match self.rest_unknown {
            Some(rest) if matches!(state, AddressState::Free { .. }) => AddressState::Cooling {
                since: now,
                until: now.after(rest),
            },
            None if matches!(state, AddressState::Free { .. }) && now < self.unknown_until => AddressState::Cooling {
                since: now,
                until: self.unknown_until,
            },
            Some(_) | None => state,
        }
    }

    /// Ends operations of unknown outcome that this view can judge.
    pub(crate) fn resolve_unknown(&mut self, view: &Ec2View, now: BootTime) {
        let settle = self.config.timers.settle;
        let judged: Vec<(OpId, Work)> = self
            .ops
            .iter()
            .filter(|(_, record)| {
                matches!(record.state, OpState::Unresolved { since } if view.started_at >= since.after(settle))
                    && !self.will_repeat(&record.work)
            })
            .map(|(op, record)| (*op, record.work.clone()))
            .collect();
        for (op, work) in judged {
            self.end(op, &work, BootTime::default());
            let fact = work.eni().and_then(|id| view.enis.iter().find(|fact| fact.id == *id));
            self.resolve(&work, fact, now);
        }
        if self
            .ops
            .values()
            .any(|r| matches!(r.state, OpState::Unresolved { .. }) && !self.will_repeat(&r.work))
        {
            self.wish(Scope::Attached).want(now.after(settle));
        }
    }

    /// `end` left the ENI marked as settled, so that `compare` takes the rest from the same view.
    fn resolve(&mut self, work: &Work, fact: Option<&EniFact>, now: BootTime) {
        match (work, fact) {
            (Work::ReleaseAddresses { eni, allocations }, Some(fact)) => {
                let (kept, gone) = allocations.iter().copied().partition(|a| fact.allocations.contains(a));
                self.addresses_kept(eni, &kept, &AddressState::Free { since: now });
                self.addresses_released(eni, &gone);
            }
            (Work::ReleaseAddresses { eni, allocations }, None) => {
                self.addresses_kept(eni, allocations, &AddressState::Free { since: now });
            }
            // Not attached, so not in the view: what it has is known once it is attached and shown.
            (Work::AllocateAddresses { eni, .. }, None) => {
                if let Some(eni) = self
                    .pool
                    .enis
                    .get_mut(eni)
                    .filter(|eni| eni.phase == EniPhase::Available)
                {
                    eni.backing = Backing::HearsayOnly;
                }
            }
            (Work::Detach { eni, .. }, None) => self.eni_detached(eni, now),
            (Work::Detach { eni, .. }, Some(fact)) => {
                let leaving = fact
                    .attachment
                    .as_ref()
                    .is_none_or(|a| a.state == AttachmentState::Detaching);
                if leaving {
                    self.eni_detached(eni, now);
                }
            }
            // Not to be repeated: whether there is an ENI is for a run to find out that may change something.
            (Work::CreateEni { .. }, _) => self.wish(Scope::OwnAvailable).want(now),
            // Attach, Allocate: whatever the view shows is adopted by the comparison that follows.
            _ => {}
        }
    }

    /// Detached ENIs with our tag: what a run without files left behind half-made.
    fn own_available_viewed(&mut self, view: &Ec2View, now: Now) {
        if self.config.start == StartMode::Safe {
            // They may have been in use a moment ago; the next run decides.
            return;
        }
        let timers = self.config.timers;
        self.half_made
            .retain(|id, _| view.enis.iter().any(|fact| fact.id == *id));
        for fact in view
            .enis
            .iter()
            .filter(|fact| !self.pool.enis.contains_key(&fact.id))
            .cloned()
            .collect::<Vec<_>>()
        {
            let Some(created) = fact.created_at else { continue };
            // The clock may have been set since: how long we have watched it counts too.
            let seen = *self.half_made.entry(fact.id.clone()).or_insert(now.boot);
            let watched = if defective!(self, HalfMadeByTheClock) {
                Duration::ZERO
            } else {
                now.boot.since(seen)
            };
            let age = now.wall.0.saturating_sub(created.0).max(watched);
            let creating = self
                .ops
                .values()
                .any(|record| matches!(record.work, Work::CreateEni { .. }));
            if age < timers.half_made_age || creating {
                let wait = timers.half_made_age.saturating_sub(age).max(timers.settle);
                self.wish(Scope::OwnAvailable).want(now.boot.after(wait));
                continue;
            }
            let mut eni = Eni::from_fact(&fact, self.spare_device(), EniPhase::Detached, now.boot);
            eni.role = EniRole::Managed;
            eni.on_termination = OnTermination::Keep;
            self.insert_eni(eni);
            self.note_eni(&fact.id, "half-made, to be deleted");
        }
        // The files say whether such a look is still to come: without this a restart would repeat it.
        self.outbox.bump();
    }
}
