//! The resources as the API shows them: ENIs, attachments, instances, VPCs, security groups, instance types.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use vpc_types::{
    Allocation, AttachmentId, DeviceNumber, EniId, InstanceId, InstanceLimits, MacAddress, NetworkCard, Prefix28,
    SecurityGroupId, SubnetId, VpcId,
};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// The word the API uses.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The value for the API's word.
            pub fn parse(text: &str) -> Option<Self> {
                [$(Self::$variant),*].into_iter().find(|value| value.as_str() == text)
            }
        }
    };
}

words! {
    /// `status` of an ENI.
    EniStatus {
        /// Attached to nothing.
        Available "available",
        /// Attached, or being attached.
        InUse "in-use",
        /// On its way to available.
        Detaching "detaching",
    }
}

words! {
    /// `attachment.status`.
    AttachmentStatus {
        /// The device is not there yet.
        Attaching "attaching",
        /// The device is on the instance.
        Attached "attached",
        /// On its way out.
        Detaching "detaching",
    }
}

words! {
    /// `interfaceType` of an ENI.
    InterfaceType {
        /// The ordinary kind.
        Interface "interface",
        /// With the EFA device, also carries addresses.
        Efa "efa",
        /// EFA without addresses.
        EfaOnly "efa-only",
        /// Carries branch ENIs.
        Trunk "trunk",
        /// VLAN-tagged on a trunk.
        Branch "branch",
    }
}

words! {
    /// What becomes of an ENI when its instance terminates; the API's boolean `deleteOnTermination`.
    OnTermination {
        /// It becomes available: leaked unless somebody cleans up.
        Keep "false",
        /// It goes with the instance.
        Delete "true",
    }
}

words! {
    /// `sourceDestCheck` of an ENI.
    SourceDestCheck {
        /// Packets with foreign addresses are dropped.
        On "true",
        /// For routers and NAT.
        Off "false",
    }
}

words! {
    /// State of an instance.
    InstanceState {
        /// Running.
        Running "running",
        /// Stopped; ENIs stay attached.
        Stopped "stopped",
        /// Gone, still shown.
        Terminated "terminated",
    }
}

impl InstanceState {
    /// `instanceState.code`.
    pub fn code(self) -> u16 {
        match self {
            Self::Running => 16,
            Self::Terminated => 48,
            Self::Stopped => 80,
        }
    }
}

/// An ENI's tie to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its id.
    pub id: AttachmentId,
    /// The instance.
    pub instance: InstanceId,
    /// Slot on the card.
    pub device: DeviceNumber,
    /// Network card.
    pub card: NetworkCard,
    /// How far it is.
    pub status: AttachmentStatus,
    /// When the attach call came.
    pub attached_at: Duration,
    /// What happens at termination.
    pub on_termination: OnTermination,
}

impl Attachment {
    /// Device 0 on card 0, made with the instance and never detached.
    pub fn is_primary(&self) -> bool {
        self.device == DeviceNumber::PRIMARY && self.card == NetworkCard::DEFAULT
    }
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eni {
    /// Its id.
    pub id: EniId,
    /// Its subnet.
    pub subnet: SubnetId,
    /// Its VPC.
    pub vpc: VpcId,
    /// Its zone.
    pub zone: String,
    /// Free text.
    pub description: String,
    /// Fixed for life.
    pub mac: MacAddress,
    /// The primary address.
    pub primary: Ipv4Addr,
    /// Secondary addresses in the order of allocation.
    pub secondary: Vec<Ipv4Addr>,
    /// Delegated prefixes in the order of allocation.
    pub prefixes: Vec<Prefix28>,
    /// IPv6 addresses.
    pub ipv6: Vec<Ipv6Addr>,
    /// Delegated /80 prefixes.
    pub ipv6_prefixes: Vec<Ipv6Net>,
    /// Security groups.
    pub groups: Vec<SecurityGroupId>,
    /// Source and destination check.
    pub source_dest_check: SourceDestCheck,
    /// Kind.
    pub interface_type: InterfaceType,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Set while attached, attaching or detaching.
    pub attachment: Option<Attachment>,
}

impl Eni {
    /// `status` as the API shows it.
    pub fn status(&self) -> EniStatus {
        match self.attachment.as_ref().map(|attachment| attachment.status) {
            None => EniStatus::Available,
            Some(AttachmentStatus::Attaching | AttachmentStatus::Attached) => EniStatus::InUse,
            Some(AttachmentStatus::Detaching) => EniStatus::Detaching,
        }
    }

    /// IPv4 slots in use: primary, secondary addresses, and one per prefix.
    pub fn ipv4_slots(&self) -> usize {
        1 + self.secondary.len() + self.prefixes.len()
    }

    /// IPv6 slots in use.
    pub fn ipv6_slots(&self) -> usize {
        self.ipv6.len() + self.ipv6_prefixes.len()
    }

    /// Secondary addresses and prefixes.
    pub fn allocations(&self) -> impl Iterator<Item = Allocation> {
        let singles = self.secondary.iter().map(|address| Allocation::Ip(*address));
        singles.chain(self.prefixes.iter().map(|prefix| Allocation::Prefix(*prefix)))
    }

    /// Whether a packet with this address may leave or enter by the ENI.
    pub fn holds(&self, address: Ipv4Addr) -> bool {
        address == self.primary
            || self.secondary.contains(&address)
            || self.prefixes.iter().any(|prefix| prefix.net().contains(&address))
    }

    /// The same for IPv6.
    pub fn holds_ipv6(&self, address: Ipv6Addr) -> bool {
        self.ipv6.contains(&address) || self.ipv6_prefixes.iter().any(|prefix| prefix.contains(&address))
    }
}

/// An instance.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// For instance `m5.large`.
    pub instance_type: String,
    /// What the type allows.
    pub limits: InstanceLimits,
    /// Subnet of the primary ENI.
    pub subnet: SubnetId,
    /// Its VPC.
    pub vpc: VpcId,
    /// Its zone.
    pub zone: String,
    /// State.
    pub state: InstanceState,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// When it was made.
    pub launched_at: Duration,
    pub(super) enis: BTreeSet<EniId>,
}

/// A VPC.
#[derive(Debug, Clone)]
pub struct Vpc {
    /// Its id.
    pub id: VpcId,
    /// IPv4 ranges, the first is the main one.
    pub cidrs: Vec<Ipv4Net>,
    /// IPv6 ranges.
    pub ipv6_cidrs: Vec<Ipv6Net>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Used when a create names no group.
    pub default_group: SecurityGroupId,
}

/// A security group. The model keeps identity and membership only; rules are not modelled.
#[derive(Debug, Clone)]
pub struct SecurityGroup {
    /// Its id.
    pub id: SecurityGroupId,
    /// Its VPC.
    pub vpc: VpcId,
    /// Name, unique in the VPC.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}
