//! Rules of the reference, made by the programs that it uses, each test in a fresh network namespace.

#![expect(clippy::unwrap_used, reason = "helpers of tests may unwrap like the tests")]

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Instant;

use datapath::takeover::{Leftovers, SettledRules, Variant, find_leftovers, remove_leftovers, settle_pod_rules};
use datapath::takeover::{OurTable, Successor, find_our_table, find_successor, remove_our_table};
use datapath::{NodeConfig, NodePorts, Random, SnatPolicy, apply_node};
use namespace::{in_namespace, ip};
use reference::{CLEAN, REFERENCE, iptables, lock, saved, state_of_others};

use vpc_types::{FwMark, MacAddress, RouteTableId, VethPrefix};

#[expect(dead_code, unused_imports, reason = "other tests use the rest")]
mod namespace;
mod reference;

const BOTH: [Variant; 2] = [Variant::Nft, Variant::Legacy];

/// What stays when the reference's rules go: the same programs' listing of a namespace that never had them.
fn without_the_reference(variant: Variant) -> Vec<String> {
    let mut lines = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            in_namespace(|| {
                state_of_others(variant);
                lines = saved(variant);
            });
        });
    });
    lines
}

#[test]
fn of_either_kind_the_references_rules_go_and_all_others_stay() {
    // The first namespace gives the rights to make the others.
    in_namespace(|| {
        for variant in BOTH {
            assert_eq!(left_of_a_node(variant), without_the_reference(variant), "{variant:?}");
        }
    });
}

/// What the program lists after the reference's rules came among others and went.
fn left_of_a_node(variant: Variant) -> Vec<String> {
    let mut left = Vec::new();
    in_namespace(|| {
        state_of_others(variant);
        for rule in REFERENCE {
            iptables(variant, rule);
        }
        // Others append behind them and put theirs before them.
        iptables(variant, "-t nat -A POSTROUTING -s 1.2.3.4 -j ACCEPT");
        iptables(variant, "-t nat -I PREROUTING -s 1.2.3.4 -j KUBE-SERVICES");
        let found = find_leftovers(variant).unwrap();
        assert_eq!(found, Leftovers { rules: 14, chains: 3 }, "{variant:?}");
        assert_eq!(remove_leftovers(variant, &lock()).unwrap(), found);
        iptables(variant, "-t nat -D POSTROUTING -s 1.2.3.4 -j ACCEPT");
        iptables(variant, "-t nat -D PREROUTING -s 1.2.3.4 -j KUBE-SERVICES");
        left = saved(variant);
        assert!(find_leftovers(variant).unwrap().is_empty());
        assert!(remove_leftovers(variant, &lock()).unwrap().is_empty());
    });
    left
}

#[test]
fn each_kind_is_looked_for_by_itself() {
    in_namespace(|| {
        for rule in REFERENCE {
            iptables(Variant::Nft, rule);
            iptables(Variant::Legacy, rule);
        }
        remove_leftovers(Variant::Nft, &lock()).unwrap();
        assert!(find_leftovers(Variant::Nft).unwrap().is_empty());
        assert!(!find_leftovers(Variant::Legacy).unwrap().is_empty());
    });
}

#[test]
fn a_chain_that_a_rule_of_somebody_else_uses_stays_empty() {
    for variant in BOTH {
        in_namespace(|| {
            for rule in REFERENCE {
                iptables(variant, rule);
            }
            iptables(
                variant,
                "-t nat -A POSTROUTING -m comment --comment mine -j AWS-SNAT-CHAIN-0",
            );
            let removed = remove_leftovers(variant, &lock()).unwrap();
            assert_eq!(removed, Leftovers { rules: 14, chains: 2 }, "{variant:?}");
            let left: Vec<String> = saved(variant).into_iter().filter(|line| line.contains("AWS")).collect();
            let rule = "-A POSTROUTING -m comment --comment mine -j AWS-SNAT-CHAIN-0";
            assert_eq!(left, [":AWS-SNAT-CHAIN-0 -", rule], "{variant:?}");
        });
    }
}

#[test]
fn counters_of_other_legacy_rules_go_on() {
    in_namespace(|| {
        namespace::host();
        for rule in REFERENCE {
            iptables(Variant::Legacy, rule);
        }
        iptables(Variant::Legacy, "-t mangle -A PREROUTING -i lo -j ACCEPT");
        iptables(Variant::Legacy, "-t mangle -Z PREROUTING");
        // No packet counts; counters are set as a restore sets them.
        iptables(Variant::Legacy, "-t mangle -A PREROUTING -s 9.9.9.9 -j ACCEPT -c 7 700");
        remove_leftovers(Variant::Legacy, &lock()).unwrap();
        let text = reference::run("iptables-legacy-save", "-c -t mangle");
        assert!(text.contains("[7:700] -A PREROUTING -s 9.9.9.9/32 -j ACCEPT"), "{text}");
    });
}

#[test]
fn looking_loads_no_table() {
    in_namespace(|| {
        for variant in BOTH {
            assert!(find_leftovers(variant).unwrap().is_empty());
            assert!(remove_leftovers(variant, &lock()).unwrap().is_empty());
        }
        let names = std::fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
        assert_eq!(names, "");
        assert_eq!(reference::run("nft", "list ruleset"), "");
    });
}

/// kube-proxy's chains of some services, with four endpoints each.
fn services(numbers: std::ops::Range<u32>) -> String {
    let mut text = String::from("*nat\n");
    for number in numbers.clone() {
        text.push_str(&format!(":KUBE-SVC-{number} -\n"));
    }
    for number in numbers {
        for endpoint in 0..4 {
            text.push_str(&format!(
                "-A KUBE-SVC-{number} -m comment --comment \"default/s{number}\" -s 10.0.0.{endpoint} -j ACCEPT\n"
            ));
        }
    }
    text + "COMMIT\n"
}

#[test]
fn among_thousands_of_rules_looking_takes_milliseconds() {
    for variant in BOTH {
        in_namespace(|| {
            // In parts, which fit into what an unprivileged program may send at once.
            for part in 0..80 {
                reference::restore(variant, &services(25 * part..25 * (part + 1)));
            }
            let started = Instant::now();
            assert!(remove_leftovers(variant, &lock()).unwrap().is_empty());
            println!(
                "{variant:?}: nothing found among 8,000 rules in {:?}",
                started.elapsed()
            );
            for rule in CLEAN {
                iptables(variant, rule);
            }
            for rule in REFERENCE {
                iptables(variant, rule);
            }
            let started = Instant::now();
            assert!(!remove_leftovers(variant, &lock()).unwrap().is_empty());
            println!("{variant:?}: removed from among 8,000 rules in {:?}", started.elapsed());
            assert!(saved(variant).iter().filter(|line| line.contains("KUBE-SVC-")).count() >= 10_000);
        });
    }
}

#[test]
fn the_rules_of_older_releases_become_one_per_running_pod_without_a_gap() {
    in_namespace(|| {
        let mut socket = namespace::host();
        let rules = [
            // One per network of the VPC.
            "from 10.0.1.5 to 10.0.0.0/16 lookup 2 priority 1536",
            "from 10.0.1.5 to 100.64.0.0/10 lookup 2 priority 1536",
            // Of a former pod, and winning.
            "from 10.0.1.6 lookup 3 priority 1536",
            "from 10.0.1.6 lookup 2 priority 1536",
            "from 10.0.1.7 lookup 3 priority 1536",
            // On the primary ENI.
            "from 10.0.1.8 lookup 3 priority 1536",
            "from 10.0.1.8 lookup main priority 1536",
            // As it should be.
            "from 10.0.1.9 lookup 2 priority 1536",
            // Of nobody's business: no pod, another priority, other selectors.
            "from 10.0.1.10 to 10.0.0.0/16 lookup 2 priority 1536",
            "from 10.0.1.5 lookup 9 priority 1537",
            "from 10.0.1.5 fwmark 0x9 lookup 9 priority 1536",
            "not from 10.0.1.5 lookup 9 priority 1536",
            "from 10.0.1.0/24 lookup 9 priority 1536",
        ];
        for rule in rules {
            ip(&format!("rule add {rule}"));
        }
        let mut monitor = datapath::Monitor::subscribe().unwrap();
        let main = RouteTableId::MAIN;
        let two = RouteTableId(2);
        let pods = [(5, two), (6, two), (7, two), (8, main), (9, two), (11, two)];
        let pods = pods.map(|(last, table)| (Ipv4Addr::new(10, 0, 1, last), table)).into();
        let settled = settle_pod_rules(&mut socket, &pods).unwrap();
        assert_eq!(settled, SettledRules { added: 2, deleted: 5 });
        let left: Vec<String> = ip("rule list")
            .into_iter()
            .filter(|rule| rule.starts_with("1536:"))
            .collect();
        let mut expected = [
            "1536: from 10.0.1.5 lookup 2",
            "1536: from 10.0.1.6 lookup 2",
            "1536: from 10.0.1.7 lookup 2",
            "1536: from 10.0.1.8 lookup main",
            "1536: from 10.0.1.9 lookup 2",
            "1536: from 10.0.1.10 to 10.0.0.0/16 lookup 2",
            "1536: from 10.0.1.5 fwmark 0x9 lookup 9",
            "1536: not from 10.0.1.5 lookup 9",
            "1536: from 10.0.1.0/24 lookup 9",
        ];
        expected.sort_unstable();
        assert_eq!(left, expected);
        let again = settle_pod_rules(&mut socket, &pods).unwrap();
        assert_eq!(again, SettledRules::default());
        let first = monitor.next_change().unwrap();
        assert!(first.is_some(), "the monitor sees what is done");
    });
}

/// The reference's table in its nftables mode, as it puts it over ours: our chain makes way, others stay.
const NATIVE: &str = "
    add table ip aws-cni
    add chain ip aws-cni nat-prerouting
    delete chain ip aws-cni nat-prerouting
    table ip aws-cni {
        chain snat-mark { counter ip daddr 10.0.0.0/16 return; counter ct mark set ct mark | 0x80; }
        chain nat-prerouting {
            type nat hook prerouting priority -90; policy accept;
            fib daddr type local return
            iifname \"eni*\" counter jump snat-mark
            counter meta mark set ct mark & 0x80
        }
    }";

fn node() -> NodeConfig {
    NodeConfig {
        primary_mac: MacAddress([2, 0, 0, 0, 0, 1]),
        primary_address: Ipv4Addr::new(10, 0, 1, 10),
        mtu: 9001,
        snat: SnatPolicy::ToPrimary { random: Random::Fully },
        node_ports: NodePorts::Supported,
        vpc_cidrs: vec!["10.0.0.0/16".parse().unwrap()],
        exclude_cidrs: Vec::new(),
        service_cidrs: Vec::new(),
        mark: FwMark::DEFAULT,
        veth_prefix: VethPrefix::default(),
    }
}

#[test]
fn ours_goes_from_the_table_that_it_shares_with_the_reference() {
    in_namespace(|| {
        let mut socket = namespace::host();
        namespace::add_eni(&mut socket, "ens5", [2, 0, 0, 0, 0, 1]);
        assert_eq!(remove_our_table().unwrap(), OurTable::Absent);
        apply_node(&mut socket, &node()).unwrap();
        assert_eq!(
            (find_our_table().unwrap(), find_successor().unwrap()),
            (OurTable::Whole, Successor::Missing)
        );
        assert_eq!(remove_our_table().unwrap(), OurTable::Whole);
        assert_eq!(reference::run("nft", "list ruleset"), "");
        // The other one comes while ours is there.
        apply_node(&mut socket, &node()).unwrap();
        reference::nft(NATIVE);
        iptables(Variant::Nft, "-t nat -N AWS-SNAT-CHAIN-0");
        assert_eq!(
            (find_our_table().unwrap(), find_successor().unwrap()),
            (OurTable::Shared, Successor::Missing)
        );
        iptables(
            Variant::Nft,
            "-t nat -A POSTROUTING -m comment --comment|AWS SNAT CHAIN|-j AWS-SNAT-CHAIN-0",
        );
        assert_eq!(find_successor().unwrap(), Successor::Ready);
        assert_eq!(remove_our_table().unwrap(), OurTable::Shared);
        let left = reference::run("nft", "list table ip aws-cni");
        let of_theirs = ["chain snat-mark", "chain nat-prerouting"]
            .iter()
            .all(|text| left.contains(text));
        assert!(
            of_theirs && left.matches("chain ").count() == 2 && !left.contains("set vpc"),
            "{left}"
        );
        assert_eq!(find_our_table().unwrap(), OurTable::Absent);
        // And back again: our load replaces their table, whatever is in it.
        apply_node(&mut socket, &node()).unwrap();
        assert!(!reference::run("nft", "list table ip aws-cni").contains("snat-mark"));
        assert!(apply_node(&mut socket, &node()).unwrap().table.is_none());
    });
}

/// The programs must be there, or these tests prove nothing.
#[test]
fn both_programs_are_what_their_names_say() {
    for (program, kind) in [("iptables-nft", "nf_tables"), ("iptables-legacy", "legacy")] {
        let output = Command::new(program).arg("--version").output();
        let output = output.unwrap_or_else(|error| panic!("these tests need {program}: {error}"));
        assert!(String::from_utf8_lossy(&output.stdout).contains(kind));
    }
}
