//! A look at one wired pod, from both sides: is everything there that its traffic needs.
//!
//! Reads only. Says what is missing and what is different, by the object's name, and goes on looking. What others may change
//! for good reasons, such as an MTU, is not judged. Called by the CNI plugin for CHECK.

use std::fmt;
use std::net::Ipv4Addr;

use netlink::message::LinkRef;
use netlink::packet::address::AddressMessage;
use netlink::packet::neighbour::NeighbourMessage;
use netlink::packet::{AddressFamily, RouteNetlinkMessage as Message};
use netlink::{AnswerError, Attributes, DumpError, RouteSocket, parse_u32};
use vpc_types::{MacAddress, RouteTableId};

use crate::ids::{RULE_FROM_POD, RULE_TO_POD};
use crate::kernel::{HostRouteError, Link, find_host_route, find_link, parse_ipv4, routes, rules};
use crate::pod::PodSockets;

/// `NUD_PERMANENT` of `linux/neighbour.h`.
const PERMANENT: u16 = 0x80;

/// What one interface of a pod should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodExpected<'a> {
    /// Name of the host end.
    pub host_veth: &'a str,
    /// Name of the pod's end.
    pub container_if: &'a str,
    /// The pod's address.
    pub address: Ipv4Addr,
    /// The pod's next hop.
    pub gateway: Ipv4Addr,
    /// Table of the ENI that owns the address.
    pub table: RouteTableId,
    /// The alias of host ends that we made; those of predecessors have none.
    pub container_id: &'a str,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The object's name.
    pub object: String,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is not there.
    Missing,
    /// It should not be there.
    Unexpected,
    /// It is not what it should be.
    Different {
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
}

/// A look that failed; nothing is known about what was not seen.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A device.
    #[error("look at device {name}")]
    Device {
        /// Its name.
        name: String,
        /// What the kernel said.
        #[source]
        source: AnswerError,
    },
    /// The route to the pod.
    #[error("look up route to {address}")]
    Route {
        /// The pod's address.
        address: Ipv4Addr,
        /// What the kernel said.
        #[source]
        source: HostRouteError,
    },
    /// A list.
    #[error(transparent)]
    List(#[from] DumpError),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object = &self.object;
        match &self.fault {
            Fault::Missing => write!(f, "{object} is missing"),
            Fault::Unexpected => write!(f, "{object} should not be there"),
            Fault::Different { found, expected } => write!(f, "{object} is {found}, expected {expected}"),
        }
    }
}

/// Looks at everything that [`crate::wire`] makes, on the host and in the pod.
pub fn check_pod(s: &mut PodSockets, expected: &PodExpected<'_>) -> Result<Vec<Finding>, CheckError> {
    let mut findings = Findings::default();
    let host_veth = check_host(s.host(), expected, &mut findings)?;
    check_inside(s.pod(), expected, host_veth.and_then(|veth| veth.mac), &mut findings)?;
    Ok(findings.0)
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn push(&mut self, object: String, fault: Fault) {
        self.0.push(Finding { object, fault });
    }

    fn require(&mut self, is_there: bool, object: impl FnOnce() -> String) {
        if !is_there {
            self.push(object(), Fault::Missing);
        }
    }

    fn compare(&mut self, object: impl FnOnce() -> String, found: impl fmt::Display, expected: impl fmt::Display) {
        let (found, expected) = (found.to_string(), expected.to_string());
        if found != expected {
            self.push(object(), Fault::Different { found, expected });
        }
    }
}

fn check_host(
    s: &mut RouteSocket,
    expected: &PodExpected<'_>,
    findings: &mut Findings,
) -> Result<Option<Link>, CheckError> {
    let name = expected.host_veth;
    let veth = find_device(s, name)?;
    findings.require(veth.is_some(), || format!("host veth {name}"));
    if let Some(veth) = &veth {
        findings.compare(|| format!("host veth {name}"), state(veth), "up");
        let owner = veth.alias.as_deref().filter(|alias| !alias.is_empty());
        let owner = owner.unwrap_or(expected.container_id);
        findings.compare(
            || format!("container of host veth {name}"),
            owner,
            expected.container_id,
        );
    }
    check_route_to_pod(s, expected, veth.as_ref(), findings)?;
    check_rules(s, expected, findings)?;
    Ok(veth)
}

fn check_route_to_pod(
    s: &mut RouteSocket,
    expected: &PodExpected<'_>,
    veth: Option<&Link>,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    let address = expected.address;
    let object = || format!("route to {address} in table main");
    let device = find_host_route(s, address).map_err(|source| CheckError::Route { address, source })?;
    match (device, veth) {
        (None, _) => findings.push(object(), Fault::Missing),
        (Some(device), Some(veth)) if device == veth.index.get() => {}
        (Some(device), _) => {
            let found = find_link(s, LinkRef::Index(device)).ok().flatten();
            let found = found.map_or_else(|| format!("device #{device}"), |link| link.name);
            findings.compare(|| format!("device of the {}", object()), found, expected.host_veth);
        }
    }
    Ok(())
}

/// Of two rules from the pod the older one wins, so another one is as bad as none.
fn check_rules(s: &mut RouteSocket, expected: &PodExpected<'_>, findings: &mut Findings) -> Result<(), CheckError> {
    let PodExpected { address, table, .. } = *expected;
    let rules = rules(s)?;
    let to_pod = rules.iter().any(|rule| {
        rule.priority == RULE_TO_POD && rule.to == Some(address) && rule.table == Some(RouteTableId::MAIN.0)
    });
    findings.require(to_pod, || format!("rule {RULE_TO_POD} to {address} lookup main"));
    let name = |table| format!("rule {RULE_FROM_POD} from {address} lookup {table}");
    let from_pod = rules.iter().filter(|rule| {
        rule.priority == RULE_FROM_POD && rule.from == Some(address) && rule.to.is_none() && rule.mark.is_none()
    });
    let (ours, others): (Vec<u32>, Vec<u32>) = from_pod
        .filter_map(|rule| rule.table)
        .partition(|found| *found == table.0);
    findings.require(table.is_main() || !ours.is_empty(), || name(table.0));
    for other in others {
        findings.push(name(other), Fault::Unexpected);
    }
    Ok(())
}

fn check_inside(
    s: &mut RouteSocket,
    expected: &PodExpected<'_>,
    host_mac: Option<MacAddress>,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    let PodExpected {
        container_if: name,
        address,
        gateway,
        ..
    } = *expected;
    let Some(link) = find_device(s, name)? else {
        findings.push(format!("interface {name} in the pod"), Fault::Missing);
        return Ok(());
    };
    findings.compare(|| format!("interface {name} in the pod"), state(&link), "up");
    let index = link.index.get();
    let is_there = addresses(s, index)?.contains(&(address, 32));
    findings.require(is_there, || format!("address {address}/32 on {name} in the pod"));
    let routes: Vec<_> = routes(s, RouteTableId::MAIN.0)?
        .into_iter()
        .filter(|route| route.device == Some(index))
        .map(|route| (route.destination, route.prefix_len, route.gateway))
        .collect();
    findings.require(routes.contains(&(gateway, 32, None)), || {
        format!("route to {gateway} on {name} in the pod")
    });
    findings.require(routes.contains(&(Ipv4Addr::UNSPECIFIED, 0, Some(gateway))), || {
        format!("default route via {gateway} on {name} in the pod")
    });
    let object = || format!("neighbour {gateway} on {name} in the pod");
    match neighbour(s, index, gateway)? {
        None => findings.push(object(), Fault::Missing),
        Some((state, _)) if state & PERMANENT == 0 => findings.compare(object, "learnt", "permanent"),
        Some((_, Some(mac))) => findings.compare(object, mac, host_mac.unwrap_or(mac)),
        Some((_, None)) => findings.compare(object, "without a link-layer address", "that of the host veth"),
    }
    Ok(())
}

fn find_device(s: &mut RouteSocket, name: &str) -> Result<Option<Link>, CheckError> {
    find_link(s, LinkRef::Name(name)).map_err(|source| CheckError::Device {
        name: name.to_owned(),
        source,
    })
}

fn state(link: &Link) -> &'static str {
    if link.is_up { "up" } else { "down" }
}

/// IPv4 addresses of a device, with their prefix lengths.
fn addresses(s: &mut RouteSocket, device: u32) -> Result<Vec<(Ipv4Addr, u8)>, DumpError> {
    const HEADER: usize = 8;
    const LOCAL: u16 = 2;
    let mut request = AddressMessage::default();
    request.header.family = AddressFamily::Inet;
    let found = s.dump_raw("list addresses", &Message::GetAddress(request))?;
    let on_device = found
        .iter()
        .filter(|message| message.payload.get(4..HEADER).and_then(parse_u32) == Some(device));
    let parsed = on_device.filter_map(|message| {
        let address = Attributes::after_header(&message.payload, HEADER).find_value(LOCAL);
        Some((parse_ipv4(address?)?, *message.payload.get(1)?))
    });
    Ok(parsed.collect())
}

/// State and link-layer address of a neighbour.
fn neighbour(
    s: &mut RouteSocket,
    device: u32,
    address: Ipv4Addr,
) -> Result<Option<(u16, Option<MacAddress>)>, DumpError> {
    let mut request = NeighbourMessage::default();
    request.header.family = AddressFamily::Inet;
    let found = s.dump_raw("list neighbours", &Message::GetNeighbour(request))?;
    let mut parsed = found.iter().filter_map(|message| parse_neighbour(&message.payload));
    let it = parsed.find(|found| (found.device, found.address) == (device, address));
    Ok(it.map(|found| (found.state, found.mac)))
}

/// A neighbour of any state.
#[derive(Debug)]
pub(crate) struct FoundNeighbour {
    device: u32,
    address: Ipv4Addr,
    state: u16,
    mac: Option<MacAddress>,
}

pub(crate) fn parse_neighbour(payload: &[u8]) -> Option<FoundNeighbour> {
    const HEADER: usize = 12;
    const DESTINATION: u16 = 1;
    const LINK_LAYER: u16 = 2;
    let attributes = Attributes::after_header(payload, HEADER);
    let mac = attributes.clone().find_value(LINK_LAYER);
    Some(FoundNeighbour {
        device: payload.get(4..8).and_then(parse_u32)?,
        address: attributes.find_value(DESTINATION).and_then(parse_ipv4)?,
        state: payload.get(8..10)?.try_into().ok().map(u16::from_ne_bytes)?,
        mac: mac.and_then(|mac| mac.try_into().ok()).map(MacAddress),
    })
}
