//! What EC2 says about ENIs and subnets, checked and typed.
//!
//! A status that EC2 may add later is kept as text, so that a new word never makes a view unreadable.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use vpc_types::{
    Allocation, AttachmentId, DeviceNumber, EniId, InstanceId, MacAddress, NetworkCard, Prefix28, SecurityGroupId,
    SubnetId, VpcId,
};

/// One ENI as EC2 described it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniView {
    /// Its id.
    pub id: EniId,
    /// By which its device is found on the node.
    pub mac: MacAddress,
    /// Its subnet.
    pub subnet: SubnetId,
    /// Its VPC.
    pub vpc: VpcId,
    /// Its zone.
    pub az: Option<String>,
    /// Where it stands between creation and deletion.
    pub status: EniStatus,
    /// What it is for.
    pub kind: EniKind,
    /// Free text, empty when there is none.
    pub description: String,
    /// Whether the VPC checks addresses of its packets.
    pub source_dest_check: SourceDestCheck,
    /// Its primary private address; none on IPv6-only and EFA-only ENIs.
    pub primary: Option<Ipv4Addr>,
    /// Secondary private addresses, in EC2's order, without those inside prefixes.
    pub secondaries: Vec<Ipv4Addr>,
    /// Delegated prefixes, in EC2's order.
    pub prefixes: Vec<Prefix28>,
    /// Its security groups.
    pub groups: BTreeSet<SecurityGroupId>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Missing while it is not attached; sometimes also, for a moment, while it is.
    pub attachment: Option<AttachmentView>,
}

impl EniView {
    /// Everything that pods can use: secondary addresses, then prefixes.
    pub fn allocations(&self) -> impl Iterator<Item = Allocation> + '_ {
        let ips = self.secondaries.iter().copied().map(Allocation::Ip);
        ips.chain(self.prefixes.iter().copied().map(Allocation::Prefix))
    }
}

/// The tie between an ENI and an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachmentView {
    /// Its id, which a detachment needs.
    pub id: AttachmentId,
    /// None when a service holds the ENI.
    pub instance: Option<InstanceId>,
    /// Slot on the card.
    pub device: DeviceNumber,
    /// The card; EC2 omits it where there is only one.
    pub card: NetworkCard,
    /// How far it is.
    pub status: AttachmentStatus,
    /// Whether the ENI ends with the instance.
    pub delete_on_termination: DeleteOnTermination,
}

/// Status of an ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EniStatus {
    /// Just created.
    Pending,
    /// Not attached: can be attached or deleted.
    Available,
    /// Held by a service.
    Associated,
    /// On its way to an instance.
    Attaching,
    /// Attached.
    InUse,
    /// On its way from an instance.
    Detaching,
    /// A word this version does not know.
    Other(String),
}

impl EniStatus {
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "pending" => Self::Pending,
            "available" => Self::Available,
            "associated" => Self::Associated,
            "attaching" => Self::Attaching,
            "in-use" => Self::InUse,
            "detaching" => Self::Detaching,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// What an ENI is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EniKind {
    /// An ordinary one.
    Interface,
    /// Ordinary, and able to do EFA.
    Efa,
    /// EFA without IP.
    EfaOnly,
    /// Carries branch ENIs.
    Trunk,
    /// Belongs to one pod, on a trunk.
    Branch,
    /// A service's, or a word this version does not know.
    Other(String),
}

impl EniKind {
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "interface" => Self::Interface,
            "efa" => Self::Efa,
            "efa-only" => Self::EfaOnly,
            "trunk" => Self::Trunk,
            "branch" => Self::Branch,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// Status of an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachmentStatus {
    /// Begun.
    Attaching,
    /// Done.
    Attached,
    /// Ending.
    Detaching,
    /// Ended.
    Detached,
    /// A word this version does not know.
    Other(String),
}

impl AttachmentStatus {
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "attaching" => Self::Attaching,
            "attached" => Self::Attached,
            "detaching" => Self::Detaching,
            "detached" => Self::Detached,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// Whether the VPC drops packets whose addresses are not the ENI's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceDestCheck {
    /// The default.
    On,
    /// The instance routes for others.
    Off,
}

/// What becomes of the ENI when the instance ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteOnTermination {
    /// It ends too.
    Yes,
    /// It stays, `available`: a leak unless somebody deletes it.
    No,
}

/// One subnet as EC2 described it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetView {
    /// Its id.
    pub id: SubnetId,
    /// Its VPC.
    pub vpc: VpcId,
    /// Its zone.
    pub az: String,
    /// Its IPv4 range; none in an IPv6-only subnet.
    pub cidr: Option<Ipv4Net>,
    /// Free addresses, the five reserved ones not counted. A free prefix may still not exist.
    pub available_addresses: u32,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}
