//! One look at the kernel: which devices exist, which addresses show signs of life.
//!
//! Invariant: a view is complete or there is none. Leases are given back on the strength of it, so a dump that the kernel
//! interrupted is an error. Called by the daemon.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use netlink::message::Rule;
use netlink::{DumpError, RouteSocket};
use vpc_types::{IfIndex, MacAddress, RouteTableId};

use crate::ids::{RULE_FROM_ENI, RULE_FROM_POD, RULE_TO_POD};
use crate::kernel::{FoundRoute, Link, find_eni, links, routes, rules};

/// The kernel's state as far as it concerns pods and ENIs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KernelView {
    /// All devices by index.
    pub links: BTreeMap<IfIndex, Link>,
    /// Directly connected /32 routes of table main: address to device, if the device still exists.
    pub pod_routes: BTreeMap<Ipv4Addr, IfIndex>,
    /// Rules by the address they name. Every rule of ours is here, also those without a route.
    pub rules: BTreeMap<Ipv4Addr, AddressRules>,
}

/// The rules of one address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddressRules {
    /// Tables of rules 512 to the address; main for ours.
    pub to_pod: Vec<RouteTableId>,
    /// Tables of rules 1536 from the address.
    pub from_pod: Vec<RouteTableId>,
    /// Tables of rules 32765 from the address.
    pub from_eni: Vec<RouteTableId>,
}

/// No view.
#[derive(Debug, thiserror::Error)]
#[error("look at the kernel's state")]
pub struct ObserveError(#[from] DumpError);

impl KernelView {
    /// The ENI device with this link-layer address.
    pub fn find_eni(&self, mac: MacAddress) -> Option<&Link> {
        let links: Vec<_> = self.links.values().cloned().collect();
        let index = find_eni(&links, mac)?.index;
        self.links.get(&index)
    }

    /// The device of the /32 route to an address.
    pub fn find_pod_link(&self, address: Ipv4Addr) -> Option<&Link> {
        self.links.get(self.pod_routes.get(&address)?)
    }

    /// The device with this alias: the host veth of a container.
    pub fn find_alias(&self, alias: &str) -> Option<&Link> {
        self.links.values().find(|link| link.alias.as_deref() == Some(alias))
    }
}

/// Looks at everything. Rules first and links last: a pod that is wired meanwhile shows more signs of life, not fewer.
pub fn observe(s: &mut RouteSocket) -> Result<KernelView, ObserveError> {
    let rules = rules(s)?;
    let routes = routes(s, RouteTableId::MAIN.0)?;
    let links: BTreeMap<_, _> = links(s)?.into_iter().map(|link| (link.index, link)).collect();
    let pod_routes = routes.iter().filter_map(|route| pod_route(route, &links)).collect();
    Ok(KernelView {
        pod_routes,
        rules: by_address(&rules),
        links,
    })
}

fn pod_route(route: &FoundRoute, links: &BTreeMap<IfIndex, Link>) -> Option<(Ipv4Addr, IfIndex)> {
    let device = IfIndex::new(route.device?)?;
    let is_pod = route.prefix_len == 32 && route.gateway.is_none() && links.contains_key(&device);
    is_pod.then_some((route.destination, device))
}

fn by_address(rules: &[Rule]) -> BTreeMap<Ipv4Addr, AddressRules> {
    let mut all: BTreeMap<Ipv4Addr, AddressRules> = BTreeMap::new();
    for rule in rules {
        let Some(table) = rule.table.map(RouteTableId) else {
            continue;
        };
        match (rule.priority, rule.from, rule.to) {
            (RULE_TO_POD, _, Some(to)) => all.entry(to).or_default().to_pod.push(table),
            (RULE_FROM_POD, Some(from), _) => all.entry(from).or_default().from_pod.push(table),
            (RULE_FROM_ENI, Some(from), _) => all.entry(from).or_default().from_eni.push(table),
            _ => {}
        }
    }
    all
}
