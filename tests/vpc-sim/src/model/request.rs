//! Typed requests, one struct per action. Ids are already well-formed here: a malformed id is the wire decoder's business.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;
use vpc_types::{
    AttachmentId, DeviceNumber, EniId, InstanceId, NetworkCard, Prefix28, SecurityGroupId, SubnetId, VpcId,
};

use super::record::{InterfaceType, OnTermination, SourceDestCheck};

/// Secondary IPv4 addresses or prefixes to allocate. EC2 takes exactly one of these forms per call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ipv4Request {
    /// That many addresses of EC2's choice.
    Count(u32),
    /// These addresses.
    Addresses(Vec<Ipv4Addr>),
    /// That many /28 prefixes of EC2's choice.
    PrefixCount(u32),
    /// These prefixes.
    Prefixes(Vec<Prefix28>),
}

impl Ipv4Request {
    /// Slots the request takes of the ENI's limit: one per address, one per prefix.
    pub fn slots(&self) -> usize {
        match self {
            Self::Count(count) | Self::PrefixCount(count) => *count as usize,
            Self::Addresses(addresses) => addresses.len(),
            Self::Prefixes(prefixes) => prefixes.len(),
        }
    }

    /// Whether it asks for prefixes.
    pub fn is_for_prefixes(&self) -> bool {
        matches!(self, Self::PrefixCount(_) | Self::Prefixes(_))
    }
}

/// IPv6 addresses or /80 prefixes to allocate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ipv6Request {
    /// That many addresses of EC2's choice.
    Count(u32),
    /// These addresses.
    Addresses(Vec<Ipv6Addr>),
    /// That many /80 prefixes of EC2's choice.
    PrefixCount(u32),
    /// These /80 prefixes.
    Prefixes(Vec<Ipv6Net>),
}

impl Ipv6Request {
    /// Slots the request takes of the ENI's limit.
    pub fn slots(&self) -> usize {
        match self {
            Self::Count(count) | Self::PrefixCount(count) => *count as usize,
            Self::Addresses(addresses) => addresses.len(),
            Self::Prefixes(prefixes) => prefixes.len(),
        }
    }
}

/// What to do with a named address that another ENI holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reassignment {
    /// Refuse.
    #[default]
    Refused,
    /// Take it away from the other ENI.
    Allowed,
}

/// One filter of a describe: the values are alternatives, several filters must all hold. `*` and `?` match as in shells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// For instance `attachment.instance-id` or `tag:Name`.
    pub name: String,
    /// Any of these.
    pub values: Vec<String>,
}

impl Filter {
    /// A filter with one value.
    pub fn new(name: &str, value: &str) -> Self {
        Self {
            name: name.to_owned(),
            values: vec![value.to_owned()],
        }
    }
}

/// What all describes take beside ids: filters and paging.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// All must hold.
    pub filters: Vec<Filter>,
    /// Items per page; without it everything comes in one.
    pub max_results: Option<u32>,
    /// From the page before.
    pub next_token: Option<String>,
}

impl Query {
    /// One filter, no paging.
    pub fn filtered(name: &str, value: &str) -> Self {
        Self {
            filters: vec![Filter::new(name, value)],
            ..Self::default()
        }
    }
}

macro_rules! describe {
    ($name:ident, $id:ty) => {
        /// The action of this name; no ids means all.
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct $name {
            /// Only these; an unknown one is an error.
            pub ids: Vec<$id>,
            /// Filters and paging.
            pub query: Query,
        }

        impl From<Query> for $name {
            fn from(query: Query) -> Self {
                Self {
                    ids: Vec::new(),
                    query,
                }
            }
        }
    };
}

describe!(DescribeNetworkInterfaces, EniId);
describe!(DescribeInstances, InstanceId);
describe!(DescribeInstanceTypes, String);
describe!(DescribeSubnets, SubnetId);
describe!(DescribeVpcs, VpcId);
describe!(DescribeSecurityGroups, SecurityGroupId);

/// `CreateNetworkInterface`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateNetworkInterface {
    /// Where its addresses come from.
    pub subnet: SubnetId,
    /// Free text.
    pub description: String,
    /// Security groups; none means the VPC's default group.
    pub groups: Vec<SecurityGroupId>,
    /// The primary address; EC2 chooses when absent.
    pub primary: Option<Ipv4Addr>,
    /// Secondary addresses or prefixes.
    pub ipv4: Option<Ipv4Request>,
    /// IPv6 addresses or prefixes.
    pub ipv6: Option<Ipv6Request>,
    /// Kind of interface.
    pub interface_type: InterfaceType,
    /// Tags set in the same call.
    pub tags: BTreeMap<String, String>,
    /// Makes repeats return the first result.
    pub client_token: Option<String>,
}

impl CreateNetworkInterface {
    /// An ENI with its primary address only.
    pub fn new(subnet: SubnetId) -> Self {
        Self {
            subnet,
            description: String::new(),
            groups: Vec::new(),
            primary: None,
            ipv4: None,
            ipv6: None,
            interface_type: InterfaceType::Interface,
            tags: BTreeMap::new(),
            client_token: None,
        }
    }
}

/// `AttachNetworkInterface`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachNetworkInterface {
    /// An ENI that is `available`.
    pub eni: EniId,
    /// An instance in the same zone.
    pub instance: InstanceId,
    /// Slot on the card.
    pub device: DeviceNumber,
    /// The default card when absent.
    pub card: Option<NetworkCard>,
}

/// Whether the instance's consent is needed to take the device away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DetachMode {
    /// Takes its time.
    #[default]
    Orderly,
    /// At once.
    Force,
}

/// `DetachNetworkInterface`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachNetworkInterface {
    /// From the attach answer; EC2 takes no ENI id here.
    pub attachment: AttachmentId,
    /// Orderly or not.
    pub mode: DetachMode,
}

/// `DeleteNetworkInterface`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteNetworkInterface {
    /// An ENI that is `available`.
    pub eni: EniId,
}

/// The attribute to set: EC2 takes one per call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EniAttribute {
    /// What becomes of the ENI when its instance terminates.
    OnTermination(AttachmentId, OnTermination),
    /// The complete new list.
    Groups(Vec<SecurityGroupId>),
    /// Source and destination check.
    SourceDestCheck(SourceDestCheck),
    /// Free text.
    Description(String),
}

/// `ModifyNetworkInterfaceAttribute`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModifyNetworkInterfaceAttribute {
    /// The ENI.
    pub eni: EniId,
    /// The change.
    pub attribute: EniAttribute,
}

/// `AssignPrivateIpAddresses`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignPrivateIpAddresses {
    /// The ENI, in any state.
    pub eni: EniId,
    /// What to add.
    pub wanted: Ipv4Request,
    /// About named addresses that another ENI holds.
    pub reassignment: Reassignment,
}

impl AssignPrivateIpAddresses {
    /// Never takes from another ENI.
    pub fn new(eni: EniId, wanted: Ipv4Request) -> Self {
        Self {
            eni,
            wanted,
            reassignment: Reassignment::Refused,
        }
    }
}

/// `UnassignPrivateIpAddresses`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnassignPrivateIpAddresses {
    /// The ENI.
    pub eni: EniId,
    /// Secondary addresses of it.
    pub addresses: Vec<Ipv4Addr>,
    /// Prefixes of it.
    pub prefixes: Vec<Prefix28>,
}

/// `AssignIpv6Addresses`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignIpv6Addresses {
    /// The ENI.
    pub eni: EniId,
    /// What to add.
    pub wanted: Ipv6Request,
}

/// `UnassignIpv6Addresses`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnassignIpv6Addresses {
    /// The ENI.
    pub eni: EniId,
    /// Addresses of it.
    pub addresses: Vec<Ipv6Addr>,
    /// /80 prefixes of it.
    pub prefixes: Vec<Ipv6Net>,
}

/// `CreateTags`: sets tags on ENIs, instances and subnets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateTags {
    /// Ids of any kind.
    pub resources: Vec<String>,
    /// Added, or replaced where the key exists.
    pub tags: BTreeMap<String, String>,
}
