//! Pods behind nodes, wired by hand as the agent under test does, and what only they show.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use ipnet::Ipv4Net;
use netlink::message::{self, LinkState, Route, Rule, Veth, VethEnd, neighbour};
use netlink::packet::RouteNetlinkMessage;
use netlink::packet::route::RouteFlags;
use netlink::{Batch, RouteSocket};
use nix::sys::socket::{getsockopt, sockopt};
use std::os::fd::AsFd;
use vpc_fabric::probe::{EchoServer, Peer, mesh};
use vpc_fabric::{NetnsRef, Node, Sandbox};

use crate::harness::{InsideTest, eventually};
use crate::setup::{IMDS, N1_PRIMARY, SECONDARY_TABLE, WEB, eni, only, seen_by_tcp, vpc};

/// Next hop of a pod: an address that nobody has, with the host's end of its veth as a fixed neighbour.
const POD_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const HOST_MAC: [u8; 6] = [0x06, 0, 0, 0, 0, 1];
const MAIN_TABLE: u32 = 254;
/// `NLM_F_CREATE | NLM_F_EXCL`.
const CREATE: u16 = 0x600;

pub(crate) fn tests() -> Vec<InsideTest> {
    vec![
        InsideTest {
            name: "pods_on_all_enis_reach_each_other_by_their_own_addresses",
            run: pods_reach,
        },
        InsideTest {
            name: "a_pod_asks_services_with_its_own_address",
            run: pod_asks_service,
        },
        InsideTest {
            name: "packets_too_big_for_the_internet_are_reported",
            run: too_big,
        },
    ]
}

/// Which ENI's addresses the pod has, hence which table it leaves by.
#[derive(Clone, Copy)]
enum Leaves {
    ByMain,
    BySecondary,
}

fn wire(node: &Node, n: u8, address: Ipv4Addr, leaves: Leaves) -> Peer {
    let name = format!("pod{n}");
    let pod = node.add_pod_netns(&name).unwrap();
    let (peer_netns, host_name) = (pod.netns.clone(), format!("veth{n}"));
    node.run(move || wire_host(&peer_netns, &host_name, n, address, leaves))
        .unwrap();
    pod.netns.run(|| wire_pod(address)).unwrap();
    Peer {
        name: format!("{}/{name}", node.name()),
        netns: pod.netns,
        address,
    }
}

fn wire_host(pod: &NetnsRef, name: &str, n: u8, address: Ipv4Addr, leaves: Leaves) {
    let mut socket = RouteSocket::open().unwrap();
    let pod_mac = [0x06, 0, 0, 0, 1, n];
    let end = VethEnd {
        name,
        mtu: 9001,
        mac: HOST_MAC,
        netns: None,
    };
    let peer = VethEnd {
        name: "eth0",
        mtu: 9001,
        mac: pod_mac,
        netns: Some(pod.as_fd()),
    };
    let mut batch = Batch::new();
    batch.push(
        "veth",
        CREATE,
        Veth {
            end,
            state: LinkState::Up,
            group: 0,
            peer,
        }
        .message(),
    );
    assert_eq!(socket.apply(&batch).unwrap(), []);
    let device = socket.device_index(name).unwrap();
    let mut batch = Batch::new();
    let route = Route {
        destination: address,
        prefix_len: 32,
        table: MAIN_TABLE,
        device,
        gateway: None,
    };
    batch.push("to-pod route", CREATE, RouteNetlinkMessage::NewRoute(route.message()));
    batch.push("neighbour", CREATE, neighbour(device, address, pod_mac));
    let to_pod = Rule {
        priority: 512,
        to: Some(address),
        table: Some(MAIN_TABLE),
        ..Rule::default()
    };
    batch.push("to-pod rule", CREATE, RouteNetlinkMessage::NewRule(to_pod.message()));
    if let Leaves::BySecondary = leaves {
        let from_pod = Rule {
            priority: 1536,
            from: Some(address),
            table: Some(SECONDARY_TABLE),
            ..Rule::default()
        };
        batch.push(
            "from-pod rule",
            CREATE,
            RouteNetlinkMessage::NewRule(from_pod.message()),
        );
    }
    assert_eq!(socket.apply(&batch).unwrap(), []);
}

fn wire_pod(address: Ipv4Addr) {
    let mut socket = RouteSocket::open().unwrap();
    let device = socket.device_index("eth0").unwrap();
    let default = Route {
        destination: Ipv4Addr::UNSPECIFIED,
        prefix_len: 0,
        table: MAIN_TABLE,
        device,
        gateway: Some(POD_GATEWAY),
    };
    let mut default = default.message();
    default.header.flags = RouteFlags::Onlink;
    let mut batch = Batch::new();
    batch.push(
        "up",
        0,
        message::set_link_state(message::LinkRef::Index(device), LinkState::Up),
    );
    batch.push(
        "address",
        CREATE,
        RouteNetlinkMessage::NewAddress(message::address(device, address, 32)),
    );
    batch.push("gateway", CREATE, neighbour(device, POD_GATEWAY, HOST_MAC));
    batch.push("default", CREATE, RouteNetlinkMessage::NewRoute(default));
    assert_eq!(socket.apply(&batch).unwrap(), []);
}

fn pods_reach(_: &Sandbox) {
    let mut vpc = vpc();
    // Single addresses on the first node's ENIs, a prefix on the second node's.
    let (on_primary, on_secondary) = (Ipv4Addr::new(10, 0, 1, 51), Ipv4Addr::new(10, 0, 1, 52));
    vpc.fabric.assign(&eni(1), &only(on_primary)).unwrap();
    vpc.fabric.assign(&eni(2), &only(on_secondary)).unwrap();
    vpc.fabric
        .assign(&eni(3), &["10.0.2.64/28".parse::<Ipv4Net>().unwrap()])
        .unwrap();
    let peers = [
        wire(&vpc.n1, 1, on_primary, Leaves::ByMain),
        wire(&vpc.n1, 2, on_secondary, Leaves::BySecondary),
        wire(&vpc.n2, 3, Ipv4Addr::new(10, 0, 2, 64), Leaves::ByMain),
        wire(&vpc.n2, 4, Ipv4Addr::new(10, 0, 2, 79), Leaves::ByMain),
    ];
    // The hosts' ends of the veths pass packets a moment after they are made.
    eventually("all pairs reach each other", Duration::from_secs(10), || {
        let report = mesh(&peers, 7, Duration::from_millis(500)).unwrap();
        report.good_pairs == 12
    });
    assert_eq!(vpc.fabric.drops().unwrap(), []);
}

fn pod_asks_service(_: &Sandbox) {
    let mut vpc = vpc();
    let address = Ipv4Addr::new(10, 0, 1, 52);
    vpc.fabric.assign(&eni(2), &only(address)).unwrap();
    let pod = wire(&vpc.n1, 1, address, Leaves::BySecondary);
    let imds = EchoServer::start(&NetnsRef::current().unwrap(), SocketAddrV4::new(IMDS, 80)).unwrap();
    eventually("the service sees the pod", Duration::from_secs(10), || {
        seen_by_tcp(&pod.netns, None, imds.address()) == Some(address)
    });
    assert_eq!(vpc.fabric.drops().unwrap(), []);
}

fn path_mtu(socket: &UdpSocket) -> i32 {
    getsockopt(&socket.as_fd(), sockopt::IpMtu).unwrap()
}

fn too_big(_: &Sandbox) {
    let mut vpc = vpc();
    vpc.fabric
        .set_public(N1_PRIMARY, Some(Ipv4Addr::new(198, 51, 100, 1)))
        .unwrap();
    let socket = vpc.n1.run(|| UdpSocket::bind((N1_PRIMARY, 0)).unwrap()).unwrap();
    socket.connect((WEB, 7)).unwrap();
    assert_eq!(path_mtu(&socket), 9001);
    socket.send(&[0; 4000]).expect("it fits the ENI");
    eventually("the router says what fits", Duration::from_secs(10), || {
        path_mtu(&socket) == 1500
    });
    assert_eq!(vpc.fabric.drops().unwrap(), []);
}
