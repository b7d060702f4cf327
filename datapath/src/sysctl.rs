//! IPv6 settings of host veths. The host must not take router advertisements from pods.
//!
//! `forwarding` is written only where it differs: that takes the rtnl lock by trylock and restarts the system call
//! until it succeeds, which burns CPU when many pods start at once.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

/// Whether a host veth has the settings it should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ipv6Settings {
    /// Yes, or the kernel has no IPv6.
    AsWanted,
    /// `/proc/sys` could not be read or written; pods work without.
    NotWritable,
}

/// Every new device has another value than this one, so it is written without a look; its handler takes no lock.
const ROUTER_ADVERTISEMENTS: (&str, &str) = ("accept_ra", "0");
/// Mostly these have the right value from the start.
const OTHERS: [(&str, &str); 2] = [("accept_redirects", "1"), ("forwarding", "0")];
/// A flag and its line feed, with room to see that it is longer.
const FLAG_MAX: usize = 4;

pub(crate) fn settle_host_veth(device: &str) -> Ipv6Settings {
    let directory = Path::new("/proc/sys/net/ipv6/conf").join(device);
    match settle(&directory) {
        Ok(()) => Ipv6Settings::AsWanted,
        // A kernel without IPv6 has no such directory.
        Err(error) if error.kind() == ErrorKind::NotFound => Ipv6Settings::AsWanted,
        Err(_) => Ipv6Settings::NotWritable,
    }
}

fn settle(directory: &Path) -> io::Result<()> {
    let (name, wanted) = ROUTER_ADVERTISEMENTS;
    let path = directory.join(name);
    // Where nothing may be written the administrator may have set it for all devices to come.
    let written = write(&path, wanted).or_else(|error| match has(&path, wanted) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(error),
    });
    for (name, wanted) in OTHERS {
        let path = directory.join(name);
        if !has(&path, wanted)? {
            write(&path, wanted)?;
        }
    }
    written
}

/// One read: a whole-file helper asks for the size first and for more afterwards, and each call into `/proc/sys` costs.
fn has(path: &Path, wanted: &str) -> io::Result<bool> {
    let mut text = [0; FLAG_MAX];
    let len = File::open(path)?.read(&mut text)?;
    Ok(text[..len].trim_ascii_end() == wanted.as_bytes())
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}
