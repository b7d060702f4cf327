//! Wiring and clearing of pods in fresh network namespaces.

#![expect(clippy::unwrap_used, reason = "helpers of tests may unwrap like the tests")]

use std::net::Ipv4Addr;

use datapath::{Cleared, NetNs, Owner, PodSockets, PodWiring, WireError, clear, clear_own, undo, wire};
use namespace::{await_carriers, host, in_namespace, ip, new_namespace, state, wiring};

#[expect(dead_code, reason = "each test program uses another part of it")]
mod namespace;

fn add(w: &PodWiring) -> (NetNs, PodSockets) {
    let netns = new_namespace();
    let mut sockets = PodSockets::open(&netns).unwrap();
    wire(&mut sockets, w).unwrap();
    (netns, sockets)
}

fn owner(w: &PodWiring) -> Owner<'_> {
    Owner {
        container_id: &w.alias,
        host_veth: Some(&w.host_veth),
    }
}

fn has(lines: &[String], wanted: &str) -> bool {
    lines.iter().any(|line| line.contains(wanted))
}

#[test]
fn a_pod_on_a_secondary_eni_has_exactly_the_expected_state() {
    in_namespace(|| {
        host();
        let w = wiring(5, 2);
        let netns = new_namespace();
        let wired = wire(&mut PodSockets::open(&netns).unwrap(), &w).unwrap();
        assert_eq!(ip("route show table main"), ["10.0.1.5 dev eni00000000005 scope link"]);
        let rules = ip("rule list");
        assert!(has(&rules, "512: from all to 10.0.1.5 lookup main"), "{rules:?}");
        assert!(has(&rules, "1536: from 10.0.1.5 lookup 2"), "{rules:?}");
        let link = ip("-d -o link show dev eni00000000005");
        for part in [
            "mtu 9001",
            ",UP>",
            "alias container-5",
            "numtxqueues 1",
            "numrxqueues 1",
            "noqueue",
        ] {
            assert!(link[0].contains(part), "{part}: {link:?}");
        }
        assert!(link[0].contains(&wired.host_mac.to_string()));
        let setting =
            |name| std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{}/{name}", w.host_veth)).unwrap();
        assert_eq!(
            ["accept_ra", "accept_redirects", "forwarding"].map(setting),
            ["0\n", "1\n", "0\n"]
        );
        netns
            .run(|| {
                assert_eq!(
                    ip("route show table main"),
                    ["169.254.1.1 dev eth0 scope link", "default via 169.254.1.1 dev eth0"]
                );
                let neighbours = ip("neighbour show nud permanent");
                assert_eq!(
                    neighbours,
                    [format!("169.254.1.1 dev eth0 lladdr {} PERMANENT", wired.host_mac)]
                );
                assert!(has(
                    &ip("-o -4 address show dev eth0"),
                    "inet 10.0.1.5/32 scope global eth0"
                ));
                assert!(has(&ip("-o link show dev eth0"), &wired.container_mac.to_string()));
                assert!(has(&ip("-o link show dev lo"), "LOOPBACK,UP"));
            })
            .unwrap();
    });
}

#[test]
fn packets_pass_between_host_and_pod() {
    in_namespace(|| {
        host();
        let w = wiring(5, 254);
        let (netns, _sockets) = add(&w);
        let server = netns
            .run(|| {
                await_carriers();
                std::net::UdpSocket::bind("0.0.0.0:5000").unwrap()
            })
            .unwrap();
        await_carriers();
        server
            .set_read_timeout(Some(std::time::Duration::from_secs(5)))
            .unwrap();
        ip("address add 10.0.0.10/32 dev lo");
        let client = std::net::UdpSocket::bind("10.0.0.10:0").unwrap();
        client
            .set_read_timeout(Some(std::time::Duration::from_secs(5)))
            .unwrap();
        client.send_to(b"ping", "10.0.1.5:5000").unwrap();
        let mut buffer = [0; 16];
        let (len, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(
            (&buffer[..len], from.ip()),
            (&b"ping"[..], Ipv4Addr::new(10, 0, 0, 10).into())
        );
        server.send_to(b"pong", from).unwrap();
        assert_eq!(client.recv_from(&mut buffer).unwrap().0, 4);
    });
}

#[test]
fn add_and_del_return_to_the_baseline_and_a_second_del_finds_nothing() {
    in_namespace(|| {
        let mut socket = host();
        let baseline = state();
        for table in [254, 2, 10_101] {
            let w = wiring(5, table);
            let (netns, mut sockets) = add(&w);
            assert_ne!(state(), baseline);
            assert_eq!(clear(&mut socket, w.address, &owner(&w)).unwrap(), Cleared::Removed);
            assert_eq!(
                clear(&mut socket, w.address, &owner(&w)).unwrap(),
                Cleared::NothingThere
            );
            let links: Vec<_> = state().difference(&baseline).cloned().collect();
            assert_eq!(
                links.len(),
                1,
                "only the link is left, which goes with the pod: {links:?}"
            );
            ip(&format!("link delete {}", w.host_veth));
            assert_eq!(state(), baseline);
            sockets.pod().device_index("eth0").unwrap_err();
            drop(netns);
        }
    });
}

#[test]
fn an_undone_wiring_leaves_the_baseline() {
    in_namespace(|| {
        host();
        let baseline = state();
        let netns = new_namespace();
        let mut sockets = PodSockets::open(&netns).unwrap();
        let wired = wire(&mut sockets, &wiring(5, 2)).unwrap();
        undo(&mut sockets, &wired).unwrap();
        assert_eq!(state(), baseline);
    });
}

#[test]
fn a_taken_interface_name_in_the_pod_fails_and_leaves_nothing() {
    in_namespace(|| {
        host();
        let baseline = state();
        let netns = new_namespace();
        netns.run(|| ip("link add eth0 type veth peer name other")).unwrap();
        let error = wire(&mut PodSockets::open(&netns).unwrap(), &wiring(5, 2)).unwrap_err();
        assert!(matches!(error, WireError::ContainerInterfaceExists { .. }), "{error:?}");
        assert_eq!(state(), baseline);
    });
}

#[test]
fn a_failure_in_the_pod_undoes_link_route_and_rules_but_not_what_was_there_before() {
    in_namespace(|| {
        host();
        ip("rule add to 10.0.1.5 lookup main priority 512");
        let baseline = state();
        let netns = new_namespace();
        // A default route over another device makes the pod's own one fail.
        netns
            .run(|| {
                ip("link add other type veth peer name far");
                ip("link set other up");
                ip("route add default dev other");
            })
            .unwrap();
        let inside = netns.run(|| ip("-o link show")).unwrap();
        let error = wire(&mut PodSockets::open(&netns).unwrap(), &wiring(5, 2)).unwrap_err();
        assert!(matches!(error, WireError::Pod { .. }), "{error:?}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(
            source.contains("default route") && source.contains("EEXIST"),
            "{source}"
        );
        assert_eq!(state(), baseline);
        assert_eq!(netns.run(|| ip("-o link show").len()).unwrap(), inside.len());
    });
}

#[test]
fn the_same_container_twice_is_refused_and_untouched() {
    in_namespace(|| {
        host();
        let w = wiring(5, 2);
        let (netns, mut sockets) = add(&w);
        let before = (state(), netns.run(state).unwrap());
        let error = wire(&mut sockets, &w).unwrap_err();
        assert!(matches!(error, WireError::AlreadyWired { .. }), "{error:?}");
        assert_eq!((state(), netns.run(state).unwrap()), before);
    });
}

#[test]
fn the_veth_of_an_older_sandbox_of_the_same_pod_makes_room() {
    in_namespace(|| {
        let mut socket = host();
        let old = wiring(5, 2);
        let (_old_netns, _old_sockets) = add(&old);
        let new = PodWiring {
            address: Ipv4Addr::new(10, 0, 1, 9),
            alias: "container-new".to_owned(),
            ..old.clone()
        };
        let (_netns, _sockets) = add(&new);
        assert!(has(&ip("-o link show dev eni00000000005"), "alias container-new"));
        // The old sandbox's DEL comes late: its rules are left over, the new pod's stay.
        assert_eq!(clear(&mut socket, old.address, &owner(&old)).unwrap(), Cleared::Removed);
        let rules = ip("rule list");
        assert!(
            has(&rules, "10.0.1.9 lookup main") && has(&rules, "from 10.0.1.9 lookup 2"),
            "{rules:?}"
        );
        assert!(!has(&rules, "10.0.1.5"), "{rules:?}");
    });
}

#[test]
fn a_late_del_does_not_touch_the_new_owner_of_the_address() {
    in_namespace(|| {
        let mut socket = host();
        let old = wiring(5, 2);
        let new = PodWiring {
            host_veth: "eniother".to_owned(),
            alias: "container-new".to_owned(),
            ..old.clone()
        };
        let (_netns, _sockets) = add(&new);
        let before = state();
        let late = clear(&mut socket, old.address, &owner(&old)).unwrap();
        assert_eq!(
            late,
            Cleared::NewOwner {
                device: "eniother".to_owned()
            }
        );
        assert_eq!(state(), before);
        // The same pod name, recreated with the same address.
        let recreated = Owner {
            container_id: "container-old",
            host_veth: Some("eniother"),
        };
        assert!(matches!(
            clear(&mut socket, old.address, &recreated).unwrap(),
            Cleared::NewOwner { .. }
        ));
        assert_eq!(state(), before);
    });
}

/// A late removal may look just before another pod's route is made, and remove just after its rules were.
#[test]
fn rules_without_a_route_are_left_by_a_late_del_that_knows_nothing_about_leases() {
    in_namespace(|| {
        let mut socket = host();
        let late = wiring(5, 2);
        ip("rule add to 10.0.1.5 lookup main priority 512");
        ip("rule add from 10.0.1.5 lookup 2 priority 1536");
        let before = state();
        let cleared = clear_own(&mut socket, late.address, &owner(&late)).unwrap();
        assert_eq!((cleared, state()), (Cleared::OwnerUnknown, before));
        // Whoever has the lease removes them.
        let cleared = clear(&mut socket, late.address, &owner(&late)).unwrap();
        assert_eq!(cleared, Cleared::Removed);
    });
}

#[test]
fn a_late_del_removes_what_its_own_veth_proves() {
    in_namespace(|| {
        let mut socket = host();
        let baseline = state();
        let pod = wiring(5, 2);
        let (netns, sockets) = add(&pod);
        let cleared = clear_own(&mut socket, pod.address, &owner(&pod)).unwrap();
        assert_eq!(cleared, Cleared::Removed);
        drop((netns, sockets));
        let left: Vec<_> = state().difference(&baseline).cloned().collect();
        assert!(!has(&left, "10.0.1.5"), "{left:?}");
    });
}

#[test]
fn a_veth_without_alias_belongs_to_whoever_names_it() {
    in_namespace(|| {
        let mut socket = host();
        ip("link add enireference type veth peer name far");
        ip("link set enireference up");
        let make = || {
            ip("route add 10.0.1.5/32 dev enireference");
            ip("rule add to 10.0.1.5 lookup main priority 512");
        };
        make();
        let owner = |name| Owner {
            container_id: "c",
            host_veth: name,
        };
        for other in [None, Some("eniother")] {
            let cleared = clear(&mut socket, Ipv4Addr::new(10, 0, 1, 5), &owner(other)).unwrap();
            assert_eq!(
                cleared,
                Cleared::NewOwner {
                    device: "enireference".to_owned()
                }
            );
        }
        let cleared = clear(&mut socket, Ipv4Addr::new(10, 0, 1, 5), &owner(Some("enireference"))).unwrap();
        assert_eq!(cleared, Cleared::Removed);
        assert_eq!(ip("route show table main"), Vec::<String>::new());
    });
}

#[test]
fn del_removes_every_rule_of_the_address_also_those_of_old_releases() {
    in_namespace(|| {
        let mut socket = host();
        let baseline = state();
        for cidr in ["10.0.0.0/16", "10.1.0.0/16", "10.2.0.0/16"] {
            ip(&format!("rule add from 10.0.1.5 to {cidr} lookup 2 priority 1536"));
        }
        ip("rule add from 10.0.1.5 lookup 3 priority 1536");
        ip("rule add to 10.0.1.5 lookup main priority 512");
        ip("rule add from 10.0.1.6 lookup 3 priority 1536");
        let cleared = clear(&mut socket, Ipv4Addr::new(10, 0, 1, 5), &owner(&wiring(5, 2))).unwrap();
        assert_eq!(cleared, Cleared::Removed);
        let left: Vec<_> = state().difference(&baseline).cloned().collect();
        assert_eq!(left, ["1536: from 10.0.1.6 lookup 3"]);
    });
}

#[test]
fn stale_rules_of_an_earlier_pod_do_not_win_over_the_new_ones() {
    in_namespace(|| {
        host();
        for table in [3, 4, 5] {
            ip(&format!("rule add from 10.0.1.5 lookup {table} priority 1536"));
        }
        let (_netns, _sockets) = add(&wiring(5, 2));
        let rules: Vec<_> = ip("rule list")
            .into_iter()
            .filter(|rule| rule.starts_with("1536"))
            .collect();
        assert_eq!(rules, ["1536: from 10.0.1.5 lookup 2"]);
        ip("rule add from 10.0.1.6 lookup 3 priority 1536");
        let (_netns, _sockets) = add(&wiring(6, 254));
        assert!(!has(&ip("rule list"), "from 10.0.1.6"));
    });
}

#[test]
fn sixteen_pods_are_wired_and_cleared_at_once() {
    in_namespace(|| {
        host();
        let baseline = state();
        let here = NetNs::current().unwrap();
        std::thread::scope(|scope| {
            for n in 1..=16 {
                let here = &here;
                scope.spawn(move || {
                    let netns = new_namespace();
                    here.run(|| {
                        let w = wiring(n, 2 + u32::from(n % 3));
                        let mut sockets = PodSockets::open(&netns).unwrap();
                        let wired = wire(&mut sockets, &w).unwrap();
                        assert_eq!(clear(sockets.host(), w.address, &owner(&w)).unwrap(), Cleared::Removed);
                        undo(&mut sockets, &wired).unwrap();
                    })
                    .unwrap();
                });
            }
        });
        assert_eq!(state(), baseline);
    });
}
