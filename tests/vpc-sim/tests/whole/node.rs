//! Things done inside a node, with nothing installed: HTTP requests and a look at its devices.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use netlink::message::{LinkState, Route, Veth, VethEnd};
use netlink::packet::RouteNetlinkMessage;
use netlink::{Batch, RouteSocket};
use nix::poll::{PollTimeout, poll};
use vpc_fabric::{DefaultRoute, DeviceSetup, NetnsRef, Node, configure_device};
use vpc_sim::vpc::IMDS_ENDPOINT;

/// `NLM_F_CREATE | NLM_F_EXCL`.
const CREATE_NEW: u16 = 0x600;

/// How long anything on one machine may take to show its effect.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Waits for a condition; `None` when the deadline passes first.
pub(crate) fn wait_until<T>(deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        match condition() {
            Some(found) => return Some(found),
            None if started.elapsed() > deadline => return None,
            None => {
                poll(&mut [], PollTimeout::from(5_u8)).unwrap();
            }
        }
    }
}

/// Status and body.
pub(crate) type Answer = (u16, String);

/// Sends a request from where the calling thread is.
pub(crate) fn http(to: SocketAddrV4, head: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect_timeout(&to.into(), SOON).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let length = body.len();
    write!(
        stream,
        "{head}host: {to}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Calls the EC2 API from a node.
pub(crate) fn ec2(node: &Node, form: &str) -> Answer {
    let form = form.to_owned();
    let endpoint = "10.0.0.2:80".parse().unwrap();
    node.run(move || http(endpoint, "POST / HTTP/1.1\r\n", &form)).unwrap()
}

/// Text of an element that occurs once in the answer, or is the first of its kind.
pub(crate) fn element(answer: &Answer, name: &str) -> String {
    let (start, end) = (format!("<{name}>"), format!("</{name}>"));
    let rest = answer
        .1
        .split_once(&start)
        .unwrap_or_else(|| panic!("no {name} in {answer:?}"))
        .1;
    rest.split_once(&end).unwrap().0.to_owned()
}

/// Reads metadata from where the calling thread is, with a fresh token.
pub(crate) fn imds(path: &str) -> Answer {
    let ttl = "PUT /latest/api/token HTTP/1.1\r\nx-aws-ec2-metadata-token-ttl-seconds: 60\r\n";
    let (status, token) = http(IMDS_ENDPOINT, ttl, "");
    if status != 200 {
        return (status, token);
    }
    let head = format!("GET /latest/{path} HTTP/1.1\r\nx-aws-ec2-metadata-token: {token}\r\n");
    http(IMDS_ENDPOINT, &head, "")
}

/// Name of the node's device with this MAC.
pub(crate) fn device(node: &Node, mac: &str) -> Option<String> {
    let mac = mac.to_owned();
    node.run(move || {
        let entries = std::fs::read_dir("/sys/class/net").unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let has_mac = |name: &String| {
            // A device may vanish between the listing and the look at it.
            let text = std::fs::read_to_string(format!("/sys/class/net/{name}/address"));
            text.is_ok_and(|text| text.trim() == mac)
        };
        names.filter(|name| name != "lo").find(has_mac)
    })
    .unwrap()
}

/// Asks for a token and gives up after a while.
pub(crate) fn try_token(patience: Duration) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&IMDS_ENDPOINT.into(), patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    let ask = "PUT /latest/api/token HTTP/1.1\r\nhost: imds\r\nconnection: close\r\n";
    write!(
        stream,
        "{ask}x-aws-ec2-metadata-token-ttl-seconds: 60\r\ncontent-length: 0\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A pod's namespace with this address, wired by a veth whose host end answers every ARP.
pub(crate) fn add_pod(node: &Node, address: Ipv4Addr) -> NetnsRef {
    let pod = node.add_pod_netns("pod").unwrap().netns;
    let peer = pod.clone();
    node.run(move || wire_host(&peer, address)).unwrap();
    let gateway = Ipv4Addr::new(10, 0, 1, 1);
    let setup = DeviceSetup {
        device: "eth0".to_owned(),
        address: Ipv4Net::new_assert(address, 24),
        gateway,
        default_route: DefaultRoute::Main,
    };
    pod.run(|| configure_device(&setup)).unwrap().unwrap();
    pod
}

fn wire_host(pod: &NetnsRef, address: Ipv4Addr) {
    let end = VethEnd {
        name: "vpod",
        mtu: 9001,
        mac: [2, 0, 0, 0, 0, 1],
        netns: None,
    };
    let peer = VethEnd {
        name: "eth0",
        mtu: 9001,
        mac: [2, 0, 0, 0, 0, 2],
        netns: Some(pod.as_fd()),
    };
    let mut socket = RouteSocket::open().unwrap();
    let mut batch = Batch::new();
    batch.push(
        "veth",
        CREATE_NEW,
        Veth {
            end,
            state: LinkState::Up,
            group: 0,
            peer,
        }
        .message(),
    );
    assert_eq!(socket.apply(&batch).unwrap(), []);
    let device = socket.device_index("vpod").unwrap();
    let route = Route {
        destination: address,
        prefix_len: 32,
        table: 254,
        device,
        gateway: None,
    };
    let mut batch = Batch::new();
    batch.push("route", CREATE_NEW, RouteNetlinkMessage::NewRoute(route.message()));
    assert_eq!(socket.apply(&batch).unwrap(), []);
    std::fs::write("/proc/sys/net/ipv4/conf/vpod/proxy_arp", "1").unwrap();
}
