//! Namespaces for tests, and what is in them as plain values.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use datapath::{PodWiring, RouteSocket};
use netlink::message::{LinkRef, LinkState, Veth, VethEnd, set_link_state};
use vpc_types::RouteTableId;

pub(crate) use netlink::testing::{in_namespace, new_namespace};

/// The host's side of tests: loopback up.
pub(crate) fn host() -> RouteSocket {
    let mut socket = RouteSocket::open().unwrap();
    socket
        .request("loopback up", 0, set_link_state(LinkRef::Name("lo"), LinkState::Up))
        .unwrap();
    socket
}

/// Lines that the `ip` program prints in the current namespace, sorted.
pub(crate) fn ip(arguments: &str) -> Vec<String> {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .expect("this test needs the ip program");
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<_> = text.lines().map(normal).collect();
    lines.sort();
    lines
}

/// Waits until every device here passes packets: one drops what it is given before the kernel has noticed its carrier, which may
/// take a second.
pub(crate) fn await_carriers() {
    let deadline = Instant::now() + Duration::from_secs(10);
    let is_ready = |line: &str| line.starts_with("lo ") || line.contains(" UP ");
    loop {
        let output = Command::new("ip").args(["-br", "link", "show"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        if text.lines().all(is_ready) {
            return;
        }
        assert!(Instant::now() < deadline, "devices without a carrier:\n{text}");
    }
}

/// Without what depends on the carrier, which a device reports some time after it came up.
fn normal(line: &str) -> String {
    let mut line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        " linkdown",
        "NO-CARRIER,",
        ",LOWER_UP",
        ",M-DOWN",
        " state UP",
        " state LOWERLAYERDOWN",
        " state DOWN",
        " state UNKNOWN",
    ] {
        line = line.replace(part, "");
    }
    line
}

/// Everything that the data plane may change here.
pub(crate) fn state() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for arguments in [
        "rule list",
        "-4 route show table all",
        "-o -4 address show",
        "neighbour show nud permanent",
    ] {
        all.extend(ip(arguments));
    }
    all.extend(
        ip("-o link show")
            .into_iter()
            .map(|line| line.split_once(": ").unwrap().1.to_owned()),
    );
    all
}

/// A pod's wiring; `n` makes address and name.
pub(crate) fn wiring(n: u8, table: u32) -> PodWiring {
    PodWiring {
        host_veth: format!("eni{n:011x}"),
        container_if: "eth0".to_owned(),
        address: Ipv4Addr::new(10, 0, 1, n),
        gateway: datapath::ids::POD_GATEWAY,
        table: RouteTableId(table),
        mtu: 9001,
        alias: format!("container-{n}"),
    }
}

/// A device that stands for an ENI: one end of a veth pair, down.
pub(crate) fn add_eni(socket: &mut RouteSocket, name: &str, mac: [u8; 6]) {
    let peer = format!("p-{name}");
    let end = |name, mac| VethEnd {
        name,
        mtu: 1500,
        mac,
        netns: None,
    };
    let mut port = mac;
    port[5] ^= 0x80;
    let veth = Veth {
        end: end(&peer, port),
        state: LinkState::Up,
        group: 0,
        peer: end(name, mac),
    };
    socket.request("eni", 0x600, veth.message()).unwrap();
}
