//! Runs of instructions for what rules say, in the words of the `nft` language. Join them with [`crate::Rule::new`].

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::{
    CmpOp, CtKey, Expr, Family, FibFlags, FibResult, LookupMode, MetaKey, NatKind, PayloadBase, Random, Register,
    Verdict, key,
};

const R1: Register = Register::R1;
/// Offsets in the IPv4 header.
const IPV4_SADDR: u32 = 12;
const IPV4_DADDR: u32 = 16;
/// `RTN_LOCAL`.
const ADDRESS_LOCAL: u32 = 2;
/// `NF_CT_STATE_BIT(IP_CT_NEW)`.
const STATE_NEW: u32 = 8;

/// Loads a property of the packet.
pub fn meta(key: MetaKey) -> Vec<Expr> {
    vec![Expr::Meta { key, to: R1 }]
}

/// Compares what was loaded.
pub fn cmp(op: CmpOp, value: Vec<u8>) -> Vec<Expr> {
    vec![Expr::Cmp {
        register: R1,
        op,
        value,
    }]
}

/// A property equals, differs from … a value.
pub fn meta_cmp(key: MetaKey, op: CmpOp, value: Vec<u8>) -> Vec<Expr> {
    [meta(key), cmp(op, value)].concat()
}

/// `meta nfproto ipv4`.
pub fn is_ipv4() -> Vec<Expr> {
    meta_cmp(MetaKey::NfProto, CmpOp::Eq, vec![Family::Ipv4.number()])
}

/// `iifname "ens5"`.
pub fn iifname(name: &str) -> Vec<Expr> {
    meta_cmp(MetaKey::IifName, CmpOp::Eq, key::ifname(name))
}

/// `oifname "ens5"`.
pub fn oifname(name: &str) -> Vec<Expr> {
    meta_cmp(MetaKey::OifName, CmpOp::Eq, key::ifname(name))
}

/// `oifname != "ens5"`.
pub fn oifname_not(name: &str) -> Vec<Expr> {
    meta_cmp(MetaKey::OifName, CmpOp::Ne, key::ifname(name))
}

/// `iifname "eni*"`.
pub fn iifname_prefix(prefix: &str) -> Vec<Expr> {
    meta_cmp(MetaKey::IifName, CmpOp::Eq, key::ifname_prefix(prefix))
}

/// `iifname != "eni*"`.
pub fn iifname_not_prefix(prefix: &str) -> Vec<Expr> {
    meta_cmp(MetaKey::IifName, CmpOp::Ne, key::ifname_prefix(prefix))
}

/// `oifname "vlan*"`.
pub fn oifname_prefix(prefix: &str) -> Vec<Expr> {
    meta_cmp(MetaKey::OifName, CmpOp::Eq, key::ifname_prefix(prefix))
}

/// Loads the IPv4 source address.
pub fn saddr() -> Vec<Expr> {
    vec![Expr::Payload {
        base: PayloadBase::Network,
        offset: IPV4_SADDR,
        len: 4,
        to: R1,
    }]
}

/// Loads the IPv4 destination address.
pub fn daddr() -> Vec<Expr> {
    vec![Expr::Payload {
        base: PayloadBase::Network,
        offset: IPV4_DADDR,
        len: 4,
        to: R1,
    }]
}

/// What was loaded is (`Eq`) or is not (`Ne`) in a network.
pub fn in_network(op: CmpOp, network: Ipv4Net) -> Vec<Expr> {
    let mut exprs = Vec::new();
    if network.prefix_len() < 32 {
        exprs.push(Expr::Bitwise {
            from: R1,
            to: R1,
            mask: key::ipv4(network.netmask()),
            xor: vec![0; 4],
        });
    }
    exprs.extend(cmp(op, key::ipv4(network.network())));
    exprs
}

/// `@set`: what was loaded is a member.
pub fn in_set(set: &str) -> Vec<Expr> {
    vec![Expr::Lookup {
        set: set.to_owned(),
        key: R1,
        mode: LookupMode::Contained,
    }]
}

/// `!= @set`.
pub fn not_in_set(set: &str) -> Vec<Expr> {
    vec![Expr::Lookup {
        set: set.to_owned(),
        key: R1,
        mode: LookupMode::NotContained,
    }]
}

/// `fib <flags> type local`, or `!= local`.
pub fn fib_local(flags: FibFlags, op: CmpOp) -> Vec<Expr> {
    let mut exprs = vec![Expr::Fib {
        result: FibResult::AddrType,
        flags,
        to: R1,
    }];
    exprs.extend(cmp(op, key::host_u32(ADDRESS_LOCAL)));
    exprs
}

/// `fib <flags> oif missing`: no such route.
pub fn fib_missing(flags: FibFlags) -> Vec<Expr> {
    let mut exprs = vec![Expr::Fib {
        result: FibResult::Oif,
        flags: flags | FibFlags::PRESENT,
        to: R1,
    }];
    // The answer is one byte in a cleared word; `nft` compares the word.
    exprs.extend(cmp(CmpOp::Eq, vec![0; 4]));
    exprs
}

/// `ct state <any of these bits>`.
pub fn ct_state(bits: u32) -> Vec<Expr> {
    vec![
        Expr::Ct {
            key: CtKey::State,
            to: R1,
        },
        Expr::Bitwise {
            from: R1,
            to: R1,
            mask: key::host_u32(bits),
            xor: vec![0; 4],
        },
        Expr::Cmp {
            register: R1,
            op: CmpOp::Ne,
            value: vec![0; 4],
        },
    ]
}

/// `ct state new`.
pub fn ct_state_new() -> Vec<Expr> {
    ct_state(STATE_NEW)
}

/// `ct direction original`.
pub fn ct_direction_original() -> Vec<Expr> {
    let mut exprs = vec![Expr::Ct {
        key: CtKey::Direction,
        to: R1,
    }];
    exprs.extend(cmp(CmpOp::Eq, vec![0]));
    exprs
}

/// `ct mark set (ct mark & ~mask) | value`: other bits stay. `value` must lie inside `mask`.
pub fn set_ct_mark(value: u32, mask: u32) -> Vec<Expr> {
    vec![
        Expr::Ct {
            key: CtKey::Mark,
            to: R1,
        },
        Expr::Bitwise {
            from: R1,
            to: R1,
            mask: key::host_u32(!mask),
            xor: key::host_u32(value & mask),
        },
        Expr::CtSet {
            key: CtKey::Mark,
            from: R1,
        },
    ]
}

/// `ct mark & mask == value`.
pub fn ct_mark_is(value: u32, mask: u32) -> Vec<Expr> {
    let mut exprs = vec![
        Expr::Ct {
            key: CtKey::Mark,
            to: R1,
        },
        Expr::Bitwise {
            from: R1,
            to: R1,
            mask: key::host_u32(mask),
            xor: vec![0; 4],
        },
    ];
    exprs.extend(cmp(CmpOp::Eq, key::host_u32(value & mask)));
    exprs
}

/// `meta mark set (meta mark & ~mask) | value`: other bits stay.
pub fn set_packet_mark(value: u32, mask: u32) -> Vec<Expr> {
    vec![
        Expr::Meta {
            key: MetaKey::Mark,
            to: R1,
        },
        Expr::Bitwise {
            from: R1,
            to: R1,
            mask: key::host_u32(!mask),
            xor: key::host_u32(value & mask),
        },
        Expr::MetaSet {
            key: MetaKey::Mark,
            from: R1,
        },
    ]
}

/// `snat to <address>`.
pub fn snat_to(address: Ipv4Addr, random: Random) -> Vec<Expr> {
    vec![
        Expr::Immediate {
            to: R1,
            value: key::ipv4(address),
        },
        Expr::Nat {
            kind: NatKind::Source,
            family: Family::Ipv4,
            address: R1,
            random,
        },
    ]
}

/// `snat ip to ip saddr map @map` or `dnat ip to ip daddr map @map`; the rule ends for addresses that the map lacks.
/// In an `inet` table, let only IPv4 packets get here ([`is_ipv4`]): the address is taken from the IPv4 header.
pub fn nat_by_map(kind: NatKind, map: &str) -> Vec<Expr> {
    let mut exprs = match kind {
        NatKind::Source => saddr(),
        NatKind::Destination => daddr(),
    };
    exprs.push(Expr::LookupValue {
        map: map.to_owned(),
        key: R1,
        to: R1,
    });
    exprs.push(Expr::Nat {
        kind,
        family: Family::Ipv4,
        address: R1,
        random: Random::No,
    });
    exprs
}

/// Acts.
pub fn verdict(verdict: Verdict) -> Vec<Expr> {
    vec![Expr::Verdict(verdict)]
}

/// Counts in the rule.
pub fn counter() -> Vec<Expr> {
    vec![Expr::Counter]
}
