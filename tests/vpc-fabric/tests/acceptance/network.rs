//! What the fabric lets through, drops and counts.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use netlink::message::Rule;
use netlink::packet::RouteNetlinkMessage;
use netlink::{Batch, RouteSocket};
use vpc_fabric::fabric::{DropCount, DropReason, Flow, RouteTable, RouteTarget, SourceDestCheck, Transport};
use vpc_fabric::place::Isolation;
use vpc_fabric::probe::{EchoServer, Peer, mesh};
use vpc_fabric::{DefaultRoute, Host, NetnsRef, Node, Place, Sandbox};

use crate::harness::InsideTest;
use crate::setup::{
    IMDS, N1_PRIMARY, N1_SECONDARY, N2_PRIMARY, NOBODY, OTHER_WEB, ROUTER_1, ROUTER_2, SECONDARY_TABLE, Vpc, WEB,
    configure, device_setup, empty_fabric, eni, only, pings, port, seen_by_tcp, seen_by_udp, vpc, wait,
};

const PORT: u16 = 7;

pub(crate) fn tests() -> Vec<InsideTest> {
    vec![
        InsideTest {
            name: "both_enis_reach_the_other_node_with_their_own_addresses",
            run: both_enis_reach,
        },
        InsideTest {
            name: "packets_with_a_foreign_source_are_dropped_and_counted_by_pair",
            run: foreign_source,
        },
        InsideTest {
            name: "an_address_that_nobody_has_answers_nothing",
            run: nobody_answers,
        },
        InsideTest {
            name: "the_internet_sees_public_addresses_only",
            run: internet_sees_public,
        },
        InsideTest {
            name: "the_internet_reaches_a_public_address",
            run: internet_reaches_in,
        },
        InsideTest {
            name: "detaching_takes_device_and_addresses_away",
            run: detach,
        },
        InsideTest {
            name: "an_address_moves_to_another_eni_in_one_step",
            run: address_moves,
        },
        InsideTest {
            name: "a_taken_device_name_is_no_obstacle",
            run: taken_name,
        },
        InsideTest {
            name: "a_nat_instance_works_only_with_its_check_off",
            run: nat_instance,
        },
        InsideTest {
            name: "a_service_of_the_fabric_sees_who_asks",
            run: service_sees_asker,
        },
        InsideTest {
            name: "a_node_that_deletes_its_device_harms_nobody_else",
            run: node_deletes_device,
        },
        InsideTest {
            name: "drops_beyond_what_can_be_remembered_are_still_drops",
            run: many_drops,
        },
        InsideTest {
            name: "the_record_tells_what_each_eni_sent_dropped_or_not",
            run: recorded_flows,
        },
        InsideTest {
            name: "two_vpcs_with_the_same_addresses_do_not_meet",
            run: two_vpcs,
        },
        InsideTest {
            name: "a_mesh_of_24_is_probed_within_three_seconds",
            run: mesh_of_24,
        },
    ]
}

fn server(netns: &NetnsRef, address: Ipv4Addr) -> EchoServer {
    EchoServer::start(netns, SocketAddrV4::new(address, PORT)).expect("a server can be started")
}

fn no_drops(vpc: &mut Vpc) {
    assert_eq!(vpc.fabric.drops().unwrap(), []);
    assert!(vpc.fabric.drop_totals().unwrap().values().all(|packets| *packets == 0));
}

fn dropped(vpc: &mut Vpc, reason: DropReason) -> Vec<DropCount> {
    vpc.fabric
        .drops()
        .unwrap()
        .into_iter()
        .filter(|drop| drop.reason == reason)
        .collect()
}

fn both_enis_reach(_: &Sandbox) {
    let mut vpc = vpc();
    let at_n2 = server(vpc.n2.netns(), N2_PRIMARY);
    for own in [N1_PRIMARY, N1_SECONDARY] {
        assert!(pings(vpc.n1.netns(), own, N2_PRIMARY), "{own}");
        assert_eq!(seen_by_udp(vpc.n1.netns(), Some(own), at_n2.address()), Some(own));
        assert_eq!(seen_by_tcp(vpc.n1.netns(), Some(own), at_n2.address()), Some(own));
        assert!(pings(vpc.n2.netns(), N2_PRIMARY, own), "{own}");
    }
    assert!(pings(vpc.n1.netns(), N1_PRIMARY, ROUTER_1));
    no_drops(&mut vpc);
}

fn change_rule(node: &Node, message: fn(netlink::packet::rule::RuleMessage) -> RouteNetlinkMessage) {
    let rule = Rule {
        priority: 1024,
        from: Some(N1_SECONDARY),
        table: Some(SECONDARY_TABLE),
        ..Rule::default()
    };
    node.run(move || {
        let mut batch = Batch::new();
        batch.push("change rule", 0x400, message(rule.message()));
        RouteSocket::open().unwrap().apply(&batch).unwrap()
    })
    .map(|errors| assert_eq!(errors, []))
    .unwrap();
}

fn foreign_source(_: &Sandbox) {
    let mut vpc = vpc();
    change_rule(&vpc.n1, RouteNetlinkMessage::DelRule);
    for packets in 1..=3 {
        assert!(
            !pings(vpc.n1.netns(), N1_SECONDARY, N2_PRIMARY),
            "the check must drop it"
        );
        let expected = DropCount {
            eni: eni(1),
            reason: DropReason::WrongSource,
            source: N1_SECONDARY,
            destination: N2_PRIMARY,
            packets,
        };
        assert_eq!(vpc.fabric.drops().unwrap(), [expected]);
    }
    assert_eq!(vpc.fabric.drop_totals().unwrap()[&DropReason::WrongSource], 3);
    change_rule(&vpc.n1, RouteNetlinkMessage::NewRule);
    assert!(pings(vpc.n1.netns(), N1_SECONDARY, N2_PRIMARY));
    assert_eq!(vpc.fabric.drops().unwrap()[0].packets, 3);
}

fn recorded_flows(_: &Sandbox) {
    let mut vpc = vpc();
    assert_eq!(vpc.fabric.flows().unwrap(), [], "nobody asked for a record");
    vpc.fabric.record_flows().unwrap();
    let at_n2 = server(vpc.n2.netns(), N2_PRIMARY);
    assert_eq!(
        seen_by_udp(vpc.n1.netns(), Some(N1_SECONDARY), at_n2.address()),
        Some(N1_SECONDARY)
    );
    assert!(seen_by_tcp(vpc.n1.netns(), None, at_n2.address()).is_some());
    // The first node does not own this address on the ENI that it sends from.
    vpc.fabric.assign(&eni(3), &only(N1_SECONDARY)).unwrap();
    assert_eq!(seen_by_udp(vpc.n1.netns(), Some(N1_SECONDARY), at_n2.address()), None);
    let flows = vpc.fabric.flows().unwrap();
    let of = |n: u8, transport, source: Ipv4Addr| {
        let one = |flow: &&Flow| (&flow.eni, flow.transport, *flow.source.ip()) == (&eni(n), transport, source);
        flows.iter().filter(one).collect::<Vec<_>>()
    };
    let asked = of(2, Transport::Udp, N1_SECONDARY);
    assert_eq!(asked.len(), 2, "{flows:?}");
    assert!(
        asked
            .iter()
            .all(|flow| (flow.destination, flow.packets) == (at_n2.address(), 1))
    );
    let answered = of(3, Transport::Udp, N2_PRIMARY);
    assert_eq!((answered.len(), answered[0].source), (1, at_n2.address()));
    assert!(asked.iter().any(|flow| flow.source == answered[0].destination));
    assert!(of(1, Transport::Tcp, N1_PRIMARY)[0].packets > 2);
    vpc.fabric.record_flows().unwrap();
    assert_eq!(vpc.fabric.flows().unwrap(), [], "a new record was begun");
}

fn nobody_answers(_: &Sandbox) {
    let mut vpc = vpc();
    // In the own subnet the node asks by ARP and gets no answer, so it sends nothing.
    assert!(!pings(vpc.n2.netns(), N2_PRIMARY, NOBODY));
    no_drops(&mut vpc);
    // From another subnet the packet goes to the router, which has no owner for it.
    assert!(!pings(vpc.n1.netns(), N1_PRIMARY, NOBODY));
    let drops = dropped(&mut vpc, DropReason::NoRoute);
    assert_eq!(drops.len(), 1);
    assert_eq!(
        (&drops[0].eni, drops[0].destination, drops[0].packets),
        (&eni(1), NOBODY, 1)
    );
    // An address that was taken away becomes such a one.
    vpc.fabric.unassign(&eni(3), &only(N2_PRIMARY)).unwrap();
    vpc.fabric
        .unassign(&eni(3), &only(N2_PRIMARY))
        .expect("twice is no error");
    assert!(!pings(vpc.n1.netns(), N1_PRIMARY, N2_PRIMARY));
    vpc.fabric.assign(&eni(3), &only(N2_PRIMARY)).unwrap();
    assert!(pings(vpc.n1.netns(), N1_PRIMARY, N2_PRIMARY));
}

fn internet_sees_public(_: &Sandbox) {
    let mut vpc = vpc();
    let public = Ipv4Addr::new(198, 51, 100, 1);
    vpc.fabric.set_public(N1_PRIMARY, Some(public)).unwrap();
    for (name, address) in [("web", WEB), ("other-web", OTHER_WEB)] {
        let web = vpc.fabric.internet_host(name).expect("it was configured").clone();
        let at_web = server(&web, address);
        assert_eq!(
            seen_by_tcp(vpc.n1.netns(), None, at_web.address()),
            Some(public),
            "{name}"
        );
        assert_eq!(
            seen_by_udp(vpc.n1.netns(), None, at_web.address()),
            Some(public),
            "{name}"
        );
        assert!(pings(vpc.n1.netns(), N1_PRIMARY, address));
    }
    no_drops(&mut vpc);
    assert!(!pings(vpc.n2.netns(), N2_PRIMARY, WEB));
    let drops = dropped(&mut vpc, DropReason::NoPublicAddress);
    assert_eq!(drops.len(), 1);
    assert_eq!(
        (&drops[0].eni, drops[0].source, drops[0].packets),
        (&eni(3), N2_PRIMARY, 1)
    );
    vpc.fabric
        .set_public(N2_PRIMARY, Some(public))
        .expect_err("it belongs to the first node");
}

fn internet_reaches_in(_: &Sandbox) {
    let mut vpc = vpc();
    let public = Ipv4Addr::new(198, 51, 100, 1);
    let web = vpc.fabric.internet_host("web").expect("it was configured").clone();
    vpc.fabric.set_public(N2_PRIMARY, Some(public)).unwrap();
    let at_n2 = server(vpc.n2.netns(), N2_PRIMARY);
    let target = SocketAddrV4::new(public, PORT);
    assert_eq!(seen_by_tcp(&web, None, target), Some(WEB));
    vpc.fabric.set_public(N2_PRIMARY, None).unwrap();
    assert_eq!(seen_by_tcp(&web, None, target), None);
    drop(at_n2);
    no_drops(&mut vpc);
}

fn has_device(node: &Node, device: &'static str) -> bool {
    node.run(move || RouteSocket::open().unwrap().device_index(device).is_ok())
        .unwrap()
}

fn detach(_: &Sandbox) {
    let mut vpc = vpc();
    assert!(has_device(&vpc.n1, "eth1"));
    vpc.fabric.detach_eni(&eni(2)).unwrap();
    assert!(!has_device(&vpc.n1, "eth1"));
    assert!(!pings(vpc.n2.netns(), N2_PRIMARY, N1_SECONDARY));
    assert_eq!(dropped(&mut vpc, DropReason::NoRoute).len(), 1);
    vpc.fabric.detach_eni(&eni(2)).expect_err("it is detached");
    vpc.fabric
        .attach_eni(&port(1, vpc.n1.netns(), "eth9"))
        .expect_err("it is attached");
    assert!(pings(vpc.n1.netns(), N1_PRIMARY, N2_PRIMARY));
    assert_eq!(vpc.fabric.attach_eni(&port(2, vpc.n1.netns(), "eth1")).unwrap(), "eth1");
}

fn address_moves(_: &Sandbox) {
    let mut vpc = vpc();
    vpc.fabric.assign(&eni(1), &only(N1_SECONDARY)).unwrap();
    // What the old owner still does with it counts as foreign.
    vpc.fabric
        .unassign(&eni(2), &only(N1_SECONDARY))
        .expect("another's address is not touched");
    assert!(!pings(vpc.n1.netns(), N1_SECONDARY, N2_PRIMARY));
    let drops = dropped(&mut vpc, DropReason::WrongSource);
    assert_eq!((&drops[0].eni, drops[0].source), (&eni(2), N1_SECONDARY));
    assert!(pings(vpc.n2.netns(), N2_PRIMARY, N1_SECONDARY) || !drops.is_empty());
}

fn taken_name(_: &Sandbox) {
    let mut vpc = vpc();
    assert_eq!(vpc.fabric.attach_eni(&port(9, vpc.n1.netns(), "eth0")).unwrap(), "eth2");
    vpc.fabric
        .assign(&eni(9), &["10.0.1.32/28".parse::<Ipv4Net>().unwrap()])
        .unwrap();
    configure(
        &vpc.n1,
        &device_setup("eth2", Ipv4Addr::new(10, 0, 1, 37), ROUTER_1, DefaultRoute::OwnTable(3)),
    );
    wait(&mut vpc.fabric, 9);
    assert!(
        pings(vpc.n1.netns(), Ipv4Addr::new(10, 0, 1, 37), N2_PRIMARY),
        "prefixes are owned as a whole"
    );
    no_drops(&mut vpc);
}

fn nat_instance(_: &Sandbox) {
    let mut vpc = vpc();
    let (behind, public) = (RouteTable(5), Ipv4Addr::new(198, 51, 100, 3));
    vpc.fabric
        .set_route_table(behind, &[(Ipv4Net::default(), RouteTarget::Eni(eni(3)))])
        .unwrap();
    let host = Host::create("client").unwrap();
    let client = Ipv4Addr::new(10, 0, 1, 77);
    let in_table = vpc_fabric::fabric::EniPort {
        route_table: behind,
        ..port(7, host.netns(), "eth0")
    };
    vpc.fabric.attach_eni(&in_table).unwrap();
    vpc.fabric.assign(&eni(7), &only(client)).unwrap();
    host.configure_device(&device_setup("eth0", client, ROUTER_1, DefaultRoute::Main))
        .unwrap();
    wait(&mut vpc.fabric, 7);
    // Packets for the internet are delivered to the second node, which forwards them as they are: that shows both its
    // destination and its source check.
    vpc.fabric.set_public(client, Some(public)).unwrap();
    assert!(!pings(host.netns(), client, WEB), "check on: nothing is delivered");
    assert_eq!(dropped(&mut vpc, DropReason::NoRoute)[0].eni, eni(7));
    vpc.fabric.set_source_dest_check(&eni(3), SourceDestCheck::Off).unwrap();
    assert!(
        pings(host.netns(), client, WEB),
        "check off: the node forwards foreign packets"
    );
    vpc.fabric.set_source_dest_check(&eni(3), SourceDestCheck::On).unwrap();
    assert!(!pings(host.netns(), client, WEB), "check on again");
}

fn service_sees_asker(_: &Sandbox) {
    let vpc = vpc();
    let here = NetnsRef::current().unwrap();
    let imds = EchoServer::start(&here, SocketAddrV4::new(IMDS, 80)).expect("ports below 1024 are free to use");
    assert_eq!(seen_by_tcp(vpc.n1.netns(), None, imds.address()), Some(N1_PRIMARY));
    assert_eq!(
        seen_by_tcp(vpc.n1.netns(), Some(N1_SECONDARY), imds.address()),
        Some(N1_SECONDARY)
    );
    assert_eq!(seen_by_tcp(vpc.n2.netns(), None, imds.address()), Some(N2_PRIMARY));
}

fn node_deletes_device(_: &Sandbox) {
    let mut vpc = vpc();
    vpc.n1
        .run(|| {
            let mut batch = Batch::new();
            let link = netlink::message::link(netlink::message::LinkRef::Name("eth1"));
            batch.push("delete eth1", 0, RouteNetlinkMessage::DelLink(link));
            RouteSocket::open().unwrap().apply(&batch).unwrap()
        })
        .unwrap();
    assert!(pings(vpc.n1.netns(), N1_PRIMARY, N2_PRIMARY));
    assert_eq!(vpc.fabric.lost_enis().unwrap(), [eni(2)]);
    vpc.fabric.detach_eni(&eni(2)).expect("gone is as good as detached");
    drop(vpc.n2);
    vpc.fabric
        .detach_eni(&eni(3))
        .expect("the node's end took the device with it");
}

fn mesh_of_24(_: &Sandbox) {
    let mut fabric = empty_fabric();
    let hosts: Vec<Host> = (0..24).map(|n| Host::create(&format!("host-{n}")).unwrap()).collect();
    let mut peers = Vec::new();
    for (n, host) in (100u8..).zip(&hosts) {
        let address = Ipv4Addr::new(10, 0, 2, n);
        fabric.attach_eni(&port(n, host.netns(), "eth0")).unwrap();
        fabric.assign(&eni(n), &only(address)).unwrap();
        host.configure_device(&device_setup("eth0", address, ROUTER_2, DefaultRoute::Main))
            .unwrap();
        peers.push(Peer {
            name: host.name().to_owned(),
            netns: host.netns().clone(),
            address,
        });
    }
    (100..124).for_each(|n| wait(&mut fabric, n));
    let start = Instant::now();
    let report = mesh(&peers, PORT, Duration::from_secs(2)).unwrap();
    let took = start.elapsed();
    assert_eq!(
        (report.pairs, report.good_pairs, report.faults.as_slice()),
        (552, 552, &[][..])
    );
    assert_eq!(fabric.drops().unwrap(), []);
    assert!(took < Duration::from_secs(3), "{took:?}");
    println!("mesh: {took:?}");
}

fn many_drops(_: &Sandbox) {
    let mut vpc = vpc();
    change_rule(&vpc.n1, RouteNetlinkMessage::DelRule);
    let target = vpc.n2.run(|| UdpSocket::bind((N2_PRIMARY, PORT)).unwrap()).unwrap();
    target.set_nonblocking(true).unwrap();
    let sender = vpc.n1.run(|| UdpSocket::bind((N1_SECONDARY, 0)).unwrap()).unwrap();
    // More pairs than are remembered (65,536), then one whose target listens.
    for n in 0..70_000 {
        let _ = sender.send_to(b"x", (Ipv4Addr::from(0xac10_0000 + n), PORT));
    }
    let _ = sender.send_to(b"x", (N2_PRIMARY, PORT));
    assert_eq!(dropped(&mut vpc, DropReason::WrongSource).len(), 65_536);
    let total = vpc.fabric.drop_totals().unwrap()[&DropReason::WrongSource];
    assert!((65_537..=70_001).contains(&total), "{total}");
    assert!(!pings(vpc.n1.netns(), N1_SECONDARY, N2_PRIMARY));
    assert_eq!(vpc.fabric.drop_totals().unwrap()[&DropReason::WrongSource], total + 1);
    target.recv_from(&mut [0; 8]).expect_err("nothing may arrive");
}

fn two_vpcs(_: &Sandbox) {
    let mut vpc = vpc();
    let elsewhere = Place::create("other-vpc", Isolation::Network).unwrap();
    let mut other = elsewhere.run(empty_fabric).unwrap();
    // The second node's address, in the other VPC.
    let host = Host::create("twin").unwrap();
    other.attach_eni(&port(3, host.netns(), "eth0")).unwrap();
    other.assign(&eni(3), &only(N2_PRIMARY)).unwrap();
    host.configure_device(&device_setup("eth0", N2_PRIMARY, ROUTER_2, DefaultRoute::Main))
        .unwrap();
    wait(&mut other, 3);
    assert!(pings(host.netns(), N2_PRIMARY, ROUTER_1));
    assert!(
        !pings(host.netns(), N2_PRIMARY, N1_PRIMARY),
        "nobody has it in this VPC"
    );
    assert_eq!(other.drops().unwrap().len(), 1);
    let here = server(vpc.n2.netns(), N2_PRIMARY);
    assert_eq!(seen_by_udp(vpc.n1.netns(), None, here.address()), Some(N1_PRIMARY));
    no_drops(&mut vpc);
}
