//! What the reference smuggles through results, and how to get it back.
//!
//! A runtime keeps the result of ADD and hands it back as `prevResult` on DEL, which makes it the only per-pod memory
//! that survives the daemon. The reference hides three numbers in fields meant for other things, and so do we, in the same
//! places, so that either plugin can remove the other's pods:
//!
//! * `mac` of the container's interface is the number of its route table (missing in results of older releases);
//! * one more interface, named `dummy` and a hash, exists nowhere in the kernel: its `mac` is `0`, or the VLAN of a pod
//!   with its own security groups;
//! * `sandbox` of that one is the device number of the pod's ENI (absent when there is a VLAN).
//!
//! A container without a pod is the exception: no release of the reference wires one, and podman, which starts it, refuses a
//! result in which an entry with a sandbox has a `mac` that is none. There the container's `mac` is what its name says, the
//! table's number is the `mac` of the host's end before it, and the dummy has no `sandbox`.
//!
//! Invariant: `decode(encode(pod)) == pod` for every version that lists interfaces; older ones cannot carry anything.

use std::net::IpAddr;

use ipnet::IpNet;
use vpc_types::{DeviceNumber, MacAddress, NetworkCard, RouteTableId};

use crate::result::{CniResult, Interface, IpConfig};

/// The numbers of tables that older releases used for "the primary ENI".
const OLD_MAIN: RouteTableId = RouteTableId(1);

/// A wired pod, as the runtime shall remember it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodResult {
    /// Name of the entry that exists nowhere ([`vpc_types::dummy_name`]).
    pub dummy: String,
    /// Device number of the ENI of the first interface.
    pub device: DeviceNumber,
    /// The pod's namespace, as the runtime spells it.
    pub sandbox: String,
    /// In order of their index.
    pub interfaces: Vec<PodInterface>,
    /// Link-layer address of the container's end, for a container without a pod: it has one interface.
    pub mac: Option<MacAddress>,
}

/// One interface of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodInterface {
    /// Name of the host's end.
    pub host_veth: String,
    /// Name of the container's end.
    pub container_if: String,
    /// The pod's address.
    pub address: IpAddr,
    /// Table that routes the pod's traffic.
    pub table: RouteTableId,
}

/// What an earlier result says about the pod that is to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrevPod {
    /// An ordinary pod; interfaces that other plugins added are not among these.
    Plain(Vec<PodInterface>),
    /// A pod with its own security groups.
    Branch {
        /// VLAN of its branch ENI, not 0.
        vlan: u16,
        /// Its address.
        address: IpAddr,
    },
    /// An ordinary pod whose other data cannot be right. No reason to fail a DEL: ipamd knows the same.
    Unreadable(CarriedError),
    /// The result does not carry our data: it is of an old version or of another plugin, or names another pod.
    Nothing,
}

/// Carried data that cannot be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CarriedError {
    /// A number was expected.
    #[error("prevResult: {field:?} of interface {interface:?} is {found:?}, expected {expected}")]
    Number {
        /// Name of the interface.
        interface: String,
        /// `mac` or `sandbox`.
        field: &'static str,
        /// What it holds.
        found: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// None or several.
    #[error("prevResult: interface {interface:?} has {count} addresses, expected exactly 1")]
    Addresses {
        /// Name of the interface.
        interface: String,
        /// How many.
        count: usize,
    },
}

impl PodResult {
    /// The result that carries it.
    pub fn encode(&self) -> CniResult {
        let mut result = CniResult::default();
        for pod_if in &self.interfaces {
            let table = pod_if.table.0.to_string();
            let (host_mac, container_mac) = match self.mac {
                Some(mac) => (table, mac.to_string()),
                None => (String::new(), table),
            };
            result.interfaces.push(Interface {
                name: pod_if.host_veth.clone(),
                mac: host_mac,
                sandbox: String::new(),
            });
            result.ips.push(IpConfig {
                interface: Some(result.interfaces.len()),
                address: IpNet::from(pod_if.address),
                gateway: None,
            });
            result.interfaces.push(Interface {
                name: pod_if.container_if.clone(),
                mac: container_mac,
                sandbox: self.sandbox.clone(),
            });
        }
        let device = self.device.to_string();
        result.interfaces.push(Interface {
            name: self.dummy.clone(),
            mac: "0".to_owned(),
            sandbox: if self.mac.is_some() { String::new() } else { device },
        });
        result
    }
}

impl PrevPod {
    /// Finds the pod in an earlier result. `dummy` is the name its carrier must have; `if_name` is `CNI_IFNAME`. An error
    /// means that it is not even known what kind of pod this was.
    pub fn decode(result: &CniResult, dummy: &str, if_name: &str) -> Result<Self, CarriedError> {
        let Some(carrier) = result.interfaces.iter().find(|i| i.name == dummy) else {
            return Ok(Self::Nothing);
        };
        let vlan = number(carrier, "mac", &carrier.mac, "a VLAN id")?;
        if vlan == 0 {
            return Ok(plain(result, carrier, if_name).map_or_else(Self::Unreadable, Self::Plain));
        }
        let Some(position) = result.interfaces.iter().position(|i| i.name == if_name) else {
            return Err(CarriedError::Addresses {
                interface: if_name.to_owned(),
                count: 0,
            });
        };
        Ok(Self::Branch {
            vlan,
            address: only_address(result, position)?,
        })
    }
}

fn plain(result: &CniResult, carrier: &Interface, if_name: &str) -> Result<Vec<PodInterface>, CarriedError> {
    if !carrier.sandbox.is_empty() {
        device_of(carrier)?;
    }
    // Other plugins append interfaces of their own, which inflates this bound: names decide, not the count.
    let bound = result.interfaces.len() / 2;
    let names = (0..bound).map(|i| {
        if i == 0 {
            if_name.to_owned()
        } else {
            format!("mNicIf{i}")
        }
    });
    let positions = names.filter_map(|name| result.interfaces.iter().position(|i| i.name == name));
    positions
        .map(|position| pod_interface(result, position, carrier))
        .collect()
}

fn pod_interface(result: &CniResult, position: usize, carrier: &Interface) -> Result<PodInterface, CarriedError> {
    let entry = &result.interfaces[position];
    // The host's end stands right before the container's.
    let host = position.checked_sub(1).map(|before| &result.interfaces[before]);
    let table = match host {
        Some(host) if entry.mac.parse::<MacAddress>().is_ok() => {
            RouteTableId(number(host, "mac", &host.mac, "a route table id")?)
        }
        _ => pod_table(entry, carrier)?,
    };
    Ok(PodInterface {
        host_veth: host.map(|host| host.name.clone()).unwrap_or_default(),
        container_if: entry.name.clone(),
        address: only_address(result, position)?,
        table,
    })
}

/// The device number must be there, also where the table is named.
fn pod_table(entry: &Interface, carrier: &Interface) -> Result<RouteTableId, CarriedError> {
    let device = device_of(carrier)?;
    Ok(match entry.mac.as_str() {
        "" => RouteTableId::for_eni(NetworkCard::DEFAULT, device),
        text => match RouteTableId(number(entry, "mac", text, "a route table id")?) {
            OLD_MAIN => RouteTableId::MAIN,
            table => table,
        },
    })
}

fn device_of(carrier: &Interface) -> Result<DeviceNumber, CarriedError> {
    number(carrier, "sandbox", &carrier.sandbox, "a device number").map(DeviceNumber)
}

fn only_address(result: &CniResult, position: usize) -> Result<IpAddr, CarriedError> {
    let mut found = result.ips.iter().filter(|ip| ip.interface == Some(position));
    match (found.next(), found.count()) {
        (Some(only), 0) => Ok(only.address.addr()),
        (first, more) => Err(CarriedError::Addresses {
            interface: result.interfaces[position].name.clone(),
            count: usize::from(first.is_some()) + more,
        }),
    }
}

fn number<T: std::str::FromStr>(
    entry: &Interface,
    field: &'static str,
    text: &str,
    expected: &'static str,
) -> Result<T, CarriedError> {
    let interface = &entry.name;
    text.parse().map_err(|_| CarriedError::Number {
        interface: interface.clone(),
        field,
        found: text.to_owned(),
        expected,
    })
}
