//! Rulesets against a real kernel, each test in a fresh network namespace, with the `nft` program as the judge of what the
//! kernel understood.

#![expect(clippy::unwrap_used, reason = "helpers of tests may unwrap like the tests")]

use std::process::Command;

use ipnet::Ipv4Net;
use netlink::testing::in_namespace;
use nft::rule as say;
use nft::{
    Chain, ChainKind, CmpOp, CommitError, Comparison, DataType, Difference, DynsetOp, Element, ElementCounters,
    ElementValue, Expr, Family, Hook, MetaKey, NftEvents, NftSocket, Register, Rule, RulesetChange, Set, SetFlavor,
    SetKind, Table, TableId, Transaction, key,
};

use tables::{base, fabric_table, node_table};

mod tables;

/// What the `nft` program lists, with white space made uniform.
fn listed(arguments: &[&str]) -> Vec<String> {
    let output = Command::new("nft")
        .args(arguments)
        .output()
        .expect("this test needs the nft program");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| line.trim().to_owned())
        .collect()
}

fn replace(socket: &mut NftSocket, table: &Table) {
    socket.commit(Transaction::new().replace_table(table)).unwrap();
}

#[test]
fn a_node_table_is_what_nft_would_have_loaded() {
    in_namespace(|| {
        let mut socket = NftSocket::open().unwrap();
        replace(&mut socket, &node_table());
        let text = listed(&["list", "table", "ip", "aws-cni"]);
        for line in [
            "elements = { 10.0.0.0/15, 100.64.0.0/10 }",
            "type filter hook prerouting priority mangle; policy accept;",
            r#"iifname "ens5" fib daddr . iif type local ct mark set ct mark | 0x00000080"#,
            "type filter hook prerouting priority dstnat + 10; policy accept;",
            r#"iifname != "eni*" iifname != "vlan*" return"#,
            r#"iifname "eni*" ct state new ct direction original ip daddr != @vpc-cidrs ct mark set ct mark | 0x00000080"#,
            r#"ct mark & 0x00000080 == 0x00000080 meta mark set meta mark | 0x00000080 comment "restore""#,
            "type nat hook postrouting priority srcnat + 10; policy accept;",
            "ip daddr @vpc-cidrs counter packets 0 bytes 0 return",
            "snat to 10.0.0.10 fully-random",
            "ip daddr 169.254.172.0/22 reject",
        ] {
            let normal = |text: &str| text.replace(" or ", " | ").replace(" and ", " & ");
            assert!(text.iter().any(|have| normal(have) == line), "{line}\n{text:#?}");
        }
    });
}

#[test]
fn a_fabric_table_is_what_nft_would_have_loaded() {
    in_namespace(|| {
        let mut socket = NftSocket::open().unwrap();
        replace(&mut socket, &fabric_table());
        let text = listed(&["list", "table", "inet", "fabric"]);
        for line in [
            "typeof meta iifname : counter",
            "type ifname : counter",
            r#"elements = { "p1" : "src_p1" }"#,
            "type ifname : mark",
            r#"elements = { "p1" : 0x00000007 }"#,
            "type ifname : verdict",
            r#"elements = { "p1" : jump sg }"#,
            "type ifname . ipv4_addr . ipv4_addr",
            "iifgroup != 1 counter packets 0 bytes 0 accept",
            "meta mark set iifname map @rtb",
            "meta pkttype != host counter packets 0 bytes 0 drop",
            "meta nfproto ipv4 fib saddr . iif oif missing counter name iifname map @c_src update @d_src { iifname . ip saddr . ip daddr } drop",
            "iifname vmap @sg_out",
            r#"oifname "igw" snat ip to ip saddr map @pub"#,
        ] {
            let normal = |text: &str| text.replace(r#"iifgroup != "1""#, "iifgroup != 1");
            let found = text.iter().any(|have| normal(have) == line);
            assert!(found || line.starts_with("typeof"), "{line}\n{text:#?}");
        }
    });
}

#[test]
fn what_was_loaded_compares_equal_and_every_foreign_change_is_noticed() {
    in_namespace(|| {
        let mut socket = NftSocket::open().unwrap();
        for table in [node_table(), fabric_table()] {
            assert_eq!(
                socket.compare(&table).unwrap(),
                Comparison::Different(Difference::TableMissing)
            );
            replace(&mut socket, &table);
            assert_eq!(socket.compare(&table).unwrap(), Comparison::Equal);
        }
        let table = node_table();
        let changes: [(&[&str], Difference); 6] = [
            (
                &["add", "rule", "ip", "aws-cni", "nat-postrouting", "accept"],
                Difference::Rules("nat-postrouting".into()),
            ),
            (
                &["add", "chain", "ip", "aws-cni", "foreign"],
                Difference::Chain("foreign".into()),
            ),
            (
                &["add", "element", "ip", "aws-cni", "vpc-cidrs", "{ 192.168.0.0/16 }"],
                Difference::Set("vpc-cidrs".into()),
            ),
            (
                &["flush", "chain", "ip", "aws-cni", "filter"],
                Difference::Rules("filter".into()),
            ),
            (
                &["add", "counter", "ip", "aws-cni", "c"],
                Difference::Counter("c".into()),
            ),
            (&["delete", "table", "ip", "aws-cni"], Difference::TableMissing),
        ];
        for (command, difference) in changes {
            listed(command);
            assert_eq!(socket.compare(&table).unwrap(), Comparison::Different(difference));
            replace(&mut socket, &table);
            assert_eq!(socket.compare(&table).unwrap(), Comparison::Equal);
        }
    });
}

#[test]
fn loading_twice_keeps_one_copy_and_the_same_generation_means_no_change() {
    in_namespace(|| {
        let mut socket = NftSocket::open().unwrap();
        replace(&mut socket, &node_table());
        let once = listed(&["list", "ruleset"]);
        replace(&mut socket, &node_table());
        assert_eq!(listed(&["list", "ruleset"]), once);
        let generation = socket.generation().unwrap();
        socket.compare(&node_table()).unwrap();
        assert_eq!(socket.generation().unwrap(), generation);
        let mut late = Transaction::at_generation(generation);
        late.replace_table(&node_table());
        socket.commit(&late).unwrap();
        assert!(matches!(socket.commit(&late), Err(CommitError::Changed)));
    });
}

#[test]
fn a_refused_transaction_applies_nothing_and_names_the_expression() {
    in_namespace(|| {
        let mut socket = NftSocket::open().unwrap();
        let mut table = node_table();
        table.chains[2].rules[0] = Rule::new([say::daddr(), say::in_set("no-such-set")]);
        let before = socket.generation().unwrap();
        let Err(CommitError::Refused(refusals)) = socket.commit(Transaction::new().replace_table(&table)) else {
            panic!("a rule over a missing set was accepted");
        };
        assert_eq!(refusals.len(), 1, "{refusals:?}");
        assert_eq!(refusals[0].operation, "add rule 1 of chain nat-postrouting");
        assert_eq!(refusals[0].place.as_deref(), Some("expr 2 (lookup)"));
        assert_eq!(socket.generation().unwrap(), before);
        assert_eq!(listed(&["list", "ruleset"]), Vec::<String>::new());
    });
}

#[test]
fn elements_come_and_go_without_touching_the_table() {
    in_namespace(|| {
        let mut socket = NftSocket::open().unwrap();
        let table = fabric_table();
        replace(&mut socket, &table);
        let id = TableId::new(Family::Inet, "fabric");
        let entry = Element::entry(key::ifname("p2"), ElementValue::Counter("src_p2".into()));
        socket
            .commit(Transaction::new().add_elements(&id, "c_src", std::slice::from_ref(&entry)))
            .unwrap();
        let found = socket.elements(&id, "c_src").unwrap();
        assert_eq!(found.len(), 2);
        assert!(found.iter().any(|found| found.element == entry));
        socket
            .commit(Transaction::new().delete_elements(&id, "c_src", &[entry]))
            .unwrap();
        socket
            .commit(
                Transaction::new()
                    .add_counter(&id, "late")
                    .delete_counter(&id, "src_p2"),
            )
            .unwrap();
        let counters: Vec<_> = socket.counters(&id).unwrap().into_keys().collect();
        assert_eq!(counters, ["late", "src_p1"]);
        socket.commit(Transaction::new().delete_table(&id)).unwrap();
        assert_eq!(listed(&["list", "ruleset"]), Vec::<String>::new());
    });
}

#[test]
fn counters_of_rules_and_dynamic_sets_can_be_read() {
    in_namespace(|| {
        let ip = |arguments: &str| {
            let status = Command::new("ip")
                .args(arguments.split(' '))
                .status()
                .expect("this test needs ip");
            assert!(status.success(), "ip {arguments}");
        };
        ip("link set lo up");
        let mut socket = NftSocket::open().unwrap();
        let mut table = Table::empty(Family::Ipv4, "t");
        let seen = Set {
            flavor: SetFlavor::Dynamic { size: 16 },
            counters: ElementCounters::Yes,
            ..Set::new("seen", &[DataType::IfName, DataType::Ipv4Addr], SetKind::Set)
        };
        table.sets.push(seen);
        let address = Expr::Payload {
            base: nft::PayloadBase::Network,
            offset: 16,
            len: 4,
            to: Register::word(4),
        };
        table.chains.push(Chain {
            name: "out".into(),
            base: base(ChainKind::Filter, Hook::Output, 0),
            rules: vec![Rule::new([
                say::meta_cmp(MetaKey::L4Proto, CmpOp::Eq, vec![17]),
                say::counter(),
                say::meta(MetaKey::OifName),
                vec![
                    address,
                    Expr::Dynset {
                        set: "seen".into(),
                        op: DynsetOp::Update,
                        key: Register::R1,
                    },
                ],
            ])],
        });
        replace(&mut socket, &table);
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..3 {
            udp.send_to(b"x", "127.0.0.9:9").unwrap();
        }
        let counter = socket.rule_counters(&table.id, "out").unwrap()[0].unwrap();
        assert_eq!((counter.packets, counter.bytes), (3, 3 * 29));
        let found = socket.elements(&table.id, "seen").unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].element.key,
            key::concat(&[key::ifname("lo"), key::ipv4([127, 0, 0, 9].into())])
        );
        assert_eq!(found[0].counter.unwrap().packets, 3);
        assert_eq!(socket.compare(&table).unwrap(), Comparison::Equal);
    });
}

#[test]
fn thousands_of_networks_load_at_once() {
    in_namespace(|| {
        let mut socket = NftSocket::open().unwrap();
        let mut table = Table::empty(Family::Ipv4, "t");
        let networks: Vec<_> = (0..5_000u32)
            .map(|n| Ipv4Net::new((n << 9).into(), 24).unwrap())
            .collect();
        table.sets.push(Set::of_networks("s", &networks));
        replace(&mut socket, &table);
        assert_eq!(socket.compare(&table).unwrap(), Comparison::Equal);
    });
}

#[test]
fn whole_transactions_of_others_are_noticed_once() {
    in_namespace(|| {
        let mut events = NftEvents::subscribe().unwrap();
        let mut socket = NftSocket::open().unwrap();
        replace(&mut socket, &node_table());
        let ours = events.next_change().unwrap();
        assert!(
            matches!(ours, Some(RulesetChange::Committed { port, .. }) if port == socket.port()),
            "{ours:?}"
        );
        listed(&["delete", "table", "ip", "aws-cni"]);
        let theirs = events.next_change().unwrap();
        assert!(
            matches!(&theirs, Some(RulesetChange::Committed { program, .. }) if program == "nft"),
            "{theirs:?}"
        );
        assert_eq!(events.next_change().unwrap(), None);
    });
}
