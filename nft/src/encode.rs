//! Values to bytes: tables, chains, sets, elements, rules, expressions.

use crate::Expr;
use crate::encode_expr::{expression, name, verdict};
use crate::numbers::{INTERVAL_END, OBJECT_COUNTER, attr, flag, msg};
use crate::table::{
    Chain, ChainKind, Element, ElementCounters, ElementValue, Hook, IntervalSide, Policy, Rule, Set, SetFlavor,
    SetKind, TableId,
};
use crate::write::Writer;

/// An attribute is at most 65,535 bytes long; element lists are split below that.
const ELEMENTS_MAX: usize = 60_000;
/// Userdata is at most 255 bytes, header included; the rest of the room is for the header and NUL.
const COMMENT_MAX: usize = 200;
/// Type of a comment in the userdata of a rule.
const USERDATA_COMMENT: u8 = 0;

pub(crate) fn table(w: &mut Writer, id: &TableId) {
    w.message(
        format!("add table {id}"),
        (msg::NEWTABLE, flag::CREATE),
        id.family.number(),
        |w| {
            w.text(attr::TABLE_NAME, &id.name);
            w.u32(attr::TABLE_FLAGS, 0);
        },
    );
}

pub(crate) fn delete_table(w: &mut Writer, id: &TableId) {
    w.message(
        format!("delete table {id}"),
        (msg::DELTABLE, 0),
        id.family.number(),
        |w| {
            w.text(attr::TABLE_NAME, &id.name);
        },
    );
}

pub(crate) fn chain(w: &mut Writer, table: &TableId, chain: &Chain) {
    let label = format!("add chain {}", chain.name);
    w.message(label, (msg::NEWCHAIN, flag::CREATE), table.family.number(), |w| {
        w.text(attr::CHAIN_TABLE, &table.name);
        w.text(attr::CHAIN_NAME, &chain.name);
        let Some(base) = chain.base else { return };
        w.nest(attr::CHAIN_HOOK, |w| {
            w.u32(
                attr::HOOK_NUM,
                match base.hook {
                    Hook::Prerouting => 0,
                    Hook::Input => 1,
                    Hook::Forward => 2,
                    Hook::Output => 3,
                    Hook::Postrouting => 4,
                },
            );
            w.i32(attr::HOOK_PRIORITY, base.priority);
        });
        w.u32(
            attr::CHAIN_POLICY,
            match base.policy {
                Policy::Drop => 0,
                Policy::Accept => 1,
            },
        );
        w.text(
            attr::CHAIN_TYPE,
            match base.kind {
                ChainKind::Filter => "filter",
                ChainKind::Nat => "nat",
            },
        );
    });
}

pub(crate) fn delete_chain(w: &mut Writer, table: &TableId, name: &str) {
    w.message(
        format!("delete chain {name}"),
        (msg::DELCHAIN, 0),
        table.family.number(),
        |w| {
            w.text(attr::CHAIN_TABLE, &table.name);
            w.text(attr::CHAIN_NAME, name);
        },
    );
}

pub(crate) fn flush_chain(w: &mut Writer, table: &TableId, name: &str) {
    w.message(
        format!("flush chain {name}"),
        (msg::DELRULE, 0),
        table.family.number(),
        |w| {
            w.text(attr::RULE_TABLE, &table.name);
            w.text(attr::RULE_CHAIN, name);
        },
    );
}

pub(crate) fn delete_rule(w: &mut Writer, table: &TableId, chain: &str, handle: u64) {
    w.message(
        format!("delete rule {handle} of chain {chain}"),
        (msg::DELRULE, 0),
        table.family.number(),
        |w| {
            w.text(attr::RULE_TABLE, &table.name);
            w.text(attr::RULE_CHAIN, chain);
            w.bytes(attr::RULE_HANDLE, &handle.to_be_bytes());
        },
    );
}

pub(crate) fn counter(w: &mut Writer, table: &TableId, name: &str) {
    w.message(
        format!("add counter {name}"),
        (msg::NEWOBJ, flag::CREATE),
        table.family.number(),
        |w| {
            w.text(attr::OBJ_TABLE, &table.name);
            w.text(attr::OBJ_NAME, name);
            w.u32(attr::OBJ_TYPE, OBJECT_COUNTER);
            w.nest(attr::OBJ_DATA, |_| {});
        },
    );
}

pub(crate) fn delete_counter(w: &mut Writer, table: &TableId, name: &str) {
    w.message(
        format!("delete counter {name}"),
        (msg::DELOBJ, 0),
        table.family.number(),
        |w| {
            w.text(attr::OBJ_TABLE, &table.name);
            w.text(attr::OBJ_NAME, name);
            w.u32(attr::OBJ_TYPE, OBJECT_COUNTER);
        },
    );
}

/// `id` distinguishes the sets of one transaction.
pub(crate) fn set(w: &mut Writer, table: &TableId, set: &Set, id: u32) {
    w.message(
        format!("add set {}", set.name),
        (msg::NEWSET, flag::CREATE),
        table.family.number(),
        |w| {
            w.text(attr::SET_TABLE, &table.name);
            w.text(attr::SET_NAME, &set.name);
            w.u32(attr::SET_FLAGS, set.flags());
            w.u32(attr::SET_KEY_TYPE, set.key_type());
            w.u32(attr::SET_KEY_LEN, set.key_len());
            if let Some((kind, len)) = set.data() {
                w.u32(attr::SET_DATA_TYPE, kind);
                w.u32(attr::SET_DATA_LEN, len);
            }
            if set.kind == SetKind::CounterMap {
                w.u32(attr::SET_OBJ_TYPE, OBJECT_COUNTER);
            }
            if let SetFlavor::Dynamic { size } = set.flavor {
                w.nest(attr::SET_DESC, |w| w.u32(attr::SET_DESC_SIZE, size));
            }
            w.u32(attr::SET_ID, id);
            let userdata = set.userdata();
            if !userdata.is_empty() {
                w.bytes(attr::SET_USERDATA, &userdata);
            }
            if set.counters == ElementCounters::Yes {
                w.nest(attr::SET_EXPR, |w| expression(w, &Expr::Counter));
            }
        },
    );
}

pub(crate) fn delete_set(w: &mut Writer, table: &TableId, name: &str) {
    w.message(
        format!("delete set {name}"),
        (msg::DELSET, 0),
        table.family.number(),
        |w| {
            w.text(attr::SET_TABLE, &table.name);
            w.text(attr::SET_NAME, name);
        },
    );
}

#[derive(Clone, Copy)]
pub(crate) enum Change {
    Add,
    Delete,
}

pub(crate) fn elements(w: &mut Writer, change: Change, table: &TableId, set: &str, elements: &[Element]) {
    let (kind, label) = match change {
        Change::Add => ((msg::NEWSETELEM, flag::CREATE), format!("add elements to {set}")),
        Change::Delete => ((msg::DELSETELEM, 0), format!("delete elements of {set}")),
    };
    let mut rest = elements;
    while !rest.is_empty() {
        let mut taken = 0;
        w.message(label.clone(), kind, table.family.number(), |w| {
            w.text(attr::ELEMS_TABLE, &table.name);
            w.text(attr::ELEMS_SET, set);
            w.nest(attr::ELEMS_LIST, |w| {
                let start = w.buffer.len();
                for each in rest {
                    if w.buffer.len() - start >= ELEMENTS_MAX && each.end == IntervalSide::Start {
                        break;
                    }
                    element(w, change, each);
                    taken += 1;
                }
            });
        });
        rest = &rest[taken..];
    }
}

fn element(w: &mut Writer, change: Change, element: &Element) {
    w.mark(|| format!("element {:02x?}", element.key));
    w.nest(attr::LIST_ELEM, |w| {
        if element.end == IntervalSide::End {
            w.u32(attr::ELEM_FLAGS, INTERVAL_END);
        }
        w.nest(attr::ELEM_KEY, |w| w.bytes(attr::DATA_VALUE, &element.key));
        if matches!(change, Change::Delete) {
            return;
        }
        match &element.value {
            ElementValue::None => {}
            ElementValue::Data(value) => w.nest(attr::ELEM_DATA, |w| w.bytes(attr::DATA_VALUE, value)),
            ElementValue::Verdict(value) => w.nest(attr::ELEM_DATA, |w| verdict(w, value)),
            ElementValue::Counter(name) => w.text(attr::ELEM_OBJREF, name),
        }
    });
}

pub(crate) fn flush_set(w: &mut Writer, table: &TableId, name: &str) {
    w.message(
        format!("flush set {name}"),
        (msg::DELSETELEM, 0),
        table.family.number(),
        |w| {
            w.text(attr::ELEMS_TABLE, &table.name);
            w.text(attr::ELEMS_SET, name);
        },
    );
}

pub(crate) fn rule(w: &mut Writer, table: &TableId, chain: &str, number: usize, rule: &Rule) {
    let label = format!("add rule {number} of chain {chain}");
    w.message(
        label,
        (msg::NEWRULE, flag::CREATE | flag::APPEND),
        table.family.number(),
        |w| {
            w.text(attr::RULE_TABLE, &table.name);
            w.text(attr::RULE_CHAIN, chain);
            expressions(w, &rule.exprs);
            if let Some(comment) = &rule.comment {
                w.bytes(attr::RULE_USERDATA, &userdata(comment));
            }
        },
    );
}

pub(crate) fn expressions(w: &mut Writer, exprs: &[Expr]) {
    w.nest(attr::RULE_EXPRESSIONS, |w| {
        for (number, expr) in exprs.iter().enumerate() {
            w.mark(|| format!("expr {} ({})", number + 1, name(expr)));
            w.nest(attr::LIST_ELEM, |w| expression(w, expr));
        }
    });
}

fn userdata(comment: &str) -> Vec<u8> {
    let mut end = comment.len().min(COMMENT_MAX);
    while !comment.is_char_boundary(end) {
        end -= 1;
    }
    let len = u8::try_from(end + 1).unwrap_or(u8::MAX);
    [&[USERDATA_COMMENT, len][..], &comment.as_bytes()[..end], &[0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Family, Verdict, rule};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn encoded(exprs: &[Expr]) -> String {
        let mut w = Writer::default();
        expressions(&mut w, exprs);
        hex(&w.buffer)
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn interface_prefix_and_return_are_the_bytes_that_nft_sends() {
        let exprs = [rule::iifname_prefix("eni"), rule::verdict(Verdict::Return)].concat();
        assert_eq!(
            encoded(&exprs),
            concat!(
                "84000480",
                "24000180090001006d65746100000000140002800800020000000006",
                "0800010000000001",
                "2c00018008000100636d7000200002800800010000000001080002000000",
                "00000c00038007000100656e6900",
                "300001800e000100696d6d656469617465000000",
                "1c0002800800010000000000100002800c00028008000100fffffffb",
            )
        );
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn marks_are_in_host_order() {
        let text = encoded(&rule::set_packet_mark(0x80, 0x80));
        assert!(text.contains("7fffffff") && text.contains("80000000"), "{text}");
        assert!(!text.contains("00000080"), "{text}");
    }

    #[test]
    fn long_element_lists_are_split_between_intervals() {
        let table = TableId::new(Family::Ipv4, "t");
        let nets: Vec<_> = (0..5_000u32)
            .map(|n| ipnet::Ipv4Net::new((n << 9).into(), 24).unwrap())
            .collect();
        let mut w = Writer::default();
        elements(&mut w, Change::Add, &table, "s", &Set::of_networks("s", &nets).elements);
        assert!(w.messages.len() > 1);
        let mut starts: Vec<_> = w.messages.iter().map(|message| message.start).collect();
        starts.push(w.buffer.len());
        for pair in starts.windows(2) {
            let message = &w.buffer[pair[0]..pair[1]];
            assert!(message.len() < 65_000);
            let ends = message.windows(8).filter(|w| w[2..] == [3, 0, 0, 0, 0, 1]).count();
            assert!(ends > 0 && message.len() > 100);
        }
    }

    #[test]
    fn a_long_comment_is_cut_at_a_character() {
        let data = userdata(&"ä".repeat(150));
        assert_eq!((data.len(), usize::from(data[1])), (203, 201));
    }
}
