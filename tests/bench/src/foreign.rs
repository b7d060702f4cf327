//! Routes and rules of other software on a node: thousands, before and behind ours. Put there and taken away in batches.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use netlink::message::{Route, Rule, route_key};
use netlink::packet::RouteNetlinkMessage as Message;
use netlink::{Batch, RouteSocket};
use vpc_fabric::Node;

/// Of each.
pub(crate) const COUNT: u32 = 4_000;
/// `NLM_F_CREATE | NLM_F_EXCL`.
const ADD: u16 = 0x600;
const MAIN: u32 = 254;

/// Adds [`COUNT`] routes to table main and as many rules.
pub(crate) fn add(node: &Node) -> Result<()> {
    apply(node, |device, n| {
        let route = Route {
            destination: address(n),
            prefix_len: 32,
            table: MAIN,
            device,
            gateway: None,
        };
        [
            (ADD, Message::NewRoute(route.message())),
            (ADD, Message::NewRule(rule(n).message())),
        ]
    })
}

/// Takes them away again.
pub(crate) fn remove(node: &Node) -> Result<()> {
    apply(node, |_, n| {
        let route = route_key(address(n), 32, MAIN);
        [(0, Message::DelRoute(route)), (0, Message::DelRule(rule(n).message()))]
    })
}

fn address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 16, 0, 0)) + n)
}

/// Half of them are tried before all of ours, half stand among those of pods.
fn rule(n: u32) -> Rule {
    Rule {
        priority: if n.is_multiple_of(2) { 400 } else { 1536 },
        from: Some(address(n)),
        table: Some(77),
        ..Rule::default()
    }
}

fn apply(node: &Node, messages: impl Fn(u32, u32) -> [(u16, Message); 2] + Send + 'static) -> Result<()> {
    node.run(move || -> Result<()> {
        let mut socket = RouteSocket::open()?;
        let device = socket.device_index("eth0")?;
        let mut batch = Batch::new();
        for (flags, message) in (0..COUNT).flat_map(|n| messages(device, n)) {
            batch.push("foreign route or rule", flags, message);
        }
        let errors = socket.apply(&batch)?;
        ensure!(
            errors.is_empty(),
            "{} refused, the first one: {}",
            errors.len(),
            errors[0]
        );
        Ok(())
    })?
}
