//! Packets through a wired node: a pod on a secondary ENI, a router that drops wrong sources, and the outside.

#![expect(clippy::unwrap_used, reason = "helpers of tests may unwrap like the tests")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use datapath::{
    EniWiring, NetNs, NodeConfig, NodePorts, PodSockets, PodWiring, Random, SnatPolicy, apply_node, apply_ruleset,
    setup_eni, wire,
};
use namespace::{add_eni, await_carriers, host, in_namespace, ip, new_namespace, wiring};
use netlink::message::{LinkRef, set_link};
use netlink::packet::link::LinkAttribute;
use vpc_types::{FwMark, MacAddress, RouteTableId, VethPrefix};

#[expect(dead_code, reason = "each test program uses another part of it")]
mod namespace;

const PRIMARY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ENI_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const PRIMARY: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 10);
const SECONDARY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 20);
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
            address: SECONDARY,
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
        await_carriers();
        for netns in [&router, &pod] {
            netns.run(await_carriers).unwrap();
        }
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
        service_cidrs: Vec::new(),
        mark: FwMark::DEFAULT,
        veth_prefix: VethPrefix::default(),
    }
}

fn bind(netns: &NetNs, address: Ipv4Addr) -> UdpSocket {
    let socket = netns.run(|| UdpSocket::bind((address, 0)).unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

/// A socket of a process of the host.
fn bind_here(address: Ipv4Addr) -> UdpSocket {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

fn nft(script: &str) {
    assert!(Command::new("nft").arg(script).status().unwrap().success());
}

/// Port 30000 of every address of the node leads to the pod, as kube-proxy makes it where clients' addresses are kept.
fn node_port(pod: &UdpSocket) {
    nft(&format!(
        "table ip proxy {{ chain pre {{ type nat hook prerouting priority dstnat; fib daddr type local udp dport 30000 dnat to {POD}:{}; }}; }}",
        pod.local_addr().unwrap().port()
    ));
}

/// A network behind another device of the node than an ENI, such as a bridge or a tunnel: .1 is the node, .2 answers.
fn other_device(name: &str, network: [u8; 3]) -> (Ipv4Addr, UdpSocket) {
    let [a, b, c] = network;
    let (here, there) = (Ipv4Addr::new(a, b, c, 1), Ipv4Addr::new(a, b, c, 2));
    let mut socket = host();
    add_eni(&mut socket, name, [2, a, b, c, 0, 1]);
    let netns = new_namespace();
    let port = format!("p-{name}");
    let target = LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd());
    socket
        .request("move port", 0, set_link(LinkRef::Name(&port), target))
        .unwrap();
    ip(&format!("address add {here}/24 dev {name}"));
    ip(&format!("link set {name} up"));
    netns
        .run(|| {
            ip(&format!("address add {there}/24 dev {port}"));
            ip(&format!("link set {port} up"));
            ip(&format!("route add default via {here}"));
            await_carriers();
        })
        .unwrap();
    await_carriers();
    (here, bind(&netns, there))
}

const OURS: SnatPolicy = SnatPolicy::ToPrimary { random: Random::Fully };

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
        let topology = Topology::build(OURS);
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
        let topology = Topology::build(OURS);
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
        node_port(&pod);
        let source = exchange(&internet, &pod, (PRIMARY, 30_000).into());
        assert_eq!(source, internet.local_addr().unwrap());
    });
}

#[test]
fn a_connection_that_a_proxy_redirects_out_of_the_vpc_is_translated_too() {
    in_namespace(|| {
        let topology = Topology::build(OURS);
        let (pod, internet) = topology.sockets(INTERNET);
        nft(&format!(
            "table ip proxy {{ chain pre {{ type nat hook prerouting priority dstnat; ip daddr 10.96.0.1 udp dport 53 dnat to {}; }}; }}",
            internet.local_addr().unwrap()
        ));
        assert_eq!(exchange(&pod, &internet, "10.96.0.1:53".parse().unwrap()).ip(), PRIMARY);
    });
}

#[test]
fn without_its_from_rule_a_pod_is_not_heard() {
    in_namespace(|| {
        let topology = Topology::build(OURS);
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

#[test]
fn a_host_process_that_uses_a_secondary_enis_own_address_keeps_it_and_leaves_by_that_eni() {
    in_namespace(|| {
        let topology = Topology::build(OURS);
        for (address, outside) in [
            (SECONDARY, INTERNET),
            (SECONDARY, VPC_HOST),
            (PRIMARY, INTERNET),
            (PRIMARY, VPC_HOST),
        ] {
            let (here, there) = (bind_here(address), bind(&topology.router, outside));
            let source = exchange(&here, &there, there.local_addr().unwrap());
            assert_eq!(source.ip(), address, "to {outside}");
            // And as a server.
            let (here, there) = (bind_here(address), bind(&topology.router, outside));
            exchange(&there, &here, here.local_addr().unwrap());
        }
    });
}

#[test]
fn host_and_pod_reach_each_other_by_every_address_of_the_host() {
    in_namespace(|| {
        let topology = Topology::build(OURS);
        for address in [PRIMARY, SECONDARY] {
            let (here, pod) = (bind_here(address), bind(&topology.pod, POD));
            assert_eq!(
                exchange(&here, &pod, pod.local_addr().unwrap()),
                here.local_addr().unwrap()
            );
            let (here, pod) = (bind_here(address), bind(&topology.pod, POD));
            assert_eq!(
                exchange(&pod, &here, here.local_addr().unwrap()),
                pod.local_addr().unwrap()
            );
        }
    });
}

#[test]
fn answers_to_a_load_balancer_that_sends_to_the_pod_itself_leave_by_the_pods_eni() {
    for snat in [OURS, SnatPolicy::External] {
        in_namespace(move || {
            let topology = Topology::build(snat);
            let (pod, client) = topology.sockets(INTERNET);
            let source = exchange(&client, &pod, pod.local_addr().unwrap());
            assert_eq!(source, client.local_addr().unwrap(), "{snat:?}");
        });
    }
}

#[test]
fn a_node_port_at_a_secondary_enis_own_address_serves_pods_of_that_eni() {
    in_namespace(|| {
        let topology = Topology::build(OURS);
        let (pod, client) = topology.sockets(INTERNET);
        node_port(&pod);
        let source = exchange(&client, &pod, (SECONDARY, 30_000).into());
        assert_eq!(source, client.local_addr().unwrap());
    });
}

/// Bridges and tunnels: pods appear with the node's address there, and the node with the address that it has there.
#[test]
fn what_leaves_by_another_device_is_translated_unless_it_has_that_devices_address() {
    in_namespace(|| {
        let topology = Topology::build(OURS);
        let (on_device, peer) = other_device("docker0", [172, 30, 0]);
        let to = peer.local_addr().unwrap();
        assert_eq!(exchange(&bind(&topology.pod, POD), &peer, to).ip(), PRIMARY);
        assert_eq!(exchange(&bind_here(on_device), &peer, to).ip(), on_device);
        // By a branch ENI everything leaves as it is.
        let (_, peer) = other_device("vlan.eth.5", [172, 30, 5]);
        let to = peer.local_addr().unwrap();
        assert_eq!(exchange(&bind(&topology.pod, POD), &peer, to).ip(), POD);
    });
}

/// Calico's programs mark packets in high bits, kube-proxy in 0x4000; what has lost a bit, or gained one, is dropped here.
#[test]
fn thread_3872_marks_of_others_survive_on_every_packet() {
    in_namespace(|| {
        let topology = Topology::build(OURS);
        nft("table ip others {
            chain before_ours { type filter hook prerouting priority -160;
                meta mark set 0x01004000; ct mark set ct mark | 0x02000000; }
            chain behind_ours { type filter hook forward priority 0;
                meta mark & 0xffffff7f != 0x01004000 drop
                ct mark & 0xffffff7f != 0x02000000 drop
                ip saddr 10.0.2.50 ip daddr 203.0.113.10 meta mark & 0x80 == 0 drop
                ip saddr 10.0.2.50 ip daddr 10.0.0.0/16 meta mark & 0x80 != 0 drop
                ip daddr 10.0.2.50 meta mark & 0x80 != 0 drop
            }
        }");
        let (pod, internet) = topology.sockets(INTERNET);
        assert_eq!(exchange(&pod, &internet, internet.local_addr().unwrap()).ip(), PRIMARY);
        let (pod, peer) = topology.sockets(VPC_HOST);
        exchange(&pod, &peer, peer.local_addr().unwrap());
        let (pod, peer) = topology.sockets(VPC_HOST);
        exchange(&peer, &pod, pod.local_addr().unwrap());
        let (pod, internet) = topology.sockets(INTERNET);
        node_port(&pod);
        exchange(&internet, &pod, (PRIMARY, 30_000).into());
    });
}

#[test]
fn while_the_vpcs_ranges_change_no_connection_leaves_untranslated() {
    in_namespace(|| {
        let topology = Topology::build(OURS);
        let (pod, internet) = topology.sockets(INTERNET);
        let to = internet.local_addr().unwrap();
        let is_over = AtomicBool::new(false);
        let changes = std::thread::scope(|scope| {
            let changer = scope.spawn(|| {
                let mut socket = host();
                let small = node(OURS);
                let mut large = node(OURS);
                large.vpc_cidrs.push("172.31.0.0/16".parse().unwrap());
                let mut changes = 0;
                while !is_over.load(Ordering::Relaxed) || changes < 20 {
                    apply_node(&mut socket, &large).unwrap();
                    apply_node(&mut socket, &small).unwrap();
                    changes += 2;
                }
                changes
            });
            let port = exchange(&pod, &internet, to).port();
            for _ in 0..200 {
                let fresh = bind(&topology.pod, POD);
                assert_eq!(exchange(&fresh, &internet, to).ip(), PRIMARY);
                assert_eq!(exchange(&pod, &internet, to).port(), port, "an open connection goes on");
            }
            is_over.store(true, Ordering::Relaxed);
            changer.join().unwrap()
        });
        assert!(changes >= 20, "{changes}");
    });
}

/// Its packets come by a device whose name begins otherwise than the setting says.
#[test]
fn a_pod_from_before_a_change_of_the_veth_prefix_is_served_on() {
    in_namespace(|| {
        let topology = Topology::build(OURS);
        let (pod, internet) = topology.sockets(INTERNET);
        let to = internet.local_addr().unwrap();
        let before = exchange(&pod, &internet, to);
        let config = NodeConfig {
            veth_prefix: VethPrefix::parse("pod").unwrap(),
            ..node(OURS)
        };
        let mut socket = host();
        let devices = apply_node(&mut socket, &config).unwrap().devices;
        assert_eq!(devices.older_prefixes, ["eni".to_owned()].into());
        assert_eq!(exchange(&pod, &internet, to), before, "an open connection goes on");
        let (fresh, internet) = topology.sockets(INTERNET);
        assert_eq!(
            exchange(&fresh, &internet, internet.local_addr().unwrap()).ip(),
            PRIMARY
        );
        assert_eq!(apply_ruleset(&config, &devices).unwrap(), None);
        // Without its rule it is no pod.
        ip("rule delete priority 512");
        assert!(
            apply_node(&mut socket, &config)
                .unwrap()
                .devices
                .older_prefixes
                .is_empty()
        );
    });
}
