//! What the data plane has to follow: devices that come and go, addresses that move.
//!
//! A change is reported only for ENIs whose device is on an instance; [`Change::Attached`] carries all the ENI holds
//! at that moment, so a driver that applies the changes in order has the whole truth.

use std::net::Ipv6Addr;
use std::sync::Arc;

use ipnet::Ipv6Net;
use vpc_types::{Allocation, DeviceNumber, EniId, InstanceId, NetworkCard};

use super::record::{Eni, SourceDestCheck};

/// An IPv6 address or /80 prefix of an ENI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ipv6Allocation {
    /// One address.
    Ip(Ipv6Addr),
    /// A delegated /80.
    Prefix(Ipv6Net),
}

/// One change of the data plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The device with the ENI's MAC appears on the instance.
    Attached {
        /// The ENI with everything it holds.
        eni: Arc<Eni>,
        /// Where.
        instance: InstanceId,
        /// Slot.
        device: DeviceNumber,
        /// Card.
        card: NetworkCard,
    },
    /// The device disappears.
    Detached {
        /// The ENI.
        eni: EniId,
        /// Where it was.
        instance: InstanceId,
    },
    /// The ENI got an address or prefix.
    Assigned {
        /// The ENI.
        eni: EniId,
        /// What it got.
        allocation: Allocation,
    },
    /// The ENI lost an address or prefix.
    Unassigned {
        /// The ENI.
        eni: EniId,
        /// What it lost.
        allocation: Allocation,
    },
    /// The same for IPv6.
    Ipv6Assigned {
        /// The ENI.
        eni: EniId,
        /// What it got.
        allocation: Ipv6Allocation,
    },
    /// The same for IPv6.
    Ipv6Unassigned {
        /// The ENI.
        eni: EniId,
        /// What it lost.
        allocation: Ipv6Allocation,
    },
    /// The check was switched.
    SourceDestCheck {
        /// The ENI.
        eni: EniId,
        /// The new setting.
        check: SourceDestCheck,
    },
    /// The instance was terminated; its devices were reported gone before.
    Terminated {
        /// The instance.
        instance: InstanceId,
    },
}
