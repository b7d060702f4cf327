//! What the kernel says about links, routes and rules, reduced to what we use. Reads attributes one by one, so that devices
//! and rules of other software cannot make a view fail.

use std::net::Ipv4Addr;

use netlink::message::{LinkRef, Rule, link};
use netlink::packet::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink::packet::route::{RouteMessage, RouteType};
use netlink::packet::rule::RuleMessage;
use netlink::packet::{AddressFamily, RouteNetlinkMessage as Message};
use netlink::{AnswerError, Attributes, DumpError, Errno, RawMessage, RouteSocket, parse_str, parse_u32};
use vpc_types::{IfIndex, MacAddress};

pub(crate) const NEW_LINK: u16 = 16;
pub(crate) const DEL_LINK: u16 = 17;
pub(crate) const DEL_ADDRESS: u16 = 21;
pub(crate) const NEW_ROUTE: u16 = 24;
pub(crate) const DEL_ROUTE: u16 = 25;
pub(crate) const NEW_RULE: u16 = 32;
pub(crate) const DEL_RULE: u16 = 33;

/// `NLM_F_CREATE`, `NLM_F_EXCL`, `NLM_F_REPLACE` of `linux/netlink.h`.
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const ADD: u16 = CREATE | 0x200;
pub(crate) const REPLACE: u16 = CREATE | 0x100;

const LINK_HEADER: usize = 16;
const ROUTE_HEADER: usize = 12;
const RULE_HEADER: usize = 12;
const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
/// `FR_ACT_TO_TBL`.
const ACTION_TO_TABLE: u8 = 1;
/// `RTN_UNICAST`.
const UNICAST: u8 = 1;

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index.
    pub index: IfIndex,
    /// Name.
    pub name: String,
    /// Link-layer address, of devices that have an Ethernet one.
    pub mac: Option<MacAddress>,
    /// Alias: the container id on host veths that we made.
    pub alias: Option<String>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub(crate) is_up: bool,
    /// Kind, of virtual devices.
    pub(crate) kind: Option<String>,
}

impl Link {
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        const ADDRESS: u16 = 1;
        const NAME: u16 = 3;
        const MTU: u16 = 4;
        const INFO: u16 = 18;
        const ALIAS: u16 = 20;
        const INFO_KIND: u16 = 1;
        let attributes = Attributes::after_header(payload, LINK_HEADER);
        let find = |kind| attributes.clone().find_value(kind);
        let text = |kind| find(kind).and_then(parse_str).map(str::to_owned);
        let info = Attributes::new(find(INFO).unwrap_or_default());
        Some(Self {
            index: payload.get(4..8).and_then(parse_u32).and_then(IfIndex::new)?,
            name: text(NAME)?,
            mac: find(ADDRESS).and_then(|mac| mac.try_into().ok()).map(MacAddress),
            alias: text(ALIAS),
            mtu: find(MTU).and_then(parse_u32).unwrap_or(0),
            is_up: payload.get(8..12).and_then(parse_u32).unwrap_or(0) & IFF_UP != 0,
            kind: info.find_value(INFO_KIND).and_then(parse_str).map(str::to_owned),
        })
    }

    /// Devices stacked on an ENI carry its link-layer address too.
    fn may_be_eni(&self) -> bool {
        let stacked = ["vlan", "macvlan", "macvtap", "ipvlan", "bridge", "bond", "team"];
        self.kind.as_deref().is_none_or(|kind| !stacked.contains(&kind))
    }
}

/// An IPv4 unicast route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FoundRoute {
    pub(crate) destination: Ipv4Addr,
    pub(crate) prefix_len: u8,
    pub(crate) table: u32,
    pub(crate) device: Option<u32>,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) metric: u32,
}

impl FoundRoute {
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        const DESTINATION: u16 = 1;
        const DEVICE: u16 = 4;
        const GATEWAY: u16 = 5;
        const METRIC: u16 = 6;
        const TABLE: u16 = 15;
        let header: &[u8; ROUTE_HEADER] = payload.first_chunk()?;
        if header[0] != AF_INET || header[7] != UNICAST {
            return None;
        }
        let attributes = Attributes::after_header(payload, ROUTE_HEADER);
        let find = |kind| attributes.clone().find_value(kind);
        Some(Self {
            destination: find(DESTINATION).and_then(parse_ipv4).unwrap_or(Ipv4Addr::UNSPECIFIED),
            prefix_len: header[1],
            table: find(TABLE).and_then(parse_u32).unwrap_or_else(|| header[4].into()),
            device: find(DEVICE).and_then(parse_u32),
            gateway: find(GATEWAY).and_then(parse_ipv4),
            metric: find(METRIC).and_then(parse_u32).unwrap_or(0),
        })
    }
}

/// A rule that looks in a table and selects by whole addresses or mark at most; others are not ours and are skipped.
pub(crate) fn parse_rule(payload: &[u8]) -> Option<Rule> {
    const TO: u16 = 1;
    const FROM: u16 = 2;
    const PRIORITY: u16 = 6;
    const MARK: u16 = 10;
    const TABLE: u16 = 15;
    const MASK: u16 = 16;
    let header: &[u8; RULE_HEADER] = payload.first_chunk()?;
    if header[0] != AF_INET || header[7] != ACTION_TO_TABLE {
        return None;
    }
    let attributes = Attributes::after_header(payload, RULE_HEADER);
    let find = |kind| attributes.clone().find_value(kind);
    let address = |kind, len: u8| find(kind).and_then(parse_ipv4).filter(|_| len == 32);
    let mark = find(MARK)
        .and_then(parse_u32)
        .map(|value| (value, find(MASK).and_then(parse_u32).unwrap_or(u32::MAX)));
    Some(Rule {
        priority: find(PRIORITY).and_then(parse_u32).unwrap_or(0),
        from: address(FROM, header[2]),
        to: address(TO, header[1]),
        mark: mark.filter(|(_, mask)| *mask != 0),
        table: Some(find(TABLE).and_then(parse_u32).unwrap_or_else(|| header[4].into())),
    })
}

/// Whether a rule selects by addresses and mark alone. Others look like ours to [`parse_rule`], and are not.
pub(crate) fn is_plain_rule(payload: &[u8]) -> bool {
    const SUPPRESS_PREFIX_LEN: u16 = 14;
    /// `FRA_DST`, `FRA_SRC`, `FRA_PRIORITY`, `FRA_FWMARK`, `FRA_TABLE`, `FRA_FWMASK`, `FRA_PAD`, `FRA_PROTOCOL`.
    const PLAIN: [u16; 8] = [1, 2, 6, 10, 15, 16, 18, 21];
    /// `FIB_RULE_INVERT`.
    const INVERT: u32 = 2;
    let Some(header) = payload.first_chunk::<RULE_HEADER>() else {
        return false;
    };
    let (tos, flags) = (header[3], parse_u32(&header[8..]).unwrap_or(INVERT));
    let is_plain = |kind, value: &[u8]| match kind {
        // Always in a dump; all ones stand for "none".
        SUPPRESS_PREFIX_LEN => parse_u32(value) == Some(u32::MAX),
        _ => PLAIN.contains(&kind),
    };
    let mut attributes = Attributes::after_header(payload, RULE_HEADER);
    tos == 0 && flags & INVERT == 0 && attributes.all(|attribute| is_plain(attribute.kind, attribute.value))
}

pub(crate) fn parse_ipv4(value: &[u8]) -> Option<Ipv4Addr> {
    value.try_into().ok().map(|octets: [u8; 4]| octets.into())
}

/// All devices.
pub(crate) fn links(socket: &mut RouteSocket) -> Result<Vec<Link>, DumpError> {
    let found = socket.dump_raw(
        "list devices",
        &Message::GetLink(without_statistics(LinkMessage::default())),
    )?;
    Ok(found
        .iter()
        .filter(|message| message.kind == NEW_LINK)
        .filter_map(|m| Link::parse(&m.payload))
        .collect())
}

/// The ENI with this link-layer address.
pub(crate) fn find_eni(links: &[Link], mac: MacAddress) -> Option<&Link> {
    links.iter().find(|link| link.mac == Some(mac) && link.may_be_eni())
}

/// One device; `None` if there is no such.
pub(crate) fn find_link(socket: &mut RouteSocket, device: LinkRef<'_>) -> Result<Option<Link>, AnswerError> {
    match socket.look_up("look at device", Message::GetLink(without_statistics(link(device)))) {
        Ok(answer) => Ok(Link::parse(&answer.payload)),
        Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Statistics are most of a link message and cost most of its time.
fn without_statistics(mut message: LinkMessage) -> LinkMessage {
    message
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

/// The IPv4 unicast routes of one table.
pub(crate) fn routes(socket: &mut RouteSocket, table: u32) -> Result<Vec<FoundRoute>, DumpError> {
    let mut request = netlink::message::route_key(Ipv4Addr::UNSPECIFIED, 0, table);
    // Filters of a dump must be zero unless the kernel knows them.
    request.header.scope = netlink::packet::route::RouteScope::Universe;
    request.header.kind = RouteType::Unspec;
    let found = match socket.dump_raw("list routes", &Message::GetRoute(request)) {
        // A table that was never used.
        Err(DumpError::Refused(error)) if error.errno == Errno::ENOENT => return Ok(Vec::new()),
        other => other?,
    };
    let parsed = found
        .iter()
        .filter(|message| message.kind == NEW_ROUTE)
        .filter_map(|m| FoundRoute::parse(&m.payload));
    // Kernels without strict checking dump all tables.
    Ok(parsed.filter(|route| route.table == table).collect())
}

/// All IPv4 rules that may be ours.
pub(crate) fn rules(socket: &mut RouteSocket) -> Result<Vec<Rule>, DumpError> {
    let found = rule_messages(socket)?;
    Ok(found.iter().filter_map(|m| parse_rule(&m.payload)).collect())
}

/// All IPv4 rules as the kernel tells them.
pub(crate) fn rule_messages(socket: &mut RouteSocket) -> Result<Vec<RawMessage>, DumpError> {
    let mut request = RuleMessage::default();
    request.header.family = AddressFamily::Inet;
    let mut found = socket.dump_raw("list rules", &Message::GetRule(request))?;
    found.retain(|message| message.kind == NEW_RULE);
    Ok(found)
}

/// The device of the main table's /32 route to `address`, without listing the table.
pub(crate) fn find_host_route(socket: &mut RouteSocket, address: Ipv4Addr) -> Result<Option<u32>, HostRouteError> {
    match socket.look_up("look up pod route", Message::GetRoute(fib_match(address))) {
        Ok(answer) => match matched_in_main(&answer) {
            Some(route) if route.prefix_len == 32 => Ok(route.device),
            Some(_) => Ok(None),
            // A rule of other software sent the look-up elsewhere.
            None => find_host_route_by_dump(socket, address),
        },
        Err(error) => match error.errno() {
            // The look-up passed main and found nothing.
            Some(Errno::ENETUNREACH) => Ok(None),
            Some(_) => find_host_route_by_dump(socket, address),
            None => Err(error.into()),
        },
    }
}

/// A look at the pod's route failed.
#[derive(Debug, thiserror::Error)]
pub enum HostRouteError {
    /// The look-up failed.
    #[error(transparent)]
    LookUp(#[from] AnswerError),
    /// The listing failed.
    #[error(transparent)]
    List(#[from] DumpError),
}

fn matched_in_main(answer: &RawMessage) -> Option<FoundRoute> {
    FoundRoute::parse(&answer.payload).filter(|route| route.table == vpc_types::RouteTableId::MAIN.0)
}

fn find_host_route_by_dump(socket: &mut RouteSocket, address: Ipv4Addr) -> Result<Option<u32>, HostRouteError> {
    let routes = routes(socket, vpc_types::RouteTableId::MAIN.0)?;
    Ok(routes
        .iter()
        .find(|r| r.prefix_len == 32 && r.destination == address)
        .and_then(|route| route.device))
}

/// Asks for the entry that matches, not for the resulting path.
fn fib_match(address: Ipv4Addr) -> RouteMessage {
    let mut message = netlink::message::route_key(address, 32, 0);
    message.header.scope = netlink::packet::route::RouteScope::Universe;
    message.header.flags = netlink::packet::route::RouteFlags::FibMatch;
    message
}
