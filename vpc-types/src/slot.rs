//! Where an ENI sits, which route table it gets, and kernel numbers with a meaning.

use std::fmt;
use std::num::NonZeroU32;

/// Slot of an ENI on its network card. 0 on card 0 is the primary ENI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceNumber(pub u16);

impl DeviceNumber {
    /// The primary ENI's slot.
    pub const PRIMARY: Self = Self(0);
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Index of a network card. Almost all instance types have card 0 only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkCard(pub u16);

impl NetworkCard {
    /// The default card.
    pub const DEFAULT: Self = Self(0);
}

/// Number of a kernel route table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteTableId(pub u32);

impl RouteTableId {
    /// The kernel's main table, which the primary ENI uses.
    pub const MAIN: Self = Self(254);

    /// The table of an ENI. On card 0: device number + 1, and main for the primary; on others 10000 + 100 × card + device.
    /// These numbers are a contract with pods wired by earlier versions and with other agents on the node.
    pub fn for_eni(card: NetworkCard, device: DeviceNumber) -> Self {
        match (card, device) {
            (NetworkCard::DEFAULT, DeviceNumber::PRIMARY) => Self::MAIN,
            (NetworkCard::DEFAULT, device) => Self(u32::from(device.0) + 1),
            (card, device) => Self(10_000 + 100 * u32::from(card.0) + u32::from(device.0)),
        }
    }

    /// Main needs no from-pod rule: the kernel looks there anyway.
    pub fn is_main(self) -> bool {
        self == Self::MAIN
    }
}

impl fmt::Display for RouteTableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_main() {
            f.write_str("main")
        } else {
            self.0.fmt(f)
        }
    }
}

/// A packet or connection mark together with the bits it may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FwMark {
    /// Bits to set or compare.
    pub value: u32,
    /// Bits that belong to us.
    pub mask: u32,
}

impl FwMark {
    /// The mark of connections that must leave by the primary ENI; 0x80 unless `AWS_VPC_K8S_CNI_CONNMARK` says otherwise.
    pub const DEFAULT: Self = Self {
        value: 0x80,
        mask: 0x80,
    };
}

/// Kernel index of a network device; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfIndex(pub NonZeroU32);

impl IfIndex {
    /// `None` for 0, which the kernel uses for "no device".
    pub fn new(index: u32) -> Option<Self> {
        NonZeroU32::new(index).map(Self)
    }

    /// The number as the kernel wants it.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_follow_the_contract() {
        let table = |card, device| RouteTableId::for_eni(NetworkCard(card), DeviceNumber(device)).0;
        assert_eq!([table(0, 0), table(0, 1), table(0, 14)], [254, 2, 15]);
        assert_eq!([table(1, 0), table(1, 1), table(3, 7)], [10_100, 10_101, 10_307]);
    }
}
