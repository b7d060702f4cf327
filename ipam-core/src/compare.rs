//! One ENI that we know, against what a believable view shows of it.
//!
//! What a view shows is taken at once. What it does not show is doubted at once, and given up only when a second view, which
//! began late enough after the first and after our own last change, agrees. Leases are never given up here.

use vpc_types::EniId;

use crate::BootTime;
use crate::address::AddressState;
use crate::core::Core;
use crate::eni::{Backing, Eni, EniPhase};
use crate::event::{AttachmentFact, AttachmentState, EniFact, EniRole, Scope};
use crate::mutant::defective;

/// What the first look could not settle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    None,
    /// A second look must agree or disagree.
    LookAgain,
}

impl Core {
    /// A known ENI with a believable view of it.
    pub(crate) fn compare(&mut self, fact: &EniFact, started_at: BootTime, now: BootTime) {
        let eni = self
            .pool
            .enis
            .get_mut(&fact.id)
            .expect("the caller found it in the pool");
        let leaves = fact
            .attachment
            .as_ref()
            .is_none_or(|a| a.state == AttachmentState::Detaching);
        if leaves && matches!(eni.phase, EniPhase::Attached | EniPhase::Ready) {
            self.detached_by_others(&fact.id, started_at, now);
            return;
        }
        eni.missing_since = None;
        eni.backing = Backing::Sure;
        eni.role = fact.role;
        eni.groups.clone_from(&fact.groups);
        if let Some(attachment) = &fact.attachment {
            compare_attachment(eni, attachment);
        }
        if fact.role.has_pods() {
            self.take_in(&fact.id, &fact.allocations, Self::found, now);
        }
        self.doubt_what_is_not_shown(fact, started_at, now);
        if !fact.role.has_pods() {
            self.leave_to_others(&fact.id);
        }
    }

    /// What is no longer shown goes missing, and is forgotten when a second view agrees. A lease on it becomes an orphan.
    fn doubt_what_is_not_shown(&mut self, fact: &EniFact, started_at: BootTime, now: BootTime) {
        let timers = self.config.timers;
        let hold = now.after(timers.hold());
        let eni = self
            .pool
            .enis
            .get_mut(&fact.id)
            .expect("the caller found it in the pool");
        let settled = eni.changed_settled_at(timers.settle);
        let mut doubt = Doubt::None;
        let rests = &mut self.resting_elsewhere;
        eni.blocks.retain(|allocation, block| {
            if fact.allocations.contains(allocation) {
                return true;
            }
            let mut confirmed = true;
            for (address, state) in block.iter_mut() {
                match state {
                    // The first look was too early after a change of ours: this one counts as the first.
                    AddressState::Missing { since } if *since < settled => *since = started_at,
                    AddressState::Missing { .. } | AddressState::Releasing(_) => {}
                    AddressState::Cooling { until, .. } => {
                        rests.insert(*address, *until);
                        *state = AddressState::Missing { since: started_at };
                    }
                    AddressState::Blocked { .. } => {
                        rests.insert(*address, hold);
                        *state = AddressState::Missing { since: started_at };
                    }
                    AddressState::Free { .. } | AddressState::Leased(_) => {
                        *state = AddressState::Missing { since: started_at };
                    }
                }
                confirmed &= matches!(
                    state,
                    AddressState::Missing { since } if started_at >= since.after(timers.confirm_gap)
                );
            }
            if !confirmed {
                doubt = Doubt::LookAgain;
            }
            !confirmed
        });
        if doubt == Doubt::LookAgain {
            self.wish(Scope::Attached).want(now.after(timers.confirm_gap));
        }
    }

    /// An ENI that is no longer ours to fill: its pods keep their addresses, the others leave the pool.
    fn leave_to_others(&mut self, id: &EniId) {
        let eni = self.pool.enis.get_mut(id).expect("the caller found it in the pool");
        let rests = &mut self.resting_elsewhere;
        eni.blocks.retain(|_, block| {
            let has_pod = block.values().any(|state| state.key().is_some());
            if !has_pod {
                rests.extend(
                    block
                        .iter()
                        .filter_map(|(address, state)| Some((*address, state.rests_until()?))),
                );
            }
            has_pod
        });
    }

    /// A known ENI that a believable view of the instance does not show.
    pub(crate) fn not_shown(&mut self, id: &EniId, started_at: BootTime, now: BootTime) {
        let timers = self.config.timers;
        let once = defective!(self, ForgetAfterOneView);
        let eni = self.pool.enis.get_mut(id).expect("the caller found it in the pool");
        match eni.phase {
            EniPhase::Available | EniPhase::Detached => return,
            EniPhase::Retiring | EniPhase::TornDown => {
                self.eni_detached(id, now);
                return;
            }
            EniPhase::Attached | EniPhase::Ready => {}
        }
        let since = doubt_eni(eni, started_at, timers.settle);
        if started_at >= since.after(timers.confirm_gap) || once {
            self.remove_eni(id);
            self.note_eni(id, "forgotten");
            // Somebody may have detached it only: then it is left behind, with our tag.
            self.wish(Scope::OwnAvailable).want(now.after(timers.confirm_gap));
        } else {
            self.wish(Scope::Attached).want(now.after(timers.confirm_gap));
        }
    }

    /// Somebody else takes it off the instance: no more grants; it is forgotten once views show it no more.
    fn detached_by_others(&mut self, id: &EniId, started_at: BootTime, now: BootTime) {
        let timers = self.config.timers;
        let eni = self.pool.enis.get_mut(id).expect("the caller found it in the pool");
        let since = doubt_eni(eni, started_at, timers.settle);
        // Ever rarer: a detach may hang for hours.
        let pause = timers.confirm_gap.max(now.since(since));
        self.wish(Scope::Attached).want(now.after(pause));
    }
}

/// First of the views in a row that did not show it, this one included.
fn doubt_eni(eni: &mut Eni, started_at: BootTime, settle: std::time::Duration) -> BootTime {
    let settled = eni.changed_settled_at(settle);
    let since = eni
        .missing_since
        .filter(|since| *since >= settled)
        .unwrap_or(started_at);
    eni.missing_since = Some(since);
    since
}

fn compare_attachment(eni: &mut Eni, attachment: &AttachmentFact) {
    let moved = (eni.device, eni.card) != (attachment.device, attachment.card);
    eni.attachment = Some(attachment.id.clone());
    eni.device = attachment.device;
    eni.card = attachment.card;
    eni.on_termination = attachment.on_termination;
    match (eni.phase, attachment.state) {
        (EniPhase::Available, AttachmentState::Attached) => eni.phase = EniPhase::Attached,
        (EniPhase::Detached, AttachmentState::Attached) => eni.phase = EniPhase::TornDown,
        // It has another table in this slot.
        (EniPhase::Ready, _) if moved && eni.role != EniRole::Primary => eni.phase = EniPhase::Attached,
        (
            EniPhase::Available
            | EniPhase::Attached
            | EniPhase::Ready
            | EniPhase::Retiring
            | EniPhase::TornDown
            | EniPhase::Detached,
            _,
        ) => {}
    }
}
