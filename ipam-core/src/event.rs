//! What happens to the core. Every event comes with the time at which the shell took it from its queue.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use vpc_types::{
    Allocation, AttachmentId, DeviceNumber, EniId, InstanceId, IpamKey, MacAddress, NetworkCard, PodName,
    SecurityGroupId, SubnetId,
};

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
    /// EC2 listed the subnets of the zone.
    SubnetsViewed(SubnetsView),
    /// IMDS was read: a hint, never a proof.
    ImdsViewed(ImdsView),
    /// Cordon, or the end of the instance is near.
    NodeConditionChanged(NodeCondition),
    /// Somebody else says where new ENIs go.
    PlacementChanged(Placement),
    /// Pods bound to this node that have no address yet and whose ADD has not come.
    Demand {
        /// How many.
        pods: u32,
    },
    /// A moment asked for by `WakeAt` has come.
    Tick,
}

/// What a describe covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All ENIs attached to this instance.
    Attached,
    /// ENIs with our instance tag and status available: half-made or half-removed.
    OwnAvailable,
    /// ENIs with any instance tag, of this cluster, with status available: left behind by nodes that are gone.
    Leaked,
    /// The subnets of this zone; answered by `SubnetsViewed`.
    Subnets,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Attached, Self::OwnAvailable, Self::Leaked, Self::Subnets];
}

/// Who was asked for a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ViewSource {
    /// EC2's API.
    Ec2,
    /// IMDS, where EC2 may not be asked.
    Imds,
}

/// One subnet as EC2 reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetFact {
    /// Its id.
    pub id: SubnetId,
    /// Addresses that nobody has. A free prefix may still not exist.
    pub free: u32,
    /// Addresses that it could give in all: those of its range less the five that EC2 keeps.
    pub size: u32,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// The subnets of this zone as EC2 saw them at some moment after `started_at`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetsView {
    /// When the call was sent.
    pub started_at: BootTime,
    /// The subnets.
    pub subnets: Vec<SubnetFact>,
}

/// One ENI as IMDS shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImdsEni {
    /// MAC of its device.
    pub mac: MacAddress,
    /// Secondary addresses and prefixes.
    pub allocations: BTreeSet<Allocation>,
}

/// What IMDS shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImdsView {
    /// When it was first asked.
    pub started_at: BootTime,
    /// Security groups of the primary ENI.
    pub groups: BTreeSet<SecurityGroupId>,
    /// The ENIs.
    pub enis: Vec<ImdsEni>,
}

/// Whether new pods may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Scheduling {
    /// Yes.
    #[default]
    Open,
    /// No: nothing is grown for targets and no ENI is given back, since the instance may end at any moment.
    Cordoned,
}

/// Whether the instance stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Life {
    /// As far as is known.
    #[default]
    Staying,
    /// It ends within minutes.
    Leaving,
}

/// What the surroundings say about the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct NodeCondition {
    /// Whether new pods may come.
    pub scheduling: Scheduling,
    /// Whether the instance stays.
    pub life: Life,
}

/// Where pods' addresses come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Placement {
    /// The primary ENI, and further ones in subnets of our choice.
    #[default]
    Discovered,
    /// Custom networking: only ENIs in this subnet with these groups; the primary ENI has no pods.
    Given {
        /// Where.
        subnet: SubnetId,
        /// With which groups; empty: those of the primary ENI.
        groups: BTreeSet<SecurityGroupId>,
    },
    /// Custom networking, and its configuration is missing: no new ENI.
    Missing,
}

/// A list of ENIs as EC2 saw it at some moment after `started_at`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ec2View {
    /// When the call was sent; only what settled before can be expected in it.
    pub started_at: BootTime,
    /// What was asked.
    pub scope: Scope,
    /// Who was asked.
    pub source: ViewSource,
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
    /// Ours to fill, never to remove: applications use it for more than IP.
    Efa,
    /// Carries branch ENIs: no addresses of its own, never removed.
    Trunk,
    /// Somebody else's: counts towards limits only.
    Unmanaged,
}

impl EniRole {
    const ALL: [Self; 5] = [Self::Primary, Self::Managed, Self::Efa, Self::Trunk, Self::Unmanaged];

    /// A word for people, other programs and the checkpoint.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Managed => "managed",
            Self::Efa => "efa",
            Self::Trunk => "trunk",
            Self::Unmanaged => "unmanaged",
        }
    }

    /// Inverse of `as_str`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// Whether pods may get addresses on it.
    pub fn has_pods(self) -> bool {
        matches!(self, Self::Primary | Self::Managed | Self::Efa)
    }
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
    /// Its security groups.
    pub groups: BTreeSet<SecurityGroupId>,
    /// Absent while available.
    pub attachment: Option<AttachmentFact>,
    /// From the creation tag; absent on ENIs made by others.
    pub created_at: Option<WallTime>,
    /// From the instance tag: whose daemon made it, or fills it.
    pub owner: Option<InstanceId>,
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
    const ALL: [Self; 11] = [
        Self::Throttled,
        Self::Unavailable,
        Self::SubnetFull,
        Self::SubnetFragmented,
        Self::LimitReached,
        Self::Gone,
        Self::Conflict,
        Self::Denied,
        Self::LinkMissing,
        Self::Kernel,
        Self::Other,
    ];

    /// A word for the checkpoint and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::SubnetFull => "subnet-full",
            Self::SubnetFragmented => "subnet-fragmented",
            Self::LimitReached => "limit-reached",
            Self::Gone => "gone",
            Self::Conflict => "conflict",
            Self::Denied => "denied",
            Self::LinkMissing => "link-missing",
            Self::Kernel => "kernel",
            Self::Other => "other",
        }
    }

    /// Inverse of `as_str`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.as_str() == text)
    }

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
