//! Link-layer addresses, /28 prefixes, and what EC2 gives to an ENI.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;

/// A 48-bit link-layer address. ENIs are matched by it, because device names change after hot-plug.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The six bytes in wire order.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddress {
    type Err = AllocationError;

    /// Six two-digit hexadecimal groups with colons, in either case, as IMDS and EC2 write them.
    fn from_str(text: &str) -> Result<Self, AllocationError> {
        let bad = || AllocationError::Mac(text.to_owned());
        let mut octets = [0; 6];
        let mut groups = text.split(':');
        for octet in &mut octets {
            let group = groups
                .next()
                .filter(|g| g.len() == 2 && g.bytes().all(|b| b.is_ascii_hexdigit()));
            *octet = group.and_then(|g| u8::from_str_radix(g, 16).ok()).ok_or_else(bad)?;
        }
        groups.next().map_or(Ok(Self(octets)), |_| Err(bad()))
    }
}

/// A text or network that is no valid address, MAC or prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocationError {
    /// Not six hexadecimal groups.
    #[error("{0:?} is no MAC address")]
    Mac(String),
    /// EC2 hands out aligned /28 blocks only.
    #[error("{0} is no aligned /28")]
    NotPrefix28(Ipv4Net),
}

/// An aligned IPv4 /28: 16 addresses, all of them usable by pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix28(Ipv4Net);

impl Prefix28 {
    /// Addresses in one prefix.
    pub const SIZE: usize = 16;

    /// Refuses other lengths and host bits.
    pub fn new(net: Ipv4Net) -> Result<Self, AllocationError> {
        if net.prefix_len() == 28 && net.trunc() == net {
            Ok(Self(net))
        } else {
            Err(AllocationError::NotPrefix28(net))
        }
    }

    /// The prefix as a network.
    pub fn net(self) -> Ipv4Net {
        self.0
    }
}

/// One thing EC2 allocates to an ENI: a secondary address, or a prefix. Each takes one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Allocation {
    /// A secondary private address.
    Ip(Ipv4Addr),
    /// A delegated /28.
    Prefix(Prefix28),
}

impl Allocation {
    /// The addresses pods can get out of it, ascending.
    pub fn addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        let (first, count) = match self {
            Self::Ip(ip) => (u32::from(ip), 1),
            Self::Prefix(prefix) => (u32::from(prefix.net().network()), 16),
        };
        (0..count).map(move |i| Ipv4Addr::from(first + i))
    }
}

impl fmt::Display for Allocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Prefix(prefix) => prefix.net().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_round_trips_and_refuses_other_texts() {
        let mac: MacAddress = "02:0A:bc:00:ff:10".parse().unwrap();
        assert_eq!(mac.to_string(), "02:0a:bc:00:ff:10");
        for bad in [
            "",
            "02:0a",
            "02:0a:bc:00:ff:10:11",
            "2:0a:bc:00:ff:10",
            "+2:0a:bc:00:ff:10",
            "02-0a-bc-00-ff-10",
        ] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_prefix_is_aligned_and_holds_sixteen_addresses() {
        let prefix = Prefix28::new("10.0.0.16/28".parse().unwrap()).unwrap();
        let all: Vec<_> = Allocation::Prefix(prefix).addresses().collect();
        assert_eq!(
            (all.len(), all[0], all[15]),
            (16, Ipv4Addr::new(10, 0, 0, 16), Ipv4Addr::new(10, 0, 0, 31))
        );
        assert!(Prefix28::new("10.0.0.17/28".parse().unwrap()).is_err());
        assert!(Prefix28::new("10.0.0.16/27".parse().unwrap()).is_err());
    }
}
