//! Two tables of the kinds that the project loads.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use nft::rule as say;
use nft::{
    BaseChain, Chain, ChainKind, CmpOp, DataType, DynsetOp, Element, ElementCounters, ElementValue, Expr, Family,
    FibFlags, Hook, MetaKey, NatKind, Policy, Random, Register, Reject, Rule, Set, SetFlavor, SetKind, Table, Verdict,
    key,
};

pub(crate) fn base(kind: ChainKind, hook: Hook, priority: i32) -> Option<BaseChain> {
    Some(BaseChain {
        kind,
        hook,
        priority,
        policy: Policy::Accept,
    })
}

fn nets(texts: &[&str]) -> Vec<Ipv4Net> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

const PRIMARY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);

/// The kind of table a node has.
pub(crate) fn node_table() -> Table {
    let mut table = Table::empty(Family::Ipv4, "aws-cni");
    table.sets.push(Set::of_networks(
        "vpc-cidrs",
        &nets(&["10.0.0.0/16", "10.1.0.0/16", "100.64.0.0/10"]),
    ));
    table.chains = vec![
        Chain {
            name: "mark-in".into(),
            base: base(ChainKind::Filter, Hook::Prerouting, -150),
            rules: vec![Rule::new([
                say::iifname("ens5"),
                say::fib_local(FibFlags::DADDR | FibFlags::IIF, CmpOp::Eq),
                say::set_ct_mark(0x80, 0x80),
            ])],
        },
        Chain {
            name: "nat-prerouting".into(),
            base: base(ChainKind::Filter, Hook::Prerouting, -90),
            rules: vec![
                Rule::new([
                    say::iifname_not_prefix("eni"),
                    say::iifname_not_prefix("vlan"),
                    say::verdict(Verdict::Return),
                ]),
                Rule::new([
                    say::iifname_prefix("eni"),
                    say::ct_state_new(),
                    say::ct_direction_original(),
                    say::daddr(),
                    say::not_in_set("vpc-cidrs"),
                    say::set_ct_mark(0x80, 0x80),
                ]),
                Rule::new([say::ct_mark_is(0x80, 0x80), say::set_packet_mark(0x80, 0x80)]).with_comment("restore"),
            ],
        },
        Chain {
            name: "nat-postrouting".into(),
            base: base(ChainKind::Nat, Hook::Postrouting, 110),
            rules: vec![
                Rule::new([
                    say::daddr(),
                    say::in_set("vpc-cidrs"),
                    say::counter(),
                    say::verdict(Verdict::Return),
                ]),
                Rule::new([say::snat_to(PRIMARY, Random::Fully)]),
            ],
        },
        Chain {
            name: "filter".into(),
            base: base(ChainKind::Filter, Hook::Forward, 0),
            rules: vec![Rule::new([
                say::daddr(),
                say::in_network(CmpOp::Eq, "169.254.172.0/22".parse().unwrap()),
                vec![Expr::Reject(Reject::IcmpUnreachable(3))],
            ])],
        },
    ];
    table
}

/// The kind of table a simulated fabric has: maps, counters, dynamic sets.
pub(crate) fn fabric_table() -> Table {
    let mut table = Table::empty(Family::Inet, "fabric");
    table.counters = vec!["src_p1".into(), "src_p2".into()];
    let p1 = |value| vec![Element::entry(key::ifname("p1"), value)];
    let named = |name, kind, elements| Set {
        elements,
        ..Set::new(name, &[DataType::IfName], kind)
    };
    table.sets = vec![
        named("c_src", SetKind::CounterMap, p1(ElementValue::Counter("src_p1".into()))),
        named(
            "rtb",
            SetKind::Map(DataType::Mark),
            p1(ElementValue::Data(key::host_u32(7))),
        ),
        named(
            "sg_out",
            SetKind::VerdictMap,
            p1(ElementValue::Verdict(Verdict::Jump("sg".into()))),
        ),
        Set {
            flavor: SetFlavor::Dynamic { size: 65_536 },
            counters: ElementCounters::Yes,
            ..Set::new(
                "d_src",
                &[DataType::IfName, DataType::Ipv4Addr, DataType::Ipv4Addr],
                SetKind::Set,
            )
        },
        Set {
            elements: vec![Element::entry(
                key::ipv4(PRIMARY),
                ElementValue::Data(key::ipv4([203, 0, 113, 1].into())),
            )],
            ..Set::new("pub", &[DataType::Ipv4Addr], SetKind::Map(DataType::Ipv4Addr))
        },
    ];
    table.chains = vec![
        chain(
            "sg",
            None,
            vec![Rule::new([say::counter(), say::verdict(Verdict::Return)])],
        ),
        chain(
            "pre",
            base(ChainKind::Filter, Hook::Prerouting, -300),
            fabric_prerouting(),
        ),
        chain(
            "forw",
            base(ChainKind::Filter, Hook::Forward, 0),
            vec![Rule::new([
                say::meta(MetaKey::IifName),
                vec![Expr::LookupVerdict {
                    map: "sg_out".into(),
                    key: Register::R1,
                }],
            ])],
        ),
        chain(
            "nout",
            base(ChainKind::Nat, Hook::Postrouting, 100),
            vec![Rule::new([
                say::is_ipv4(),
                say::oifname("igw"),
                say::nat_by_map(NatKind::Source, "pub"),
            ])],
        ),
    ];
    table
}

fn chain(name: &str, base: Option<BaseChain>, rules: Vec<Rule>) -> Chain {
    Chain {
        name: name.into(),
        base,
        rules,
    }
}

fn fabric_prerouting() -> Vec<Rule> {
    let r1 = Register::R1;
    let load = |offset, word| Expr::Payload {
        base: nft::PayloadBase::Network,
        offset,
        len: 4,
        to: Register::word(word),
    };
    let differs = |key, value| [say::meta_cmp(key, CmpOp::Ne, value), say::counter()].concat();
    vec![
        Rule::new([
            differs(MetaKey::IifGroup, key::host_u32(1)),
            say::verdict(Verdict::Accept),
        ]),
        Rule::new([
            say::meta(MetaKey::IifName),
            vec![Expr::LookupValue {
                map: "rtb".into(),
                key: r1,
                to: r1,
            }],
            vec![Expr::MetaSet {
                key: MetaKey::Mark,
                from: r1,
            }],
        ]),
        Rule::new([differs(MetaKey::PktType, vec![0]), say::verdict(Verdict::Drop)]),
        Rule::new([
            say::is_ipv4(),
            say::fib_missing(FibFlags::SADDR | FibFlags::IIF),
            say::meta(MetaKey::IifName),
            vec![Expr::MappedCounter {
                map: "c_src".into(),
                key: r1,
            }],
            say::meta(MetaKey::IifName),
            vec![load(12, 4), load(16, 5)],
            vec![Expr::Dynset {
                set: "d_src".into(),
                op: DynsetOp::Update,
                key: r1,
            }],
            say::verdict(Verdict::Drop),
        ]),
    ]
}
