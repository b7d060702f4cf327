//! Expressions to bytes. Attribute numbers are those of each expression's own list in `linux/netfilter/nf_tables.h`.

use crate::expr::{Expr, Register};
use crate::numbers::{OBJECT_COUNTER, attr};
use crate::write::Writer;
use crate::{
    CmpOp, CtKey, DynsetOp, Family, FibResult, LookupMode, MetaKey, NatKind, PayloadBase, Random, Reject, Verdict,
};

/// Name and data, inside an element of a list.
pub(crate) fn expression(w: &mut Writer, expr: &Expr) {
    w.text(attr::EXPR_NAME, name(expr));
    w.nest(attr::EXPR_DATA, |w| match expr {
        Expr::Meta { key, to } => numbers(w, [(2, meta_key(*key)), (1, to.0)]),
        Expr::MetaSet { key, from } => numbers(w, [(2, meta_key(*key)), (3, from.0)]),
        Expr::Ct { key, to } => numbers(w, [(2, ct_key(*key)), (1, to.0)]),
        Expr::CtSet { key, from } => numbers(w, [(2, ct_key(*key)), (4, from.0)]),
        Expr::Cmp { register, op, value } => compare(w, *register, *op, &[value]),
        Expr::Range {
            register,
            op,
            low,
            high,
        } => compare(w, *register, *op, &[low, high]),
        Expr::Bitwise { from, to, mask, xor } => {
            numbers(
                w,
                [
                    (1, from.0),
                    (2, to.0),
                    (3, u32::try_from(mask.len()).unwrap_or(u32::MAX)),
                ],
            );
            constant(w, 4, mask);
            constant(w, 5, xor);
        }
        Expr::Payload { base, offset, len, to } => {
            numbers(w, [(1, to.0), (2, payload_base(*base)), (3, *offset), (4, *len)]);
        }
        Expr::Fib { result, flags, to } => numbers(w, [(1, to.0), (2, fib_result(*result)), (3, flags.0)]),
        Expr::Lookup { set, key, mode } => membership(w, set, *key, *mode),
        Expr::LookupValue { map, key, to } => look_up(w, map, *key, *to),
        Expr::LookupVerdict { map, key } => look_up(w, map, *key, Register::VERDICT),
        Expr::Immediate { to, value } => {
            w.u32(1, to.0);
            constant(w, 2, value);
        }
        Expr::Verdict(decision) => {
            w.u32(1, Register::VERDICT.0);
            w.nest(2, |w| verdict(w, decision));
        }
        Expr::Nat {
            kind,
            family,
            address,
            random,
        } => nat(w, *kind, *family, *address, *random),
        Expr::Counter => {}
        Expr::NamedCounter(counter) => {
            w.u32(1, OBJECT_COUNTER);
            w.text(2, counter);
        }
        Expr::MappedCounter { map, key } => {
            w.u32(3, key.0);
            w.text(4, map);
        }
        Expr::Dynset { set, op, key } => {
            w.text(1, set);
            numbers(w, [(3, dynset_op(*op)), (4, key.0)]);
        }
        Expr::Reject(reject) => refuse(w, *reject),
    });
}

fn numbers<const N: usize>(w: &mut Writer, attributes: [(u16, u32); N]) {
    for (kind, value) in attributes {
        w.u32(kind, value);
    }
}

fn constant(w: &mut Writer, kind: u16, value: &[u8]) {
    w.nest(kind, |w| w.bytes(attr::DATA_VALUE, value));
}

fn compare(w: &mut Writer, register: Register, op: CmpOp, values: &[&Vec<u8>]) {
    numbers(w, [(1, register.0), (2, cmp_op(op))]);
    for (kind, value) in (3..).zip(values) {
        constant(w, kind, value);
    }
}

fn look_up(w: &mut Writer, map: &str, key: Register, to: Register) {
    w.text(1, map);
    numbers(w, [(2, key.0), (3, to.0)]);
}

fn membership(w: &mut Writer, set: &str, key: Register, mode: LookupMode) {
    w.text(1, set);
    w.u32(2, key.0);
    if mode == LookupMode::NotContained {
        w.u32(5, 1);
    }
}

fn nat(w: &mut Writer, kind: NatKind, family: Family, address: Register, random: Random) {
    let kind = match kind {
        NatKind::Source => 0,
        NatKind::Destination => 1,
    };
    numbers(w, [(1, kind), (2, u32::from(family.number())), (3, address.0)]);
    match random {
        Random::No => {}
        Random::Hash => w.u32(7, 0x4),
        Random::Fully => w.u32(7, 0x10),
    }
}

fn refuse(w: &mut Writer, reject: Reject) {
    match reject {
        Reject::IcmpUnreachable(code) => {
            w.u32(1, 0);
            w.u8(2, code);
        }
        Reject::TcpReset => w.u32(1, 1),
    }
}

/// Verdict data, of an expression or a map element.
pub(crate) fn verdict(w: &mut Writer, verdict: &Verdict) {
    let (code, chain) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
        Verdict::Return => (-5, None),
    };
    w.nest(attr::DATA_VERDICT, |w| {
        w.i32(attr::VERDICT_CODE, code);
        if let Some(chain) = chain {
            w.text(attr::VERDICT_CHAIN, chain);
        }
    });
}

/// The kernel's name of the expression type.
pub(crate) fn name(expr: &Expr) -> &'static str {
    match expr {
        Expr::Meta { .. } | Expr::MetaSet { .. } => "meta",
        Expr::Ct { .. } | Expr::CtSet { .. } => "ct",
        Expr::Cmp { .. } => "cmp",
        Expr::Range { .. } => "range",
        Expr::Bitwise { .. } => "bitwise",
        Expr::Payload { .. } => "payload",
        Expr::Fib { .. } => "fib",
        Expr::Lookup { .. } | Expr::LookupValue { .. } | Expr::LookupVerdict { .. } => "lookup",
        Expr::Immediate { .. } | Expr::Verdict(_) => "immediate",
        Expr::Nat { .. } => "nat",
        Expr::Counter => "counter",
        Expr::NamedCounter(_) | Expr::MappedCounter { .. } => "objref",
        Expr::Dynset { .. } => "dynset",
        Expr::Reject(_) => "reject",
    }
}

fn meta_key(key: MetaKey) -> u32 {
    match key {
        MetaKey::Mark => 3,
        MetaKey::Iif => 4,
        MetaKey::Oif => 5,
        MetaKey::IifName => 6,
        MetaKey::OifName => 7,
        MetaKey::NfProto => 15,
        MetaKey::L4Proto => 16,
        MetaKey::PktType => 19,
        MetaKey::IifGroup => 21,
        MetaKey::OifGroup => 22,
    }
}

fn ct_key(key: CtKey) -> u32 {
    match key {
        CtKey::State => 0,
        CtKey::Direction => 1,
        CtKey::Status => 2,
        CtKey::Mark => 3,
    }
}

fn cmp_op(op: CmpOp) -> u32 {
    match op {
        CmpOp::Eq => 0,
        CmpOp::Ne => 1,
        CmpOp::Lt => 2,
        CmpOp::Le => 3,
        CmpOp::Gt => 4,
        CmpOp::Ge => 5,
    }
}

fn payload_base(base: PayloadBase) -> u32 {
    match base {
        PayloadBase::Link => 0,
        PayloadBase::Network => 1,
        PayloadBase::Transport => 2,
    }
}

fn fib_result(result: FibResult) -> u32 {
    match result {
        FibResult::Oif => 1,
        FibResult::OifName => 2,
        FibResult::AddrType => 3,
    }
}

fn dynset_op(op: DynsetOp) -> u32 {
    match op {
        DynsetOp::Add => 0,
        DynsetOp::Update => 1,
        DynsetOp::Delete => 2,
    }
}
