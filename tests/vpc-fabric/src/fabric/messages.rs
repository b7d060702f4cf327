//! The netlink messages of the fabric: links, neighbours, routes, rules. Values in, messages out.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use ipnet::Ipv4Net;
use netlink::Batch;
use netlink::message::{self, LinkRef, LinkState, Rule, Veth, VethEnd, route_key};
use netlink::packet::link::LinkAttribute;
use netlink::packet::neighbour_table::{NeighbourTableAttribute, NeighbourTableMessage, NeighbourTableParameter};
use netlink::packet::route::{RouteFlags, RouteMessage, RouteScope, RouteType};
use netlink::packet::{AddressFamily, RouteNetlinkMessage};

use super::RouteTable;
use crate::place::NetnsRef;

/// `NLM_F_EXCL | NLM_F_CREATE` and `NLM_F_REPLACE | NLM_F_CREATE` of `linux/netlink.h`.
const CREATE_NEW: u16 = 0x600;
const CREATE_OR_REPLACE: u16 = 0x500;

/// Every port has this address: a node sees one router, whichever ENI it looks through. Locally administered.
pub(super) const ROUTER_MAC: [u8; 6] = [0x02, 0xec, 0x20, 0x00, 0x00, 0x01];
/// Link-layer address of every internet host's device; each is alone on its link.
const WAN_MAC: [u8; 6] = [0x02, 0xec, 0x20, 0x00, 0x00, 0x02];

/// The ENI's end of every port, as next hop. Addresses are routed *via* it, because pods' addresses never answer ARP
/// on the ENI; it is a permanent neighbour, so the fabric itself never asks.
const ENI_HOP: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 2);
/// The fabric's end, as next hop of internet hosts.
const FABRIC_HOP: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 1);

/// MTU inside a VPC, and through an internet gateway, in bytes, as EC2 documents them.
pub(super) const MTU_VPC: u32 = 9001;
const MTU_INTERNET: u32 = 1500;

/// `lo` is the first device of any network namespace.
pub(super) const LOOPBACK: u32 = 1;

const MAIN_TABLE: u32 = 254;
/// Kernel table of a VPC route table, and the mark of packets that are routed by it (0 is an unmarked packet).
const FIRST_TABLE: u32 = 100;
const FIRST_MARK: u32 = 1;
/// After the main table's rule (32766). Before it, default routes would beat the addresses of the VPC.
const RULE_PRIORITY: u32 = 40_000;

/// Mark that leads to `table`.
pub(super) fn mark_of(table: RouteTable) -> u32 {
    FIRST_MARK + u32::from(table.0)
}

fn kernel_table(table: RouteTable) -> u32 {
    FIRST_TABLE + u32::from(table.0)
}

/// A device of the fabric: its number and the name derived from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PortIndex(pub(super) u32);

impl PortIndex {
    /// `p1001`: the filter recognises ports by the first letter.
    pub(super) fn port_name(self) -> String {
        format!("p{}", self.0)
    }

    /// `igw501`: likewise.
    pub(super) fn gateway_name(self) -> String {
        format!("igw{}", self.0)
    }
}

/// A pair whose fabric end has a chosen index, so that later messages of the same batch can name it.
fn push_pair(batch: &mut Batch, index: PortIndex, name: &str, mtu: u32, peer: VethEnd<'_>) {
    let end = VethEnd {
        name,
        mtu,
        mac: ROUTER_MAC,
        netns: None,
    };
    let mut message = Veth {
        end,
        state: LinkState::Up,
        group: 0,
        peer,
    }
    .message();
    if let RouteNetlinkMessage::NewLink(link) = &mut message {
        link.header.index = index.0;
    }
    batch.push("create device", CREATE_NEW, message);
    batch.push(
        "set next hop",
        CREATE_OR_REPLACE,
        message::neighbour(index.0, ENI_HOP, peer.mac),
    );
}

/// Everything that attaches an ENI. The peer is born in the node with the ENI's address, down.
pub(super) fn push_attach(batch: &mut Batch, index: PortIndex, port: &super::EniPort, device: &str) {
    let peer = VethEnd {
        name: device,
        mtu: MTU_VPC,
        mac: port.mac.octets(),
        netns: Some(port.netns.as_fd()),
    };
    push_pair(batch, index, &index.port_name(), MTU_VPC, peer);
    batch.push("answer ARP at once", 0, no_proxy_delay(index));
    let alias = LinkAttribute::IfAlias(port.eni.to_string());
    batch.push("label port", 0, message::set_link(LinkRef::Index(index.0), alias));
}

/// The fabric's end of an internet host's link.
pub(super) fn push_gateway(batch: &mut Batch, index: PortIndex, host: &NetnsRef) {
    let peer = VethEnd {
        name: "wan",
        mtu: MTU_INTERNET,
        mac: WAN_MAC,
        netns: Some(host.as_fd()),
    };
    push_pair(batch, index, &index.gateway_name(), MTU_INTERNET, peer);
}

/// The host's end, which has index `wan` there.
pub(super) fn push_internet_host(batch: &mut Batch, wan: u32, addresses: &[Ipv4Addr]) {
    batch.push(
        "set wan up",
        0,
        message::set_link_state(LinkRef::Index(wan), LinkState::Up),
    );
    push_addresses(batch, wan, addresses);
    batch.push(
        "set router",
        CREATE_OR_REPLACE,
        message::neighbour(wan, FABRIC_HOP, ROUTER_MAC),
    );
    let default = route_via(Ipv4Net::default(), MAIN_TABLE, wan, FABRIC_HOP);
    batch.push("add default route", CREATE_NEW, RouteNetlinkMessage::NewRoute(default));
}

/// Addresses as /32, in order: the first one of a device is the source of ICMP errors.
pub(super) fn push_addresses(batch: &mut Batch, device: u32, addresses: &[Ipv4Addr]) {
    for address in addresses {
        let message = RouteNetlinkMessage::NewAddress(message::address(device, *address, 32));
        batch.push(format!("add address {address}"), CREATE_OR_REPLACE, message);
    }
}

/// `RTM_SETNEIGHTBL` with `proxy_delay` 0: the kernel answers proxied ARP after a random delay of up to 0.8 s, and
/// namespaces other than the first have no default from which a port could inherit another value.
fn no_proxy_delay(index: PortIndex) -> RouteNetlinkMessage {
    let mut message = NeighbourTableMessage::default();
    message.header.family = AddressFamily::Inet;
    message.attributes = vec![
        NeighbourTableAttribute::Name("arp_cache".into()),
        NeighbourTableAttribute::Parms(vec![
            NeighbourTableParameter::Ifindex(index.0),
            NeighbourTableParameter::ProxyDelay(0),
        ]),
    ];
    RouteNetlinkMessage::SetNeighbourTable(message)
}

fn route_via(net: Ipv4Net, table: u32, device: u32, gateway: Ipv4Addr) -> RouteMessage {
    let route = message::Route {
        destination: net.network(),
        prefix_len: net.prefix_len(),
        table,
        device,
        gateway: Some(gateway),
    };
    let mut message = route.message();
    // The next hop lies in no network of the device.
    message.header.flags = RouteFlags::Onlink;
    message
}

/// `net` belongs to the ENI behind `port`, whomever it belonged to before.
pub(super) fn push_assign(batch: &mut Batch, port: PortIndex, net: Ipv4Net) {
    let route = route_via(net, MAIN_TABLE, port.0, ENI_HOP);
    batch.push(
        format!("assign {net}"),
        CREATE_OR_REPLACE,
        RouteNetlinkMessage::NewRoute(route),
    );
}

/// `net` no longer belongs to the ENI behind `port`; another owner is not touched, because the device must match.
pub(super) fn push_unassign(batch: &mut Batch, port: PortIndex, net: Ipv4Net) {
    let route = route_via(net, MAIN_TABLE, port.0, ENI_HOP);
    batch.push(format!("unassign {net}"), 0, RouteNetlinkMessage::DelRoute(route));
}

/// Nobody owns an address of this range unless a longer route says so. A blackhole gives no ARP answer and drops
/// silently, as EC2 does; the other kinds of null routes send ICMP.
pub(super) fn push_vpc_cidr(batch: &mut Batch, cidr: Ipv4Net) {
    let mut route = route_key(cidr.network(), cidr.prefix_len(), MAIN_TABLE);
    route.header.kind = RouteType::BlackHole;
    route.header.scope = RouteScope::Universe;
    batch.push(
        format!("add VPC range {cidr}"),
        CREATE_NEW,
        RouteNetlinkMessage::NewRoute(route),
    );
}

/// The policy rule that leads marked packets to `table`.
pub(super) fn push_table_rule(batch: &mut Batch, table: RouteTable) {
    let rule = Rule {
        priority: RULE_PRIORITY,
        mark: Some((mark_of(table), u32::MAX)),
        table: Some(kernel_table(table)),
        ..Rule::default()
    };
    batch.push(
        format!("add rule of route table {}", table.0),
        CREATE_NEW,
        RouteNetlinkMessage::NewRule(rule.message()),
    );
}

/// A route of a VPC route table towards a device of the fabric.
pub(super) fn push_table_route(batch: &mut Batch, table: RouteTable, net: Ipv4Net, via: PortIndex) {
    let route = route_via(net, kernel_table(table), via.0, ENI_HOP);
    batch.push(
        format!("route {net} in table {}", table.0),
        CREATE_OR_REPLACE,
        RouteNetlinkMessage::NewRoute(route),
    );
}

/// Removes whatever route to `net` the table has.
pub(super) fn push_table_route_removal(batch: &mut Batch, table: RouteTable, net: Ipv4Net) {
    let route = route_key(net.network(), net.prefix_len(), kernel_table(table));
    batch.push(
        format!("remove {net} of table {}", table.0),
        0,
        RouteNetlinkMessage::DelRoute(route),
    );
}

/// Removes a device of the fabric; its other end and all routes through it go too.
pub(super) fn push_removal(batch: &mut Batch, index: PortIndex) {
    let link = message::link(LinkRef::Index(index.0));
    batch.push("remove port", 0, RouteNetlinkMessage::DelLink(link));
}
