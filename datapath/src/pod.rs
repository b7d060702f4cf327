//! Wiring of one IPv4 pod: veth pair, addresses, routes, neighbour, rules.
//!
//! Four datagrams and no dump: create the pair (born in place, host end up), stamp and route on the host, configure the
//! pod. Invariant: when `wire` fails, what this call made is gone again, or `WireError::UndoIncomplete` says what is not; a
//! veth that already carries this container's id is never touched. Called by the CNI plugin only.

use std::net::Ipv4Addr;

use netlink::message::{
    LinkRef, LinkState, Route, Rule, Veth, VethEnd, address, link, neighbour, random_mac, set_link, set_link_state,
};
use netlink::packet::RouteNetlinkMessage as Message;
use netlink::packet::link::LinkAttribute;
use netlink::{AnswerError, Batch, Errno, MessageError, NetNs, NetNsError, RouteSocket, SocketError};
use vpc_types::{IfIndex, MacAddress, RouteTableId};

use crate::clear::delete_rules;
use crate::ids::{RULE_FROM_POD, RULE_TO_POD};
use crate::kernel::{ADD, CREATE, REPLACE, find_link};
pub use crate::sysctl::Ipv6Settings;
use crate::sysctl::settle_host_veth;

/// What one pod interface needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodWiring {
    /// Name of the host end, ≤ 15 bytes.
    pub host_veth: String,
    /// Name of the pod's end, ≤ 15 bytes.
    pub container_if: String,
    /// The pod's address, a /32 on both sides.
    pub address: Ipv4Addr,
    /// The pod's next hop; see [`crate::ids::POD_GATEWAY`].
    pub gateway: Ipv4Addr,
    /// Table of the ENI that owns the address; main for the primary.
    pub table: RouteTableId,
    /// MTU of both ends, in bytes.
    pub mtu: u16,
    /// Stamped on the host end: the container id, by which later calls recognise the owner.
    pub alias: String,
}

/// Sockets in the host's and the pod's namespace.
#[derive(Debug)]
pub struct PodSockets {
    host: RouteSocket,
    pod: RouteSocket,
    netns: NetNs,
}

/// A pod that is wired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wired {
    /// The host end.
    pub host_index: IfIndex,
    /// Link-layer address of the host end.
    pub host_mac: MacAddress,
    /// The pod's end, in its namespace.
    pub container_index: IfIndex,
    /// Link-layer address of the pod's end.
    pub container_mac: MacAddress,
    /// Settings of the host end.
    pub ipv6_settings: Ipv6Settings,
    rules: Vec<Rule>,
}

/// A pod that is not wired.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A socket cannot be opened.
    #[error("open netlink sockets")]
    Open(#[from] SocketError),
    /// The pod's namespace cannot be used.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// No random numbers for link-layer addresses.
    #[error("draw a link-layer address")]
    Random(#[source] std::io::Error),
    /// This container is wired already; nothing was touched.
    #[error("{host_veth} already belongs to this container")]
    AlreadyWired {
        /// The host end.
        host_veth: String,
    },
    /// The pod has an interface of that name; nothing of this container or of another living one was touched.
    #[error("{name} already exists in the pod")]
    ContainerInterfaceExists {
        /// Its name.
        name: String,
    },
    /// The pair cannot be made.
    #[error("create veth {host_veth}")]
    Create {
        /// The host end.
        host_veth: String,
        /// What the kernel said.
        #[source]
        source: AnswerError,
    },
    /// The veth of an older sandbox of the same pod is in the way and cannot be looked at or deleted.
    #[error("replace veth {host_veth} of an older sandbox")]
    ReplaceOld {
        /// The host end.
        host_veth: String,
        /// What the kernel said.
        #[source]
        source: AnswerError,
    },
    /// The new device is gone again: the namespace is being deleted.
    #[error("find device {name}")]
    Vanished {
        /// Its name.
        name: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The host side was refused.
    #[error("configure {address} on the host")]
    Host {
        /// The pod's address.
        address: Ipv4Addr,
        /// The first refusal.
        #[source]
        source: AnswerError,
    },
    /// The pod's side was refused.
    #[error("configure {address} in the pod")]
    Pod {
        /// The pod's address.
        address: Ipv4Addr,
        /// The first refusal.
        #[source]
        source: AnswerError,
    },
    /// It failed, and some of what was made is still there.
    #[error("{cause}; left behind: {}", .left.join(", "))]
    UndoIncomplete {
        /// Why it failed.
        #[source]
        cause: Box<WireError>,
        /// What could not be removed, and why.
        left: Vec<String>,
    },
}

impl PodSockets {
    /// Opens a socket here and one in the pod's namespace. The thread is back when this returns.
    pub fn open(netns: &NetNs) -> Result<Self, WireError> {
        let host = RouteSocket::open()?;
        let pod = RouteSocket::open_in(netns)?;
        let opened = |source| NetNsError::Open {
            path: netns.path().to_owned(),
            source,
        };
        Ok(Self {
            host,
            pod,
            netns: netns.try_clone().map_err(opened)?,
        })
    }

    /// The host's socket.
    pub fn host(&mut self) -> &mut RouteSocket {
        &mut self.host
    }

    /// The pod's socket.
    pub fn pod(&mut self) -> &mut RouteSocket {
        &mut self.pod
    }
}

/// Whether a host veth of this name is there and carries this container's id, or none, as the reference makes them: an earlier
/// call has wired it, and its pod may be alive.
pub fn is_wired(host: &mut RouteSocket, host_veth: &str, container_id: &str) -> Result<bool, AnswerError> {
    let found = find_link(host, LinkRef::Name(host_veth))?;
    Ok(found.is_some_and(|veth| veth.alias.is_none_or(|alias| alias.is_empty() || alias == container_id)))
}

/// The container whose id the host veth of this name carries; `None` if there is no such veth, or it carries none.
pub fn container_of(host: &mut RouteSocket, host_veth: &str) -> Result<Option<String>, AnswerError> {
    let found = find_link(host, LinkRef::Name(host_veth))?;
    Ok(found.and_then(|veth| veth.alias).filter(|alias| !alias.is_empty()))
}

/// Wires a pod. On failure, undoes what this call made.
pub fn wire(s: &mut PodSockets, w: &PodWiring) -> Result<Wired, WireError> {
    let host_mac = random_mac().map_err(WireError::Random)?;
    let container_mac = random_mac().map_err(WireError::Random)?;
    create_pair(s, w, host_mac, container_mac)?;
    let mut made = Vec::new();
    match configure(s, w, host_mac, &mut made) {
        Ok((host_index, container_index)) => Ok(Wired {
            host_index,
            host_mac: MacAddress(host_mac),
            container_index,
            container_mac: MacAddress(container_mac),
            ipv6_settings: settle_host_veth(&w.host_veth),
            rules: made,
        }),
        Err(cause) => Err(undo_made(s, LinkRef::Name(&w.host_veth), &made, cause)),
    }
}

/// Removes what a successful [`wire`] made: for a caller whose deadline passed meanwhile. What cannot be removed is returned.
pub fn undo(s: &mut PodSockets, wired: &Wired) -> Result<(), Vec<String>> {
    let left = remove_made(s, LinkRef::Index(wired.host_index.get()), &wired.rules);
    if left.is_empty() { Ok(()) } else { Err(left) }
}

fn create_pair(s: &mut PodSockets, w: &PodWiring, host_mac: [u8; 6], container_mac: [u8; 6]) -> Result<(), WireError> {
    let mut outcome = request_pair(s, w, host_mac, container_mac);
    if is_taken(&outcome) {
        make_room(s, w)?;
        outcome = request_pair(s, w, host_mac, container_mac);
    }
    if is_taken(&outcome) && s.pod.device_index(&w.container_if).is_ok() {
        return Err(WireError::ContainerInterfaceExists {
            name: w.container_if.clone(),
        });
    }
    outcome.map_err(|source| WireError::Create {
        host_veth: w.host_veth.clone(),
        source,
    })
}

fn is_taken(outcome: &Result<(), AnswerError>) -> bool {
    outcome
        .as_ref()
        .is_err_and(|error| error.errno() == Some(Errno::EEXIST))
}

fn request_pair(
    s: &mut PodSockets,
    w: &PodWiring,
    host_mac: [u8; 6],
    container_mac: [u8; 6],
) -> Result<(), AnswerError> {
    use std::os::fd::AsFd as _;
    let veth = Veth {
        end: VethEnd {
            name: &w.host_veth,
            mtu: w.mtu.into(),
            mac: host_mac,
            netns: None,
        },
        state: LinkState::Up,
        group: 0,
        peer: VethEnd {
            name: &w.container_if,
            mtu: w.mtu.into(),
            mac: container_mac,
            netns: Some(s.netns.as_fd()),
        },
    };
    s.host.request("create veth", ADD, veth.message())
}

/// One of the two names is taken. Ours on the host: an error. An older sandbox's: it is in the way. Else it is the pod's.
fn make_room(s: &mut PodSockets, w: &PodWiring) -> Result<(), WireError> {
    let failed = |source| WireError::ReplaceOld {
        host_veth: w.host_veth.clone(),
        source,
    };
    match find_link(&mut s.host, LinkRef::Name(&w.host_veth)).map_err(failed)? {
        Some(old) if old.alias.as_deref() == Some(w.alias.as_str()) => Err(WireError::AlreadyWired {
            host_veth: w.host_veth.clone(),
        }),
        Some(old) => delete_link(s, LinkRef::Index(old.index.get())).map_err(failed),
        None if s.pod.device_index(&w.container_if).is_ok() => Err(WireError::ContainerInterfaceExists {
            name: w.container_if.clone(),
        }),
        // It vanished between the two looks.
        None => Ok(()),
    }
}

fn delete_link(s: &mut PodSockets, device: LinkRef<'_>) -> Result<(), AnswerError> {
    match s.host.request("delete veth", 0, Message::DelLink(link(device))) {
        Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(()),
        other => other,
    }
}

fn configure(
    s: &mut PodSockets,
    w: &PodWiring,
    host_mac: [u8; 6],
    made: &mut Vec<Rule>,
) -> Result<(IfIndex, IfIndex), WireError> {
    let host_index = device_index(&s.host, &w.host_veth)?;
    let container_index = device_index(&s.pod, &w.container_if)?;
    configure_host(s, w, host_index, made).map_err(|source| WireError::Host {
        address: w.address,
        source,
    })?;
    configure_pod(s, w, host_mac, container_index).map_err(|source| WireError::Pod {
        address: w.address,
        source,
    })?;
    Ok((host_index, container_index))
}

fn device_index(socket: &RouteSocket, name: &str) -> Result<IfIndex, WireError> {
    let vanished = |source| WireError::Vanished {
        name: name.to_owned(),
        source,
    };
    let index = socket.device_index(name).map_err(vanished)?;
    IfIndex::new(index).ok_or_else(|| vanished(std::io::ErrorKind::NotFound.into()))
}

/// Alias first: from then on the veth has an owner that everybody can check. A rule that an earlier pod with this address
/// left behind would win over ours, so those go before ours comes.
fn configure_host(s: &mut PodSockets, w: &PodWiring, device: IfIndex, made: &mut Vec<Rule>) -> Result<(), AnswerError> {
    let route = Route {
        destination: w.address,
        prefix_len: 32,
        table: RouteTableId::MAIN.0,
        device: device.get(),
        gateway: None,
    };
    let to_pod = to_pod_rule(w.address);
    let from_pod = (!w.table.is_main()).then(|| from_pod_rule(w.address, w.table));
    let stale = Rule {
        priority: RULE_FROM_POD,
        from: Some(w.address),
        ..Rule::default()
    };
    let alias = LinkAttribute::IfAlias(w.alias.clone());
    let mut batch = Batch::new();
    batch
        .push("stamp host veth", 0, set_link(LinkRef::Index(device.get()), alias))
        // Once: each deletion walks all rules of the node.
        .push(STALE_RULE, 0, Message::DelRule(stale.message()))
        .push("route to pod", REPLACE, Message::NewRoute(route.message()))
        // Not exclusive: with that flag the kernel compares with all rules of the node. Should an ADD that was killed have left the
        // same rule, there are two until the DEL, which takes all.
        .push("rule to pod", CREATE, Message::NewRule(to_pod.message()));
    if let Some(rule) = from_pod {
        batch.push("rule from pod", CREATE, Message::NewRule(rule.message()));
    }
    let errors = s.host.apply(&batch)?;
    let refused = |operation: &str| errors.iter().find(|error| error.operation == operation);
    if refused("rule to pod").is_none() {
        made.push(to_pod);
    }
    if refused("rule from pod").is_none() {
        made.extend(from_pod);
    }
    if let Some(error) = errors.iter().find(|error| !is_expected(error)) {
        return Err(error.clone().into());
    }
    if refused(STALE_RULE).is_none() {
        // One was there, so there may be more; a deletion by address takes ours too.
        delete_rules(&mut s.host, stale)?;
        if let Some(rule) = from_pod {
            s.host.request("rule from pod", ADD, Message::NewRule(rule.message()))?;
        }
    }
    Ok(())
}

const STALE_RULE: &str = "stale rule from pod";

/// Rules outlive pods, so one that is there already is as good as ours, and mostly there is no stale one.
fn is_expected(error: &MessageError) -> bool {
    match error.operation.as_ref() {
        STALE_RULE => error.errno == Errno::ENOENT,
        "rule to pod" | "rule from pod" => error.errno == Errno::EEXIST,
        _ => false,
    }
}

pub(crate) fn to_pod_rule(address: Ipv4Addr) -> Rule {
    Rule {
        priority: RULE_TO_POD,
        to: Some(address),
        table: Some(RouteTableId::MAIN.0),
        ..Rule::default()
    }
}

pub(crate) fn from_pod_rule(address: Ipv4Addr, table: RouteTableId) -> Rule {
    Rule {
        priority: RULE_FROM_POD,
        from: Some(address),
        table: Some(table.0),
        ..Rule::default()
    }
}

fn configure_pod(s: &mut PodSockets, w: &PodWiring, host_mac: [u8; 6], device: IfIndex) -> Result<(), AnswerError> {
    let device = device.get();
    let main = RouteTableId::MAIN.0;
    let gateway = Route {
        destination: w.gateway,
        prefix_len: 32,
        table: main,
        device,
        gateway: None,
    };
    let default = Route {
        destination: Ipv4Addr::UNSPECIFIED,
        prefix_len: 0,
        table: main,
        device,
        gateway: Some(w.gateway),
    };
    let mut batch = Batch::new();
    batch
        .push("loopback up", 0, set_link_state(LinkRef::Name("lo"), LinkState::Up))
        .push("interface up", 0, set_link_state(LinkRef::Index(device), LinkState::Up))
        .push("address", ADD, Message::NewAddress(address(device, w.address, 32)))
        .push("neighbour of gateway", ADD, neighbour(device, w.gateway, host_mac))
        .push("route to gateway", REPLACE, Message::NewRoute(gateway.message()))
        .push("default route", ADD, Message::NewRoute(default.message()));
    match s.pod.apply(&batch)?.into_iter().next() {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

fn undo_made(s: &mut PodSockets, device: LinkRef<'_>, made: &[Rule], cause: WireError) -> WireError {
    let left = remove_made(s, device, made);
    if left.is_empty() {
        cause
    } else {
        WireError::UndoIncomplete {
            cause: Box::new(cause),
            left,
        }
    }
}

/// `made` are the rules of this call, in order. Newest first. Routes and the neighbour go with the link. Goes on after a failure.
fn remove_made(s: &mut PodSockets, device: LinkRef<'_>, made: &[Rule]) -> Vec<String> {
    let mut left = Vec::new();
    for rule in made.iter().rev() {
        match s.host.request("delete rule", 0, Message::DelRule(rule.message())) {
            Err(error) if error.errno() != Some(Errno::ENOENT) => left.push(error.to_string()),
            _ => {}
        }
    }
    if let Err(error) = delete_link(s, device) {
        left.push(error.to_string());
    }
    left
}
