//! Rules that send traffic to services outside the VPC through table main, whatever ENI a pod is on: `1535 to <range> lookup
//! main`.
//!
//! Every rule of that form and priority is ours, a predecessor's included. What is there already is not touched: for a
//! moment without its rule, a connection would leave by another ENI. Called by `node`.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use netlink::message::Rule;
use netlink::packet::RouteNetlinkMessage as Message;
use netlink::packet::rule::{RuleAttribute, RuleMessage};
use netlink::{AnswerError, Attributes, Batch, Errno, MessageError, RawMessage, RouteSocket};
use vpc_types::RouteTableId;

use crate::eni::Change;
use crate::ids::RULE_EXTERNAL_SERVICE;
use crate::kernel::{ADD, CREATE, is_plain_rule, parse_ipv4, parse_rule};

/// The rules of our priority.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ServiceRules {
    ours: BTreeSet<Ipv4Net>,
    /// Ranges of rules that select further. To the kernel such a rule is what is to be added, and what is to be deleted: a
    /// message names what a rule must have, not what it must lack.
    narrower: BTreeSet<Ipv4Net>,
}

const ADDED: &str = "add rule to external service";

impl ServiceRules {
    /// What a dump of the rules shows.
    pub(crate) fn among(rules: &[RawMessage]) -> Self {
        let mut found = Self::default();
        for payload in rules.iter().map(|message| &message.payload) {
            let Some(rule) = parse_rule(payload) else { continue };
            if (rule.priority, rule.table) != (RULE_EXTERNAL_SERVICE, Some(RouteTableId::MAIN.0)) {
                continue;
            }
            let is_ours = payload.get(2) == Some(&0) && rule.mark.is_none() && is_plain_rule(payload);
            let ranges = if is_ours { &mut found.ours } else { &mut found.narrower };
            ranges.extend(range_of(payload));
        }
        found
    }

    /// Whether anything would have to be done.
    pub(crate) fn change(&self, wanted: &[Ipv4Net]) -> Change {
        if self.plan(wanted).is_empty() {
            Change::Unchanged
        } else {
            Change::Changed
        }
    }

    /// Brings the rules in line.
    pub(crate) fn apply(&self, s: &mut RouteSocket, wanted: &[Ipv4Net]) -> Result<Change, AnswerError> {
        let settled = |error: &MessageError| {
            let expected = if error.operation == ADDED {
                Errno::EEXIST
            } else {
                Errno::ENOENT
            };
            error.errno == expected
        };
        match s.apply(&self.plan(wanted))?.into_iter().find(|error| !settled(error)) {
            Some(error) => Err(error.into()),
            None => Ok(self.change(wanted)),
        }
    }

    fn plan(&self, wanted: &[Ipv4Net]) -> Batch {
        let wanted: BTreeSet<Ipv4Net> = wanted.iter().flat_map(selectable).collect();
        let mut batch = Batch::new();
        for range in wanted.difference(&self.ours) {
            let flags = if self.narrower.contains(range) { CREATE } else { ADD };
            batch.push(ADDED, flags, Message::NewRule(message(*range)));
        }
        let stale = self.ours.difference(&wanted);
        for range in stale.filter(|range| !self.narrower.contains(range)) {
            batch.push("delete rule to external service", 0, Message::DelRule(message(*range)));
        }
        batch
    }
}

/// A rule to everything would name no destination, and could not be told from others when it is added or deleted.
fn selectable(range: &Ipv4Net) -> Vec<Ipv4Net> {
    match range.prefix_len() {
        0 => range.subnets(1).map(Iterator::collect).unwrap_or_default(),
        _ => vec![range.trunc()],
    }
}

fn message(range: Ipv4Net) -> RuleMessage {
    let rule = Rule {
        priority: RULE_EXTERNAL_SERVICE,
        table: Some(RouteTableId::MAIN.0),
        ..Rule::default()
    };
    let mut message = rule.message();
    message.header.dst_len = range.prefix_len();
    message
        .attributes
        .push(RuleAttribute::Destination(range.network().into()));
    message
}

/// The destination; `None` for a rule to everything.
pub(crate) fn range_of(payload: &[u8]) -> Option<Ipv4Net> {
    const HEADER: usize = 12;
    const DESTINATION: u16 = 1;
    let to = Attributes::after_header(payload, HEADER).find_value(DESTINATION)?;
    Some(Ipv4Net::new(parse_ipv4(to)?, *payload.get(1)?).ok()?.trunc())
}
