//! Puts back what others removed from running pods and ENIs: one look, a comparison, the missing objects in one batch.
//!
//! Invariants: a pod's devices are never made, only found, by the container's id that the plugin stamped on them (by name
//! where a predecessor stamped none); nothing of a pod is deleted; an address whose route leads to another container is not
//! touched; a route that somebody else keeps for themselves is given up after a few tries.
//!
//! Why this cannot bring back what belongs to a pod that is going: the caller hands over the pods that are wired, and orders
//! the clearing of an address ([`mod@crate::clear`]) on the same thread, later than any repair that still named the pod. So a
//! repair comes before the clearing, which removes again what was put back, and an address rests only after its clearing. A
//! plugin that wires a pod needs no protection: such a pod is not named yet. A plugin that unwires one while the daemon is
//! away, and is overtaken by its start, ends with the pod's devices; then the address has no device, nothing is put back, and
//! the leftover rules are cleared with the lease. Called by the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use netlink::message::{LinkRef, LinkState, Route, Rule, set_link_state};
use netlink::packet::RouteNetlinkMessage as Message;
use netlink::{Batch, DumpError, Errno, MessageError, RouteSocket, SocketError};
use vpc_types::{IfIndex, RouteTableId};

use crate::eni::{Change, EniError, EniWiring, HostLook, setup_seen};
use crate::ids::{RULE_FROM_POD, RULE_TO_POD};
use crate::kernel::{ADD, FoundRoute, Link, REPLACE};
use crate::pod::{from_pod_rule, to_pod_rule};

/// How often a route is taken back from a device of other software before it is left to it.
const TAKE_BACK_MAX: u8 = 3;

/// A pod that is wired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredPod {
    /// Its address.
    pub address: Ipv4Addr,
    /// Table of the ENI that owns the address; main for the primary.
    pub table: RouteTableId,
    /// The container id: the alias of the pod's host veth.
    pub container_id: String,
    /// The host veth's name, which tells where the alias does not: on veths of a predecessor, and among several of one
    /// container.
    pub host_veth: String,
}

/// What was put back, in objects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Repaired {
    /// Host veths that were down.
    pub links: u32,
    /// Pods' routes.
    pub routes: u32,
    /// Pods' rules.
    pub rules: u32,
    /// ENIs of which anything was missing.
    pub enis: u32,
    /// Routes that other software took, and what becomes of them.
    pub kept: Vec<Kept>,
    /// What the kernel refused.
    pub refused: Vec<MessageError>,
    /// ENIs that could not be put right.
    pub failed_enis: Vec<String>,
}

impl Repaired {
    /// Objects that were put back.
    pub fn total(&self) -> u32 {
        self.links + self.routes + self.rules + self.enis
    }
}

/// A pod's route that is left to somebody else from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The pod's address.
    pub address: Ipv4Addr,
    /// Where the route leads.
    pub device: String,
}

/// Nothing was compared, or not everything was sent.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The kernel's state cannot be read.
    #[error("look at devices, routes and rules")]
    Look(#[source] DumpError),
    /// The outcome is unknown.
    #[error("put back routes and rules of pods")]
    Apply(#[source] SocketError),
}

/// Compares and puts back. Remembers which routes are contested.
#[derive(Debug, Default)]
pub struct Repairer {
    taken: BTreeMap<Ipv4Addr, u8>,
}

impl Repairer {
    /// Looks once at everything and puts back what pods and ENIs lack. `pods` are all that are wired, `enis` all that pods
    /// may use.
    pub fn repair(
        &mut self,
        s: &mut RouteSocket,
        pods: &[DesiredPod],
        enis: &[EniWiring],
    ) -> Result<Repaired, RepairError> {
        let host = HostLook::take(s).map_err(RepairError::Look)?;
        let mut repaired = Repaired::default();
        self.forget_all_but(pods);
        let steps = self.plan(pods, &host, &mut repaired.kept);
        apply(s, &steps, &mut repaired)?;
        for eni in enis {
            match setup_seen(s, eni, &host) {
                Ok(ready) if ready.change == Change::Changed => repaired.enis += 1,
                // An ENI that was just detached, or whose device is late: the pool finds out.
                Ok(_) | Err(EniError::LinkMissing { .. }) => {}
                Err(error) => repaired.failed_enis.push(with_sources(&error)),
            }
        }
        Ok(repaired)
    }

    fn forget_all_but(&mut self, pods: &[DesiredPod]) {
        if !self.taken.is_empty() {
            let addresses: BTreeSet<Ipv4Addr> = pods.iter().map(|pod| pod.address).collect();
            self.taken.retain(|address, _| addresses.contains(address));
        }
    }

    fn plan(&mut self, pods: &[DesiredPod], host: &HostLook, kept: &mut Vec<Kept>) -> Vec<Step> {
        let found = Found::of(host);
        let shared = shared_names(pods);
        let mut steps = Vec::new();
        for pod in pods {
            let Some(veth) = find_veth(pod, &shared, &host.links) else {
                continue;
            };
            let way = found.way(pod, veth);
            if way == Way::NewOwner {
                continue;
            }
            if !veth.is_up {
                steps.push(Step::Up(veth.index));
            }
            if self.wants_route(pod.address, &way, veth, kept) {
                steps.push(Step::Route {
                    address: pod.address,
                    device: veth.index,
                });
            }
            steps.extend(found.missing_rules(pod).map(Step::Rule));
        }
        steps
    }

    /// The routes of a device that is down are gone, or will be in a moment.
    fn wants_route(&mut self, address: Ipv4Addr, way: &Way, veth: &Link, kept: &mut Vec<Kept>) -> bool {
        match way {
            Way::Right => !veth.is_up,
            Way::Missing => true,
            Way::Taken { device } => {
                let times = self.taken.entry(address).or_default();
                *times = times.saturating_add(1);
                if *times == TAKE_BACK_MAX + 1 {
                    let device = device.clone();
                    kept.push(Kept { address, device });
                }
                *times <= TAKE_BACK_MAX
            }
            Way::NewOwner => false,
        }
    }
}

/// One object to put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Up(IfIndex),
    Route { address: Ipv4Addr, device: IfIndex },
    Rule(Rule),
}

impl Step {
    fn operation(self) -> &'static str {
        match self {
            Self::Up(_) => "host veth up",
            Self::Route { .. } => "route to pod",
            Self::Rule(_) => "rule of pod",
        }
    }

    fn message(self) -> (u16, Message) {
        match self {
            Self::Up(index) => (0, set_link_state(LinkRef::Index(index.get()), LinkState::Up)),
            Self::Route { address, device } => {
                let route = Route {
                    destination: address,
                    prefix_len: 32,
                    table: RouteTableId::MAIN.0,
                    device: device.get(),
                    gateway: None,
                };
                (REPLACE, Message::NewRoute(route.message()))
            }
            Self::Rule(rule) => (ADD, Message::NewRule(rule.message())),
        }
    }
}

/// Where the route to a pod leads.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    /// To the pod.
    Right,
    /// There is none.
    Missing,
    /// To a device of other software.
    Taken { device: String },
    /// To another container: the address is no longer this pod's.
    NewOwner,
}

/// What a look found, by address.
struct Found<'a> {
    ways: BTreeMap<Ipv4Addr, &'a FoundRoute>,
    to_pod: BTreeSet<Ipv4Addr>,
    from_pod: BTreeSet<Ipv4Addr>,
    links: BTreeMap<u32, &'a Link>,
}

impl<'a> Found<'a> {
    fn of(host: &'a HostLook) -> Self {
        let mut ways = BTreeMap::new();
        // Equal ones are tried in order, and worse ones (higher metrics) after ours.
        for route in host
            .main
            .iter()
            .filter(|route| (route.prefix_len, route.metric) == (32, 0))
        {
            ways.entry(route.destination).or_insert(route);
        }
        let is_ours = |rule: &&Rule| rule.to.is_some_and(|to| **rule == to_pod_rule(to));
        let from_pod = host.rules.iter().filter(|rule| rule.priority == RULE_FROM_POD);
        Self {
            ways,
            to_pod: host
                .rules
                .iter()
                .filter(|rule| rule.priority == RULE_TO_POD)
                .filter(is_ours)
                .filter_map(|rule| rule.to)
                .collect(),
            from_pod: from_pod.filter_map(|rule| rule.from).collect(),
            links: host.links.iter().map(|link| (link.index.get(), link)).collect(),
        }
    }

    fn way(&self, pod: &DesiredPod, veth: &Link) -> Way {
        let Some(route) = self.ways.get(&pod.address) else {
            return Way::Missing;
        };
        if route.device == Some(veth.index.get()) {
            return Way::Right;
        }
        let link = route.device.and_then(|device| self.links.get(&device));
        match link.map(|link| (link, link.alias.as_deref().unwrap_or_default())) {
            // The device went between two looks, and the route with it.
            None => Way::Missing,
            Some((link, alias)) if alias.is_empty() || alias == pod.container_id => Way::Taken {
                device: link.name.clone(),
            },
            Some(_) => Way::NewOwner,
        }
    }

    /// Whichever table a rule from the pod names, it is the pod's: the kernel's word counts for pods of a predecessor, which
    /// numbered tables otherwise or had one rule for each of the VPC's ranges.
    fn missing_rules(&self, pod: &DesiredPod) -> impl Iterator<Item = Rule> {
        let to_pod = (!self.to_pod.contains(&pod.address)).then(|| to_pod_rule(pod.address));
        let needs_from_pod = !pod.table.is_main() && !self.from_pod.contains(&pod.address);
        let from_pod = needs_from_pod.then(|| from_pod_rule(pod.address, pod.table));
        to_pod.into_iter().chain(from_pod)
    }
}

/// Containers and veth names that several of the pods have.
#[derive(Default)]
struct Shared<'a> {
    containers: BTreeSet<&'a str>,
    veths: BTreeSet<&'a str>,
}

fn shared_names(pods: &[DesiredPod]) -> Shared<'_> {
    let (mut shared, mut containers, mut veths) = (Shared::default(), BTreeSet::new(), BTreeSet::new());
    for pod in pods {
        if !containers.insert(pod.container_id.as_str()) {
            shared.containers.insert(&pod.container_id);
        }
        if !veths.insert(pod.host_veth.as_str()) {
            shared.veths.insert(&pod.host_veth);
        }
    }
    shared
}

/// The host veth that is certainly this pod's. A veth without an alias whose name two sandboxes of a pod would have may be
/// either's.
fn find_veth<'a>(pod: &DesiredPod, shared: &Shared<'_>, links: &'a [Link]) -> Option<&'a Link> {
    let only = |mut found: Vec<&'a Link>| found.pop().filter(|_| found.is_empty());
    let by_alias = links
        .iter()
        .filter(|link| link.alias.as_deref() == Some(pod.container_id.as_str()));
    let by_alias: Vec<&Link> = by_alias
        .filter(|link| !shared.containers.contains(pod.container_id.as_str()) || link.name == pod.host_veth)
        .collect();
    if !by_alias.is_empty() {
        return only(by_alias);
    }
    let has_no_alias = |link: &&Link| link.alias.as_deref().is_none_or(str::is_empty);
    let is_its = |link: &&Link| link.name == pod.host_veth && !shared.veths.contains(link.name.as_str());
    links.iter().find(|link| has_no_alias(link) && is_its(link))
}

/// Devices, then routes, then rules. What is there by now, or went with its device, is done.
fn apply(s: &mut RouteSocket, steps: &[Step], repaired: &mut Repaired) -> Result<(), RepairError> {
    let rank = |step: &Step| match step {
        Step::Up(_) => 0,
        Step::Route { .. } => 1,
        Step::Rule(_) => 2,
    };
    let mut steps = steps.to_vec();
    steps.sort_by_key(rank);
    let mut batch = Batch::new();
    for step in &steps {
        let (flags, message) = step.message();
        batch.push(step.operation(), flags, message);
    }
    let errors = s.apply(&batch).map_err(RepairError::Apply)?;
    let failed: BTreeSet<usize> = errors.iter().map(|error| error.index).collect();
    for (_, step) in steps.iter().enumerate().filter(|(index, _)| !failed.contains(index)) {
        *match step {
            Step::Up(_) => &mut repaired.links,
            Step::Route { .. } => &mut repaired.routes,
            Step::Rule(_) => &mut repaired.rules,
        } += 1;
    }
    let settled = [Errno::EEXIST, Errno::ENODEV, Errno::ENETDOWN];
    repaired
        .refused
        .extend(errors.into_iter().filter(|error| !settled.contains(&error.errno)));
    Ok(())
}

fn with_sources(error: &EniError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
