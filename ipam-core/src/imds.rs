//! What IMDS shows: a hint that makes us look at EC2, never a proof. Nothing is taken from it and nothing given up for it.
//!
//! A hint costs a call, so two in a row must differ from our books, and an IMDS that EC2 contradicts is believed ever more
//! rarely.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use vpc_types::{Allocation, MacAddress};

use crate::BootTime;
use crate::action::Note;
use crate::address::AddressState;
use crate::core::Core;
use crate::eni::Eni;
use crate::event::{ImdsView, Scope};
use crate::imds_only::Reads;
#[cfg(feature = "mutants")]
use crate::mutant::defective;

/// Views in a row that must differ.
const AGREEING: u32 = 2;
/// Pause after a look at EC2 that IMDS led to; doubles while EC2 contradicts it.
const PAUSE: Duration = Duration::from_secs(300);
const PAUSE_MAX: Duration = Duration::from_secs(3_600);
/// The same when IMDS goes on saying what EC2 has just contradicted.
const PAUSE_OF_REPETITION: Duration = Duration::from_secs(86_400);

/// Secondary addresses and prefixes by MAC.
type Books = BTreeMap<MacAddress, BTreeSet<Allocation>>;

/// What IMDS said against what we believe.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Hints {
    /// Views in a row that differed.
    differing: u32,
    /// EC2 is not asked again for IMDS's sake before.
    not_before: BootTime,
    pause: Duration,
    agrees_since: Option<BootTime>,
    /// What IMDS said and what we believed when EC2 was last asked for its sake.
    asked: Option<(Books, Books)>,
    /// Where IMDS is the only view.
    pub(crate) reads: Reads,
}

/// How a view of IMDS relates to our books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Agrees,
    Differs,
}

impl Core {
    pub(crate) fn imds_viewed(&mut self, view: ImdsView, now: BootTime) {
        #[cfg(feature = "mutants")]
        if defective!(self, TrustImds) {
            self.drop_what_is_not_shown(&view);
        }
        self.imds_groups(view.groups, now);
        let primary = self.config.node.primary_mac;
        if !view.enis.iter().any(|eni| eni.mac == primary) {
            // A view without the primary ENI is no view.
            return;
        }
        let said: Books = view.enis.into_iter().map(|eni| (eni.mac, eni.allocations)).collect();
        match self.judge_imds(&said, now) {
            Verdict::Agrees => self.imds_agrees(now),
            Verdict::Differs => self.imds_differs(said, now),
        }
    }

    /// ENIs that something was done to lately have no say.
    fn judge_imds(&self, said: &Books, now: BootTime) -> Verdict {
        let rests = |at: BootTime| at == BootTime::default() || now >= at.after(self.config.timers.imds_lag);
        let is_quiet = |eni: &Eni| eni.ec2_op.is_none() && rests(eni.changed_at) && eni.attachment.is_some();
        let differs = |eni: &Eni| match said.get(&eni.mac) {
            None => eni.missing_since.is_none(),
            Some(said) if eni.role.has_pods() => !fits(eni, said),
            Some(_) => false,
        };
        let known = |mac: &MacAddress| self.pool.enis().any(|eni| eni.mac == *mac);
        let lately = self.deleted.values().any(|at| !rests(*at)) || self.ops.values().any(|op| op.work.is_ec2());
        let stranger = !lately && said.keys().any(|mac| !known(mac));
        if stranger || self.pool.enis().any(|eni| is_quiet(eni) && differs(eni)) {
            Verdict::Differs
        } else {
            Verdict::Agrees
        }
    }

    fn imds_agrees(&mut self, now: BootTime) {
        let believed = self.believed();
        let hints = &mut self.hints;
        hints.differing = 0;
        let since = *hints.agrees_since.get_or_insert(now);
        // Either EC2 taught us what IMDS had said, or IMDS has come round and kept to it for long enough.
        let was_right = hints.asked.as_ref().is_some_and(|(_, then)| *then != believed);
        if was_right || now.since(since) >= hints.pause {
            (hints.pause, hints.not_before, hints.asked) = (Duration::ZERO, now, None);
        }
    }

    fn imds_differs(&mut self, said: Books, now: BootTime) {
        self.hints.differing += 1;
        self.hints.agrees_since = None;
        let ripe = self.hints.differing >= AGREEING && now >= self.hints.not_before;
        if !ripe || self.wish(Scope::Attached).is_open() {
            return;
        }
        let believed = self.believed();
        let asked = Some((said, believed));
        let hints = &mut self.hints;
        hints.pause = if hints.asked == asked {
            PAUSE_OF_REPETITION
        } else {
            (hints.pause * 2).clamp(PAUSE, PAUSE_MAX)
        };
        (hints.not_before, hints.differing, hints.asked) = (now.after(hints.pause), 0, asked);
        self.outbox.note(Note::ImdsDiffers);
        self.wish(Scope::Attached).want(now);
    }

    /// Our books, as far as nothing in them is in doubt.
    fn believed(&self) -> Books {
        let of_eni = |eni: &Eni| (eni.mac, sure(eni).collect());
        let present = self.pool.enis().filter(|eni| eni.missing_since.is_none());
        present.map(of_eni).collect()
    }

    #[cfg(feature = "mutants")]
    fn drop_what_is_not_shown(&mut self, view: &ImdsView) {
        let shown = |address| {
            let mut all = view.enis.iter().flat_map(|eni| &eni.allocations);
            all.any(|one| one.addresses().any(|other| other == address))
        };
        self.pool.leases.retain(|_, lease| shown(lease.address));
        for eni in self.pool.enis.values_mut() {
            eni.blocks.retain(|allocation, _| allocation.addresses().all(shown));
        }
    }
}

/// Allocations that no view has put in doubt.
fn sure(eni: &Eni) -> impl Iterator<Item = Allocation> {
    let doubted = |state: &AddressState| matches!(state, AddressState::Missing { .. });
    let sure = eni.blocks.iter().filter(move |(_, block)| !block.values().any(doubted));
    sure.map(|(allocation, _)| *allocation)
}

/// Whether what IMDS says of an ENI is what we believe; what is in doubt may be there or not.
fn fits(eni: &Eni, said: &BTreeSet<Allocation>) -> bool {
    sure(eni).all(|allocation| said.contains(&allocation)) && said.iter().all(|one| eni.blocks.contains_key(one))
}
