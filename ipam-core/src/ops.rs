//! Operations: starting, ending, and what to do when nobody knows how one ended.
//!
//! Owns two rules: one EC2 mutation per ENI at a time, and nothing that EC2 would remember runs before the journal that
//! names it is durable. An unknown outcome is never guessed: it is resolved by a view that started late enough, or by
//! repeating a call that is safe to repeat.

use vpc_types::EniId;

use crate::action::{Action, Note, Work};
use crate::address::AddressState;
use crate::backoff::Need;
use crate::config::StartMode;
use crate::core::{Core, OpHistory, OpRecord, OpState};
use crate::event::{Applied, OpOutcome, Refusal, Scope};
use crate::mutant::defective;
use crate::{BootTime, Now, OpId};

/// Refused deletions after which EC2 is asked where the ENI is.
const DELETE_REFUSALS: u32 = 4;

impl Work {
    /// A word for logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::CreateEni { .. } => "CreateEni",
            Self::Attach { .. } => "Attach",
            Self::DeleteOnTermination { .. } => "DeleteOnTermination",
            Self::AllocateAddresses { .. } => "AllocateAddresses",
            Self::SetGroups { .. } => "SetGroups",
            Self::ReleaseAddresses { .. } => "ReleaseAddresses",
            Self::Detach { .. } => "Detach",
            Self::DeleteEni { .. } => "DeleteEni",
            Self::SetupEni { .. } => "SetupEni",
            Self::TeardownEni { .. } => "TeardownEni",
            Self::ClearPodState { .. } => "ClearPodState",
        }
    }

    /// Whether EC2 would remember it, so that the journal must.
    pub(crate) fn is_ec2(&self) -> bool {
        !matches!(
            self,
            Self::SetupEni { .. } | Self::TeardownEni { .. } | Self::ClearPodState { .. }
        )
    }

    /// Whether doing it twice is the same as once, so that an unknown outcome is resolved by repeating it.
    pub(crate) fn is_repeatable(&self) -> bool {
        matches!(
            self,
            Self::CreateEni { .. } | Self::DeleteEni { .. } | Self::DeleteOnTermination { .. } | Self::SetGroups { .. }
        )
    }

    /// Slots that it takes on an ENI of the pool once it succeeds.
    pub(crate) fn slots_asked(&self) -> u16 {
        if let Self::AllocateAddresses { want, .. } = self {
            want.slots()
        } else {
            0
        }
    }

    /// The ENI it concerns.
    pub fn eni(&self) -> Option<&EniId> {
        match self {
            Self::Attach { eni, .. }
            | Self::DeleteOnTermination { eni, .. }
            | Self::AllocateAddresses { eni, .. }
            | Self::SetGroups { eni, .. }
            | Self::ReleaseAddresses { eni, .. }
            | Self::Detach { eni, .. }
            | Self::DeleteEni { eni }
            | Self::SetupEni { eni, .. }
            | Self::TeardownEni { eni, .. } => Some(eni),
            Self::CreateEni { .. } | Self::ClearPodState { .. } => None,
        }
    }
}

impl Core {
    /// Journals an operation and runs it once the journal is durable.
    pub(crate) fn start(&mut self, work: Work) -> OpId {
        assert!(
            !work.is_ec2() || self.may_change_ec2(),
            "nothing at EC2 is changed where provisioning is off: {}",
            work.kind()
        );
        if let Some(backoff) = self.backoffs.of(&work) {
            backoff.spend(self.clock);
        }
        let op = OpId(self.next_op);
        self.next_op += 1;
        if let Some(eni) = work.eni().and_then(|id| self.pool.enis.get_mut(id)) {
            let slot = if work.is_ec2() {
                &mut eni.ec2_op
            } else {
                &mut eni.kernel_op
            };
            assert!(
                slot.is_none(),
                "one operation of a kind per ENI: {} on {}",
                work.kind(),
                eni.id
            );
            *slot = Some(op);
        }
        self.ops.insert(
            op,
            OpRecord {
                work: work.clone(),
                state: OpState::InFlight,
                history: OpHistory::FirstTry,
                called_at: self.clock,
            },
        );
        let after = if work.is_ec2() {
            self.outbox.bump()
        } else {
            self.gate_of(&work)
        };
        self.outbox.after(after, Action::Run { op, work });
        op
    }

    /// A kernel change needs no journal, but the end of a lease must be on file before its state is removed.
    fn gate_of(&self, work: &Work) -> crate::Generation {
        let Work::ClearPodState { address, owner } = work else {
            return crate::Generation::default();
        };
        if owner.is_none() {
            // That the address was not free must be on file before nothing in the kernel shows it any more.
            return self.outbox.generation();
        }
        let lease = self.pool.leases.values().find(|lease| lease.address == *address);
        lease.map_or_else(Default::default, |lease| lease.generation)
    }

    pub(crate) fn op_done(&mut self, op: OpId, outcome: OpOutcome, now: Now) {
        let outcome = match outcome {
            OpOutcome::Unknown if defective!(self, UnknownIsRefused) => OpOutcome::Refused(Refusal::Other),
            outcome @ (OpOutcome::Applied(_) | OpOutcome::Refused(_) | OpOutcome::Unknown) => outcome,
        };
        let Some(record) = self.ops.get_mut(&op) else { return };
        let work = record.work.clone();
        match outcome {
            OpOutcome::Unknown => {
                record.state = OpState::Unresolved { since: now.boot };
                record.history = OpHistory::MayHaveTakenEffect;
                self.outbox.note(Note::OpUnknown { op, kind: work.kind() });
                if !self.will_repeat(&work) {
                    let at = now.boot.after(self.config.timers.settle);
                    self.wish(Scope::Attached).want(at);
                }
            }
            OpOutcome::Applied(applied) => {
                self.end(op, &work, now.boot);
                if let Some(backoff) = self.backoffs.of(&work) {
                    backoff.succeeded();
                }
                if matches!(work, Work::CreateEni { .. } | Work::AllocateAddresses { .. }) {
                    self.subnet_served(&work);
                }
                self.applied(&work, applied, now);
            }
            OpOutcome::Refused(refusal)
                if record.history == OpHistory::MayHaveTakenEffect
                    && work.is_repeatable()
                    && refusal.says_nothing() =>
            {
                record.state = OpState::Unresolved { since: now.boot };
                let kind = work.kind();
                self.outbox.note(Note::OpRefused { op, kind, refusal });
                if let Some(backoff) = self.backoffs.of(&work) {
                    backoff.refused(refusal, now.boot, &self.config.timers, &mut self.jitter);
                }
            }
            OpOutcome::Refused(refusal) => {
                let called_at = record.called_at;
                self.end(op, &work, now.boot);
                self.outbox.note(Note::OpRefused {
                    op,
                    kind: work.kind(),
                    refusal,
                });
                self.refused(&work, refusal, called_at, now.boot);
            }
        }
    }

    /// Whether an unknown outcome is resolved by repeating the call, and not by a view.
    pub(crate) fn will_repeat(&self, work: &Work) -> bool {
        work.is_repeatable() && self.may_change_ec2()
    }

    /// Takes an operation out of the journal and frees its ENI for the next one.
    pub(crate) fn end(&mut self, op: OpId, work: &Work, now: BootTime) {
        self.ops.remove(&op);
        if let Some(eni) = work.eni().and_then(|id| self.pool.enis.get_mut(id)) {
            if work.is_ec2() {
                eni.ec2_op = None;
                eni.changed_at = now;
            } else {
                eni.kernel_op = None;
            }
        }
        if work.is_ec2() {
            self.outbox.bump();
        }
    }

    fn applied(&mut self, work: &Work, applied: Applied, now: Now) {
        match (work, applied) {
            (Work::CreateEni { .. }, Applied::Created(fact)) => self.eni_created(&fact, now.boot),
            (Work::Attach { eni, .. }, Applied::Attached(attachment)) => self.eni_attached(eni, attachment),
            (Work::AllocateAddresses { eni, .. }, Applied::Allocated(allocations)) => {
                self.addresses_allocated(eni, &allocations, now.boot);
            }
            (Work::ReleaseAddresses { eni, allocations }, _) => self.addresses_released(eni, allocations),
            (Work::DeleteOnTermination { eni, .. }, _) => self.eni_will_go_with_instance(eni),
            (Work::SetGroups { eni, groups }, _) => self.groups_set(eni, groups),
            (Work::Detach { eni, .. }, _) => self.eni_detached(eni, now.boot),
            (Work::DeleteEni { eni }, _) => self.eni_deleted(eni, now.boot),
            (Work::SetupEni { eni, .. }, _) => self.eni_ready(eni),
            (Work::TeardownEni { eni, .. }, _) => self.eni_torn_down(eni),
            (Work::ClearPodState { address, owner }, _) => self.cleared(*address, owner.as_ref(), now.boot),
            // An answer that does not carry what was asked for tells nothing: look.
            (Work::CreateEni { .. } | Work::Attach { .. } | Work::AllocateAddresses { .. }, _) => {
                let at = now.boot.after(self.config.timers.settle);
                self.wish(Scope::Attached).want(at);
            }
        }
    }

    fn refused(&mut self, work: &Work, refusal: Refusal, called_at: BootTime, now: BootTime) {
        if let Work::ReleaseAddresses { eni, allocations } = work {
            // "Not assigned" is no reason to grant them: a view decides.
            let kept = if refusal == Refusal::Gone {
                AddressState::Missing { since: now }
            } else {
                AddressState::Free { since: now }
            };
            self.addresses_kept(eni, allocations, &kept);
        }
        match (work, refusal) {
            (Work::ClearPodState { address, .. }, _) => self.not_cleared(*address, now),
            // EC2 may not know an ENI yet that it has just made.
            (Work::DeleteEni { eni }, Refusal::Gone) if self.is_settled_in(eni, called_at) => {
                self.eni_deleted(eni, now)
            }
            (Work::Detach { eni, .. }, Refusal::Gone | Refusal::Conflict) => self.eni_detached(eni, now),
            (_, Refusal::SubnetFull | Refusal::SubnetFragmented) => self.subnet_refused(work, refusal, now),
            (Work::CreateEni { .. }, Refusal::Conflict | Refusal::Gone) => self.creation_refused(refusal, now),
            // Somebody deleted it while it waited.
            (Work::Attach { eni, .. }, Refusal::Gone) if self.is_settled_in(eni, called_at) => self.let_go(eni, now),
            (Work::Attach { eni, .. }, Refusal::LimitReached) => self.no_slot_for(eni, now),
            (Work::Attach { eni, .. }, Refusal::Conflict) => {
                // Another ENI may have the slot: the next try takes one that nobody is known to have. Beyond the limit there
                // is none: the ENI that took the last one is not known yet, and only a view tells which it is.
                let device = self.spare_device();
                let exists = device.0 < self.config.node.max_enis;
                if let Some(eni) = self.pool.enis.get_mut(eni).filter(|_| exists) {
                    eni.device = device;
                }
                self.hold_eni(work, refusal, now);
            }
            (_, Refusal::Conflict | Refusal::Gone | Refusal::LinkMissing | Refusal::Kernel) => {
                self.hold_eni(work, refusal, now)
            }
            (Work::AllocateAddresses { .. }, Refusal::LimitReached) => self.hold_eni(work, refusal, now),
            (
                _,
                Refusal::Throttled | Refusal::Unavailable | Refusal::LimitReached | Refusal::Denied | Refusal::Other,
            ) => {
                if refusal == Refusal::Other {
                    self.prefixes_refused(work, now);
                }
                if let Some(backoff) = self.backoffs.of(work) {
                    backoff.refused(refusal, now, &self.config.timers, &mut self.jitter);
                }
            }
        }
    }

    /// Whether EC2 knew the ENI for certain at that time: a new one is unknown to some of its parts for a moment.
    fn is_settled_in(&self, id: &EniId, at: BootTime) -> bool {
        let settle = self.config.timers.settle;
        self.pool
            .enis
            .get(id)
            .is_none_or(|eni| at.since(eni.known_since) > settle)
    }

    /// Its subnet or a security group is not there, or the token is known with other parameters: then whatever the first
    /// try created is found by its tag.
    fn creation_refused(&mut self, refusal: Refusal, now: BootTime) {
        self.backoffs
            .create
            .refused(refusal, now, &self.config.timers, &mut self.jitter);
        if refusal == Refusal::Conflict {
            let at = now.after(self.config.timers.half_made_age);
            self.wish(Scope::OwnAvailable).want(at);
        }
    }

    /// A refusal that concerns one ENI alone: pause that ENI, and look at it if EC2 knows more than we do.
    fn hold_eni(&mut self, work: &Work, refusal: Refusal, now: BootTime) {
        let timers = self.config.timers;
        let mut look = work.is_ec2();
        let deletes = matches!(work, Work::DeleteEni { .. });
        // Nobody waits for a deletion: one that is refused time and again is tried every quarter of an hour.
        let most = if deletes { 11 } else { 6 };
        if let Some(eni) = work.eni().and_then(|id| self.pool.enis.get_mut(id)) {
            eni.refusals = (eni.refusals + 1).min(most);
            eni.last_refusal = Some(refusal);
            // A detachment takes its seconds at EC2; only when it takes too long may the ENI be attached after all.
            look &= eni.refusals >= DELETE_REFUSALS || !deletes;
            let pause = timers.backoff_start * 2u32.pow(eni.refusals - 1);
            // The view that explains the refusal is believed only when nothing has changed for the settle time.
            eni.not_before = now.after(if look { pause.max(timers.settle * 2) } else { pause });
        }
        if look {
            self.wish(Scope::Attached).want(now.after(timers.settle));
        }
    }

    /// Repeats operations of unknown outcome that are safe to repeat, with the waiting rule of their kind.
    pub(crate) fn plan_repeats(&mut self, now: BootTime) {
        let unresolved: Vec<(OpId, Work)> = self
            .ops
            .iter()
            .filter(|(_, record)| matches!(record.state, OpState::Unresolved { .. }) && self.will_repeat(&record.work))
            .map(|(op, record)| (*op, record.work.clone()))
            .collect();
        for (op, mut work) in unresolved {
            if self.config.start == StartMode::Safe && matches!(work, Work::DeleteEni { .. }) {
                // Not repeated; a later run plans it anew.
                self.end(op, &work, now);
                continue;
            }
            if let Work::CreateEni { token, .. } = &mut work
                && defective!(self, NewTokenOnRepeat)
            {
                token.push('x');
            }
            let backoff = self.backoffs.of(&work).copied().unwrap_or_default();
            // As long as its outcome is unknown the ENI can do nothing else.
            if !defective!(self, LateRepeat) && self.due(backoff.next_try(Need::Starving), now) {
                if let Some(backoff) = self.backoffs.of(&work) {
                    backoff.spend(now);
                    backoff.refused(Refusal::Unavailable, now, &self.config.timers, &mut self.jitter);
                }
                let record = self.ops.get_mut(&op).expect("the list was made from the journal");
                (record.state, record.called_at) = (OpState::InFlight, now);
                let generation = self.outbox.generation();
                self.outbox.after(generation, Action::Run { op, work });
            }
        }
    }
}
