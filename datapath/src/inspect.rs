//! A closer look at the kernel than [`observe`] takes: also the ENIs' tables, and rules of others in our priorities.
//!
//! Reads only. For the audit, which compares from the outside; the daemon decides nothing by it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use netlink::{Attributes, DumpError, RouteSocket, parse_u32};
use vpc_types::{IfIndex, RouteTableId};

use crate::ids::{RULE_FROM_ENI, RULE_FROM_POD, RULE_TO_POD};
use crate::kernel::{parse_rule, routes, rule_messages};
use crate::observe::{KernelView, ObserveError, observe};

/// What an ENI's table says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EniTable {
    /// Gateways of default routes, with their devices.
    pub defaults: Vec<(Ipv4Addr, Option<IfIndex>)>,
    /// Directly connected /32 routes, with their devices.
    pub connected: BTreeMap<Ipv4Addr, Option<IfIndex>>,
}

/// Everything that pods, ENIs and their rules left in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inspection {
    /// Devices, pods' routes, rules by address.
    pub view: KernelView,
    /// Priorities of rules that stand among ours and select otherwise than ours do, so not by one address.
    pub odd_rules: Vec<u32>,
    /// The tables that were asked for.
    pub tables: BTreeMap<RouteTableId, EniTable>,
}

/// Looks at everything; `tables` are those of the secondary ENIs.
pub fn inspect(
    s: &mut RouteSocket,
    tables: impl IntoIterator<Item = RouteTableId>,
) -> Result<Inspection, ObserveError> {
    let mut found = BTreeMap::new();
    for table in tables {
        found.insert(table, table_of(s, table)?);
    }
    Ok(Inspection {
        odd_rules: odd_rules(s)?,
        tables: found,
        view: observe(s)?,
    })
}

fn table_of(s: &mut RouteSocket, table: RouteTableId) -> Result<EniTable, DumpError> {
    let mut found = EniTable::default();
    for route in routes(s, table.0)? {
        let device = route.device.and_then(IfIndex::new);
        match (route.prefix_len, route.gateway) {
            (0, Some(gateway)) => found.defaults.push((gateway, device)),
            (32, None) => {
                found.connected.insert(route.destination, device);
            }
            _ => {}
        }
    }
    Ok(found)
}

fn odd_rules(s: &mut RouteSocket) -> Result<Vec<u32>, DumpError> {
    let found = rule_messages(s)?;
    Ok(found
        .iter()
        .filter_map(|message| odd_priority(&message.payload))
        .collect())
}

/// The rule's priority, if it is one of ours and the rule is none of ours.
pub(crate) fn odd_priority(payload: &[u8]) -> Option<u32> {
    const HEADER: usize = 12;
    const PRIORITY: u16 = 6;
    let priority = Attributes::after_header(payload, HEADER).find_value(PRIORITY);
    let priority = priority.and_then(parse_u32)?;
    let rule = parse_rule(payload);
    let named = match priority {
        RULE_TO_POD => rule.and_then(|rule| rule.to),
        RULE_FROM_POD | RULE_FROM_ENI => rule.and_then(|rule| rule.from),
        _ => return None,
    };
    named.is_none().then_some(priority)
}
