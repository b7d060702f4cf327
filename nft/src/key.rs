//! Bytes of keys and values as registers hold them: addresses in network order, marks and indices in host order.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Length of an interface name in a register (`IFNAMSIZ`).
pub const IFNAME_LEN: usize = 16;

/// A whole interface name, padded with NUL. Names longer than 15 bytes cannot exist; they are cut.
pub fn ifname(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes()[..name.len().min(IFNAME_LEN - 1)].to_vec();
    bytes.resize(IFNAME_LEN, 0);
    bytes
}

/// The beginning of an interface name: compares only these bytes, as `eni*` does.
pub fn ifname_prefix(prefix: &str) -> Vec<u8> {
    prefix.as_bytes()[..prefix.len().min(IFNAME_LEN - 1)].to_vec()
}

/// An IPv4 address.
pub fn ipv4(address: Ipv4Addr) -> Vec<u8> {
    address.octets().to_vec()
}

/// An IPv6 address.
pub fn ipv6(address: Ipv6Addr) -> Vec<u8> {
    address.octets().to_vec()
}

/// A mark, device index, device group or other number that the kernel keeps in host order.
pub fn host_u32(value: u32) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

/// A transport port.
pub fn port(value: u16) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}

/// Joins parts to one key, each padded to four bytes as registers are.
pub fn concat(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut key = Vec::new();
    for part in parts {
        key.extend_from_slice(part);
        key.resize(key.len().next_multiple_of(4), 0);
    }
    key
}
