//! What others change in the kernel, as it happens. Non-blocking: wrap it in the caller's event loop by its descriptor.
//!
//! Reports that something about an address or device changed, not what it is now: look, do not infer. Our own changes are
//! reported too. Called by the daemon.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};

use netlink::message::LinkState;
use netlink::{Attributes, Event, EventSocket, Group, RawMessage, SocketError};
use vpc_types::{IfIndex, MacAddress};

use crate::ids::{RULE_EXTERNAL_SERVICE, RULE_FROM_ENI, RULE_FROM_POD, RULE_MARK, RULE_TO_POD};
use crate::kernel::{
    DEL_ADDRESS, DEL_LINK, DEL_ROUTE, DEL_RULE, FoundRoute, Link, NEW_LINK, NEW_ROUTE, NEW_RULE, parse_ipv4, parse_rule,
};

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is there, new or changed.
    Made,
    /// It is gone.
    Removed,
}

/// Something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelChange {
    /// A device appeared or changed.
    LinkAppeared {
        /// Its index.
        index: IfIndex,
        /// Its name.
        name: String,
        /// Its link-layer address.
        mac: Option<MacAddress>,
        /// Its alias: the container id on host veths that we made.
        alias: Option<String>,
        /// Whether it is administratively up.
        state: LinkState,
        /// Its MTU, in bytes.
        mtu: u32,
    },
    /// A device is gone.
    LinkGone {
        /// Its index.
        index: IfIndex,
        /// Its name.
        name: String,
        /// Its link-layer address.
        mac: Option<MacAddress>,
        /// Its alias.
        alias: Option<String>,
    },
    /// A /32 route was made, replaced or removed.
    RouteChanged {
        /// Its destination.
        address: Ipv4Addr,
    },
    /// A route of an ENI table was made, replaced or removed.
    TableChanged {
        /// The table.
        table: u32,
    },
    /// A rule of ours was made or removed.
    RuleChanged {
        /// The address it names; `None` for the node's own rules: marks and external services.
        address: Option<Ipv4Addr>,
        /// Which of the two.
        fate: Fate,
    },
    /// A device lost an IPv4 address.
    AddressRemoved {
        /// The address.
        address: Ipv4Addr,
    },
    /// Notices were lost: look at everything.
    Overrun,
}

/// A source of changes in the namespace in which it was made.
#[derive(Debug)]
pub struct Monitor {
    events: EventSocket,
}

impl Monitor {
    /// Subscribes. What happened before is not seen: subscribe first, then look.
    pub fn subscribe() -> Result<Self, SocketError> {
        EventSocket::subscribe(&[Group::Link, Group::Ipv4Address, Group::Ipv4Route, Group::Ipv4Rule])
            .map(|events| Self { events })
    }

    /// The next change that concerns us, or `None` when nothing is queued: then wait until the descriptor is readable.
    pub fn next_change(&mut self) -> io::Result<Option<KernelChange>> {
        while let Some(event) = self.events.next_event()? {
            let change = match event {
                Event::Overrun => Some(KernelChange::Overrun),
                Event::Message(message) => interpret(&message),
            };
            if change.is_some() {
                return Ok(change);
            }
        }
        Ok(None)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

pub(crate) fn interpret(message: &RawMessage) -> Option<KernelChange> {
    match message.kind {
        NEW_LINK | DEL_LINK => interpret_link(message),
        NEW_ROUTE | DEL_ROUTE => interpret_route(&FoundRoute::parse(&message.payload)?),
        NEW_RULE | DEL_RULE => interpret_rule(message),
        DEL_ADDRESS => interpret_address(&message.payload),
        _ => None,
    }
}

fn interpret_rule(message: &RawMessage) -> Option<KernelChange> {
    let rule = parse_rule(&message.payload)?;
    let address = match rule.priority {
        RULE_TO_POD => Some(rule.to?),
        RULE_FROM_POD | RULE_FROM_ENI => Some(rule.from?),
        RULE_MARK | RULE_EXTERNAL_SERVICE => None,
        _ => return None,
    };
    let fate = if message.kind == NEW_RULE {
        Fate::Made
    } else {
        Fate::Removed
    };
    Some(KernelChange::RuleChanged { address, fate })
}

fn interpret_address(payload: &[u8]) -> Option<KernelChange> {
    const HEADER: usize = 8;
    const LOCAL: u16 = 2;
    const AF_INET: u8 = 2;
    if payload.first() != Some(&AF_INET) {
        return None;
    }
    let address = Attributes::after_header(payload, HEADER)
        .find_value(LOCAL)
        .and_then(parse_ipv4)?;
    Some(KernelChange::AddressRemoved { address })
}

/// Messages of other address families are about a device's place in a bridge, not about the device.
fn interpret_link(message: &RawMessage) -> Option<KernelChange> {
    const AF_UNSPEC: u8 = 0;
    if message.payload.first() != Some(&AF_UNSPEC) {
        return None;
    }
    let Link {
        index,
        name,
        mac,
        alias,
        mtu,
        is_up,
        ..
    } = Link::parse(&message.payload)?;
    let state = if is_up { LinkState::Up } else { LinkState::Down };
    Some(match message.kind {
        NEW_LINK => KernelChange::LinkAppeared {
            index,
            name,
            mac,
            alias,
            state,
            mtu,
        },
        _ => KernelChange::LinkGone {
            index,
            name,
            mac,
            alias,
        },
    })
}

fn interpret_route(route: &FoundRoute) -> Option<KernelChange> {
    if route.table != vpc_types::RouteTableId::MAIN.0 {
        return Some(KernelChange::TableChanged { table: route.table });
    }
    (route.prefix_len == 32).then_some(KernelChange::RouteChanged {
        address: route.destination,
    })
}
