//! A lease: one address held by one interface of one sandbox.

use std::net::Ipv4Addr;

use vpc_types::{DeviceNumber, IpamKey, PodName, RouteTableId};

use crate::action::Grant;
use crate::{BootTime, Generation, ReqId, WallTime};

/// Life of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeaseState {
    /// Promised; the plugin is wiring, or did.
    Granted,
    /// The kernel shows the pod.
    Wired,
    /// The pod is going: rules and route are being removed.
    Draining,
    /// The address or its ENI is not in EC2's view. Held, reported, adopted again when it comes back.
    Orphan,
}

impl LeaseState {
    /// A word for logs and the checkpoint.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Wired => "wired",
            Self::Draining => "draining",
            Self::Orphan => "orphan",
        }
    }

    /// Inverse of `as_str`.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Granted, Self::Wired, Self::Draining, Self::Orphan]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// One lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Whose.
    pub key: IpamKey,
    /// Absent for runtimes without Kubernetes.
    pub pod: Option<PodName>,
    /// Which address.
    pub address: Ipv4Addr,
    /// Slot of its ENI, if known.
    pub device: DeviceNumber,
    /// Table of its ENI.
    pub table: RouteTableId,
    /// State.
    pub state: LeaseState,
    /// When it was granted, or restored.
    pub since: BootTime,
    /// When it was granted, for the file.
    pub granted_at: WallTime,
    /// Interfaces of the pod; another daemon may have wired more than one.
    pub(crate) interfaces: u8,
    /// First of the kernel views in a row that showed no sandbox.
    pub gone_since: Option<BootTime>,
    /// Generation of the state that first held it; the reply waits for that.
    pub(crate) generation: Generation,
    /// DEL requests that wait for the end.
    pub(crate) del_waiters: Vec<ReqId>,
}

impl Lease {
    /// What the plugin needs to know.
    pub fn grant(&self) -> Grant {
        Grant {
            address: self.address,
            device: self.device,
            table: self.table,
        }
    }
}
