//! What happens to the core. Every event comes with the time at which the shell took it from its queue.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use vpc_types::{Allocation, AttachmentId, DeviceNumber, EniId, IpamKey, MacAddress, NetworkCard, PodName, SubnetId};

use crate::{BootTime, Generation, OpId, ReqId, WallTime};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A plugin wants an address.
    AddRequested {
        /// Handle for the reply.
        req: ReqId,
        /// Which interface of which sandbox.
        key: IpamKey,
        /// Absent for runtimes without Kubernetes.
        pod: Option<PodName>,
        /// The reply must be out by then.
        deadline: BootTime,
    },
    /// The plugin hung up. Cancels a request that still waits; a granted one is the DEL's business.
    AddAbandoned {
        /// The request.
        req: ReqId,
    },
    /// A plugin ends a lease.
    DelRequested {
        /// Handle for the reply.
        req: ReqId,
        /// Which interface of which sandbox.
        key: IpamKey,
    },
    /// An operation came back.
    OpDone {
        /// The operation.
        op: OpId,
        /// How it ended.
        outcome: OpOutcome,
    },
    /// Both files hold the state of this generation.
    CheckpointDurable {
        /// Generation that was written.
        generation: Generation,
    },
    /// The files could not be written.
    CheckpointFailed {
        /// Generation that was to be written.
        generation: Generation,
    },
    /// EC2 listed ENIs.
    Ec2Viewed(Ec2View),
    /// EC2 refused to list, or did not answer.
    DescribeFailed {
        /// What was asked.
        scope: Scope,
        /// Why.
        refusal: Refusal,
    },
    /// The kernel was dumped.
    KernelViewed(KernelView),
    /// The dump failed or was interrupted: no view.
    KernelViewFailed,
    /// Routes, rules or links changed in the kernel.
    KernelChanged,
    /// A device with this MAC is there.
    LinkAppeared {
        /// MAC of the device.
        mac: MacAddress,
    },
    /// The device with this MAC is gone.
    LinkGone {
        /// MAC of the device.
        mac: MacAddress,
    },
    /// A moment asked for by `WakeAt` has come.
    Tick,
}

/// Which ENIs a describe covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All ENIs attached to this instance.
    Attached,
    /// ENIs with our instance tag and status available: half-made or half-removed.
    OwnAvailable,
}

/// A list of ENIs as EC2 saw it at some moment after `started_at`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ec2View {
    /// When the call was sent; only what settled before can be expected in it.
    pub started_at: BootTime,
    /// What was asked.
    pub scope: Scope,
    /// The ENIs.
    pub enis: Vec<EniFact>,
}

/// Who may use an ENI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EniRole {
    /// Device 0 on card 0: never detached.
    Primary,
    /// Ours to fill and to remove.
    Managed,
    /// Somebody else's (tag, trunk, EFA): counts towards limits only.
    Unmanaged,
}

/// Whether EC2 deletes the ENI with the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OnTermination {
    /// It goes with the instance.
    Delete,
    /// It would be left behind.
    Keep,
}

/// An attachment as EC2 reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachmentFact {
    /// Id that Detach wants.
    pub id: AttachmentId,
    /// Slot.
    pub device: DeviceNumber,
    /// Card.
    pub card: NetworkCard,
    /// Fate at termination.
    pub on_termination: OnTermination,
    /// Whether a detach is under way.
    pub state: AttachmentState,
}

/// State of an attachment, as far as decisions need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachmentState {
    /// Attaching or attached.
    Attached,
    /// On its way out.
    Detaching,
}

/// One ENI as EC2 reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniFact {
    /// The ENI.
    pub id: EniId,
    /// MAC of its device.
    pub mac: MacAddress,
    /// Subnet of its addresses.
    pub subnet: SubnetId,
    /// The ENI's own address.
    pub primary_address: Ipv4Addr,
    /// Secondary addresses and prefixes.
    pub allocations: BTreeSet<Allocation>,
    /// Who may use it.
    pub role: EniRole,
    /// Absent while available.
    pub attachment: Option<AttachmentFact>,
    /// From the creation tag; absent on ENIs made by others.
    pub created_at: Option<WallTime>,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpOutcome {
    /// It took effect.
    Applied(Applied),
    /// It surely did not take effect.
    Refused(Refusal),
    /// Nobody knows: time-out, connection lost, crash.
    Unknown,
}

/// What an operation brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// Nothing but success.
    Done,
    /// The new ENI, addresses included.
    Created(EniFact),
    /// The new attachment.
    Attached(AttachmentId),
    /// Exactly the new addresses and prefixes.
    Allocated(Vec<Allocation>),
}

/// Why something did not take effect, in classes that call for different behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// EC2's request limit.
    Throttled,
    /// EC2 had a fault, or could not be reached at all.
    Unavailable,
    /// The subnet has no address left.
    SubnetFull,
    /// The subnet has addresses but no aligned block.
    SubnetFragmented,
    /// A limit of the instance, the ENI or the account.
    LimitReached,
    /// The object is not there (any more).
    Gone,
    /// The object is still in use, or already in the wanted state.
    Conflict,
    /// Missing permission.
    Denied,
    /// The device of the ENI is not there yet.
    LinkMissing,
    /// The kernel refused.
    Kernel,
    /// Anything else: repeating it unchanged will not help soon.
    Other,
}

impl Refusal {
    /// Whether the request was turned away unread, so that the refusal tells nothing about an earlier try.
    pub(crate) fn says_nothing(self) -> bool {
        matches!(self, Self::Throttled | Self::Unavailable | Self::Denied)
    }
}

/// One dump of links, routes and rules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KernelView {
    /// When the dump began.
    pub started_at: BootTime,
    /// MACs of all devices.
    pub macs: BTreeSet<MacAddress>,
    /// Host veths: name → link alias (container id), where one is set.
    pub veths: BTreeMap<String, Option<String>>,
    /// Signs of life by address.
    pub signs: BTreeMap<Ipv4Addr, Signs>,
}

/// What the kernel holds for one pod address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signs {
    /// Device of the /32 route in main.
    pub route_device: Option<String>,
    /// Rules to or from the address.
    pub rules: usize,
}
