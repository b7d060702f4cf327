//! The least work for one pod: the daemon's call and the kernel's messages of the plugin.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

use crate::grpc::Client;
use crate::netlink::{Messages, Socket, attribute};
use crate::proto::{Value, Writer, find};

const NEWLINK: u16 = 16;
const SETLINK: u16 = 19;
const NEWADDR: u16 = 20;
const NEWROUTE: u16 = 24;
const NEWNEIGH: u16 = 28;
const NEWRULE: u16 = 32;
const DELRULE: u16 = 33;
/// `NLM_F_CREATE | NLM_F_EXCL`, and `NLM_F_CREATE | NLM_F_REPLACE`.
const ADD: u16 = 0x600;
const REPLACE: u16 = 0x500;
/// `NLM_F_CREATE`, for rules: with the exclusive flag the kernel would compare with all that there are.
const CREATE: u16 = 0x400;
const INET: u8 = 2;
const MAIN: u8 = 254;
const GATEWAY: [u8; 4] = [169, 254, 1, 1];
const MTU: u32 = 9001;
/// `RT_SCOPE_LINK`.
const LINK_SCOPE: u8 = 253;

/// Deletions of rules that should not be there: the kernel refuses them when they are not.
const STALE_RULES: u32 = 1;

/// Which pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes name.
    pub name: String,
    /// The runtime's id of the sandbox.
    pub container_id: String,
    /// Path of its network namespace.
    pub netns: String,
    /// Name of the host's end.
    pub host_veth: String,
}

/// What the daemon gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// The pod's address.
    pub address: Ipv4Addr,
    /// Route table of its ENI.
    pub table: u8,
}

impl Pod {
    /// The request of ADD, as the plugin sends it.
    pub fn add_request(&self) -> Vec<u8> {
        let request = Writer::default().text(1, &self.name).text(2, &self.namespace);
        let request = request.text(3, &self.container_id).text(4, &self.netns).text(5, "eth0");
        request.text(6, "aws-cni").text(7, &self.container_id).bytes()
    }

    /// The request of DEL, as the plugin sends it.
    pub fn del_request(&self) -> Vec<u8> {
        let request = Writer::default().text(1, &self.name).text(2, &self.namespace);
        let request = request
            .text(3, &self.container_id)
            .text(5, "PodDeleted")
            .text(6, "eth0");
        let request = request.text(7, "aws-cni").text(8, &self.container_id);
        request.text(10, &format!("uid-{}", self.container_id)).bytes()
    }
}

/// Reads the reply of AddNetwork.
pub fn granted(reply: &[u8]) -> io::Result<Granted> {
    let none = || io::Error::other("the daemon gave no address");
    let entry = find(reply, 2).ok_or_else(none)?.bytes();
    let text = std::str::from_utf8(find(entry, 1).ok_or_else(none)?.bytes()).map_err(|_| none())?;
    let table = match find(entry, 4) {
        Some(Value::Number(table)) => u8::try_from(table).map_err(|_| none())?,
        _ => return Err(none()),
    };
    Ok(Granted {
        address: text.parse().map_err(|_| none())?,
        table,
    })
}

/// Path of the daemon's methods.
pub const ADD_NETWORK: &str = "/rpc.CNIBackend/AddNetwork";
/// See [`ADD_NETWORK`].
pub const DEL_NETWORK: &str = "/rpc.CNIBackend/DelNetwork";
/// Path of the health service's method.
pub const CHECK: &str = "/grpc.health.v1.Health/Check";

/// ADD: the call; meanwhile both sockets; then the messages.
pub fn add(socket: &Path, pod: &Pod) -> io::Result<Granted> {
    let mut client = Client::connect(socket)?;
    client.send(ADD_NETWORK, &pod.add_request())?;
    let netns = File::open(&pod.netns)?;
    let host = Socket::open()?;
    let inside = open_in(&netns)?;
    let granted = granted(&client.receive()?)?;
    wire(&host, &inside, &netns, pod, granted)?;
    Ok(granted)
}

/// DEL: the call; the daemon removes rules and route.
pub fn del(socket: &Path, pod: &Pod) -> io::Result<()> {
    Client::connect(socket)?.call(DEL_NETWORK, &pod.del_request()).map(drop)
}

/// One health check of the whole server.
pub fn check(socket: &Path) -> io::Result<()> {
    let reply = Client::connect(socket)?.call(CHECK, &[])?;
    match find(&reply, 1) {
        Some(Value::Number(1)) => Ok(()),
        _ => Err(io::Error::other("the daemon does not serve")),
    }
}

fn open_in(netns: &File) -> io::Result<Socket> {
    let home = File::open("/proc/self/ns/net")?;
    setns(netns, CloneFlags::CLONE_NEWNET)?;
    let socket = Socket::open();
    setns(home, CloneFlags::CLONE_NEWNET)?;
    socket
}

fn wire(host: &Socket, inside: &Socket, netns: &File, pod: &Pod, granted: Granted) -> io::Result<()> {
    let mac = |first: u8| {
        let mut mac = [first, 0, 0, 0, 0, 0];
        for (slot, byte) in mac[1..].iter_mut().zip(pod.container_id.bytes()) {
            *slot = byte;
        }
        mac
    };
    let host_mac = mac(0x02);
    refuse_none(host.apply(&mut veth(pod, host_mac, mac(0x06), netns))?)?;
    let host_index = host.device_index(&pod.host_veth)?;
    let pod_index = inside.device_index("eth0")?;
    allow_refusals(STALE_RULES, host.apply(&mut host_side(pod, granted, host_index))?)?;
    refuse_none(inside.apply(&mut pod_side(granted.address, pod_index, host_mac))?)
}

fn refuse_none(refused: u32) -> io::Result<()> {
    allow_refusals(0, refused)
}

/// A message that the kernel refused is work that was not done: the floor would look lower than it is.
fn allow_refusals(allowed: u32, refused: u32) -> io::Result<()> {
    if refused <= allowed {
        Ok(())
    } else {
        Err(io::Error::other("the kernel refused a message"))
    }
}

/// `struct ifinfomsg`.
fn link_header(index: i32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

/// Name, MTU, MAC, one queue of each kind, no queue length.
fn end_attributes(out: &mut Vec<u8>, name: &str, mac: [u8; 6]) {
    let mut text = name.as_bytes().to_vec();
    text.push(0);
    attribute(out, 3, &text);
    attribute(out, 4, &MTU.to_ne_bytes());
    attribute(out, 1, &mac);
    attribute(out, 31, &1_u32.to_ne_bytes());
    attribute(out, 32, &1_u32.to_ne_bytes());
    attribute(out, 13, &0_u32.to_ne_bytes());
}

fn veth(pod: &Pod, host_mac: [u8; 6], pod_mac: [u8; 6], netns: &File) -> Messages {
    let mut peer = link_header(0, 0, 0).to_vec();
    end_attributes(&mut peer, "eth0", pod_mac);
    attribute(&mut peer, 28, &netns.as_raw_fd().to_ne_bytes());
    let mut data = Vec::new();
    attribute(&mut data, 1, &peer);
    let mut info = Vec::new();
    attribute(&mut info, 1, b"veth");
    attribute(&mut info, 2, &data);
    let mut header = link_header(0, 1, 1).to_vec();
    end_attributes(&mut header, &pod.host_veth, host_mac);
    let mut messages = Messages::default();
    messages.push(NEWLINK, ADD, &header).attribute(18, &info);
    messages
}

/// `struct rtmsg` of a unicast route, protocol boot, or of a rule to a table.
fn route_header(destination: u8, source: u8, table: u8, scope: u8) -> [u8; 12] {
    [INET, destination, source, 0, table, 3, scope, 1, 0, 0, 0, 0]
}

/// Alias, [`STALE_RULES`] deletions, route, rule to the pod; rule from it on a secondary ENI.
fn host_side(pod: &Pod, granted: Granted, index: i32) -> Messages {
    let address = granted.address.octets();
    let rule = |destination, source, table| [INET, destination, source, 0, table, 0, 0, 1, 0, 0, 0, 0];
    let mut messages = Messages::default();
    messages
        .push(SETLINK, 0, &link_header(index, 0, 0))
        .attribute(20, pod.container_id.as_bytes());
    for _ in 0..STALE_RULES {
        messages
            .push(DELRULE, 0, &rule(0, 32, 0))
            .attribute(6, &1536_u32.to_ne_bytes())
            .attribute(2, &address);
    }
    messages
        .push(NEWROUTE, REPLACE, &route_header(32, 0, MAIN, LINK_SCOPE))
        .attribute(1, &address)
        .attribute(4, &index.to_ne_bytes());
    messages
        .push(NEWRULE, CREATE, &rule(32, 0, MAIN))
        .attribute(6, &512_u32.to_ne_bytes())
        .attribute(1, &address);
    if granted.table != MAIN {
        messages
            .push(NEWRULE, CREATE, &rule(0, 32, granted.table))
            .attribute(6, &1536_u32.to_ne_bytes())
            .attribute(2, &address);
    }
    messages
}

/// `lo` and the interface up, address, neighbour, two routes.
fn pod_side(address: Ipv4Addr, index: i32, host_mac: [u8; 6]) -> Messages {
    let (address, device) = (address.octets(), index.to_ne_bytes());
    let index = index.to_ne_bytes();
    let mut messages = Messages::default();
    messages.push(SETLINK, 0, &link_header(0, 1, 1)).attribute(3, b"lo\0");
    messages.push(SETLINK, 0, &link_header(i32::from_ne_bytes(device), 1, 1));
    let mut header = [INET, 32, 0, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&index);
    messages
        .push(NEWADDR, ADD, &header)
        .attribute(2, &address)
        .attribute(1, &address);
    // `struct ndmsg`: permanent (0x80), unicast.
    let mut header = [INET, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 1];
    header[4..8].copy_from_slice(&index);
    messages
        .push(NEWNEIGH, ADD, &header)
        .attribute(1, &GATEWAY)
        .attribute(2, &host_mac);
    messages
        .push(NEWROUTE, REPLACE, &route_header(32, 0, MAIN, LINK_SCOPE))
        .attribute(1, &GATEWAY)
        .attribute(4, &index);
    messages
        .push(NEWROUTE, ADD, &route_header(0, 0, MAIN, 0))
        .attribute(4, &index)
        .attribute(5, &GATEWAY);
    messages
}
