//! One rule per running pod instead of those that older releases left.
//!
//! They made one rule 1536 per network of the VPC, with a `to` selector each, and a rule of a former pod with the same address may
//! still lead to another ENI's table; of equal priorities the older rule wins. Invariant: at every moment the pod's packets find
//! a rule that leads to the table that they found before, or to the right one: ours comes before others go.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use netlink::message::Rule;
use netlink::packet::rule::RuleMessage;
use netlink::packet::{AddressFamily, RouteNetlinkMessage as Message};
use netlink::{Attributes, Batch, DumpError, Errno, MessageError, RouteSocket, SocketError};
use vpc_types::RouteTableId;

use crate::ids::RULE_FROM_POD;
use crate::kernel::{CREATE, NEW_RULE, parse_rule};

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SettledRules {
    /// Rules that were made.
    pub added: usize,
    /// Rules that went.
    pub deleted: usize,
}

/// Rules that are not settled; those of other pods may be.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The rules cannot be read.
    #[error("list rules")]
    Look(#[from] DumpError),
    /// The outcome is unknown.
    #[error("change rules of pods")]
    Apply(#[from] SocketError),
    /// The first refusal.
    #[error("change rules of pods")]
    Refused(#[from] MessageError),
}

/// For each pod that has more than the one rule it should have, makes that one and deletes the others. `pods` are the addresses of
/// running pods with the tables of their ENIs. A pod that has no rule at all is not this function's business.
pub fn settle_pod_rules(
    s: &mut RouteSocket,
    pods: &BTreeMap<Ipv4Addr, RouteTableId>,
) -> Result<SettledRules, SettleError> {
    let mut request = RuleMessage::default();
    request.header.family = AddressFamily::Inet;
    let dump = s.dump_raw("list rules", &Message::GetRule(request))?;
    let payloads = dump.iter().filter(|message| message.kind == NEW_RULE);
    let mut found: BTreeMap<Ipv4Addr, Vec<PodRule>> = BTreeMap::new();
    for rule in payloads.filter_map(|message| PodRule::parse(&message.payload)) {
        if pods.contains_key(&rule.from) {
            found.entry(rule.from).or_default().push(rule);
        }
    }
    let (mut make, mut stale) = (Batch::new(), Vec::<PodRule>::new());
    for (address, rules) in &found {
        let Some(table) = pods.get(address) else { continue };
        let (right, wrong): (Vec<PodRule>, Vec<PodRule>) =
            rules.iter().copied().partition(|rule| rule.is_right(*table));
        if right.is_empty() && !wrong.is_empty() && !table.is_main() {
            // Not exclusively: the kernel takes one with a `to` for the same rule, and would refuse this one.
            make.push("rule from pod", CREATE, Message::NewRule(right_rule(*address, *table)));
        }
        stale.extend(wrong);
    }
    // A refused rule leaves what the pod has.
    refusal(s.apply(&make)?, None)?;
    let mut delete = Batch::new();
    for rule in &stale {
        delete.push("delete stale rule from pod", 0, Message::DelRule(rule.message()));
    }
    refusal(s.apply(&delete)?, Some(Errno::ENOENT))?;
    Ok(SettledRules {
        added: make.len(),
        deleted: delete.len(),
    })
}

fn refusal(errors: Vec<MessageError>, settled: Option<Errno>) -> Result<(), MessageError> {
    match errors.into_iter().find(|error| Some(error.errno) != settled) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn right_rule(from: Ipv4Addr, table: RouteTableId) -> RuleMessage {
    let rule = Rule {
        priority: RULE_FROM_POD,
        from: Some(from),
        table: Some(table.0),
        ..Rule::default()
    };
    rule.message()
}

/// A rule 1536 from one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PodRule {
    from: Ipv4Addr,
    to: Option<(Ipv4Addr, u8)>,
    table: u32,
}

impl PodRule {
    /// `None` for rules that also select by something else: no release made such.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        const HEADER: usize = 12;
        /// Destination, source, priority, table, and what every rule has: suppressed prefix length, protocol.
        const KNOWN: [u16; 6] = [1, 2, 6, 15, 14, 21];
        const TO: u16 = 1;
        const INVERTED: u32 = 2;
        let rule = parse_rule(payload).filter(|rule| rule.priority == RULE_FROM_POD)?;
        let flags = payload.get(8..HEADER).and_then(netlink::parse_u32)?;
        let mut attributes = Attributes::after_header(payload, HEADER);
        let to = attributes.clone().find_value(TO);
        if flags & INVERTED != 0 || !attributes.all(|attribute| KNOWN.contains(&attribute.kind)) {
            return None;
        }
        let network = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from);
        Some(Self {
            from: rule.from?,
            to: to.and_then(network).zip(payload.get(1).copied()),
            table: rule.table?,
        })
    }

    /// A rule that leads to table main does what none does.
    fn is_right(&self, table: RouteTableId) -> bool {
        self.table == table.0 && (self.to.is_none() || table.is_main())
    }

    fn message(&self) -> RuleMessage {
        let mut message = Rule {
            priority: RULE_FROM_POD,
            from: Some(self.from),
            to: self.to.map(|(network, _)| network),
            table: Some(self.table),
            ..Rule::default()
        }
        .message();
        if let Some((_, len)) = self.to {
            message.header.dst_len = len;
        }
        message
    }
}
