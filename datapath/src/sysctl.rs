//! IPv6 settings of host veths. The host must not take router advertisements from pods.
//!
//! A value is written only where it differs: writing `forwarding` takes the rtnl lock by trylock and restarts the system call
//! until it succeeds, which burns CPU when many pods start at once.

use std::io::ErrorKind;
use std::path::Path;

/// Whether a host veth has the settings it should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ipv6Settings {
    /// Yes, or the kernel has no IPv6.
    AsWanted,
    /// `/proc/sys` could not be read or written; pods work without.
    NotWritable,
}

const WANTED: [(&str, &str); 3] = [("accept_ra", "0"), ("accept_redirects", "1"), ("forwarding", "0")];

pub(crate) fn settle_host_veth(device: &str) -> Ipv6Settings {
    let directory = Path::new("/proc/sys/net/ipv6/conf").join(device);
    let mut result = Ipv6Settings::AsWanted;
    for (name, wanted) in WANTED {
        let path = directory.join(name);
        match std::fs::read_to_string(&path) {
            Ok(value) if value.trim_end() == wanted => {}
            Ok(_) => {
                if std::fs::write(&path, wanted).is_err() {
                    result = Ipv6Settings::NotWritable;
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(_) => result = Ipv6Settings::NotWritable,
        }
    }
    result
}
