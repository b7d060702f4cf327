//! The way of an ENI: created, attached, set up, ready; retiring, torn down, detached, deleted.
//!
//! Every phase has one next step, which is planned again whenever the last try ended, so a crash anywhere is recovered
//! by the ordinary plan.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use vpc_types::{Allocation, AttachmentId, DeviceNumber, EniId};

use crate::action::{Note, Work};
use crate::address::AddressState;
use crate::backoff::{Backoff, Backoffs, Need};
use crate::config::StartMode;
use crate::core::Core;
use crate::eni::{Eni, EniPhase};
use crate::event::{EniFact, EniRole, Life, OnTermination, Scope};
use crate::mutant::defective;
use crate::{BootTime, Now};

/// Pause between Detach and the first Delete: EC2 refuses to delete while the attachment is on its way out.
const DETACH_PAUSE: std::time::Duration = std::time::Duration::from_secs(2);

/// Doublings of the pause between looks for a missing device: at the default of 30 s the last pause is 32 minutes.
const LOOKS_MAX: u32 = 6;

/// First pause before the table's number of ENIs is tried again after EC2 refused one; it doubles.
const SLOT_PAUSE: std::time::Duration = std::time::Duration::from_secs(3600);

/// Refusals after which the pause grows no more: 16 h.
const SLOT_REFUSALS_MAX: u32 = 5;

impl Core {
    pub(crate) fn plan_lifecycles(&mut self, now: Now) {
        self.review_slots(now.boot);
        let ids: Vec<EniId> = self.pool.enis.keys().cloned().collect();
        for id in ids {
            let eni = self.pool.enis[&id].outline();
            if eni.role.has_pods() && self.due(eni.not_before, now.boot) {
                self.plan_eni(&eni, now.boot);
            }
        }
    }

    fn plan_eni(&mut self, eni: &Eni, now: BootTime) {
        match eni.phase {
            EniPhase::Available => self.plan_attach(eni, now),
            EniPhase::Attached => {
                // First what keeps the ENI from being left behind, should the instance end now.
                self.plan_delete_on_termination(eni, now);
                self.plan_setup(eni, now);
            }
            EniPhase::Ready => {
                self.watch_device(eni, now);
                self.plan_delete_on_termination(eni, now);
            }
            EniPhase::Retiring | EniPhase::TornDown | EniPhase::Detached if self.keeps(eni) => {}
            EniPhase::Retiring if eni.kernel_op.is_none() => {
                let work = Work::TeardownEni {
                    eni: eni.id.clone(),
                    address: eni.primary_address,
                    table: eni.table(),
                };
                self.start(work);
            }
            EniPhase::Retiring => {}
            EniPhase::TornDown => self.plan_detach(eni, now),
            // Others' and those with more uses than pods are not ours to delete.
            EniPhase::Detached if eni.role != EniRole::Managed => {}
            EniPhase::Detached => {
                if self.may_call(eni, now, |backoffs| &backoffs.delete, Need::Refill) {
                    self.start(Work::DeleteEni { eni: eni.id.clone() });
                }
            }
        }
    }

    /// Whether safe mode holds on to it: only what this run made, and never attached, may go.
    fn keeps(&self, eni: &Eni) -> bool {
        let is_ours = eni.known_since > self.started_at && eni.phase == EniPhase::Detached && eni.attachment.is_none();
        self.config.start == StartMode::Safe && !is_ours
    }

    fn plan_attach(&mut self, eni: &Eni, now: BootTime) {
        let attached = self.pool.enis().filter(|other| other.attachment.is_some()).count();
        let limit = self.config.node.max_enis.saturating_sub(self.slots_kept_free());
        // One too many, after a lost file or a late effect of a former run's call; or an instance that ends: it can only go.
        let is_unwanted =
            attached >= usize::from(limit) || (self.condition.life == Life::Leaving && self.waiting.is_empty());
        if eni.ec2_op.is_none() && is_unwanted {
            self.let_go(&eni.id, now);
            return;
        }
        if self.may_call(eni, now, |backoffs| &backoffs.attach, self.need()) {
            self.start(Work::Attach {
                eni: eni.id.clone(),
                device: eni.device,
                card: eni.card,
            });
        }
    }

    /// Whether a call of this kind may go out for the ENI now; if only its time has not come, asks to be woken then.
    fn may_call(&mut self, eni: &Eni, now: BootTime, rule: fn(&Backoffs) -> &Backoff, need: Need) -> bool {
        let at = rule(&self.backoffs).next_try(need);
        self.may_change_ec2() && eni.ec2_op.is_none() && self.due(at, now)
    }

    fn plan_setup(&mut self, eni: &Eni, now: BootTime) {
        if eni.role == EniRole::Primary {
            self.eni_ready(&eni.id);
        } else if !self.links.contains(&eni.mac) {
            self.look_for_device(&eni.id, now);
        } else if eni.kernel_op.is_none() {
            self.start(Work::SetupEni {
                eni: eni.id.clone(),
                mac: eni.mac,
                table: eni.table(),
                address: eni.primary_address,
                subnet: eni.subnet.clone(),
            });
        }
    }

    fn watch_device(&mut self, eni: &Eni, now: BootTime) {
        if eni.role == EniRole::Primary || self.links.contains(&eni.mac) {
            let eni = self
                .pool
                .enis
                .get_mut(&eni.id)
                .expect("the caller found it in the pool");
            (eni.looks, eni.next_look) = (0, None);
        } else if self.last_kernel.is_some() {
            self.look_for_device(&eni.id, now);
        }
    }

    /// An attached ENI without a device: EC2 is slow, or somebody detached it and the view was old. Looks again, ever rarer.
    fn look_for_device(&mut self, id: &EniId, now: BootTime) {
        let gap = self.config.timers.confirm_gap;
        let eni = self.pool.enis.get_mut(id).expect("the caller found it in the pool");
        let at = *eni.next_look.get_or_insert_with(|| now.after(gap));
        if at <= now {
            eni.looks = (eni.looks + 1).min(LOOKS_MAX);
            eni.next_look = Some(now.after(gap * 2u32.pow(eni.looks)));
            self.wish(Scope::Attached).want(now);
            self.kernel.want(now);
        }
        let next = self.pool.enis.get(id).and_then(|eni| eni.next_look);
        next.into_iter().for_each(|at| self.wake_at(at));
    }

    fn plan_delete_on_termination(&mut self, eni: &Eni, now: BootTime) {
        let Some(attachment) = eni.attachment.clone() else {
            return;
        };
        // One that is in doubt is left alone: each try would put off the view that settles the doubt.
        let wanted = eni.on_termination == OnTermination::Keep
            && eni.role == EniRole::Managed
            && eni.missing_since.is_none()
            && !defective!(self, NoDeleteOnTermination);
        // An ENI that outlives its instance blocks its subnet: nothing else waits for this call, and it waits for little.
        if wanted && self.may_call(eni, now, |backoffs| &backoffs.modify, Need::Starving) {
            self.start(Work::DeleteOnTermination {
                eni: eni.id.clone(),
                attachment,
            });
        }
    }

    fn plan_detach(&mut self, eni: &Eni, now: BootTime) {
        let Some(attachment) = eni.attachment.clone() else {
            self.eni_detached(&eni.id, now);
            return;
        };
        if self.may_call(eni, now, |backoffs| &backoffs.detach, Need::Refill) {
            self.start(Work::Detach {
                eni: eni.id.clone(),
                attachment,
            });
        }
    }

    pub(crate) fn eni_created(&mut self, fact: &EniFact, now: BootTime) {
        // A repeated creation may return an ENI that an earlier answer, or a view, already brought.
        if self.pool.enis.contains_key(&fact.id) {
            return;
        }
        let device = self.pool.free_device(&[]);
        let mut eni = Eni::from_fact(fact, device, EniPhase::Available, now);
        eni.role = EniRole::Managed;
        eni.changed_at = now;
        if eni.attachment.is_some() {
            eni.phase = EniPhase::Attached;
        }
        self.insert_eni(eni);
        self.take_in(&fact.id, &fact.allocations, Self::fresh, now);
        self.rehome_leases();
        self.look_at_blocked(now);
        self.note_eni(&fact.id, "created");
    }

    pub(crate) fn eni_attached(&mut self, id: &EniId, attachment: AttachmentId) {
        if let Some(eni) = self.pool.enis.get_mut(id) {
            eni.attachment = Some(attachment);
            eni.phase = EniPhase::Attached;
            (eni.refusals, eni.last_refusal) = (0, None);
            self.note_eni(id, "attached");
        }
    }

    /// The instance has no slot left, whatever the table says: remember that for a while, let the ENI go, and look: somebody
    /// may have attached one that we do not know.
    pub(crate) fn no_slot_for(&mut self, id: &EniId, now: BootTime) {
        self.let_go(id, now);
        self.max_enis = self.pool.enis_on_instance().max(1);
        self.slot_refusals = (self.slot_refusals + 1).min(SLOT_REFUSALS_MAX);
        let pause = SLOT_PAUSE * 2u32.pow(self.slot_refusals - 1);
        self.slots_doubted_until = Some(now.after(self.jitter.around(pause)));
        let at = now.after(self.config.timers.settle);
        self.wish(Scope::Attached).want(at);
    }

    /// What the file of a former run says about the limit.
    pub(crate) fn doubt_slots(&mut self, max_enis: u16, now: BootTime) {
        if max_enis < self.max_enis {
            self.max_enis = max_enis.max(1);
            self.slot_refusals = 1;
            self.slots_doubted_until = Some(now.after(self.jitter.around(SLOT_PAUSE)));
        }
    }

    /// The limit of the table counts again when the doubt has been there for long, or when what EC2 shows explains it.
    pub(crate) fn review_slots(&mut self, now: BootTime) {
        let Some(until) = self.slots_doubted_until else { return };
        let attached = self.pool.enis().filter(|eni| eni.attachment.is_some()).count();
        let explained = attached >= usize::from(self.config.node.max_enis);
        if explained || self.due(until, now) {
            self.max_enis = self.config.node.max_enis;
            self.slots_doubted_until = None;
        }
        if explained {
            self.slot_refusals = 0;
        }
    }

    /// An ENI that is not attached has no place here: it is deleted next.
    pub(crate) fn let_go(&mut self, id: &EniId, now: BootTime) {
        if let Some(eni) = self.pool.enis.get_mut(id) {
            eni.phase = EniPhase::Detached;
            // A lease may have found its address on it; where nothing is attached no pod can use it.
            for (_, state) in eni.addresses_mut().filter(|(_, state)| state.key().is_some()) {
                *state = AddressState::Missing { since: now };
            }
            self.rehome_leases();
            self.outbox.bump();
            self.note_eni(id, "no slot");
        }
    }

    pub(crate) fn eni_will_go_with_instance(&mut self, id: &EniId) {
        if let Some(eni) = self.pool.enis.get_mut(id) {
            eni.on_termination = OnTermination::Delete;
        }
    }

    pub(crate) fn eni_ready(&mut self, id: &EniId) {
        if let Some(eni) = self.pool.enis.get_mut(id).filter(|eni| eni.phase == EniPhase::Attached) {
            eni.phase = EniPhase::Ready;
            (eni.refusals, eni.last_refusal, eni.looks, eni.next_look) = (0, None, 0, None);
            self.outbox.bump();
            self.note_eni(id, "ready");
        }
    }

    /// Takes an ENI out of service for good. Only for ENIs without leases.
    pub(crate) fn retire(&mut self, id: &EniId) {
        let eni = self.pool.enis.get_mut(id).expect("the caller found it in the pool");
        assert!(
            eni.leased() == 0 && eni.role == EniRole::Managed,
            "only an empty ENI of ours retires: {id}"
        );
        eni.phase = EniPhase::Retiring;
        self.outbox.bump();
        self.note_eni(id, "retiring");
    }

    pub(crate) fn eni_torn_down(&mut self, id: &EniId) {
        if let Some(eni) = self.pool.enis.get_mut(id) {
            eni.phase = EniPhase::TornDown;
            self.outbox.bump();
        }
    }

    pub(crate) fn eni_detached(&mut self, id: &EniId, now: BootTime) {
        if let Some(eni) = self.pool.enis.get_mut(id) {
            eni.attachment = None;
            eni.phase = EniPhase::Detached;
            eni.not_before = now.after(DETACH_PAUSE);
            self.outbox.bump();
            self.note_eni(id, "detached");
        }
    }

    pub(crate) fn eni_deleted(&mut self, id: &EniId, now: BootTime) {
        if self.remove_eni(id) {
            self.deleted.insert(id.clone(), now);
            self.rehome_leases();
            self.outbox.bump();
            self.note_eni(id, "deleted");
        }
    }

    /// Puts an ENI into the pool. An operation on it may be open from before it was known.
    pub(crate) fn insert_eni(&mut self, mut eni: Eni) {
        let concerns = |work: &Work| work.is_ec2() && work.eni() == Some(&eni.id);
        let open = self.ops.iter().find(|(_, record)| concerns(&record.work));
        eni.ec2_op = open.map(|(op, _)| *op);
        self.pool.enis.insert(eni.id.clone(), eni);
    }

    /// Takes an ENI out of the pool; its addresses go on resting, should EC2 give them to us again. Whether it was there.
    pub(crate) fn remove_eni(&mut self, id: &EniId) -> bool {
        let Some(eni) = self.pool.enis.remove(id) else {
            return false;
        };
        let rests = eni
            .addresses()
            .filter_map(|(address, state)| Some((address, state.rests_until()?)));
        self.resting_elsewhere.extend(rests);
        true
    }

    pub(crate) fn addresses_allocated(&mut self, id: &EniId, allocations: &[Allocation], now: BootTime) {
        self.take_in(id, allocations, Self::fresh, now);
        if let Some(eni) = self.pool.enis.get_mut(id).filter(|_| !allocations.is_empty()) {
            (eni.refusals, eni.last_refusal) = (0, None);
        }
        self.rehome_leases();
        self.look_at_blocked(now);
    }

    pub(crate) fn addresses_released(&mut self, id: &EniId, allocations: &BTreeSet<Allocation>) {
        if let Some(eni) = self.pool.enis.get_mut(id) {
            eni.blocks.retain(|allocation, _| !allocations.contains(allocation));
        }
        self.rehome_leases();
    }

    /// A release did not happen: the addresses are in this state again.
    pub(crate) fn addresses_kept(&mut self, id: &EniId, allocations: &BTreeSet<Allocation>, kept: &AddressState) {
        if let Some(eni) = self.pool.enis.get_mut(id) {
            let releasing = |state: &&mut AddressState| matches!(state, AddressState::Releasing(_));
            let blocks = eni
                .blocks
                .iter_mut()
                .filter(|(allocation, _)| allocations.contains(allocation));
            let states = blocks.flat_map(|(_, block)| block.values_mut());
            states.filter(releasing).for_each(|state| *state = kept.clone());
        }
    }

    /// State of an address that EC2 gave us this moment. It may have had a pod on another ENI of this node a moment ago.
    pub(crate) fn fresh(&self, address: Ipv4Addr, now: BootTime) -> AddressState {
        let last = self.last_kernel.as_ref();
        if last.is_some_and(|view| view.signs.contains_key(&address)) {
            return AddressState::Blocked { since: now };
        }
        match self.resting_elsewhere.get(&address) {
            Some(until) => AddressState::Cooling {
                since: now,
                until: *until,
            },
            None => AddressState::Free { since: now },
        }
    }

    /// Life that an earlier dump showed on addresses that are new to the pool: the next dump explains it, or has it removed.
    pub(crate) fn look_at_blocked(&mut self, now: BootTime) {
        let is_new = |state: &AddressState| matches!(state, AddressState::Blocked { since } if *since == now);
        if self
            .pool
            .enis()
            .flat_map(Eni::addresses)
            .any(|(_, state)| is_new(state))
        {
            self.kernel.want(now);
        }
    }

    pub(crate) fn note_eni(&mut self, id: &EniId, phase: &'static str) {
        self.outbox.note(Note::Eni { eni: id.clone(), phase });
    }

    /// Slot for an ENI that a view found available and that nobody planned.
    pub(crate) fn spare_device(&self) -> DeviceNumber {
        self.pool.free_device(&[])
    }
}
