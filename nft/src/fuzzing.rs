//! The readers of datagrams, for bytes that no kernel sent. Only with the feature `fuzzing`.

use netlink::Errno;

use crate::canonical::CanonicalTable;
use crate::foreign::FoundRule;
use crate::socket::{absorb, frames, refusal};
use crate::{Comparison, read, watch};

/// What was read; equal shapes mean little news.
#[derive(Debug, Default)]
pub struct Found {
    /// A table that equals itself, as it must.
    pub comparison: Option<Comparison>,
    /// Rules as a stranger's.
    pub rules: Vec<FoundRule>,
    /// Elements.
    pub elements: usize,
    /// Refusals, as texts.
    pub refusals: Vec<String>,
    /// Whether it is a notice of somebody's transaction.
    pub is_notice: bool,
}

/// Reads a datagram in every way that we read any.
pub fn read(datagram: &[u8]) -> Found {
    let mut found = Found {
        is_notice: watch::parse(datagram).is_some(),
        ..Found::default()
    };
    let mut table = CanonicalTable::default();
    table.note_table();
    for frame in frames(datagram) {
        absorb(&mut table, frame.kind, frame.payload);
        found.rules.extend(FoundRule::parse(frame.payload));
        found.elements += read::elements(frame.payload).len();
        let refused = refusal(None, Errno::EINVAL, &frame);
        found.refusals.extend(refused.reason);
    }
    found.comparison = Some(table.compare(&table));
    found
}
