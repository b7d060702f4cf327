//! What a node's kernel holds, for before-and-after comparisons.
//!
//! Looks with `rtnetlink`, not with the product's own netlink client: one misreading must not pass on both sides.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::packet_route::rule::{RuleAttribute, RuleMessage};
use rtnetlink::{IpVersion, RouteMessageBuilder};
use vpc_fabric::{NetnsRef, Node};

/// Rules, routes and devices as lines of text; equal states have equal lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KernelState {
    /// Policy rules.
    pub rules: BTreeSet<String>,
    /// Routes of all tables but local.
    pub routes: BTreeSet<String>,
    /// Names of devices.
    pub links: BTreeSet<String>,
}

impl KernelState {
    /// Looks in a node.
    pub fn of(node: &Node) -> Result<Self> {
        node.run(look).context("cannot look into the node")?
    }

    /// Looks in a pod.
    pub fn of_netns(netns: &NetnsRef) -> Result<Self> {
        netns.run(look)?.context("cannot look into the pod")
    }

    /// Names of host veths of pods.
    pub fn host_veths(&self) -> impl Iterator<Item = &String> {
        self.links.iter().filter(|name| name.starts_with("eni"))
    }

    /// Lines that are only here, and lines that are only in `other`.
    pub fn difference(&self, other: &Self) -> String {
        let sets = [
            (&self.rules, &other.rules),
            (&self.routes, &other.routes),
            (&self.links, &other.links),
        ];
        let mut lines = Vec::new();
        for (ours, theirs) in sets {
            lines.extend(ours.difference(theirs).map(|line| format!("+ {line}")));
            lines.extend(theirs.difference(ours).map(|line| format!("- {line}")));
        }
        lines.join("\n")
    }
}

/// In the namespace of the calling thread.
fn look() -> Result<KernelState> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let rules: Vec<RuleMessage> = handle.rule().get(IpVersion::V4).execute().try_collect().await?;
        let all_routes = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes: Vec<RouteMessage> = handle.route().get(all_routes).execute().try_collect().await?;
        let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
        connection.abort();
        Ok(KernelState {
            rules: rules.iter().map(rule_line).collect(),
            routes: routes.iter().filter_map(route_line).collect(),
            links: links.iter().filter_map(link_name).collect(),
        })
    })
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink has many attributes that say nothing here"
)]
fn rule_line(rule: &RuleMessage) -> String {
    let (mut priority, mut table) = (0, u32::from(rule.header.table));
    let (mut from, mut to, mut mark) = ("all".to_owned(), String::new(), String::new());
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Table(number) => table = *number,
            RuleAttribute::Source(address) => from = prefix(*address, rule.header.src_len),
            RuleAttribute::Destination(address) => to = format!(" to {}", prefix(*address, rule.header.dst_len)),
            RuleAttribute::FwMark(number) => mark = format!(" fwmark {number:#x}"),
            _ => {}
        }
    }
    format!("rule {priority}: from {from}{to}{mark} lookup {table}")
}

fn prefix(address: IpAddr, len: u8) -> String {
    format!("{address}/{len}")
}

/// Table local is the kernel's own.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink has many attributes that say nothing here"
)]
fn route_line(route: &RouteMessage) -> Option<String> {
    const LOCAL: u32 = 255;
    let mut table = u32::from(route.header.table);
    let (mut destination, mut gateway, mut device) = ("default".to_owned(), String::new(), 0);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(address) => {
                destination = format!("{address:?}/{}", route.header.destination_prefix_length);
            }
            RouteAttribute::Gateway(address) => gateway = format!(" via {address:?}"),
            RouteAttribute::Oif(index) => device = *index,
            _ => {}
        }
    }
    (table != LOCAL).then(|| format!("route table {table}: {destination}{gateway} dev #{device}"))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink has many attributes that say nothing here"
)]
fn link_name(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}
