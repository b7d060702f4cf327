//! The readers of messages, for bytes that no kernel sent. Only with the feature `fuzzing`.

use netlink::RawMessage;
use netlink::message::Rule;

use crate::eni::parse_address;
use crate::inspect::odd_priority;
use crate::kernel::{FoundRoute, Link, parse_rule};
use crate::monitor::{KernelChange, interpret};

/// What was read; equal shapes mean little news.
#[derive(Debug, Default)]
pub struct Found {
    /// A device.
    pub link: Option<Link>,
    /// A rule.
    pub rule: Option<Rule>,
    /// Which of a route, an address and a rule of nobody it is.
    pub others: [bool; 3],
    /// What the monitor makes of it.
    pub change: Option<KernelChange>,
}

/// Reads a message in every way that we read any.
pub fn read(message: &RawMessage) -> Found {
    let payload = &message.payload;
    Found {
        link: Link::parse(payload),
        rule: parse_rule(payload),
        others: [
            FoundRoute::parse(payload).is_some(),
            parse_address(payload, 1).is_some(),
            odd_priority(payload).is_some(),
        ],
        change: interpret(message),
    }
}
