//! Subnets: which may hold new ENIs, in which order, and what may be asked of each right now.
//!
//! Owns what refusals for lack of addresses taught, per subnet. Growth asks here before it asks EC2.

use vpc_types::SubnetId;

use crate::BootTime;
use crate::action::{Want, Work};
use crate::backoff::Need;
use crate::config::AllocationMode;
use crate::core::Core;
use crate::event::{Placement, Refusal, Scope, SubnetsView};

/// What is known of the subnets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Subnets {
    /// Largest number to ask for after a subnet refused more; lifted by a success.
    ask_at_most: Option<u16>,
}

/// What may be asked of a subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Prefixes, or single addresses where it has none.
    pub(crate) kind: AllocationMode,
    /// Slots in one request; `None`: as many as are wanted.
    pub(crate) at_most: Option<u16>,
    /// Not earlier than this.
    pub(crate) not_before: BootTime,
}

impl Ask {
    /// Whether answers have shown that there is little left, so that one question at a time is asked.
    pub(crate) fn is_scarce(self) -> bool {
        self.at_most.is_some()
    }
}

impl Core {
    /// What may be asked of `subnet` for those who need it.
    pub(crate) fn ask_of(&self, _subnet: &SubnetId, _need: Need) -> Ask {
        Ask {
            kind: self.config.mode,
            at_most: self.subnets.ask_at_most,
            not_before: BootTime::default(),
        }
    }

    /// Subnets for a new ENI, best first.
    pub(crate) fn subnets_for_new_eni(&self, _need: Need) -> Vec<SubnetId> {
        match &self.placement {
            Placement::Discovered => vec![self.config.node.subnet.clone()],
            Placement::Given { subnet, .. } => vec![subnet.clone()],
            Placement::Missing => Vec::new(),
        }
    }

    pub(crate) fn subnets_viewed(&mut self, _view: SubnetsView) {
        self.wish(Scope::Subnets).in_flight = false;
        self.backoffs.describe.succeeded();
    }

    /// A subnet gave what was asked.
    pub(crate) fn subnet_served(&mut self) {
        self.subnets.ask_at_most = None;
        self.backoffs.allocate.subnet_has_addresses();
        self.backoffs.create.subnet_has_addresses();
    }

    /// A full subnet stops growth of both kinds for a while; the next try asks for less, it may be had.
    pub(crate) fn subnet_refused(&mut self, work: &Work, refusal: Refusal, now: BootTime) {
        let timers = &self.config.timers;
        for backoff in [&mut self.backoffs.allocate, &mut self.backoffs.create] {
            backoff.subnet_full(refusal, now, timers, &mut self.jitter);
        }
        if let Some(want) = work.want() {
            self.subnets.ask_at_most = Some((want.slots() / 2).max(1));
        }
    }
}

impl Work {
    /// What it asks of a subnet.
    pub(crate) fn want(&self) -> Option<Want> {
        match self {
            Self::CreateEni { want, .. } | Self::AllocateAddresses { want, .. } => Some(*want),
            Self::Attach { .. }
            | Self::DeleteOnTermination { .. }
            | Self::SetGroups { .. }
            | Self::ReleaseAddresses { .. }
            | Self::Detach { .. }
            | Self::DeleteEni { .. }
            | Self::SetupEni { .. }
            | Self::TeardownEni { .. }
            | Self::ClearPodState { .. } => None,
        }
    }
}
