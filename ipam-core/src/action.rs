//! What the core wants done. The shell runs each action as soon as it gets it: the core holds back whatever must not
//! run before the state behind it is durable.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use vpc_types::{
    Allocation, AttachmentId, DeviceNumber, EniId, IpamKey, MacAddress, NetworkCard, RouteTableId, SecurityGroupId,
    SubnetId,
};

use crate::event::{Refusal, Scope};
use crate::{BootTime, Cause, Generation, LeaseState, OpId, ReqId, WallTime};

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write `Core::checkpoint()` as it is at this moment, then report `CheckpointDurable` or `CheckpointFailed`.
    Persist {
        /// Generation of that state.
        generation: Generation,
    },
    /// Answer a request.
    Reply {
        /// The request.
        req: ReqId,
        /// The answer.
        outcome: Outcome,
    },
    /// List ENIs or subnets at EC2, then report `Ec2Viewed` or `SubnetsViewed`, or `DescribeFailed`.
    Describe {
        /// Which.
        scope: Scope,
    },
    /// Dump links, routes and rules, then report `KernelViewed` or `KernelViewFailed`.
    ViewKernel,
    /// Send `Tick` at this time; a later `WakeAt` replaces an earlier one.
    WakeAt {
        /// When.
        at: BootTime,
    },
    /// Run an operation and report `OpDone`.
    Run {
        /// Its number.
        op: OpId,
        /// What to do.
        work: Work,
    },
    /// Something worth a log line or a metric.
    Note(Note),
}

/// How much to ask EC2 for, in one kind. Zero is possible where an ENI is made without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// So many secondary addresses.
    Addresses(u16),
    /// So many /28 prefixes.
    Prefixes(u16),
}

impl Want {
    /// Slots that it takes on the ENI.
    pub fn slots(self) -> u16 {
        match self {
            Self::Addresses(count) | Self::Prefixes(count) => count,
        }
    }

    /// Addresses that it brings.
    pub fn addresses(self) -> u32 {
        match self {
            Self::Addresses(count) => u32::from(count),
            Self::Prefixes(count) => u32::from(count) * 16,
        }
    }
}

/// One operation: a call to EC2, or a change in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Create an ENI that brings its addresses along.
    CreateEni {
        /// Makes a repetition return the first result.
        token: String,
        /// Where.
        subnet: SubnetId,
        /// Its security groups.
        groups: BTreeSet<SecurityGroupId>,
        /// What to create it with.
        want: Want,
        /// When it was first asked for: a tag, and part of what must be equal in a repetition.
        requested_at: WallTime,
    },
    /// Attach an ENI to this instance.
    Attach {
        /// The ENI.
        eni: EniId,
        /// Slot.
        device: DeviceNumber,
        /// Card.
        card: NetworkCard,
    },
    /// Have EC2 delete the ENI with the instance.
    DeleteOnTermination {
        /// The ENI.
        eni: EniId,
        /// Its attachment.
        attachment: AttachmentId,
    },
    /// Add addresses or prefixes to an ENI.
    AllocateAddresses {
        /// The ENI.
        eni: EniId,
        /// How much; all or nothing.
        want: Want,
    },
    /// Replace the security groups of an ENI.
    SetGroups {
        /// The ENI.
        eni: EniId,
        /// The new ones.
        groups: BTreeSet<SecurityGroupId>,
    },
    /// Give addresses or prefixes, of one kind, back to the subnet.
    ReleaseAddresses {
        /// The ENI.
        eni: EniId,
        /// Which.
        allocations: BTreeSet<Allocation>,
    },
    /// Detach an ENI.
    Detach {
        /// The ENI.
        eni: EniId,
        /// Its attachment.
        attachment: AttachmentId,
    },
    /// Delete a detached ENI.
    DeleteEni {
        /// The ENI.
        eni: EniId,
    },
    /// Address, table and rule of a secondary ENI's device.
    SetupEni {
        /// The ENI.
        eni: EniId,
        /// MAC of its device.
        mac: MacAddress,
        /// Table for its routes.
        table: RouteTableId,
        /// The ENI's own address.
        address: Ipv4Addr,
        /// Subnet, for the mask and the gateway.
        subnet: SubnetId,
    },
    /// Remove rules of an ENI that is about to go.
    TeardownEni {
        /// The ENI.
        eni: EniId,
        /// The ENI's own address.
        address: Ipv4Addr,
        /// Its table.
        table: RouteTableId,
    },
    /// Remove rules and route of a pod that is gone, unless the address shows another owner.
    ClearPodState {
        /// The pod's address.
        address: Ipv4Addr,
        /// Whose it was; absent for leftovers that no lease explains.
        owner: Option<Owner>,
    },
}

/// Whose kernel state may be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Matched against the host veth's alias.
    pub container_id: String,
    /// For veths without alias, made by earlier software.
    pub host_veth: String,
}

/// Where a pod's address lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The pod's address.
    pub address: Ipv4Addr,
    /// Slot of its ENI.
    pub device: DeviceNumber,
    /// Table with that ENI's routes.
    pub table: RouteTableId,
}

/// Answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// ADD: the address.
    Granted(Grant),
    /// ADD: none, and why.
    Refused(Cause),
    /// DEL: done; what was released.
    Deleted(Grant),
    /// DEL: no such lease.
    UnknownPod,
    /// DEL: rules and route could not be removed; the runtime will ask again.
    NotCleared {
        /// Whose.
        address: Ipv4Addr,
    },
}

/// A state change that logs and metrics report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A lease changed state.
    Lease {
        /// Whose.
        key: IpamKey,
        /// Which address.
        address: Ipv4Addr,
        /// The new state; `None` when it ended.
        state: Option<LeaseState>,
        /// Why, for the log.
        why: &'static str,
    },
    /// An ADD was refused.
    Refused {
        /// Whose.
        key: IpamKey,
        /// Why.
        cause: Cause,
    },
    /// An operation was refused.
    OpRefused {
        /// Its number.
        op: OpId,
        /// Its kind, as in `Work`.
        kind: &'static str,
        /// Why.
        refusal: Refusal,
    },
    /// Nobody knows whether an operation took effect; a view or a repetition will tell.
    OpUnknown {
        /// Its number.
        op: OpId,
        /// Its kind, as in `Work`.
        kind: &'static str,
    },
    /// An ENI became usable, or left.
    Eni {
        /// Which.
        eni: EniId,
        /// Its new phase, in a word.
        phase: &'static str,
    },
    /// An address shows life that no lease explains.
    UnexplainedLife {
        /// Which.
        address: Ipv4Addr,
    },
    /// The files cannot be written.
    CheckpointFailing,
    /// A dump has lost most sandboxes at once: no lease ends for it unless further ones agree for minutes.
    MassDisappearance {
        /// Sandboxes that are not in it.
        gone: usize,
        /// Of how many.
        leases: usize,
    },
    /// This run serves, and gives nothing back.
    SafeMode,
    /// IMDS and our books differ: EC2 is asked.
    ImdsDiffers,
}
