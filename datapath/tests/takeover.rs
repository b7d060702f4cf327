//! Rules of the reference, made by the programs that it uses, each test in a fresh network namespace.

#![expect(clippy::unwrap_used, reason = "helpers of tests may unwrap like the tests")]

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use datapath::takeover::{Leftovers, Variant, find_leftovers, remove_leftovers};
use namespace::in_namespace;
use reference::{CLEAN, REFERENCE, iptables, saved, state_of_others};

#[expect(dead_code, unused_imports, reason = "other tests use the rest")]
mod namespace;
mod reference;

const BOTH: [Variant; 2] = [Variant::Nft, Variant::Legacy];

fn lock() -> PathBuf {
    std::env::temp_dir().join(format!("xtables-{}.lock", std::process::id()))
}

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
    for variant in BOTH {
        let expected = without_the_reference(variant);
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
            assert_eq!(saved(variant), expected, "{variant:?}");
            assert!(find_leftovers(variant).unwrap().is_empty());
            assert!(remove_leftovers(variant, &lock()).unwrap().is_empty());
        });
    }
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

#[test]
fn among_thousands_of_rules_looking_takes_milliseconds() {
    for variant in BOTH {
        in_namespace(|| {
            let mut text = String::from("*nat\n");
            for number in 0..2_000 {
                text.push_str(&format!(":KUBE-SVC-{number} -\n"));
            }
            for number in 0..2_000 {
                for endpoint in 0..4 {
                    text.push_str(&format!(
                        "-A KUBE-SVC-{number} -m comment --comment \"default/s{number}\" -s 10.0.0.{endpoint} -j ACCEPT\n"
                    ));
                }
            }
            text.push_str("COMMIT\n");
            reference::restore(variant, &text);
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

/// The programs must be there, or these tests prove nothing.
#[test]
fn both_programs_are_what_their_names_say() {
    for (program, kind) in [("iptables-nft", "nf_tables"), ("iptables-legacy", "legacy")] {
        let output = Command::new(program).arg("--version").output();
        let output = output.unwrap_or_else(|error| panic!("these tests need {program}: {error}"));
        assert!(String::from_utf8_lossy(&output.stdout).contains(kind));
    }
}
