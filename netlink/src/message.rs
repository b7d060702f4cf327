//! Builders of the IPv4 messages that several crates send. Values in, one message out; no socket, no policy.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

/// Whether a device is administratively up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// Up.
    Up,
    /// Down.
    Down,
}

/// A random unicast, locally administered link-layer address. 46 random bits make a look at existing ones needless.
pub fn random_mac() -> std::io::Result<[u8; 6]> {
    let mut mac = crate::sys::random_bytes::<6>()?;
    mac[0] = (mac[0] | 0x02) & 0xfe;
    Ok(mac)
}

/// One end of a veth pair that is about to be made.
#[derive(Debug, Clone, Copy)]
pub struct VethEnd<'a> {
    /// Name, ≤ 15 bytes.
    pub name: &'a str,
    /// MTU in bytes.
    pub mtu: u32,
    /// Link-layer address.
    pub mac: [u8; 6],
    /// Namespace in which it is born; `None` is the socket's.
    pub netns: Option<BorrowedFd<'a>>,
}

/// A veth pair. Only the first end can be made in state up: the kernel refuses it for the peer (ENOTCONN).
#[derive(Debug, Clone, Copy)]
pub struct Veth<'a> {
    /// The main device.
    pub end: VethEnd<'a>,
    /// State of the main device.
    pub state: LinkState,
    /// Group of the main device; 0 is the kernel's default.
    pub group: u32,
    /// The other end.
    pub peer: VethEnd<'a>,
}

impl Veth<'_> {
    /// `RTM_NEWLINK`. One queue per end: the kernel's default of one per possible CPU costs up to 2 ms under the rtnl lock.
    pub fn message(&self) -> RouteNetlinkMessage {
        let mut peer = LinkMessage::default();
        peer.attributes = end_attributes(&self.peer);
        let mut link = LinkMessage::default();
        set_state(&mut link, self.state);
        link.attributes = end_attributes(&self.end);
        if self.group != 0 {
            link.attributes.push(LinkAttribute::Group(self.group));
        }
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        RouteNetlinkMessage::NewLink(link)
    }
}

fn end_attributes(end: &VethEnd<'_>) -> Vec<LinkAttribute> {
    let mut attributes = vec![
        LinkAttribute::IfName(end.name.to_owned()),
        LinkAttribute::Mtu(end.mtu),
        LinkAttribute::Address(end.mac.to_vec()),
        LinkAttribute::NumTxQueues(1),
        LinkAttribute::NumRxQueues(1),
        // Virtual devices need no queue; a non-zero length would attach a queueing discipline.
        LinkAttribute::TxQueueLen(0),
    ];
    attributes.extend(end.netns.map(|fd| LinkAttribute::NetNsFd(fd.as_raw_fd())));
    attributes
}

fn set_state(link: &mut LinkMessage, state: LinkState) {
    link.header.change_mask = LinkFlags::Up;
    if state == LinkState::Up {
        link.header.flags = LinkFlags::Up;
    }
}

/// Which device a link message means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkRef<'a> {
    /// By index.
    Index(u32),
    /// By name, without a look-up.
    Name(&'a str),
}

/// A link message without changes: for `GetLink`, `DelLink`, or to add attributes to.
pub fn link(device: LinkRef<'_>) -> LinkMessage {
    let mut message = LinkMessage::default();
    match device {
        LinkRef::Index(index) => message.header.index = index,
        LinkRef::Name(name) => message.attributes.push(LinkAttribute::IfName(name.to_owned())),
    }
    message
}

/// `RTM_SETLINK`: up or down.
pub fn set_link_state(device: LinkRef<'_>, state: LinkState) -> RouteNetlinkMessage {
    let mut message = link(device);
    set_state(&mut message, state);
    RouteNetlinkMessage::SetLink(message)
}

/// `RTM_SETLINK`: one attribute.
pub fn set_link(device: LinkRef<'_>, attribute: LinkAttribute) -> RouteNetlinkMessage {
    let mut message = link(device);
    message.attributes.push(attribute);
    RouteNetlinkMessage::SetLink(message)
}

/// An IPv4 address on a device.
pub fn address(index: u32, address: Ipv4Addr, prefix_len: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = prefix_len;
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(IpAddr::V4(address)),
        AddressAttribute::Address(IpAddr::V4(address)),
    ];
    message
}

/// An IPv4 unicast route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Network address of the destination; unspecified with length 0 for the default route.
    pub destination: Ipv4Addr,
    /// Prefix length of the destination.
    pub prefix_len: u8,
    /// Table number.
    pub table: u32,
    /// Output device.
    pub device: u32,
    /// Next hop; without one the route has scope link.
    pub gateway: Option<Ipv4Addr>,
}

impl Route {
    /// The message for `NewRoute`: protocol boot, as `ip route add` and other CNI plugins write.
    pub fn message(&self) -> RouteMessage {
        let mut message = route_key(self.destination, self.prefix_len, self.table);
        message.header.protocol = RouteProtocol::Boot;
        message.header.kind = RouteType::Unicast;
        message.header.scope = if self.gateway.is_some() {
            RouteScope::Universe
        } else {
            RouteScope::Link
        };
        message.attributes.push(RouteAttribute::Oif(self.device));
        message.attributes.extend(
            self.gateway
                .map(|gateway| RouteAttribute::Gateway(RouteAddress::Inet(gateway))),
        );
        message
    }
}

/// Destination and table alone, with a scope that matches any: what `DelRoute` needs.
pub fn route_key(destination: Ipv4Addr, prefix_len: u8, table: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = prefix_len;
    message.header.scope = RouteScope::NoWhere;
    match u8::try_from(table) {
        Ok(table) => message.header.table = table,
        Err(_) => message.attributes.push(RouteAttribute::Table(table)),
    }
    if prefix_len > 0 {
        message
            .attributes
            .push(RouteAttribute::Destination(RouteAddress::Inet(destination)));
    }
    message
}

/// An IPv4 policy rule, or the pattern of one: absent parts match anything when it deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Rule {
    /// Priority; 0 matches any when it deletes.
    pub priority: u32,
    /// Source address (a /32).
    pub from: Option<Ipv4Addr>,
    /// Destination address (a /32).
    pub to: Option<Ipv4Addr>,
    /// Packet mark and mask.
    pub mark: Option<(u32, u32)>,
    /// Table to look in; `None` only in a pattern.
    pub table: Option<u32>,
}

impl Rule {
    /// The message for `NewRule` or `DelRule`.
    pub fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.action = RuleAction::ToTable;
        if self.priority != 0 {
            message.attributes.push(RuleAttribute::Priority(self.priority));
        }
        if let Some(from) = self.from {
            message.header.src_len = 32;
            message.attributes.push(RuleAttribute::Source(IpAddr::V4(from)));
        }
        if let Some(to) = self.to {
            message.header.dst_len = 32;
            message.attributes.push(RuleAttribute::Destination(IpAddr::V4(to)));
        }
        if let Some((value, mask)) = self.mark {
            message
                .attributes
                .extend([RuleAttribute::FwMark(value), RuleAttribute::FwMask(mask)]);
        }
        if let Some(table) = self.table {
            match u8::try_from(table) {
                Ok(small) => message.header.table = small,
                Err(_) => message.attributes.push(RuleAttribute::Table(table)),
            }
        }
        message
    }
}

/// A permanent IPv4 neighbour.
pub fn neighbour(index: u32, address: Ipv4Addr, mac: [u8; 6]) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)),
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
    ];
    RouteNetlinkMessage::NewNeighbour(message)
}
