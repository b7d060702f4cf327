//! Namespaces for a test, and what is in them.

#![expect(clippy::wildcard_enum_match_arm, reason = "readers of messages pick what they know")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use netlink::RouteSocket;
use netlink::packet::AddressFamily;
use netlink::packet::RouteNetlinkMessage as Message;
use netlink::packet::address::{AddressAttribute, AddressMessage};
use netlink::packet::link::{LinkAttribute, LinkMessage};
use netlink::packet::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink::packet::route::{RouteAttribute, RouteMessage};
use netlink::packet::rule::{RuleAttribute, RuleMessage};

/// Table of the addresses that the kernel itself puts there.
const LOCAL: u32 = 255;

fn unshare() {
    let flags = nix::sched::CloneFlags::CLONE_NEWNET;
    nix::sched::unshare(flags)
        .or_else(|_| nix::sched::unshare(flags | nix::sched::CloneFlags::CLONE_NEWUSER))
        .expect("this test needs to make a network namespace: run as root or allow user namespaces");
}

/// Runs `test` on a thread of its own, in a namespace of its own that plays the node.
pub(crate) fn on_a_node<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    let run = || {
        unshare();
        test()
    };
    thread::scope(|scope| {
        scope
            .spawn(run)
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A sandbox's namespace. It lives as long as the thread in it, which this value keeps waiting.
pub(crate) struct PodNetns {
    pub(crate) path: PathBuf,
    work: Option<mpsc::Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl PodNetns {
    pub(crate) fn new() -> Self {
        let (work, jobs) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (ready, path) = mpsc::channel();
        let thread = thread::spawn(move || {
            unshare();
            let me = std::fs::read_link("/proc/thread-self").unwrap();
            ready.send(PathBuf::from("/proc").join(me).join("ns/net")).unwrap();
            jobs.iter().for_each(|job| job());
        });
        let path = path.recv().expect("the namespace is made");
        Self {
            path,
            work: Some(work),
            thread: Some(thread),
        }
    }

    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, answer) = mpsc::channel();
        self.work
            .as_ref()
            .unwrap()
            .send(Box::new(move || done.send(job()).unwrap()))
            .unwrap();
        answer.recv().unwrap()
    }

    pub(crate) fn state(&self) -> BTreeSet<String> {
        self.run(state)
    }
}

impl Drop for PodNetns {
    fn drop(&mut self) {
        drop(self.work.take());
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// Links, addresses, routes, rules and permanent neighbours of the current namespace, one line each. The loopback's own
/// address is left out: the wiring switches the loopback on, which every sandbox gets sooner or later.
pub(crate) fn state() -> BTreeSet<String> {
    let mut socket = RouteSocket::open().unwrap();
    let mut ipv4_addresses = AddressMessage::default();
    ipv4_addresses.header.family = AddressFamily::Inet;
    let mut ipv4_routes = RouteMessage::default();
    ipv4_routes.header.address_family = AddressFamily::Inet;
    let mut ipv4_rules = RuleMessage::default();
    ipv4_rules.header.family = AddressFamily::Inet;
    let mut neighbours = NeighbourMessage::default();
    neighbours.header.family = AddressFamily::Inet;
    let wanted = [
        Message::GetLink(LinkMessage::default()),
        Message::GetAddress(ipv4_addresses),
        Message::GetRoute(ipv4_routes),
        Message::GetRule(ipv4_rules),
        Message::GetNeighbour(neighbours),
    ];
    let found = wanted
        .iter()
        .flat_map(|wanted| socket.dump("look around", wanted).unwrap());
    found.filter_map(|message| describe(&message)).collect()
}

fn describe(message: &Message) -> Option<String> {
    match message {
        Message::NewLink(link) => link.attributes.iter().find_map(|a| match a {
            LinkAttribute::IfName(name) => Some(format!("link {name}")),
            _ => None,
        }),
        Message::NewAddress(address) => address.attributes.iter().find_map(|a| match a {
            AddressAttribute::Address(ip) if !ip.is_loopback() => {
                Some(format!("address {ip}/{}", address.header.prefix_len))
            }
            _ => None,
        }),
        Message::NewRoute(route) => describe_route(route),
        Message::NewRule(rule) => Some(describe_rule(rule)),
        Message::NewNeighbour(entry) if entry.header.state == NeighbourState::Permanent => {
            entry.attributes.iter().find_map(|a| match a {
                NeighbourAttribute::Destination(ip) => Some(format!("neighbour {ip:?}")),
                _ => None,
            })
        }
        _ => None,
    }
}

fn describe_route(route: &RouteMessage) -> Option<String> {
    let mut table = u32::from(route.header.table);
    let mut to = "default".to_owned();
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(ip) => to = format!("{ip:?}/{}", route.header.destination_prefix_length),
            _ => {}
        }
    }
    (table != LOCAL).then(|| format!("route {to} table {table}"))
}

fn describe_rule(rule: &RuleMessage) -> String {
    let (mut priority, mut table, mut selector) = (0, u32::from(rule.header.table), String::new());
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Table(number) => table = *number,
            RuleAttribute::Source(ip) => selector = format!("from {ip}"),
            RuleAttribute::Destination(ip) => selector = format!("to {ip}"),
            _ => {}
        }
    }
    format!("rule {priority} {selector} table {table}")
}
