//! The node's rules and ruleset in each setting, as the ip and nft programs show them.

#![expect(clippy::unwrap_used, reason = "helpers of tests may unwrap like the tests")]

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use datapath::{
    Change, KernelChange, Monitor, NodeConfig, NodeError, NodePorts, Random, RouteSocket, SnatPolicy, apply_node,
    inspect_node,
};
use namespace::{add_eni, host, in_namespace, ip};
use vpc_types::{FwMark, MacAddress, VethPrefix};

#[expect(dead_code, unused_imports, reason = "each test program uses another part of it")]
mod namespace;

const PRIMARY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const FULLY: SnatPolicy = SnatPolicy::ToPrimary { random: Random::Fully };
const MARK_RULE: &str = "1024: from all fwmark 0x80/0x80 lookup main";

fn node(snat: SnatPolicy, node_ports: NodePorts) -> NodeConfig {
    NodeConfig {
        primary_mac: MacAddress(PRIMARY_MAC),
        primary_address: Ipv4Addr::new(10, 0, 1, 10),
        mtu: 9001,
        snat,
        node_ports,
        vpc_cidrs: vec!["10.0.0.0/16".parse().unwrap()],
        exclude_cidrs: vec!["192.168.0.0/16".parse().unwrap()],
        service_cidrs: Vec::new(),
        mark: FwMark::DEFAULT,
        veth_prefix: VethPrefix::default(),
    }
}

fn default_node() -> NodeConfig {
    node(FULLY, NodePorts::Supported)
}

fn node_namespace() -> RouteSocket {
    let mut socket = host();
    add_eni(&mut socket, "ens5", PRIMARY_MAC);
    ip("link set ens5 up");
    socket
}

fn nft(arguments: &[&str]) -> String {
    let output = Command::new("nft")
        .args(arguments)
        .output()
        .expect("this test needs the nft program");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Chains and sets, one line per line of the listing. Versions of the program write "or" differently.
fn ruleset() -> Vec<String> {
    let text = nft(&["-y", "list", "ruleset"])
        .replace(" or ", " | ")
        .replace(" and ", " & ");
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && *line != "}")
        .map(str::to_owned)
        .collect()
}

/// Rules other than the kernel's own.
fn rules() -> Vec<String> {
    let own = ["0:", "32766:", "32767:"];
    let all = ip("rule list").into_iter();
    all.filter(|rule| !own.iter().any(|priority| rule.starts_with(priority)))
        .collect()
}

/// Applies, and applies again, which must find nothing to do.
fn apply(socket: &mut RouteSocket, config: &NodeConfig) -> Change {
    let change = apply_node(socket, config).unwrap().change();
    let found = inspect_node(socket, config).unwrap();
    assert_eq!(
        (found.mark_rule, found.service_rules, found.table),
        (Change::Unchanged, Change::Unchanged, None)
    );
    assert_eq!(apply_node(socket, config).unwrap().change(), Change::Unchanged);
    change
}

const MARK_INCOMING: [&str; 3] = [
    "chain mangle-prerouting {",
    "type filter hook prerouting priority -150; policy accept;",
    r#"iifname "ens5" fib daddr . iif type local ct mark set ct mark | 0x00000080"#,
];
const RESTORE: [&str; 2] = [
    "chain nat-prerouting {",
    "type filter hook prerouting priority -90; policy accept;",
];
const POD_VETHS_ONLY: &str = r#"iifname != "eni*" return"#;
const POD_VETHS_AND_VLANS: &str = r#"iifname != "eni*" iifname != "vlan*" return"#;
const MARK_OUTGOING: &str = r#"iifname "eni*" ct state new ct direction original fib daddr type != local ip daddr != @vpc-cidrs ip daddr != @exclude-cidrs ct mark set ct mark | 0x00000080"#;
const COPY_MARK: &str = "ct mark & 0x00000080 == 0x00000080 meta mark set meta mark | 0x00000080";
const SETS: [&str; 8] = [
    "set vpc-cidrs {",
    "type ipv4_addr",
    "flags interval",
    "elements = { 10.0.0.0/16 }",
    "set exclude-cidrs {",
    "type ipv4_addr",
    "flags interval",
    "elements = { 192.168.0.0/16 }",
];
const TRANSLATE: [&str; 8] = [
    "chain nat-postrouting {",
    "type nat hook postrouting priority 110; policy accept;",
    r#"oifname "vlan*" return"#,
    "ip daddr @vpc-cidrs return",
    "ip daddr @exclude-cidrs return",
    "fib daddr type local return",
    r#"oifname != "ens5" fib saddr . oif type local return"#,
    "snat to 10.0.1.10 fully-random",
];
const TABLE: &[&str] = &["table ip aws-cni {"];

fn check(snat: SnatPolicy, node_ports: NodePorts, golden: &[&[&str]], rule: Option<&str>) {
    in_namespace(|| {
        let mut socket = node_namespace();
        // What another setting left must not show.
        for before in [FULLY, SnatPolicy::External] {
            apply(&mut socket, &node(before, NodePorts::Supported));
            apply(&mut socket, &node(before, NodePorts::Unsupported));
        }
        apply(&mut socket, &node(snat, node_ports));
        assert_eq!(ruleset(), golden.concat());
        assert_eq!(rules(), rule.into_iter().collect::<Vec<_>>());
    });
}

#[test]
fn with_snat_and_node_ports_everything_is_there() {
    let restore = [POD_VETHS_AND_VLANS, MARK_OUTGOING, COPY_MARK];
    let golden = [TABLE, &SETS, &MARK_INCOMING, &RESTORE, &restore, &TRANSLATE];
    check(FULLY, NodePorts::Supported, &golden, Some(MARK_RULE));
}

#[test]
fn with_snat_alone_nothing_incoming_is_marked_and_branch_enis_are_left_alone() {
    let restore = [POD_VETHS_ONLY, MARK_OUTGOING, COPY_MARK];
    let golden = [TABLE, &SETS, &RESTORE, &restore, &TRANSLATE];
    check(FULLY, NodePorts::Unsupported, &golden, Some(MARK_RULE));
}

#[test]
fn with_node_ports_alone_marks_are_set_on_the_primary_eni_and_copied_and_nothing_is_translated() {
    let golden = [TABLE, &MARK_INCOMING, &RESTORE, &[POD_VETHS_AND_VLANS, COPY_MARK]];
    check(SnatPolicy::External, NodePorts::Supported, &golden, Some(MARK_RULE));
}

#[test]
fn with_neither_nothing_is_there() {
    check(SnatPolicy::External, NodePorts::Unsupported, &[], None);
}

#[test]
fn source_ports_are_chosen_as_the_setting_says() {
    in_namespace(|| {
        let mut socket = node_namespace();
        for (random, words) in [
            (Random::Hash, " random"),
            (Random::No, ""),
            (Random::Fully, " fully-random"),
        ] {
            let snat = SnatPolicy::ToPrimary { random };
            assert_eq!(apply(&mut socket, &node(snat, NodePorts::Supported)), Change::Changed);
            assert_eq!(ruleset().pop().unwrap(), format!("snat to 10.0.1.10{words}"));
        }
    });
}

#[test]
fn excluded_ranges_may_overlap_and_may_be_everything() {
    in_namespace(|| {
        let mut socket = node_namespace();
        for (texts, shown) in [
            (
                &["172.16.0.0/12", "172.16.0.0/16", "172.32.0.0/16"][..],
                "elements = { 172.16.0.0-172.32.255.255 }",
            ),
            (&["0.0.0.0/0", "10.0.0.0/8"], "elements = { 0.0.0.0/0 }"),
        ] {
            let exclude_cidrs = texts.iter().map(|text| text.parse().unwrap()).collect();
            let config = NodeConfig {
                exclude_cidrs,
                ..default_node()
            };
            assert_eq!(apply(&mut socket, &config), Change::Changed);
            assert!(ruleset().contains(&shown.to_owned()), "{:#?}", ruleset());
        }
    });
}

#[test]
fn mark_and_veth_prefix_are_those_of_the_setting() {
    in_namespace(|| {
        let mut socket = node_namespace();
        let (value, mask) = (0x0400_0001, 0x0400_0001);
        let config = NodeConfig {
            mark: FwMark { value, mask },
            veth_prefix: VethPrefix::parse("pod").unwrap(),
            ..default_node()
        };
        apply(&mut socket, &config);
        let text = ruleset().join("\n");
        assert!(
            text.contains("ct mark & 0x04000001 == 0x04000001 meta mark set meta mark | 0x04000001"),
            "{text}"
        );
        assert!(
            text.contains(r#"iifname != "pod*" iifname != "vlan*" return"#),
            "{text}"
        );
        assert!(!text.contains("0x00000080") && !text.contains("eni*"), "{text}");
        assert_eq!(rules(), ["1024: from all fwmark 0x4000001/0x4000001 lookup main"]);
    });
}

/// The rule of the setting before goes with the table that set its mark; rules of the same priority that nothing shows to be
/// ours stay.
#[test]
fn a_new_mark_takes_the_rule_of_the_old_one_along_and_no_other() {
    in_namespace(|| {
        let mut socket = node_namespace();
        let foreign = [
            "1024: from 10.9.0.0/16 fwmark 0x80/0x80 lookup 7",
            "1024: from all fwmark 0x20/0x20 lookup main",
            "1024: from all fwmark 0x80/0xff lookup main",
        ];
        ip("rule add from 10.9.0.0/16 fwmark 0x80/0x80 lookup 7 priority 1024");
        ip("rule add fwmark 0x20/0x20 lookup main priority 1024");
        ip("rule add fwmark 0x80/0xff lookup main priority 1024");
        apply(&mut socket, &default_node());
        assert!(rules().contains(&MARK_RULE.to_owned()));
        let other = NodeConfig {
            mark: FwMark {
                value: 0x100,
                mask: 0x100,
            },
            ..default_node()
        };
        assert_eq!(apply(&mut socket, &other), Change::Changed);
        let expected = [&["1024: from all fwmark 0x100/0x100 lookup main"], &foreign[..]].concat();
        let mut found = rules();
        found.sort();
        let mut wanted: Vec<_> = expected.into_iter().map(str::to_owned).collect();
        wanted.sort();
        assert_eq!(found, wanted);
        // Neither mark nor table: ours goes alone.
        apply(
            &mut socket,
            &NodeConfig {
                mark: other.mark,
                ..node(SnatPolicy::External, NodePorts::Unsupported)
            },
        );
        assert_eq!(rules(), foreign);
    });
}

/// The kernel deletes the first rule that has what is named, whatever else that rule selects by.
#[test]
fn a_mark_rule_that_selects_further_is_no_rule_of_ours_and_survives() {
    in_namespace(|| {
        let mut socket = node_namespace();
        ip("rule add from 10.9.0.0/16 fwmark 0x80/0x80 lookup main priority 1024");
        apply(&mut socket, &default_node());
        let narrower = "1024: from 10.9.0.0/16 fwmark 0x80/0x80 lookup main".to_owned();
        assert!(rules().contains(&MARK_RULE.to_owned()) && rules().contains(&narrower));
        apply(&mut socket, &node(SnatPolicy::External, NodePorts::Unsupported));
        assert!(rules().contains(&narrower), "{:?}", rules());
    });
}

#[test]
fn rules_for_external_services_follow_the_setting_and_equal_ones_are_not_touched() {
    in_namespace(|| {
        let mut socket = node_namespace();
        ip("rule add to 52.0.0.0/8 lookup main priority 1535");
        ip("rule add to 54.0.0.0/8 lookup main priority 1535");
        ip("rule add to 52.0.0.0/8 lookup main priority 1500");
        let config = |texts: &[&str]| NodeConfig {
            service_cidrs: texts.iter().map(|text| text.parse().unwrap()).collect(),
            ..default_node()
        };
        let of_services = || {
            rules()
                .into_iter()
                .filter(|rule| rule.starts_with("15"))
                .collect::<Vec<_>>()
        };
        let mut monitor = Monitor::subscribe().unwrap();
        apply(
            &mut socket,
            &config(&["52.0.0.1/8", "52.0.0.0/8", "100.64.1.1/32", "0.0.0.0/0"]),
        );
        let other = "1500: from all to 52.0.0.0/8 lookup main";
        let expected = [
            other,
            "1535: from all to 0.0.0.0/1 lookup main",
            "1535: from all to 100.64.1.1 lookup main",
            "1535: from all to 128.0.0.0/1 lookup main",
            "1535: from all to 52.0.0.0/8 lookup main",
        ];
        assert_eq!(of_services(), expected);
        let mut rule_changes = 0;
        while let Some(change) = monitor.next_change().unwrap() {
            rule_changes += usize::from(matches!(change, KernelChange::RuleChanged { .. }));
        }
        assert!(
            rule_changes <= 5,
            "the mark rule, three of services that came, one that went: {rule_changes}"
        );
        apply(&mut socket, &config(&[]));
        assert_eq!(of_services(), [other]);
    });
}

#[test]
fn next_to_foreign_rules_of_their_priority_service_rules_are_added_but_not_deleted() {
    in_namespace(|| {
        let mut socket = node_namespace();
        ip("rule add from 10.9.0.0/16 to 52.0.0.0/8 lookup main priority 1535");
        let config = NodeConfig {
            service_cidrs: vec!["52.0.0.0/8".parse().unwrap()],
            ..default_node()
        };
        assert_eq!(apply(&mut socket, &config), Change::Changed);
        apply(&mut socket, &default_node());
        assert!(rules().contains(&"1535: from 10.9.0.0/16 to 52.0.0.0/8 lookup main".to_owned()));
    });
}

/// A process that owns a table keeps all others from changing it, for as long as it lives.
#[test]
fn a_change_that_the_kernel_refuses_is_an_error_and_the_next_try_succeeds() {
    in_namespace(|| {
        let mut socket = node_namespace();
        let mut owner = Command::new("nft")
            .arg("-i")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut orders = owner.stdin.take().unwrap();
        orders.write_all(b"add table ip aws-cni { flags owner; }\n").unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while ruleset().is_empty() {
            assert!(Instant::now() < deadline, "the other program has its table");
        }
        let refused = apply_node(&mut socket, &default_node());
        assert!(matches!(refused, Err(NodeError::LoadTable(_))), "{refused:?}");
        assert_eq!(ruleset().len(), 2, "nothing was put into it: {:?}", ruleset());
        drop(orders);
        owner.wait().unwrap();
        assert_eq!(apply(&mut socket, &default_node()), Change::Changed);
        assert!(ruleset().contains(&"snat to 10.0.1.10 fully-random".to_owned()));
    });
}
