//! The fabric's nf_tables ruleset: which packets of a port are dropped and counted, and address translation at the
//! internet gateway. Values only; `nft` encodes them.
//!
//! Invariant: a packet that a check rejects is dropped even when there is no room to record its addresses. Recording
//! therefore is a rule of its own: a full dynamic set ends the rule it is in, not the chain.

use nft::{
    BaseChain, Chain, ChainKind, CmpOp, DataType, DynsetOp, ElementCounters, Expr, Family, FibFlags, Hook, MetaKey,
    NatKind, PayloadBase, Policy, Register, Rule, Set, SetFlavor, SetKind, Table, TableId, Verdict, key, rule,
};

use super::DropReason;

/// Port → mark of its route table.
pub(super) const ROUTE_TABLES: &str = "route-tables";
/// Ports whose source and destination are not checked.
pub(super) const UNCHECKED: &str = "unchecked";
/// Private → public address, and back.
pub(super) const PUBLIC: &str = "public";
pub(super) const PRIVATE: &str = "private";

/// Pairs of addresses remembered per reason; some 100 bytes each. Beyond, drops only count in the total.
const REMEMBERED_PAIRS: u32 = 65_536;

/// Priorities of the kernel's own steps: before connection tracking, and the two NAT ones.
const PRIORITY_RAW: i32 = -300;
const PRIORITY_DSTNAT: i32 = -100;
const PRIORITY_SRCNAT: i32 = 100;

const IP_SOURCE: u32 = 12;
const IP_DESTINATION: u32 = 16;
/// `PACKET_HOST`: addressed to this port's link-layer address.
const TO_US: u8 = 0;

/// The fabric's table.
pub(super) fn table_id() -> TableId {
    TableId::new(Family::Ipv4, "fabric")
}

/// Name of the dynamic set, the counter and the chain of a reason.
pub(super) fn name_of(reason: DropReason) -> &'static str {
    match reason {
        DropReason::WrongSource => "wrong-source",
        DropReason::NoRoute => "no-route",
        DropReason::NoPublicAddress => "no-public-address",
    }
}

/// All reasons.
pub(super) const REASONS: [DropReason; 3] = [
    DropReason::WrongSource,
    DropReason::NoRoute,
    DropReason::NoPublicAddress,
];

/// The whole ruleset, without any port.
pub(super) fn ruleset() -> Table {
    let mut chains: Vec<Chain> = REASONS.into_iter().map(drop_chain).collect();
    // Base chains come last: their rules name the others.
    chains.extend([prerouting(), forward(), nat_in(), nat_out()]);
    Table {
        id: table_id(),
        counters: REASONS.into_iter().map(|reason| name_of(reason).to_owned()).collect(),
        sets: sets(),
        chains,
    }
}

fn sets() -> Vec<Set> {
    let pairs = REASONS.into_iter().map(|reason| Set {
        flavor: SetFlavor::Dynamic { size: REMEMBERED_PAIRS },
        counters: ElementCounters::Yes,
        ..Set::new(
            name_of(reason),
            &[DataType::IfName, DataType::Ipv4Addr, DataType::Ipv4Addr],
            SetKind::Set,
        )
    });
    let mut sets: Vec<Set> = pairs.collect();
    sets.extend([
        Set::new(ROUTE_TABLES, &[DataType::IfName], SetKind::Map(DataType::Mark)),
        Set::new(UNCHECKED, &[DataType::IfName], SetKind::Set),
        Set::new(PUBLIC, &[DataType::Ipv4Addr], SetKind::Map(DataType::Ipv4Addr)),
        Set::new(PRIVATE, &[DataType::Ipv4Addr], SetKind::Map(DataType::Ipv4Addr)),
    ]);
    sets
}

/// Counts the packet in total and by (port, source, destination), and drops it.
fn drop_chain(reason: DropReason) -> Chain {
    let name = name_of(reason);
    // One concatenated key in consecutive registers: 16 bytes of name, then two addresses.
    let record = vec![
        Expr::Meta {
            key: MetaKey::IifName,
            to: Register::R1,
        },
        load_address(IP_SOURCE, Register::word(4)),
        load_address(IP_DESTINATION, Register::word(5)),
        Expr::Dynset {
            set: name.to_owned(),
            op: DynsetOp::Update,
            key: Register::R1,
        },
    ];
    let drop = vec![Expr::NamedCounter(name.to_owned()), Expr::Verdict(Verdict::Drop)];
    Chain {
        name: name.to_owned(),
        base: None,
        rules: vec![Rule::new([record]), Rule::new([drop])],
    }
}

/// What an ENI may send. Before connection tracking, so that dropped packets leave no entries.
fn prerouting() -> Chain {
    let mark = vec![
        Expr::Meta {
            key: MetaKey::IifName,
            to: Register::R1,
        },
        Expr::LookupValue {
            map: ROUTE_TABLES.into(),
            key: Register::R1,
            to: Register::R1,
        },
        Expr::MetaSet {
            key: MetaKey::Mark,
            from: Register::R1,
        },
    ];
    let rules = vec![
        Rule::new([rule::iifname_not_prefix("p"), accept()]),
        Rule::new([mark]),
        // A VPC has no broadcast and no multicast.
        Rule::new([
            rule::meta_cmp(MetaKey::PktType, CmpOp::Ne, vec![TO_US]),
            rule::verdict(Verdict::Drop),
        ]),
        Rule::new([rule::meta(MetaKey::IifName), rule::in_set(UNCHECKED), accept()]),
        // "The way back to this source does not leave by the port it came in on."
        Rule::new([
            rule::fib_missing(FibFlags::SADDR | FibFlags::IIF),
            go_drop(DropReason::WrongSource),
        ]),
        Rule::new([
            rule::fib_local(FibFlags::DADDR, CmpOp::Ne),
            rule::fib_missing(FibFlags::DADDR | FibFlags::MARK),
            go_drop(DropReason::NoRoute),
        ]),
    ];
    base_chain("prerouting", ChainKind::Filter, Hook::Prerouting, PRIORITY_RAW, rules)
}

/// The internet gateway passes only what has a public address. Security groups belong behind these rules.
fn forward() -> Chain {
    let outward = || [rule::iifname_prefix("p"), rule::oifname_prefix("igw")].concat();
    let look_up_public = vec![Expr::LookupValue {
        map: PUBLIC.into(),
        key: Register::R1,
        to: Register::R1,
    }];
    let rules = vec![
        Rule::new([outward(), rule::saddr(), look_up_public, accept()]),
        Rule::new([outward(), go_drop(DropReason::NoPublicAddress)]),
    ];
    base_chain("forward", ChainKind::Filter, Hook::Forward, 0, rules)
}

fn nat_in() -> Chain {
    let rule = Rule::new([
        rule::iifname_prefix("igw"),
        rule::nat_by_map(NatKind::Destination, PRIVATE),
    ]);
    base_chain(
        "internet-in",
        ChainKind::Nat,
        Hook::Prerouting,
        PRIORITY_DSTNAT,
        vec![rule],
    )
}

fn nat_out() -> Chain {
    let rule = Rule::new([rule::oifname_prefix("igw"), rule::nat_by_map(NatKind::Source, PUBLIC)]);
    base_chain(
        "internet-out",
        ChainKind::Nat,
        Hook::Postrouting,
        PRIORITY_SRCNAT,
        vec![rule],
    )
}

fn base_chain(name: &str, kind: ChainKind, hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    let base = Some(BaseChain {
        kind,
        hook,
        priority,
        policy: Policy::Accept,
    });
    Chain {
        name: name.to_owned(),
        base,
        rules,
    }
}

fn load_address(offset: u32, to: Register) -> Expr {
    Expr::Payload {
        base: PayloadBase::Network,
        offset,
        len: 4,
        to,
    }
}

fn accept() -> Vec<Expr> {
    rule::verdict(Verdict::Accept)
}

fn go_drop(reason: DropReason) -> Vec<Expr> {
    rule::verdict(Verdict::Goto(name_of(reason).to_owned()))
}

/// Bytes of the key of a port in a map or set.
pub(super) fn port_key(port: super::messages::PortIndex) -> Vec<u8> {
    key::ifname(&port.port_name())
}
