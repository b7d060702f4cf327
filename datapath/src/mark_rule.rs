//! The rule that sends marked packets through table main: `1024 fwmark <mark>/<mark> lookup main`.
//!
//! Added before anything is marked, deleted after nothing is any more. The rule of a predecessor is ours: deleting and adding
//! it again would send marked connections elsewhere for a moment. Other programs may have rules of this priority too; one of
//! another mark is ours only where the table `ip aws-cni`, which is ours, was found setting that mark. Called by `node`.

use std::collections::BTreeSet;

use netlink::message::Rule;
use netlink::packet::RouteNetlinkMessage as Message;
use netlink::{AnswerError, Errno, RawMessage, RouteSocket};
use nft::{NftSocket, ReadError};
use vpc_types::{FwMark, RouteTableId};

use crate::ids::RULE_MARK;
use crate::kernel::{ADD, CREATE, is_plain_rule, parse_rule};
use crate::snat::table_id;

/// The rules of our priority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MarkRules {
    mark: FwMark,
    /// Value and mask of rules that have exactly our form.
    plain: BTreeSet<(u32, u32)>,
    /// The same of rules that select further. To the kernel such a rule is what is to be added, and what is to be deleted: a
    /// message names what a rule must have, not what it must lack.
    narrower: BTreeSet<(u32, u32)>,
}

impl MarkRules {
    /// What a dump of the rules shows.
    pub(crate) fn among(rules: &[RawMessage], mark: FwMark) -> Self {
        let mut found = Self {
            mark,
            plain: BTreeSet::new(),
            narrower: BTreeSet::new(),
        };
        for payload in rules.iter().map(|message| &message.payload) {
            let Some(rule) = parse_rule(payload).filter(|rule| rule.priority == RULE_MARK) else {
                continue;
            };
            if has_our_form(payload, &rule) {
                found.plain.extend(rule.mark);
            } else if rule.table == Some(RouteTableId::MAIN.0) {
                found.narrower.extend(rule.mark);
            }
        }
        found
    }

    fn own(&self) -> (u32, u32) {
        (self.mark.value, self.mark.mask)
    }

    /// Whether the rule is there.
    pub(crate) fn exists(&self) -> bool {
        self.plain.contains(&self.own())
    }

    /// Marks that an earlier setting left behind. Ask while the table of that setting is still there.
    pub(crate) fn retired(&self, nft: &mut NftSocket) -> Result<Vec<(u32, u32)>, ReadError> {
        let mut retired = Vec::new();
        let others = self.plain.iter().filter(|other| **other != self.own());
        for (value, mask) in others.copied() {
            if nft.holds(&table_id(), nft::rule::set_ct_mark(value, mask))? {
                retired.push((value, mask));
            }
        }
        Ok(retired)
    }

    /// Adds the rule if it is missing.
    pub(crate) fn add(&self, s: &mut RouteSocket) -> Result<(), AnswerError> {
        if self.exists() {
            return Ok(());
        }
        let flags = if self.narrower.contains(&self.own()) {
            CREATE
        } else {
            ADD
        };
        let message = Message::NewRule(rule(self.own()).message());
        unless(Errno::EEXIST, s.request("add mark rule", flags, message))
    }

    /// Deletes those of `marks` that are there.
    pub(crate) fn delete(&self, s: &mut RouteSocket, marks: &[(u32, u32)]) -> Result<(), AnswerError> {
        for mark in marks.iter().filter(|mark| self.may_delete(mark)) {
            let message = Message::DelRule(rule(*mark).message());
            unless(Errno::ENOENT, s.request("delete mark rule", 0, message))?;
        }
        Ok(())
    }

    /// Whether a deletion would do something, and that to a rule of ours.
    pub(crate) fn may_delete(&self, mark: &(u32, u32)) -> bool {
        self.plain.contains(mark) && !self.narrower.contains(mark)
    }

    /// Deletes the rule of the present mark.
    pub(crate) fn delete_own(&self, s: &mut RouteSocket) -> Result<(), AnswerError> {
        self.delete(s, &[self.own()])
    }

    /// Whether [`Self::delete_own`] would do something.
    pub(crate) fn may_delete_own(&self) -> bool {
        self.may_delete(&self.own())
    }
}

fn unless(settled: Errno, outcome: Result<(), AnswerError>) -> Result<(), AnswerError> {
    match outcome {
        Err(error) if error.errno() != Some(settled) => Err(error),
        _ => Ok(()),
    }
}

fn rule(mark: (u32, u32)) -> Rule {
    Rule {
        priority: RULE_MARK,
        mark: Some(mark),
        table: Some(RouteTableId::MAIN.0),
        ..Rule::default()
    }
}

pub(crate) fn has_our_form(payload: &[u8], found: &Rule) -> bool {
    // Lengths of destination and source; the parsed rule knows whole addresses only.
    let is_for_all = payload.get(1..3) == Some(&[0, 0]);
    let is_ours = found.mark.is_some_and(|mark| *found == rule(mark) && mark.0 == mark.1);
    is_for_all && is_ours && is_plain_rule(payload)
}
