//! ENIs, node rules, views and notices in fresh network namespaces.

#![expect(clippy::unwrap_used, reason = "helpers of tests may unwrap like the tests")]

use std::net::Ipv4Addr;
use std::process::Command;

use datapath::{
    Change, EniError, EniTable, EniWiring, Fate, KernelChange, Monitor, NodeConfig, NodeError, NodePorts, PodSockets,
    Random, RouteSocket, SnatPolicy, apply_node, inspect, inspect_node, observe, setup_eni, teardown_eni, wire,
};
use namespace::{add_eni, host, in_namespace, ip, new_namespace, state, wiring};
use vpc_types::{FwMark, MacAddress, RouteTableId, VethPrefix};

#[expect(dead_code, reason = "each test program uses another part of it")]
mod namespace;

const PRIMARY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ENI_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn eni() -> EniWiring {
    EniWiring {
        mac: MacAddress(ENI_MAC),
        table: RouteTableId(2),
        address: Ipv4Addr::new(10, 0, 2, 20),
        subnet: "10.0.2.0/24".parse().unwrap(),
        mtu: 9001,
    }
}

fn node() -> NodeConfig {
    NodeConfig {
        primary_mac: MacAddress(PRIMARY_MAC),
        primary_address: Ipv4Addr::new(10, 0, 1, 10),
        mtu: 9001,
        snat: SnatPolicy::ToPrimary { random: Random::Fully },
        node_ports: NodePorts::Supported,
        vpc_cidrs: vec!["10.0.0.0/16".parse().unwrap(), "100.64.0.0/10".parse().unwrap()],
        exclude_cidrs: vec!["192.168.0.0/16".parse().unwrap()],
        service_cidrs: Vec::new(),
        mark: FwMark::DEFAULT,
        veth_prefix: VethPrefix::default(),
    }
}

fn ruleset() -> String {
    let output = Command::new("nft")
        .args(["list", "ruleset"])
        .output()
        .expect("this test needs the nft program");
    String::from_utf8(output.stdout)
        .unwrap()
        .replace(" or ", " | ")
        .replace(" and ", " & ")
}

/// Host namespace with a primary and a secondary ENI.
fn node_namespace() -> RouteSocket {
    let mut socket = host();
    add_eni(&mut socket, "ens5", PRIMARY_MAC);
    add_eni(&mut socket, "ens6", ENI_MAC);
    ip("link set ens5 up");
    socket
}

fn assert_eni_is_set_up() {
    assert_eq!(
        ip("route show table 2"),
        ["10.0.2.1 dev ens6 scope link", "default via 10.0.2.1 dev ens6"].map(|line| line.to_owned())
    );
    assert_eq!(ip("route show table main"), Vec::<String>::new());
    assert!(ip("rule list").contains(&"32765: from 10.0.2.20 lookup 2".to_owned()));
    let addresses = ip("-o -4 address show dev ens6");
    assert!(
        addresses.len() == 1 && addresses[0].contains("10.0.2.20/24"),
        "{addresses:?}"
    );
    assert!(ip("-o link show dev ens6")[0].contains("mtu 9001"));
}

#[test]
fn a_new_eni_is_set_up_once_and_then_left_alone() {
    in_namespace(|| {
        let mut socket = node_namespace();
        let ready = setup_eni(&mut socket, &eni()).unwrap();
        assert_eq!((ready.name.as_str(), ready.change), ("ens6", Change::Changed));
        assert_eni_is_set_up();
        let before = state();
        let mut monitor = Monitor::subscribe().unwrap();
        assert_eq!(setup_eni(&mut socket, &eni()).unwrap().change, Change::Unchanged);
        assert_eq!(monitor.next_change().unwrap(), None);
        assert_eq!(state(), before);
    });
}

#[test]
fn whatever_is_missing_or_wrong_on_an_eni_is_put_right() {
    in_namespace(|| {
        let mut socket = node_namespace();
        setup_eni(&mut socket, &eni()).unwrap();
        let damages: [&[&str]; 9] = [
            &["route delete default table 2"],
            &["route replace default via 10.0.2.1 dev ens5 onlink table 2"],
            &["rule delete priority 32765"],
            &["rule add from 10.0.2.20 lookup 7 priority 32765"],
            &["link set ens6 mtu 1500"],
            &["link set ens6 down"],
            &["address add 10.0.2.99/24 dev ens6"],
            &["address flush dev ens6"],
            &[
                "address flush dev ens6",
                "address add 10.0.2.99/24 dev ens6",
                "address add 10.0.2.20/24 dev ens6",
            ],
        ];
        for damage in damages {
            for step in damage {
                ip(step);
            }
            assert_eq!(
                setup_eni(&mut socket, &eni()).unwrap().change,
                Change::Changed,
                "{damage:?}"
            );
            assert_eni_is_set_up();
            assert_eq!(
                setup_eni(&mut socket, &eni()).unwrap().change,
                Change::Unchanged,
                "{damage:?}"
            );
        }
    });
}

#[test]
fn a_torn_down_eni_leaves_neither_rules_nor_routes_and_other_rules_stay() {
    in_namespace(|| {
        let mut socket = node_namespace();
        ip("rule add from 10.0.3.30 lookup 3 priority 32765");
        setup_eni(&mut socket, &eni()).unwrap();
        assert_eq!(
            teardown_eni(&mut socket, eni().address, eni().table).unwrap(),
            Change::Changed
        );
        assert_eq!(ip("-4 route show table 2"), Vec::<String>::new());
        let rules = ip("rule list");
        assert!(!rules.iter().any(|rule| rule.contains("10.0.2.20")), "{rules:?}");
        assert!(rules.contains(&"32765: from 10.0.3.30 lookup 3".to_owned()));
        assert_eq!(
            teardown_eni(&mut socket, eni().address, eni().table).unwrap(),
            Change::Unchanged
        );
    });
}

#[test]
fn an_eni_that_is_not_there_and_table_main_are_told_apart() {
    in_namespace(|| {
        let mut socket = host();
        assert!(matches!(setup_eni(&mut socket, &eni()), Err(EniError::LinkMissing { mac }) if mac.0 == ENI_MAC));
        let main = EniWiring {
            table: RouteTableId::MAIN,
            ..eni()
        };
        assert!(matches!(
            setup_eni(&mut socket, &main),
            Err(EniError::TableIsMain { .. })
        ));
        assert!(matches!(
            teardown_eni(&mut socket, eni().address, RouteTableId::MAIN),
            Err(EniError::TableIsMain { .. })
        ));
    });
}

#[test]
fn the_node_is_set_up_once_and_then_left_alone() {
    in_namespace(|| {
        let mut socket = node_namespace();
        let applied = apply_node(&mut socket, &node()).unwrap();
        assert_eq!(
            (applied.devices.primary.as_str(), applied.change()),
            ("ens5", Change::Changed)
        );
        assert!(ip("-o link show dev ens5")[0].contains("mtu 9001"));
        assert!(ip("rule list").contains(&"1024: from all fwmark 0x80/0x80 lookup main".to_owned()));
        let text = ruleset();
        for line in [
            r#"iifname "ens5" fib daddr . iif type local ct mark set ct mark | 0x00000080"#,
            r#"iifname != "eni*" iifname != "vlan*" return"#,
            r#"iifname "eni*" ct state new ct direction original fib daddr type != local ip daddr != @vpc-cidrs ip daddr != @exclude-cidrs ct mark set ct mark | 0x00000080"#,
            "ct mark & 0x00000080 == 0x00000080 meta mark set meta mark | 0x00000080",
            "snat to 10.0.1.10 fully-random",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert_eq!(apply_node(&mut socket, &node()).unwrap().change(), Change::Unchanged);
        assert_eq!(ruleset(), text);
    });
}

#[test]
fn a_predecessors_mark_rule_is_adopted_and_its_table_replaced() {
    in_namespace(|| {
        let mut socket = node_namespace();
        ip("rule add fwmark 0x80/0x80 lookup main priority 1024");
        let script = "table ip aws-cni {
            chain nat-prerouting { type nat hook prerouting priority -90; policy accept; jump snat-mark; }
            chain snat-mark { ct mark set ct mark | 0x80; }
        }";
        let loaded = Command::new("nft").arg(script).status().unwrap();
        assert!(loaded.success());
        let mut monitor = Monitor::subscribe().unwrap();
        let applied = apply_node(&mut socket, &node()).unwrap();
        assert_eq!(applied.mark_rule, Change::Unchanged);
        assert!(applied.table.is_some());
        assert!(!ruleset().contains("snat-mark"));
        while let Some(change) = monitor.next_change().unwrap() {
            assert!(
                !matches!(change, KernelChange::RuleChanged { .. }),
                "the rule was touched"
            );
        }
    });
}

#[test]
fn a_changed_vpc_and_a_foreign_flush_are_noticed() {
    in_namespace(|| {
        let mut socket = node_namespace();
        apply_node(&mut socket, &node()).unwrap();
        let mut grown = node();
        grown.vpc_cidrs.push("10.1.0.0/16".parse().unwrap());
        assert_eq!(apply_node(&mut socket, &grown).unwrap().change(), Change::Changed);
        assert!(ruleset().contains("10.0.0.0/15"));
        assert!(
            Command::new("nft")
                .args(["flush", "ruleset"])
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(apply_node(&mut socket, &grown).unwrap().change(), Change::Changed);
        assert_eq!(apply_node(&mut socket, &grown).unwrap().change(), Change::Unchanged);
        let missing = NodeConfig {
            primary_mac: MacAddress([2, 9, 9, 9, 9, 9]),
            ..node()
        };
        assert!(matches!(
            apply_node(&mut socket, &missing),
            Err(NodeError::PrimaryMissing { .. })
        ));
    });
}

#[test]
fn a_view_shows_devices_routes_and_rules_of_pods_and_enis() {
    in_namespace(|| {
        let mut socket = node_namespace();
        setup_eni(&mut socket, &eni()).unwrap();
        let netns = new_namespace();
        let w = wiring(5, 2);
        let wired = wire(&mut PodSockets::open(&netns).unwrap(), &w).unwrap();
        ip("rule add from 10.0.1.77 lookup 3 priority 1536");
        let view = observe(&mut socket).unwrap();
        assert_eq!(view.find_eni(MacAddress(ENI_MAC)).unwrap().name, "ens6");
        assert_eq!(view.find_pod_link(w.address).unwrap().index, wired.host_index);
        assert_eq!(view.find_alias("container-5").unwrap().mac, Some(wired.host_mac));
        let rules = &view.rules[&w.address];
        assert_eq!(
            (&rules.to_pod[..], &rules.from_pod[..]),
            (&[RouteTableId::MAIN][..], &[RouteTableId(2)][..])
        );
        assert_eq!(view.rules[&eni().address].from_eni, [RouteTableId(2)]);
        assert_eq!(view.rules[&Ipv4Addr::new(10, 0, 1, 77)].from_pod, [RouteTableId(3)]);
        assert_eq!(view.pod_routes.len(), 1);
    });
}

#[test]
fn the_monitor_tells_what_changed() {
    in_namespace(|| {
        let mut socket = node_namespace();
        let mut monitor = Monitor::subscribe().unwrap();
        assert_eq!(monitor.next_change().unwrap(), None);
        let netns = new_namespace();
        let w = wiring(5, 2);
        wire(&mut PodSockets::open(&netns).unwrap(), &w).unwrap();
        setup_eni(&mut socket, &eni()).unwrap();
        ip(&format!("link delete {}", w.host_veth));
        let mut changes = Vec::new();
        while let Some(change) = monitor.next_change().unwrap() {
            changes.push(change);
        }
        let stamped = |change: &KernelChange| matches!(change, KernelChange::LinkAppeared { alias: Some(alias), .. } if alias == "container-5");
        let gone =
            |change: &KernelChange| matches!(change, KernelChange::LinkGone { name, .. } if *name == w.host_veth);
        assert!(changes.iter().any(stamped) && changes.iter().any(gone), "{changes:?}");
        for expected in [
            KernelChange::RouteChanged { address: w.address },
            KernelChange::RuleChanged {
                address: Some(w.address),
                fate: Fate::Made,
            },
            KernelChange::RuleChanged {
                address: Some(eni().address),
                fate: Fate::Made,
            },
            KernelChange::TableChanged { table: 2 },
        ] {
            assert!(changes.contains(&expected), "{expected:?}: {changes:?}");
        }
    });
}

#[test]
fn an_inspection_shows_eni_tables_and_rules_that_are_not_ours() {
    in_namespace(|| {
        let mut socket = node_namespace();
        setup_eni(&mut socket, &eni()).unwrap();
        let found = inspect(&mut socket, [eni().table, RouteTableId(9)]).unwrap();
        let device = found.view.find_eni(eni().mac).unwrap().index;
        let gateway = Ipv4Addr::new(10, 0, 2, 1);
        assert_eq!(found.tables[&eni().table].defaults, [(gateway, Some(device))]);
        assert_eq!(found.tables[&eni().table].connected[&gateway], Some(device));
        assert_eq!(found.tables[&RouteTableId(9)], EniTable::default());
        assert_eq!(found.odd_rules, Vec::<u32>::new());
        // One for an address is nobody's or a pod's; the others stand in the way of all.
        ip("rule add to 10.0.1.5 lookup main priority 512");
        ip("rule add from 10.0.1.5 to 10.1.0.0/16 lookup 2 priority 1536");
        ip("rule add to 10.0.0.0/8 lookup 7 priority 512");
        ip("rule add fwmark 1 lookup 7 priority 1536");
        ip("rule add fwmark 1 lookup 7 priority 1000");
        ip("rule add from 10.9.0.0/16 unreachable priority 32765");
        let odd = inspect(&mut socket, []).unwrap().odd_rules;
        assert_eq!(odd, [512, 1536, 32_765]);
    });
}

#[test]
fn an_inspection_of_the_node_changes_nothing_and_sees_what_an_application_would_change() {
    in_namespace(|| {
        let mut socket = node_namespace();
        let before = (state(), ruleset());
        let found = inspect_node(&mut socket, &node()).unwrap();
        assert_eq!((found.mark_rule, found.table.is_some()), (Change::Changed, true));
        assert_eq!((state(), ruleset()), before);
        apply_node(&mut socket, &node()).unwrap();
        let found = inspect_node(&mut socket, &node()).unwrap();
        assert_eq!((found.mark_rule, found.table), (Change::Unchanged, None));
        ip("rule del fwmark 0x80/0x80 priority 1024");
        let mut other = node();
        other.exclude_cidrs.clear();
        let found = inspect_node(&mut socket, &other).unwrap();
        assert_eq!((found.mark_rule, found.table.is_some()), (Change::Changed, true));
    });
}
