//! Sockets, batches, dumps, events and the namespace guard against a real kernel, each in a fresh network namespace.

#![expect(clippy::unwrap_used, reason = "helpers of tests may unwrap like the tests")]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use netlink::message::{LinkRef, LinkState, Route, Rule, Veth, VethEnd, link, route_key, set_link_state};
use netlink::packet::RouteNetlinkMessage as Message;
use netlink::testing::{in_namespace, new_namespace};
use netlink::{
    Attributes, Batch, DumpError, Errno, Event, EventSocket, Group, NetNs, NetNsError, RouteSocket, SocketError,
    parse_u32,
};

const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;

fn veth(name: &str, peer: &str, peer_netns: Option<&NetNs>) -> Message {
    let end = |name, last, netns| VethEnd {
        name,
        mtu: 1500,
        mac: [2, 0, 0, 0, 0, last],
        netns,
    };
    Veth {
        end: end(name, 1, None),
        state: LinkState::Up,
        group: 0,
        peer: end(peer, 2, peer_netns.map(AsFd::as_fd)),
    }
    .message()
}

fn link_names(socket: &mut RouteSocket) -> Vec<String> {
    use netlink::packet::link::{LinkAttribute, LinkMessage};
    let found = socket
        .dump("list links", &Message::GetLink(LinkMessage::default()))
        .unwrap();
    let mut names = Vec::new();
    for message in found {
        let Message::NewLink(link) = message else { continue };
        for attribute in link.attributes {
            if let LinkAttribute::IfName(name) = attribute {
                names.push(name);
            }
        }
    }
    names
}

#[test]
fn a_batch_goes_on_after_an_error_and_names_each_one() {
    in_namespace(|| {
        let mut socket = RouteSocket::open().unwrap();
        let rule = Rule {
            priority: 512,
            to: Some(Ipv4Addr::new(10, 0, 0, 1)),
            table: Some(254),
            ..Rule::default()
        };
        let mut batch = Batch::new();
        batch
            .push("rule", CREATE | EXCLUSIVE, Message::NewRule(rule.message()))
            .push("same rule", CREATE | EXCLUSIVE, Message::NewRule(rule.message()))
            .push(
                "route",
                CREATE,
                Message::NewRoute(
                    Route {
                        destination: Ipv4Addr::new(10, 0, 0, 1),
                        prefix_len: 32,
                        table: 254,
                        device: 4_000,
                        gateway: None,
                    }
                    .message(),
                ),
            )
            .push("delete rule", 0, Message::DelRule(rule.message()));
        let errors = socket.apply(&batch).unwrap();
        let seen: Vec<_> = errors
            .iter()
            .map(|error| (error.index, error.operation.as_ref(), error.errno))
            .collect();
        assert_eq!(seen, [(1, "same rule", Errno::EEXIST), (2, "route", Errno::ENODEV)]);
        let again = socket
            .apply(Batch::new().push("gone", 0, Message::DelRule(rule.message())))
            .unwrap();
        assert_eq!(again[0].errno, Errno::ENOENT);
    });
}

#[test]
fn extack_texts_reach_the_error() {
    in_namespace(|| {
        let mut socket = RouteSocket::open().unwrap();
        let bad = Route {
            destination: Ipv4Addr::new(10, 0, 0, 1),
            prefix_len: 32,
            table: 254,
            device: socket.device_index("lo").unwrap(),
            gateway: Some(Ipv4Addr::new(192, 0, 2, 1)),
        };
        socket
            .request("lo up", 0, set_link_state(LinkRef::Name("lo"), LinkState::Up))
            .unwrap();
        let error = socket
            .request("bad route", CREATE, Message::NewRoute(bad.message()))
            .unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENETUNREACH));
        assert!(error.to_string().contains("gateway"), "{error}");
    });
}

#[test]
fn batches_larger_than_the_socket_buffer_are_split_and_lose_no_error() {
    in_namespace(|| {
        let mut socket = RouteSocket::open().unwrap();
        let mut batch = Batch::new();
        for n in 0..5_000u32 {
            let to = Some(Ipv4Addr::from(0x0a00_0000 + n));
            batch.push(
                "no such rule",
                0,
                Message::DelRule(
                    Rule {
                        priority: 512,
                        to,
                        ..Rule::default()
                    }
                    .message(),
                ),
            );
        }
        let errors = socket.apply(&batch).unwrap();
        assert_eq!(errors.len(), 5_000);
        assert!(
            errors
                .iter()
                .enumerate()
                .all(|(n, error)| error.index == n && error.errno == Errno::ENOENT)
        );
    });
}

#[test]
fn a_veth_pair_is_born_across_namespaces_and_dumps_show_it() {
    in_namespace(|| {
        let mut host = RouteSocket::open().unwrap();
        let home = NetNs::current().unwrap();
        let pod = new_namespace();
        assert!(!pod.is_same(&home).unwrap());
        host.request("veth", CREATE | EXCLUSIVE, veth("host0", "eth0", Some(&pod)))
            .unwrap();
        let mut inside = RouteSocket::open_in(&pod).unwrap();
        assert!(NetNs::current().unwrap().is_same(&home).unwrap());
        assert_eq!(link_names(&mut inside), ["lo", "eth0"]);
        assert_eq!(link_names(&mut host), ["lo", "host0"]);
        assert!(inside.device_index("eth0").unwrap() > 0 && inside.device_index("host0").is_err());
        host.request("delete", 0, Message::DelLink(link(LinkRef::Name("host0"))))
            .unwrap();
        assert_eq!(link_names(&mut inside), ["lo"]);
    });
}

#[test]
fn a_panic_inside_another_namespace_leaves_the_thread_at_home() {
    in_namespace(|| {
        let home = NetNs::current().unwrap();
        let other = new_namespace();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| other.run(|| panic!("inside"))));
        assert!(caught.is_err());
        assert!(NetNs::current().unwrap().is_same(&home).unwrap());
    });
}

#[test]
fn what_is_no_network_namespace_is_told_from_what_does_not_exist() {
    let kind = |path: &str| NetNs::open(Path::new(path)).unwrap_err();
    assert!(matches!(kind("/var/run/netns/no-such"), NetNsError::Missing { .. }));
    for path in ["/etc/passwd", "/proc/self/ns/mnt", "/tmp", "/dev/null"] {
        let error = kind(path);
        assert!(matches!(error, NetNsError::NotANamespace { .. }), "{error:?}");
        assert!(error.to_string().contains(path));
    }
}

#[test]
fn events_arrive_and_a_slow_reader_learns_that_it_missed_some() {
    in_namespace(|| {
        let mut events = EventSocket::subscribe(&[Group::Ipv4Rule]).unwrap();
        assert_eq!(events.next_event().unwrap(), None);
        let mut socket = RouteSocket::open().unwrap();
        let mut batch = Batch::new();
        let rule = Rule {
            priority: 512,
            table: Some(254),
            ..Rule::default()
        }
        .message();
        for _ in 0..10_000 {
            batch
                .push("rule", CREATE, Message::NewRule(rule.clone()))
                .push("gone", 0, Message::DelRule(rule.clone()));
        }
        assert_eq!(socket.apply(&batch).unwrap(), []);
        assert!(matches!(
            events.next_event().unwrap(),
            Some(Event::Overrun | Event::Message(_))
        ));
        let (mut messages, mut overruns) = (0, 0);
        while let Some(event) = events.next_event().unwrap() {
            match event {
                Event::Message(message) => {
                    assert!([32, 33].contains(&message.kind));
                    messages += 1;
                }
                Event::Overrun => overruns += 1,
            }
        }
        assert!(
            messages > 0 && messages < 20_000,
            "{messages} messages, {overruns} overruns"
        );
    });
}

fn numbered_rule(n: u32) -> Rule {
    Rule {
        priority: 1000 + n,
        from: Some(Ipv4Addr::from(0x0a00_0000 + n)),
        table: Some(77),
        ..Rule::default()
    }
}

fn add_rules(socket: &mut RouteSocket, numbers: std::ops::Range<u32>) {
    let mut batch = Batch::new();
    for n in numbers {
        batch.push("rule", CREATE, Message::NewRule(numbered_rule(n).message()));
    }
    assert_eq!(socket.apply(&batch).unwrap(), []);
}

/// Priorities of the rules that a dump shows.
fn dump_rules(socket: &mut RouteSocket) -> Result<BTreeSet<u32>, DumpError> {
    use netlink::packet::AddressFamily;
    use netlink::packet::rule::RuleMessage;
    let mut request = RuleMessage::default();
    request.header.family = AddressFamily::Inet;
    let found = socket.dump_raw("list rules", &Message::GetRule(request))?;
    let priority = |payload: &[u8]| Attributes::after_header(payload, 12).find_value(6).and_then(parse_u32);
    // The kernel's own first rule has none.
    Ok(found
        .iter()
        .map(|message| priority(&message.payload).unwrap_or(0))
        .collect())
}

#[test]
fn a_batch_whose_answers_are_lost_says_so_and_the_next_dump_is_whole() {
    in_namespace(|| {
        let mut socket = RouteSocket::open().unwrap();
        add_rules(&mut socket, 0..500);
        socket.limit_receive_buffer(1).unwrap();
        let mut batch = Batch::new();
        for n in 0..100 {
            let rule = numbered_rule(n).message();
            batch.push("again", CREATE | EXCLUSIVE, Message::NewRule(rule)).push(
                "new",
                CREATE,
                Message::NewRule(numbered_rule(1_000 + n).message()),
            );
        }
        let lost = socket.apply(&batch).unwrap_err();
        assert!(matches!(lost, SocketError::Overrun { .. }), "{lost:?}");
        let found = dump_rules(&mut socket).unwrap();
        assert!((0..500).all(|n| found.contains(&(1000 + n))), "{} rules", found.len());
        // What could be done in the part that was sent is done.
        assert!((0..64).all(|n| found.contains(&(2_000 + n))));
    });
}

#[test]
fn while_rules_come_and_go_a_dump_shows_all_that_stay_or_says_that_it_cannot() {
    const STAY: u32 = 4_000;
    const PAUSES_US: [u64; 2] = [0, 5_000];
    in_namespace(|| {
        let mut socket = RouteSocket::open().unwrap();
        add_rules(&mut socket, 0..STAY);
        for pause in PAUSES_US {
            let mut other = RouteSocket::open().unwrap();
            let over = AtomicBool::new(false);
            let dumps: Vec<_> = std::thread::scope(|scope| {
                scope.spawn(|| {
                    // Before all others: what a dump skips by count shifts.
                    let rule = Rule {
                        priority: 1,
                        ..numbered_rule(0)
                    };
                    let mut batch = Batch::new();
                    for _ in 0..50 {
                        batch.push("come", CREATE, Message::NewRule(rule.message())).push(
                            "go",
                            0,
                            Message::DelRule(rule.message()),
                        );
                    }
                    while !over.load(Ordering::Relaxed) {
                        assert_eq!(other.apply(&batch).unwrap(), []);
                        std::thread::park_timeout(std::time::Duration::from_micros(pause));
                    }
                });
                let dumps = (0..30).map(|_| dump_rules(&mut socket)).collect();
                over.store(true, Ordering::Relaxed);
                dumps
            });
            let (mut whole, mut given_up) = (0, 0);
            for dump in dumps {
                match dump {
                    Ok(found) => {
                        let missing = (0..STAY).filter(|n| !found.contains(&(1000 + n))).count();
                        assert_eq!(missing, 0, "of {STAY}");
                        whole += 1;
                    }
                    // Changes between its parts, or more of them than the socket holds, time and again.
                    Err(DumpError::Interrupted { .. } | DumpError::Socket(SocketError::Overrun { .. })) => {
                        given_up += 1
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
            println!("changes with pauses of {pause} us: {whole} whole dumps, {given_up} given up");
        }
        assert_eq!(dump_rules(&mut socket).unwrap().len(), 4_003);
    });
}

#[test]
fn a_route_is_deleted_by_destination_alone() {
    in_namespace(|| {
        let mut socket = RouteSocket::open().unwrap();
        socket
            .request("lo up", 0, set_link_state(LinkRef::Name("lo"), LinkState::Up))
            .unwrap();
        let destination = Ipv4Addr::new(10, 0, 0, 1);
        let device = socket.device_index("lo").unwrap();
        for table in [254, 2, 10_101] {
            let route = Route {
                destination,
                prefix_len: 32,
                table,
                device,
                gateway: None,
            };
            socket
                .request("add", CREATE | EXCLUSIVE, Message::NewRoute(route.message()))
                .unwrap();
            socket
                .request("delete", 0, Message::DelRoute(route_key(destination, 32, table)))
                .unwrap();
            let gone = socket
                .request("again", 0, Message::DelRoute(route_key(destination, 32, table)))
                .unwrap_err();
            assert_eq!(gone.errno(), Some(Errno::ESRCH));
        }
    });
}
