//! Dumps: messages to values. Foreign rules of any shape pass through it; what it does not know it keeps as bytes or skips.

use netlink::{Attributes, parse_str};

use crate::Verdict;
use crate::numbers::{INTERVAL_END, attr};
use crate::table::{Element, ElementValue, IntervalSide};

/// Length of `struct nfgenmsg`, which precedes the attributes.
pub(crate) const GENMSG_LEN: usize = 4;

/// What a counter has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CounterValue {
    /// Packets.
    pub packets: u64,
    /// Bytes, from the network header on.
    pub bytes: u64,
}

/// An element as the kernel holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundElement {
    /// Key and value.
    pub element: Element,
    /// Its counter, in sets that count.
    pub counter: Option<CounterValue>,
}

pub(crate) fn be_u32(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

pub(crate) fn be_u64(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_be_bytes)
}

/// The attributes of an nf_tables message.
pub(crate) fn attributes(payload: &[u8]) -> Attributes<'_> {
    Attributes::after_header(payload, GENMSG_LEN)
}

pub(crate) fn text(payload: &[u8], kind: u16) -> Option<&str> {
    attributes(payload).find_value(kind).and_then(parse_str)
}

/// Name and data of the expressions in a list.
pub(crate) fn expressions(list: &[u8]) -> impl Iterator<Item = (&str, &[u8])> {
    Attributes::new(list)
        .filter(|elem| elem.kind == attr::LIST_ELEM)
        .filter_map(|elem| expression(elem.value))
}

pub(crate) fn expression(body: &[u8]) -> Option<(&str, &[u8])> {
    let body = Attributes::new(body);
    let name = body.clone().find_value(attr::EXPR_NAME).and_then(parse_str)?;
    Some((name, body.find_value(attr::EXPR_DATA).unwrap_or_default()))
}

pub(crate) fn counter(data: &[u8]) -> Option<CounterValue> {
    let data = Attributes::new(data);
    Some(CounterValue {
        packets: data.clone().find_value(attr::COUNTER_PACKETS).and_then(be_u64)?,
        bytes: data.find_value(attr::COUNTER_BYTES).and_then(be_u64)?,
    })
}

/// The elements of one `NEWSETELEM`.
pub(crate) fn elements(payload: &[u8]) -> Vec<FoundElement> {
    let list = attributes(payload).find_value(attr::ELEMS_LIST).unwrap_or_default();
    Attributes::new(list)
        .filter(|elem| elem.kind == attr::LIST_ELEM)
        .filter_map(|elem| element(elem.value))
        .collect()
}

fn element(body: &[u8]) -> Option<FoundElement> {
    let body = Attributes::new(body);
    let find = |kind| body.clone().find_value(kind);
    let key = find(attr::ELEM_KEY).and_then(|key| Attributes::new(key).find_value(attr::DATA_VALUE))?;
    let flags = find(attr::ELEM_FLAGS).and_then(be_u32).unwrap_or(0);
    let end = if flags & INTERVAL_END == 0 {
        IntervalSide::Start
    } else {
        IntervalSide::End
    };
    let counter_of = |body| {
        expression(body)
            .filter(|(name, _)| *name == "counter")
            .and_then(|(_, data)| counter(data))
    };
    Some(FoundElement {
        element: Element {
            key: key.to_vec(),
            value: value(find(attr::ELEM_DATA), find(attr::ELEM_OBJREF)),
            end,
        },
        counter: find(attr::ELEM_EXPR).and_then(counter_of),
    })
}

fn value(data: Option<&[u8]>, object: Option<&[u8]>) -> ElementValue {
    if let Some(name) = object.and_then(parse_str) {
        return ElementValue::Counter(name.to_owned());
    }
    let data = Attributes::new(data.unwrap_or_default());
    if let Some(verdict) = data.clone().find_value(attr::DATA_VERDICT).and_then(verdict) {
        return ElementValue::Verdict(verdict);
    }
    data.clone()
        .find_value(attr::DATA_VALUE)
        .map_or(ElementValue::None, |value| ElementValue::Data(value.to_vec()))
}

fn verdict(body: &[u8]) -> Option<Verdict> {
    let body = Attributes::new(body);
    let code = body.clone().find_value(attr::VERDICT_CODE).and_then(be_u32)?;
    let chain = || {
        body.clone()
            .find_value(attr::VERDICT_CHAIN)
            .and_then(parse_str)
            .map(str::to_owned)
    };
    match code.cast_signed() {
        0 => Some(Verdict::Drop),
        1 => Some(Verdict::Accept),
        -3 => chain().map(Verdict::Jump),
        -4 => chain().map(Verdict::Goto),
        -5 => Some(Verdict::Return),
        _ => None,
    }
}
