//! Which devices the node's table names: the primary ENI's, and the beginnings of pods' veth names.
//!
//! Pods keep the names that their veths were given when another prefix was set. Without their marks those on secondary ENIs
//! would reach nothing outside the VPC, so the table names older prefixes too, for as long as such pods are there. Called by
//! `node`.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use netlink::{DumpError, RawMessage, RouteSocket};
use vpc_types::{RouteTableId, VethPrefix};

use crate::ids::RULE_TO_POD;
use crate::kernel::{Link, parse_rule, routes};

/// Devices of a node as its table names them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Devices {
    /// The primary ENI's.
    pub primary: String,
    /// Beginnings of veth names, other than the present one, that pods of earlier settings have.
    pub older_prefixes: BTreeSet<String>,
}

/// Letters of a host veth's name behind the prefix: a part of a hash.
const HASH: usize = 11;

/// What a dump of links and rules shows. A veth is a pod's where a route and a rule 512 lead to an address behind it: names of
/// other software's devices may look the same.
pub(crate) fn find(
    s: &mut RouteSocket,
    primary: &Link,
    links: &[Link],
    rules: &[RawMessage],
    present: &VethPrefix,
) -> Result<Devices, DumpError> {
    let mut devices = Devices {
        primary: primary.name.clone(),
        older_prefixes: BTreeSet::new(),
    };
    let candidates = links
        .iter()
        .filter_map(|link| Some((link, older_prefix(link, present)?)));
    let candidates: Vec<_> = candidates.collect();
    if candidates.is_empty() {
        return Ok(devices);
    }
    let to_pods = rules.iter().filter_map(|message| parse_rule(&message.payload));
    let to_pods: BTreeSet<Ipv4Addr> = to_pods
        .filter(|rule| rule.priority == RULE_TO_POD)
        .filter_map(|rule| rule.to)
        .collect();
    let routes = routes(s, RouteTableId::MAIN.0)?;
    let of_pods = routes
        .iter()
        .filter(|route| route.prefix_len == 32 && to_pods.contains(&route.destination));
    let of_pods: BTreeSet<u32> = of_pods.filter_map(|route| route.device).collect();
    let proven = candidates
        .into_iter()
        .filter(|(link, _)| of_pods.contains(&link.index.get()));
    devices.older_prefixes.extend(proven.map(|(_, prefix)| prefix));
    Ok(devices)
}

fn older_prefix(link: &Link, present: &VethPrefix) -> Option<String> {
    let (prefix, hash) = link.name.split_at_checked(link.name.len().checked_sub(HASH)?)?;
    let is_hash = hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_prefix = VethPrefix::parse(prefix).is_ok() && !prefix.starts_with(present.as_str());
    (link.kind.as_deref() == Some("veth") && is_hash && is_prefix).then(|| prefix.to_owned())
}
