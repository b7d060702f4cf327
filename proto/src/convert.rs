//! Conversions between wire messages and checked values.
//!
//! Owns the rules of the deployed wire: which fields are required, which numbers mean "main" or "branch", and which
//! literals old plugins look for. Called by ipamd (server side) and the plugin (client side).

use std::net::{IpAddr, Ipv4Addr};

use vpc_types::{DeviceNumber, IpamKey, KeyError, PodName, RouteTableId};

use crate::rpc;

/// Text by which deployed plugins recognise that a DEL names nobody; they then report success.
pub const UNKNOWN_POD: &str = "datastore: unknown pod";

/// Metadata of a DEL's answer by which our daemon says that rules and route of the address are gone already. Deployed daemons do not
/// send it and leave them to the plugin; deployed plugins do not look at it and find nothing to remove.
pub const CLEARED: &str = "vpc-cni-cleared";

/// Text that users and their alerts look for when an ADD is refused.
pub const NO_ADDRESS: &str = "failed to assign an IP address to container";

/// A message that breaks the contract, with the field that does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// A key field is empty.
    #[error("field {} is empty", .0.0)]
    Key(KeyError),
    /// An address field does not parse.
    #[error("field {field}: {text:?} is no IP address")]
    Address {
        /// Name on the wire.
        field: &'static str,
        /// What stood there.
        text: String,
    },
    /// A number is outside its meaning.
    #[error("field {field}: {value} is out of range")]
    Number {
        /// Name on the wire.
        field: &'static str,
        /// What stood there.
        value: i32,
    },
    /// The reply promises success and carries no address.
    #[error("the reply carries no address")]
    NoAddress,
}

impl From<KeyError> for ConvertError {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

/// What an ADD asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddRequest {
    /// Which interface of which sandbox.
    pub key: IpamKey,
    /// Absent for runtimes without Kubernetes.
    pub pod: Option<PodName>,
    /// Path of the sandbox's network namespace.
    pub netns: String,
    /// What the client calls itself; empty in deployed plugins.
    pub client_version: String,
    /// Whether one address is wanted, or one per network card.
    pub attachment: Attachment,
}

/// How many interfaces the pod wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// One interface.
    Single,
    /// One interface per managed network card.
    MultiNic,
}

impl TryFrom<rpc::AddNetworkRequest> for AddRequest {
    type Error = ConvertError;

    fn try_from(wire: rpc::AddNetworkRequest) -> Result<Self, ConvertError> {
        Ok(Self {
            key: IpamKey::new(&wire.network_name, &wire.container_id, &wire.if_name)?,
            pod: PodName::new(&wire.k8s_pod_namespace, &wire.k8s_pod_name),
            netns: wire.netns,
            client_version: wire.client_version,
            attachment: if wire.requires_multi_nic_attachment {
                Attachment::MultiNic
            } else {
                Attachment::Single
            },
        })
    }
}

impl From<&AddRequest> for rpc::AddNetworkRequest {
    fn from(add: &AddRequest) -> Self {
        let (namespace, name) = pod_strings(add.pod.as_ref());
        Self {
            k8s_pod_name: name,
            k8s_pod_namespace: namespace,
            k8s_pod_infra_container_id: add.key.container_id().to_owned(),
            netns: add.netns.clone(),
            if_name: add.key.if_name().to_owned(),
            network_name: add.key.network_name().to_owned(),
            container_id: add.key.container_id().to_owned(),
            client_version: add.client_version.clone(),
            requires_multi_nic_attachment: add.attachment == Attachment::MultiNic,
        }
    }
}

/// Why a lease ends; a label of the delete counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DelReason {
    /// The runtime deletes the sandbox.
    PodDeleted,
    /// The plugin undoes its own failed ADD.
    SetupFailed,
    /// A text that we do not know.
    Other,
}

impl DelReason {
    /// The text on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PodDeleted => "PodDeleted",
            Self::SetupFailed => "SetupNSFailed",
            Self::Other => "",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "PodDeleted" => Self::PodDeleted,
            "SetupNSFailed" => Self::SetupFailed,
            _ => Self::Other,
        }
    }
}

/// What a DEL asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelRequest {
    /// Which interface of which sandbox.
    pub key: IpamKey,
    /// Absent for runtimes without Kubernetes.
    pub pod: Option<PodName>,
    /// Why.
    pub reason: DelReason,
    /// Pod UID; sent by a DEL, not by a rollback.
    pub pod_uid: Option<String>,
    /// What the client calls itself.
    pub client_version: String,
}

impl TryFrom<rpc::DelNetworkRequest> for DelRequest {
    type Error = ConvertError;

    fn try_from(wire: rpc::DelNetworkRequest) -> Result<Self, ConvertError> {
        Ok(Self {
            key: IpamKey::new(&wire.network_name, &wire.container_id, &wire.if_name)?,
            pod: PodName::new(&wire.k8s_pod_namespace, &wire.k8s_pod_name),
            reason: DelReason::parse(&wire.reason),
            pod_uid: (!wire.k8s_pod_uid.is_empty()).then_some(wire.k8s_pod_uid),
            client_version: wire.client_version,
        })
    }
}

impl From<&DelRequest> for rpc::DelNetworkRequest {
    fn from(del: &DelRequest) -> Self {
        let (namespace, name) = pod_strings(del.pod.as_ref());
        Self {
            k8s_pod_name: name,
            k8s_pod_namespace: namespace,
            k8s_pod_infra_container_id: del.key.container_id().to_owned(),
            reason: del.reason.as_str().to_owned(),
            if_name: del.key.if_name().to_owned(),
            network_name: del.key.network_name().to_owned(),
            container_id: del.key.container_id().to_owned(),
            client_version: del.client_version.clone(),
            k8s_pod_uid: del.pod_uid.clone().unwrap_or_default(),
        }
    }
}

fn pod_strings(pod: Option<&PodName>) -> (String, String) {
    pod.map(|pod| (pod.namespace.to_string(), pod.name.to_string()))
        .unwrap_or_default()
}

/// Where one interface of a pod on an ordinary ENI lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodAddress {
    /// The pod's own VPC address.
    pub address: IpAddr,
    /// Slot of the ENI that carries it.
    pub device: DeviceNumber,
    /// Table with that ENI's routes.
    pub table: RouteTableId,
}

impl PodAddress {
    /// The address if it is IPv4.
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        match self.address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }
}

impl From<&PodAddress> for rpc::IpAllocationMetadata {
    fn from(pod: &PodAddress) -> Self {
        let (v4, v6) = match pod.address {
            IpAddr::V4(address) => (address.to_string(), String::new()),
            IpAddr::V6(address) => (String::new(), address.to_string()),
        };
        Self {
            i_pv4_addr: v4,
            i_pv6_addr: v6,
            device_number: i32::from(pod.device.0),
            route_table_id: i32::try_from(pod.table.0).unwrap_or(i32::MAX),
        }
    }
}

impl TryFrom<&rpc::IpAllocationMetadata> for PodAddress {
    type Error = ConvertError;

    /// IPv4 wins when both are set. Table 0 and 1 mean main: 1 was the primary ENI's number in old releases.
    fn try_from(wire: &rpc::IpAllocationMetadata) -> Result<Self, ConvertError> {
        let (field, text) = match (&wire.i_pv4_addr, &wire.i_pv6_addr) {
            (v4, _) if !v4.is_empty() => ("IPv4Addr", v4),
            (_, v6) if !v6.is_empty() => ("IPv6Addr", v6),
            _ => return Err(ConvertError::NoAddress),
        };
        let address = text.parse().map_err(|_| ConvertError::Address {
            field,
            text: text.clone(),
        })?;
        let number = |field, value| move |_| ConvertError::Number { field, value };
        let device = u16::try_from(wire.device_number).map_err(number("DeviceNumber", wire.device_number))?;
        let table = u32::try_from(wire.route_table_id).map_err(number("RouteTableId", wire.route_table_id))?;
        let table = if table > 1 {
            RouteTableId(table)
        } else {
            RouteTableId::MAIN
        };
        Ok(Self {
            address,
            device: DeviceNumber(device),
            table,
        })
    }
}

/// What the plugin needs from a successful AddNetwork.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddReply {
    /// One entry per interface, in order of the interface index; never empty.
    pub interfaces: Vec<PodAddress>,
    /// Empty: no call to the network policy agent.
    pub network_policy_mode: String,
}

/// What an AddNetwork reply says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddOutcome {
    /// The pod has its addresses.
    Granted(AddReply),
    /// `Success = false`: no address, and the wire has no room for a reason.
    Refused,
    /// A pod on a branch ENI, which needs a VLAN device.
    Branch {
        /// VLAN on the trunk.
        vlan_id: i32,
    },
}

impl TryFrom<rpc::AddNetworkReply> for AddOutcome {
    type Error = ConvertError;

    fn try_from(wire: rpc::AddNetworkReply) -> Result<Self, ConvertError> {
        if !wire.success {
            return Ok(Self::Refused);
        }
        if wire.pod_vlan_id != 0 {
            return Ok(Self::Branch {
                vlan_id: wire.pod_vlan_id,
            });
        }
        let interfaces = wire
            .ip_allocation_metadata
            .iter()
            .map(PodAddress::try_from)
            .collect::<Result<Vec<_>, _>>()?;
        if interfaces.is_empty() {
            return Err(ConvertError::NoAddress);
        }
        Ok(Self::Granted(AddReply {
            interfaces,
            network_policy_mode: wire.network_policy_mode,
        }))
    }
}
