//! The readers of messages, for bytes that no kernel sent. Only with the feature `fuzzing`.

use netlink::RawMessage;
use netlink::message::Rule;

use crate::check::parse_neighbour;
use crate::eni::parse_address;
use crate::inspect::odd_priority;
use crate::kernel::{FoundRoute, Link, parse_rule};
use crate::mark_rule::has_our_form;
use crate::monitor::{KernelChange, interpret};
use crate::service_rules::range_of;
use crate::takeover::pod_rules::PodRule;

/// What was read; equal shapes mean little news.
#[derive(Debug, Default)]
pub struct Found {
    /// A device.
    pub link: Option<Link>,
    /// A rule.
    pub rule: Option<Rule>,
    /// Which of these it is: a route, an address, a neighbour, a rule of nobody, of a mark, of a range, of an older pod.
    pub others: [bool; 7],
    /// What the monitor makes of it.
    pub change: Option<KernelChange>,
}

/// Reads a message in every way that we read any.
pub fn read(message: &RawMessage) -> Found {
    let payload = &message.payload;
    let rule = parse_rule(payload);
    Found {
        link: Link::parse(payload),
        others: [
            FoundRoute::parse(payload).is_some(),
            parse_address(payload, 1).is_some(),
            parse_neighbour(payload).is_some(),
            odd_priority(payload).is_some(),
            rule.as_ref().is_some_and(|rule| has_our_form(payload, rule)),
            range_of(payload).is_some(),
            PodRule::parse(payload).is_some(),
        ],
        rule,
        change: interpret(message),
    }
}
