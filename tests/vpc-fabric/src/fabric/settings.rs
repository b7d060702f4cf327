//! Kernel settings of the fabric's namespace, and of a namespace's loopback device.

use netlink::message::{LinkRef, LinkState, set_link_state};
use netlink::{Batch, Errno, RouteSocket};

use super::FabricError;

/// Written before any port exists: a new device copies `conf/default`.
///
/// `proxy_arp` answers for targets behind another port, `proxy_arp_pvlan` for those behind the asking port itself (a
/// node that resolves a secondary address of its own ENI). The effective `rp_filter` is the larger of `all` and the
/// device's, `send_redirects` is on if either says so; therefore both are cleared in both places.
const SYSCTLS: [(&str, &str); 13] = [
    ("ipv4/conf/default/forwarding", "1"),
    ("ipv4/conf/default/proxy_arp", "1"),
    ("ipv4/conf/default/proxy_arp_pvlan", "1"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/conf/default/accept_redirects", "0"),
    ("ipv4/conf/default/arp_ignore", "0"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv4/ip_forward", "1"),
    // Ports carry IPv4 only; without this each would send router solicitations and multicast reports to the nodes.
    ("ipv6/conf/default/disable_ipv6", "1"),
    ("ipv6/conf/all/disable_ipv6", "1"),
];

/// Turns the calling thread's namespace into a router that behaves as a VPC's.
pub(super) fn write_sysctls() -> Result<(), FabricError> {
    for (name, value) in SYSCTLS {
        let path = format!("/proc/sys/net/{name}");
        match std::fs::write(&path, value) {
            // A kernel without IPv6 needs no telling.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && name.starts_with("ipv6") => {}
            other => other.map_err(|source| FabricError::Sysctl { path, source })?,
        }
    }
    Ok(())
}

/// Brings `lo` of the calling thread's namespace up.
pub(crate) fn loopback_up() -> Result<(), FabricError> {
    let mut batch = Batch::new();
    batch.push("set lo up", 0, set_link_state(LinkRef::Name("lo"), LinkState::Up));
    apply(&mut open_socket()?, "set lo up", &batch)
}

/// A route socket of the calling thread's namespace.
pub(crate) fn open_socket() -> Result<RouteSocket, FabricError> {
    RouteSocket::open().map_err(|source| FabricError::Socket {
        operation: "open",
        source,
    })
}

/// Sends a batch in which nothing may fail.
pub(crate) fn apply(socket: &mut RouteSocket, operation: &'static str, batch: &Batch) -> Result<(), FabricError> {
    apply_tolerating(socket, operation, batch, &[])
}

/// Sends a batch in which the named errors do no harm.
pub(super) fn apply_tolerating(
    socket: &mut RouteSocket,
    operation: &'static str,
    batch: &Batch,
    harmless: &[Errno],
) -> Result<(), FabricError> {
    let errors = socket
        .apply(batch)
        .map_err(|source| FabricError::Socket { operation, source })?;
    match errors.into_iter().find(|error| !harmless.contains(&error.errno)) {
        None => Ok(()),
        Some(source) => Err(FabricError::Refused { operation, source }),
    }
}
