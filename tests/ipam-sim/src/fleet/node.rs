//! One node: what manages its addresses, its kernel, its pods.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use ipam_core::Core;
use vpc_types::{InstanceId, MacAddress, SubnetId};

use super::kernel::Kernel;
use super::plan::Knowledge;
use super::queue::{NodeId, PodId};
use super::reference::Manager;

/// What manages the addresses of a node.
#[derive(Debug)]
pub(crate) enum Agent {
    /// Before its start.
    Asleep,
    Ours(Box<Ours>),
    Reference(Box<Manager>),
}

/// The core with its alarm.
#[derive(Debug)]
pub(crate) struct Ours {
    pub(crate) core: Core,
    pub(crate) alarm: Option<Duration>,
    pub(crate) knowledge: Knowledge,
    /// Bound pods that the core was last told of.
    pub(crate) told: u32,
}

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) instance: InstanceId,
    pub(crate) subnet: SubnetId,
    pub(crate) primary_mac: MacAddress,
    pub(crate) agent: Agent,
    pub(crate) kernel: Kernel,
    /// Pods that have not ended, those without address included.
    pub(crate) pods: BTreeSet<PodId>,
    /// Pods whose ADD failed and is repeated, with the moment that counts the repetitions.
    pub(crate) retrying: BTreeMap<PodId, Duration>,
    /// Pods without address whose ADD is not under way.
    pub(crate) bound: u32,
}

/// How far a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PodState {
    Bound,
    Asking,
    Running(Ipv4Addr),
    Ending,
    Ended,
}

/// A pod.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) node: NodeId,
    pub(crate) state: PodState,
    pub(crate) life: Option<Duration>,
    pub(crate) first_add: Option<Duration>,
    pub(crate) served_at: Option<Duration>,
    /// Sandboxes made so far.
    pub(crate) attempt: u32,
    /// The pod shall go, but its ADD is still under way.
    pub(crate) unwanted: bool,
}

impl Node {
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.pods.len()).expect("a node has at most hundreds of pods")
    }
}
