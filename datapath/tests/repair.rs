//! Others remove what pods and ENIs need; one repair puts it back. In fresh network namespaces.

#![expect(clippy::unwrap_used, reason = "helpers of tests may unwrap like the tests")]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Instant;

use datapath::{
    DesiredPod, EniWiring, Fate, KernelChange, Monitor, Owner, PodSockets, PodWiring, Repaired, Repairer, RouteSocket,
    clear, setup_eni, wire,
};
use namespace::{add_eni, host, in_namespace, ip, new_namespace, state, wiring};
use netlink::message::{Route, Rule};
use netlink::packet::RouteNetlinkMessage as Message;
use netlink::{Batch, NetNs};
use vpc_types::{MacAddress, RouteTableId};

#[expect(dead_code, reason = "each test program uses another part of it")]
mod namespace;

const ENI_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const PODS: u8 = 6;

fn eni() -> EniWiring {
    EniWiring {
        mac: MacAddress(ENI_MAC),
        table: RouteTableId(2),
        address: Ipv4Addr::new(10, 0, 2, 20),
        subnet: "10.0.2.0/24".parse().unwrap(),
        mtu: 9001,
    }
}

fn desired(w: &PodWiring) -> DesiredPod {
    DesiredPod {
        address: w.address,
        table: w.table,
        container_id: w.alias.clone(),
        host_veth: w.host_veth.clone(),
    }
}

/// A node with pods on both ENIs. The namespaces must live on.
struct World {
    socket: RouteSocket,
    pods: Vec<DesiredPod>,
    _namespaces: Vec<NetNs>,
}

fn world() -> World {
    let mut socket = host();
    add_eni(&mut socket, "ens6", ENI_MAC);
    setup_eni(&mut socket, &eni()).unwrap();
    let (mut pods, mut namespaces) = (Vec::new(), Vec::new());
    for n in 1..=PODS {
        let netns = new_namespace();
        let w = wiring(n, if n % 2 == 0 { 2 } else { 254 });
        wire(&mut PodSockets::open(&netns).unwrap(), &w).unwrap();
        pods.push(desired(&w));
        namespaces.push(netns);
    }
    World {
        socket,
        pods,
        _namespaces: namespaces,
    }
}

impl World {
    fn repair(&mut self) -> Repaired {
        Repairer::default()
            .repair(&mut self.socket, &self.pods, &[eni()])
            .unwrap()
    }
}

fn nothing_is_wrong(repaired: &Repaired) {
    assert!(
        repaired.refused.is_empty() && repaired.failed_enis.is_empty(),
        "{repaired:?}"
    );
}

#[test]
fn whatever_others_remove_is_put_back_as_it_was_and_counted() {
    in_namespace(|| {
        let mut world = world();
        let before = state();
        assert_eq!(world.repair(), Repaired::default());
        let all = u32::from(PODS);
        let damages: [(&[&str], [u32; 4]); 9] = [
            (&["route flush scope link table main"], [0, all, 0, 0]),
            (&["route delete 10.0.1.2"], [0, 1, 0, 0]),
            (&["rule delete priority 1536 from 10.0.1.2"], [0, 0, 1, 0]),
            // All rules but the one at priority 0.
            (
                &[
                    "rule flush",
                    "rule add priority 32766 lookup main",
                    "rule add priority 32767 lookup default",
                ],
                [0, 0, all + all / 2, 1],
            ),
            (&["route flush table 2"], [0, 0, 0, 1]),
            (&["link set ens6 down"], [0, 0, 0, 1]),
            (&["link set ens6 mtu 1500"], [0, 0, 0, 1]),
            (&["address delete 10.0.2.20/24 dev ens6"], [0, 0, 0, 1]),
            (&["link set eni00000000003 down"], [1, 1, 0, 0]),
        ];
        for (damage, [links, routes, rules, enis]) in damages {
            damage.iter().for_each(|step| drop(ip(step)));
            assert_ne!(state(), before, "{damage:?}");
            let repaired = world.repair();
            nothing_is_wrong(&repaired);
            let counts = [repaired.links, repaired.routes, repaired.rules, repaired.enis];
            assert_eq!(counts, [links, routes, rules, enis], "{damage:?}");
            assert_eq!(state(), before, "{damage:?}");
            assert_eq!(world.repair().total(), 0, "{damage:?}");
        }
    });
}

#[test]
fn what_others_own_stays_as_it_is() {
    in_namespace(|| {
        let mut world = world();
        ip("link add foreign0 type veth peer name foreign1");
        ip("link set foreign0 up");
        ip("rule add to 10.0.1.2 lookup 77 priority 512");
        ip("rule add from 10.0.9.9 lookup 77 priority 1536");
        ip("route add 10.0.9.9/32 dev foreign0");
        ip("route add 10.0.1.3/32 dev foreign0 metric 50");
        let before = state();
        assert_eq!(world.repair(), Repaired::default());
        ip("rule delete priority 512 to 10.0.1.2 lookup main");
        nothing_is_wrong(&world.repair());
        assert_eq!(state(), before);
        // An address without a veth, and one whose veth is another container's.
        ip("link delete eni00000000004");
        world.pods[4].container_id = "another".to_owned();
        ip("rule flush");
        let repaired = world.repair();
        nothing_is_wrong(&repaired);
        let rules = ip("rule list");
        for address in ["10.0.1.4", "10.0.1.5"] {
            assert!(!rules.iter().any(|rule| rule.contains(address)), "{rules:?}");
        }
    });
}

#[test]
fn a_route_that_leads_elsewhere_is_taken_back_a_few_times_only() {
    in_namespace(|| {
        let mut world = world();
        ip("link add foreign0 type veth peer name foreign1");
        ip("link set foreign0 up");
        let mut repairer = Repairer::default();
        for time in 1..=5 {
            ip("route replace 10.0.1.2/32 dev foreign0");
            let repaired = repairer.repair(&mut world.socket, &world.pods, &[]).unwrap();
            assert_eq!(repaired.routes, u32::from(time <= 3), "{time}: {repaired:?}");
            assert_eq!(repaired.kept.len(), usize::from(time == 4), "{time}: {repaired:?}");
        }
        assert_eq!(ip("route show 10.0.1.2"), ["10.0.1.2 dev foreign0 scope link"]);
    });
}

#[test]
fn a_repair_before_a_removal_leaves_nothing_behind() {
    in_namespace(|| {
        let mut world = world();
        let pod = world.pods[1].clone();
        ip("rule flush");
        world.repair();
        let owner = Owner {
            container_id: &pod.container_id,
            host_veth: Some(&pod.host_veth),
        };
        clear(&mut world.socket, pod.address, &owner).unwrap();
        let left: Vec<String> = state().into_iter().filter(|line| line.contains("10.0.1.2 ")).collect();
        assert_eq!(left, Vec::<String>::new());
    });
}

#[test]
fn removals_are_told_from_additions_and_a_device_that_goes_down_is_seen() {
    in_namespace(|| {
        let world = world();
        let mut monitor = Monitor::subscribe().unwrap();
        ip("rule delete priority 1536 from 10.0.1.2");
        ip("rule add priority 1536 from 10.0.1.2 lookup 2");
        ip("link set eni00000000003 down");
        ip("address delete 10.0.2.20/24 dev ens6");
        ip("rule add priority 1535 to 10.9.0.0/16 lookup main");
        let mut changes = Vec::new();
        while let Some(change) = monitor.next_change().unwrap() {
            changes.push(change);
        }
        let address = Some(world.pods[1].address);
        for expected in [
            KernelChange::RuleChanged {
                address,
                fate: Fate::Removed,
            },
            KernelChange::RuleChanged {
                address,
                fate: Fate::Made,
            },
            KernelChange::RuleChanged {
                address: None,
                fate: Fate::Made,
            },
            KernelChange::AddressRemoved { address: eni().address },
        ] {
            assert!(changes.contains(&expected), "{expected:?}: {changes:?}");
        }
        let down = |change: &KernelChange| {
            matches!(change, KernelChange::LinkAppeared { alias: Some(alias), state: datapath::LinkState::Down, .. }
                if *alias == world.pods[2].container_id)
        };
        assert!(changes.iter().any(down), "{changes:?}");
    });
}

/// Rules and routes of other software, before and behind ours.
fn add_foreign(socket: &mut RouteSocket, count: u32) {
    ip("link add foreign0 type veth peer name foreign1");
    ip("link set foreign0 up");
    let device = socket.device_index("foreign0").unwrap();
    let mut batch = Batch::new();
    for n in 0..count {
        let destination = Ipv4Addr::from(0xac10_0000 + n);
        let rule = Rule {
            priority: if n % 2 == 0 { 400 } else { 1536 },
            from: Some(destination),
            table: Some(77),
            ..Rule::default()
        };
        let route = Route {
            destination,
            prefix_len: 32,
            table: RouteTableId::MAIN.0,
            device,
            gateway: None,
        };
        batch
            .push("foreign rule", 0x600, Message::NewRule(rule.message()))
            .push("foreign route", 0x600, Message::NewRoute(route.message()));
    }
    assert_eq!(socket.apply(&batch).unwrap(), []);
}

#[test]
fn among_four_thousand_foreign_routes_and_rules_pods_come_are_repaired_and_go() {
    const FOREIGN: u32 = 4_000;
    in_namespace(|| {
        let mut world = world();
        add_foreign(&mut world.socket, FOREIGN);
        let netns = new_namespace();
        let late = wiring(99, 2);
        let before: BTreeSet<String> = state();
        wire(&mut PodSockets::open(&netns).unwrap(), &late).unwrap();
        world.pods.push(desired(&late));
        let wired = state();
        assert_eq!(world.repair(), Repaired::default());
        for pod in &world.pods {
            ip(&format!("rule delete priority 512 to {}", pod.address));
            ip(&format!("route delete {}", pod.address));
        }
        let started = Instant::now();
        let repaired = world.repair();
        let took = started.elapsed();
        println!("a repair among {FOREIGN} foreign routes and rules took {took:?}");
        nothing_is_wrong(&repaired);
        assert_eq!(repaired.total(), 2 * (u32::from(PODS) + 1));
        assert_eq!(state(), wired);
        let owner = Owner {
            container_id: &late.alias,
            host_veth: None,
        };
        clear(&mut world.socket, late.address, &owner).unwrap();
        ip(&format!("link delete {}", late.host_veth));
        assert_eq!(state(), before);
    });
}
