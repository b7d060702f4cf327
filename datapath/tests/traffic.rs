//! Packets through a wired node: a pod on a secondary ENI, a router that drops wrong sources, and the outside.

#![expect(clippy::unwrap_used, reason = "helpers of tests may unwrap like the tests")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::Duration;

use datapath::{
    EniWiring, NetNs, NodeConfig, NodePorts, PodSockets, PodWiring, Random, SnatPolicy, apply_node, setup_eni, wire,
};
use namespace::{add_eni, host, in_namespace, ip, new_namespace, wiring};
use netlink::message::{LinkRef, set_link};
use netlink::packet::link::LinkAttribute;
use vpc_types::{FwMark, MacAddress, RouteTableId, VethPrefix};

#[expect(dead_code, reason = "each test program uses another part of it")]
mod namespace;

const PRIMARY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ENI_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const PRIMARY: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 10);
const POD: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 50);
const INTERNET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const VPC_HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 9, 9);

/// A pod on the second ENI of a node, and the router that both ENIs lead to.
struct Topology {
    router: NetNs,
    pod: NetNs,
}

impl Topology {
    fn build(snat: SnatPolicy) -> Self {
        let mut socket = host();
        let router = new_namespace();
        add_eni(&mut socket, "ens5", PRIMARY_MAC);
        add_eni(&mut socket, "ens6", ENI_MAC);
        for port in ["p-ens5", "p-ens6"] {
            let there = LinkAttribute::NetNsFd(router.as_fd().as_raw_fd());
            socket
                .request("move port", 0, set_link(LinkRef::Name(port), there))
                .unwrap();
        }
        router.run(build_router).unwrap();
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        ip(&format!("address add {PRIMARY}/24 dev ens5"));
        ip("link set ens5 up");
        ip("route add default via 10.0.1.1 dev ens5");
        apply_node(&mut socket, &node(snat)).unwrap();
        let eni = EniWiring {
            mac: MacAddress(ENI_MAC),
            table: RouteTableId(2),
            address: Ipv4Addr::new(10, 0, 2, 20),
            subnet: "10.0.2.0/24".parse().unwrap(),
            mtu: 1500,
        };
        setup_eni(&mut socket, &eni).unwrap();
        let pod = new_namespace();
        let w = PodWiring {
            address: POD,
            mtu: 1500,
            ..wiring(5, 2)
        };
        wire(&mut PodSockets::open(&pod).unwrap(), &w).unwrap();
        Self { router, pod }
    }

    /// A socket in the pod and one behind the router.
    fn sockets(&self, outside: Ipv4Addr) -> (UdpSocket, UdpSocket) {
        (bind(&self.pod, POD), bind(&self.router, outside))
    }
}

/// Strict reverse-path filtering drops what arrives on a port with a source of another one, as a VPC does.
fn build_router() {
    std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").unwrap();
    ip("link set lo up");
    for (port, address) in [("p-ens5", "10.0.1.1/24"), ("p-ens6", "10.0.2.1/24")] {
        ip(&format!("address add {address} dev {port}"));
        ip(&format!("link set {port} up"));
    }
    for address in [INTERNET, VPC_HOST] {
        ip(&format!("address add {address}/32 dev lo"));
    }
    // A VPC knows where an address lives without asking for it.
    ip(&format!(
        "neighbour add {POD} lladdr {} dev p-ens6 nud permanent",
        MacAddress(ENI_MAC)
    ));
}

fn node(snat: SnatPolicy) -> NodeConfig {
    NodeConfig {
        primary_mac: MacAddress(PRIMARY_MAC),
        primary_address: PRIMARY,
        mtu: 1500,
        snat,
        node_ports: NodePorts::Supported,
        vpc_cidrs: vec!["10.0.0.0/16".parse().unwrap()],
        exclude_cidrs: Vec::new(),
        mark: FwMark::DEFAULT,
        veth_prefix: VethPrefix::default(),
    }
}

fn bind(netns: &NetNs, address: Ipv4Addr) -> UdpSocket {
    let socket = netns.run(|| UdpSocket::bind((address, 0)).unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

/// Sends there and back three times; returns the source that the server saw.
fn exchange(client: &UdpSocket, server: &UdpSocket, to: SocketAddr) -> SocketAddr {
    let mut buffer = [0; 64];
    let mut sources = Vec::new();
    for _ in 0..3 {
        client.send_to(b"there", to).unwrap();
        let (_, source) = server.recv_from(&mut buffer).expect("the packet reaches the server");
        server.send_to(b"back", source).unwrap();
        let (_, replier) = client.recv_from(&mut buffer).expect("the answer reaches the client");
        assert_eq!(replier, to);
        sources.push(source);
    }
    sources.dedup();
    assert_eq!(
        sources.len(),
        1,
        "every packet of a flow has the same source: {sources:?}"
    );
    sources[0]
}

#[test]
fn inside_the_vpc_a_pod_has_its_own_address() {
    in_namespace(|| {
        let topology = Topology::build(SnatPolicy::ToPrimary { random: Random::Fully });
        let (pod, peer) = topology.sockets(VPC_HOST);
        assert_eq!(
            exchange(&pod, &peer, peer.local_addr().unwrap()),
            pod.local_addr().unwrap()
        );
        assert_eq!(
            exchange(&peer, &pod, pod.local_addr().unwrap()),
            peer.local_addr().unwrap()
        );
    });
}

#[test]
fn leaving_the_vpc_a_packet_has_the_primary_address_and_leaves_by_the_primary_eni() {
    in_namespace(|| {
        let topology = Topology::build(SnatPolicy::ToPrimary { random: Random::Fully });
        let (pod, internet) = topology.sockets(INTERNET);
        assert_eq!(exchange(&pod, &internet, internet.local_addr().unwrap()).ip(), PRIMARY);
    });
}

#[test]
fn with_external_translation_the_pod_keeps_its_address_and_eni() {
    in_namespace(|| {
        let topology = Topology::build(SnatPolicy::External);
        let (pod, internet) = topology.sockets(INTERNET);
        assert_eq!(
            exchange(&pod, &internet, internet.local_addr().unwrap()),
            pod.local_addr().unwrap()
        );
    });
}

#[test]
fn answers_to_a_node_port_leave_by_the_eni_at_which_the_connection_arrived() {
    in_namespace(|| {
        let topology = Topology::build(SnatPolicy::External);
        let (pod, internet) = topology.sockets(INTERNET);
        let script = format!(
            "table ip proxy {{ chain pre {{ type nat hook prerouting priority dstnat; udp dport 30000 dnat to {POD}:{}; }}; }}",
            pod.local_addr().unwrap().port()
        );
        assert!(Command::new("nft").arg(script).status().unwrap().success());
        let source = exchange(&internet, &pod, (PRIMARY, 30_000).into());
        assert_eq!(source, internet.local_addr().unwrap());
    });
}

#[test]
fn a_connection_that_a_proxy_redirects_out_of_the_vpc_is_translated_too() {
    in_namespace(|| {
        let topology = Topology::build(SnatPolicy::ToPrimary { random: Random::Fully });
        let (pod, internet) = topology.sockets(INTERNET);
        let script = format!(
            "table ip proxy {{ chain pre {{ type nat hook prerouting priority dstnat; ip daddr 10.96.0.1 udp dport 53 dnat to {}; }}; }}",
            internet.local_addr().unwrap()
        );
        assert!(Command::new("nft").arg(script).status().unwrap().success());
        assert_eq!(exchange(&pod, &internet, "10.96.0.1:53".parse().unwrap()).ip(), PRIMARY);
    });
}

#[test]
fn without_its_from_rule_a_pod_is_not_heard() {
    in_namespace(|| {
        let topology = Topology::build(SnatPolicy::ToPrimary { random: Random::Fully });
        let (pod, peer) = topology.sockets(VPC_HOST);
        ip("rule delete priority 1536");
        peer.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        pod.send_to(b"x", peer.local_addr().unwrap()).unwrap();
        assert!(
            peer.recv_from(&mut [0; 8]).is_err(),
            "the router drops what has a source of another ENI"
        );
    });
}
