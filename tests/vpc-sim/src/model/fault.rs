//! Faults to inject: per action a queue of things that go wrong with its next calls, and what IMDS gets wrong.
//!
//! Faults are consumed in order, one per call, before throttling and before the call has any effect.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use vpc_types::{EniId, InstanceId};

use super::{Action, Ec2Error};

/// Whether a call whose answer is lost has had its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// EC2 did it; only the answer is lost.
    Applied,
    /// EC2 never saw the request.
    NotApplied,
}

/// What goes wrong with one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Refused with this error.
    Refuse(Ec2Error),
    /// The caller never hears of it.
    LoseAnswer(Effect),
    /// Works, but answers later than its latency.
    Delay(Duration),
}

/// What IMDS does wrong, apart from its ordinary lag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImdsFault {
    /// Does not answer this instance.
    Gone(InstanceId),
    /// Refuses version-2 tokens and reads with 403 for this instance.
    Disabled(InstanceId),
    /// Lists the ENI's MAC but has no `interface-id` and `device-number` for it.
    HalfEntry(EniId),
    /// Lists the ENI without its secondary addresses and prefixes.
    NoSecondaries(EniId),
    /// Does not see the next change of this ENI until another change of it.
    StaleForever(EniId),
}

/// The faults waiting to happen.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    queues: BTreeMap<Action, VecDeque<Fault>>,
    pub(super) gone: BTreeSet<InstanceId>,
    pub(super) disabled: BTreeSet<InstanceId>,
    pub(super) half_entries: BTreeSet<EniId>,
    pub(super) no_secondaries: BTreeSet<EniId>,
}

impl Faults {
    /// The next `calls` calls of `action` get this fault, after the ones already waiting.
    pub fn inject(&mut self, action: Action, fault: &Fault, calls: usize) {
        self.queues
            .entry(action)
            .or_default()
            .extend(std::iter::repeat_n(fault, calls).cloned());
    }

    /// Forgets everything that has not happened yet.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Faults still waiting for calls of `action`.
    pub fn waiting(&self, action: Action) -> usize {
        self.queues.get(&action).map_or(0, VecDeque::len)
    }

    pub(super) fn take(&mut self, action: Action) -> Option<Fault> {
        self.queues.get_mut(&action)?.pop_front()
    }
}
