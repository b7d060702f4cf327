//! Secondary ENIs: the device, its address, its route table and the rule that leads there.
//!
//! Dump, compare, apply: an ENI that is set up is not touched, because pods send through its table all the time. Secondary
//! addresses and prefixes are never put on the device. Device names are never changed. Called by the daemon, at attach and
//! at every start.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlink::message::{LinkRef, LinkState, Route, Rule, address, route_key, set_link, set_link_state};
use netlink::packet::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink::packet::link::LinkAttribute;
use netlink::packet::route::RouteAttribute;
use netlink::packet::{AddressFamily, RouteNetlinkMessage as Message};
use netlink::{AnswerError, Attributes, Batch, DumpError, Errno, MessageError, RouteSocket, parse_u32};
use vpc_types::{IfIndex, MacAddress, RouteTableId};

use crate::clear::delete_rules;
use crate::ids::RULE_FROM_ENI;
use crate::kernel::{ADD, FoundRoute, Link, REPLACE, find_eni, links, parse_ipv4, routes, rules};

/// What a secondary ENI needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EniWiring {
    /// Link-layer address, by which the device is found.
    pub mac: MacAddress,
    /// Its route table; never main.
    pub table: RouteTableId,
    /// Its primary private address.
    pub address: Ipv4Addr,
    /// Its subnet.
    pub subnet: Ipv4Net,
    /// MTU in bytes.
    pub mtu: u32,
}

/// Whether something had to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// All was right; nothing was sent.
    Unchanged,
    /// Something was missing or different.
    Changed,
}

/// An ENI that pods can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniReady {
    /// Its device.
    pub index: IfIndex,
    /// The device's name.
    pub name: String,
    /// Whether something had to be done.
    pub change: Change,
}

/// An ENI that is not set up, or not removed.
#[derive(Debug, thiserror::Error)]
pub enum EniError {
    /// No device has this address: the ENI is not attached, or not yet visible.
    #[error("no device has link-layer address {mac}")]
    LinkMissing {
        /// The address.
        mac: MacAddress,
    },
    /// Table main belongs to the primary ENI.
    #[error("ENI {address} must not use table main")]
    TableIsMain {
        /// The ENI's primary address.
        address: Ipv4Addr,
    },
    /// The kernel's state cannot be read.
    #[error("look at the state of ENI {address}")]
    Look {
        /// The ENI's primary address.
        address: Ipv4Addr,
        /// What the kernel said.
        #[source]
        source: DumpError,
    },
    /// A change was refused; the others are done.
    #[error("set up ENI {address} ({device})")]
    Apply {
        /// The ENI's primary address.
        address: Ipv4Addr,
        /// Its device.
        device: String,
        /// The first refusal.
        #[source]
        source: AnswerError,
    },
    /// A removal was refused; the others are done.
    #[error("remove rules and routes of ENI {address}")]
    Remove {
        /// The ENI's primary address.
        address: Ipv4Addr,
        /// The first refusal.
        #[source]
        source: AnswerError,
    },
}

/// Brings the ENI's kernel state to what it should be.
pub fn setup_eni(s: &mut RouteSocket, w: &EniWiring) -> Result<EniReady, EniError> {
    let address = w.address;
    let host = HostLook::take(s).map_err(|source| EniError::Look { address, source })?;
    setup_seen(s, w, &host)
}

/// What the looks at several ENIs have in common.
#[derive(Debug, Default)]
pub(crate) struct HostLook {
    pub(crate) links: Vec<Link>,
    pub(crate) main: Vec<FoundRoute>,
    pub(crate) rules: Vec<Rule>,
}

impl HostLook {
    /// Rules first and links last: what vanishes meanwhile is missed, not taken for something that lacks its rules.
    pub(crate) fn take(s: &mut RouteSocket) -> Result<Self, DumpError> {
        let rules = rules(s)?;
        let main = routes(s, RouteTableId::MAIN.0)?;
        let links = links(s)?;
        Ok(Self { links, main, rules })
    }
}

/// As [`setup_eni`], after a look at the rest of the host.
pub(crate) fn setup_seen(s: &mut RouteSocket, w: &EniWiring, host: &HostLook) -> Result<EniReady, EniError> {
    if w.table.is_main() {
        return Err(EniError::TableIsMain { address: w.address });
    }
    let found = look(s, w, host).map_err(|source| EniError::Look {
        address: w.address,
        source,
    })?;
    let Some(found) = found else {
        return Err(EniError::LinkMissing { mac: w.mac });
    };
    let batch = plan(w, &found);
    let change = if batch.is_empty() {
        Change::Unchanged
    } else {
        Change::Changed
    };
    let device = &found.link.name;
    apply(s, &batch).map_err(|source| EniError::Apply {
        address: w.address,
        device: device.clone(),
        source,
    })?;
    Ok(EniReady {
        index: found.link.index,
        name: found.link.name,
        change,
    })
}

/// Removes the ENI's rules, and the routes of its table, which the kernel keeps while the device is there.
pub fn teardown_eni(s: &mut RouteSocket, address: Ipv4Addr, table: RouteTableId) -> Result<Change, EniError> {
    if table.is_main() {
        return Err(EniError::TableIsMain { address });
    }
    let looked = |source| EniError::Look { address, source };
    let removed = |source| EniError::Remove { address, source };
    let has_rules = rules(s).map_err(looked)?.iter().any(|rule| rule.from == Some(address));
    let mut batch = Batch::new();
    for route in routes(s, table.0).map_err(looked)? {
        batch.push("delete route of ENI", 0, Message::DelRoute(route_of(&route)));
    }
    if has_rules {
        delete_rules(
            s,
            Rule {
                from: Some(address),
                ..Rule::default()
            },
        )
        .map_err(removed)?;
    }
    apply(s, &batch).map_err(removed)?;
    Ok(if has_rules || !batch.is_empty() {
        Change::Changed
    } else {
        Change::Unchanged
    })
}

/// The VPC's router: the first address of the subnet.
fn gateway_of(subnet: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.network()).saturating_add(1))
}

struct Found<'a> {
    link: Link,
    addresses: Vec<FoundAddress>,
    table: Vec<FoundRoute>,
    host: &'a HostLook,
}

impl Found<'_> {
    fn has_foreign_address(&self, w: &EniWiring) -> bool {
        let wanted = FoundAddress {
            address: w.address,
            prefix_len: w.subnet.prefix_len(),
        };
        self.addresses.iter().any(|have| *have != wanted)
    }
}

fn look<'a>(s: &mut RouteSocket, w: &EniWiring, host: &'a HostLook) -> Result<Option<Found<'a>>, DumpError> {
    let Some(link) = find_eni(&host.links, w.mac).cloned() else {
        return Ok(None);
    };
    Ok(Some(Found {
        addresses: addresses(s, link.index)?,
        table: routes(s, w.table.0)?,
        host,
        link,
    }))
}

/// What has to be sent, in an order in which each message finds what it needs: device, address, routes, rule.
fn plan(w: &EniWiring, found: &Found<'_>) -> Batch {
    let mut batch = Batch::new();
    let device = found.link.index.get();
    if found.link.mtu != w.mtu {
        batch.push("MTU", 0, set_link(LinkRef::Index(device), LinkAttribute::Mtu(w.mtu)));
    }
    if !found.link.is_up {
        batch.push("device up", 0, set_link_state(LinkRef::Index(device), LinkState::Up));
    }
    plan_addresses(w, found, &mut batch);
    for route in found.host.main.iter().filter(|route| is_connected(w, device, route)) {
        // Through main, pods of other ENIs would reach the subnet by this device and with the wrong source.
        batch.push(CONNECTED_ROUTE, 0, Message::DelRoute(route_of(route)));
    }
    plan_table(w, found, &mut batch);
    plan_rules(w, found, &mut batch);
    batch
}

const CONNECTED_ROUTE: &str = "delete connected route";

/// Ours comes before others go: with its last address a device loses its routes. And again after it: with a primary address
/// the kernel deletes the secondary ones of the same subnet, which ours then was.
fn plan_addresses(w: &EniWiring, found: &Found<'_>, batch: &mut Batch) {
    let device = found.link.index.get();
    let wanted = |have: &&FoundAddress| have.address == w.address && have.prefix_len == w.subnet.prefix_len();
    let mut message = address(device, w.address, w.subnet.prefix_len());
    // No connected route in main: it would have to be deleted at once.
    message
        .attributes
        .push(AddressAttribute::Flags(AddressFlags::Noprefixroute));
    if !found.addresses.iter().any(|have| wanted(&have)) {
        batch.push("address", ADD, Message::NewAddress(message.clone()));
    }
    for other in found.addresses.iter().filter(|have| !wanted(have)) {
        batch.push(
            "delete foreign address",
            0,
            Message::DelAddress(address(device, other.address, other.prefix_len)),
        );
    }
    if found.has_foreign_address(w) {
        batch.push("address", ADD, Message::NewAddress(message));
    }
}

fn is_connected(w: &EniWiring, device: u32, route: &FoundRoute) -> bool {
    route.device == Some(device)
        && route.gateway.is_none()
        && (route.destination, route.prefix_len) == (w.subnet.network(), w.subnet.prefix_len())
}

/// On a device that is down there are no routes, so they are found missing and made after it comes up.
fn plan_table(w: &EniWiring, found: &Found<'_>, batch: &mut Batch) {
    let gateway = gateway_of(w.subnet);
    let device = found.link.index.get();
    let to_gateway = Route {
        destination: gateway,
        prefix_len: 32,
        table: w.table.0,
        device,
        gateway: None,
    };
    let default = Route {
        destination: Ipv4Addr::UNSPECIFIED,
        prefix_len: 0,
        gateway: Some(gateway),
        ..to_gateway
    };
    for (operation, route) in [("route to gateway", to_gateway), ("default route", default)] {
        let same = |have: &FoundRoute| {
            (have.destination, have.prefix_len, have.metric) == (route.destination, route.prefix_len, 0)
                && (have.device, have.gateway) == (Some(device), route.gateway)
        };
        if !found.table.iter().any(same) || found.has_foreign_address(w) {
            batch.push(operation, REPLACE, Message::NewRoute(route.message()));
        }
    }
}

fn plan_rules(w: &EniWiring, found: &Found<'_>, batch: &mut Batch) {
    let wanted = Rule {
        priority: RULE_FROM_ENI,
        from: Some(w.address),
        table: Some(w.table.0),
        ..Rule::default()
    };
    let of_address = |rule: &&Rule| rule.priority == RULE_FROM_ENI && rule.from == Some(w.address);
    if !found.host.rules.contains(&wanted) {
        batch.push("rule from ENI", ADD, Message::NewRule(wanted.message()));
    }
    for stale in found
        .host
        .rules
        .iter()
        .filter(of_address)
        .filter(|rule| **rule != wanted)
    {
        // Equal priorities are tried in the order of insertion: an older one would win.
        batch.push("delete stale rule from ENI", 0, Message::DelRule(stale.message()));
    }
}

/// Key of a found route, for its deletion.
fn route_of(route: &FoundRoute) -> netlink::packet::route::RouteMessage {
    let mut message = route_key(route.destination, route.prefix_len, route.table);
    message.attributes.extend(route.device.map(RouteAttribute::Oif));
    message
}

/// Sends a batch and returns the first refusal that matters: what is there already, or gone already, is done.
fn apply(s: &mut RouteSocket, batch: &Batch) -> Result<(), AnswerError> {
    let done = |error: &MessageError| {
        let gone = [Errno::ENOENT, Errno::ESRCH, Errno::EADDRNOTAVAIL].contains(&error.errno);
        let is_deletion = error.operation.starts_with("delete");
        if is_deletion {
            gone
        } else {
            error.errno == Errno::EEXIST
        }
    };
    match s.apply(batch)?.into_iter().find(|error| !done(error)) {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FoundAddress {
    address: Ipv4Addr,
    prefix_len: u8,
}

/// The global IPv4 addresses of one device.
fn addresses(s: &mut RouteSocket, device: IfIndex) -> Result<Vec<FoundAddress>, DumpError> {
    let mut request = AddressMessage::default();
    request.header.family = AddressFamily::Inet;
    request.header.index = device.get();
    let found = s.dump_raw("list addresses", &Message::GetAddress(request))?;
    // Kernels without strict checking dump the addresses of all devices.
    Ok(found
        .iter()
        .filter_map(|message| parse_address(&message.payload, device.get()))
        .collect())
}

pub(crate) fn parse_address(payload: &[u8], device: u32) -> Option<FoundAddress> {
    const HEADER: usize = 8;
    const LOCAL: u16 = 2;
    const SCOPE_GLOBAL: u8 = 0;
    let header: &[u8; HEADER] = payload.first_chunk()?;
    if header[3] != SCOPE_GLOBAL || parse_u32(&header[4..]) != Some(device) {
        return None;
    }
    let address = Attributes::after_header(payload, HEADER)
        .find_value(LOCAL)
        .and_then(parse_ipv4)?;
    Some(FoundAddress {
        address,
        prefix_len: header[1],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_is_the_first_address_of_the_subnet() {
        let gateway = |subnet: &str| gateway_of(subnet.parse().unwrap()).to_string();
        assert_eq!(gateway("10.0.1.0/24"), "10.0.1.1");
        assert_eq!(gateway("10.0.1.77/24"), "10.0.1.1");
        assert_eq!(gateway("10.0.1.16/28"), "10.0.1.17");
    }
}
