//! Expressions: the instructions of a rule. Values here, bytes in `encode.rs`.

use crate::Family;

/// A register. Most rules need only [`Register::R1`]; concatenated keys lie in consecutive words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Register(pub(crate) u32);

impl Register {
    /// The first 16-byte register, which covers words 0 to 3.
    pub const R1: Self = Self(1);
    pub(crate) const VERDICT: Self = Self(0);
    /// `NFT_REG32_00`.
    const FIRST_WORD: u32 = 8;

    /// The 4-byte register at word `n`, 0 to 15. A word that begins a 16-byte register has that register's number, as in dumps.
    pub fn word(n: u8) -> Self {
        let n = u32::from(n);
        if n.is_multiple_of(4) {
            Self(1 + n / 4)
        } else {
            Self(Self::FIRST_WORD + n)
        }
    }
}

/// Properties of the packet and its devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaKey {
    /// Packet mark, host order.
    Mark,
    /// Index of the input device, host order.
    Iif,
    /// Index of the output device, host order.
    Oif,
    /// Name of the input device.
    IifName,
    /// Name of the output device.
    OifName,
    /// 2 = IPv4, 10 = IPv6, one byte.
    NfProto,
    /// Transport protocol, one byte.
    L4Proto,
    /// 0 = to this host, 1 = broadcast, 2 = multicast, 3 = to another host; one byte.
    PktType,
    /// Group of the input device, host order.
    IifGroup,
    /// Group of the output device, host order.
    OifGroup,
}

/// Properties of the packet's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtKey {
    /// Bit set, host order: invalid 1, established 2, related 4, new 8, untracked 64.
    State,
    /// One byte, 0 = original.
    Direction,
    /// Bit set, host order; destination translated = 0x20, source translated = 0x10.
    Status,
    /// Connection mark, host order.
    Mark,
}

/// Comparison operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CmpOp {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
}

/// Where a payload offset counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadBase {
    /// Link-layer header.
    Link,
    /// Network header.
    Network,
    /// Transport header.
    Transport,
}

/// What a routing look-up gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FibResult {
    /// Index of the output device, host order; with [`FibFlags::PRESENT`] one byte, 0 or 1.
    Oif,
    /// Name of the output device; with [`FibFlags::PRESENT`] one byte, 0 or 1.
    OifName,
    /// Type of the address (`RTN_*`), host order: unicast 1, local 2, broadcast 3, multicast 5.
    AddrType,
}

/// What goes into a routing look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FibFlags(pub(crate) u32);

impl FibFlags {
    /// Looks up the source address.
    pub const SADDR: Self = Self(1);
    /// Looks up the destination address.
    pub const DADDR: Self = Self(2);
    /// With the packet mark.
    pub const MARK: Self = Self(4);
    /// Restricted to the input device.
    pub const IIF: Self = Self(8);
    /// Restricted to the output device.
    pub const OIF: Self = Self(16);
    /// Asks only whether there is a result.
    pub const PRESENT: Self = Self(32);
}

impl std::ops::BitOr for FibFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Whether a look-up matches members or all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupMode {
    /// Goes on for members.
    Contained,
    /// Goes on for others; not with maps.
    NotContained,
}

/// What a rule decides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Lets the packet pass this hook.
    Accept,
    /// Drops it.
    Drop,
    /// Goes on after the rule that jumped here; the policy in a base chain.
    Return,
    /// Goes to a chain and comes back.
    Jump(String),
    /// Goes to a chain without coming back.
    Goto(String),
}

/// Which address is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatKind {
    /// Source.
    Source,
    /// Destination.
    Destination,
}

/// How ports are chosen when a source is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Random {
    /// The original port if it is free.
    No,
    /// A hash with a random offset (`--random`).
    Hash,
    /// A random number (`--random-fully`).
    Fully,
}

/// What the sender of a refused packet is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// ICMP destination unreachable with this code, of the chain's own family.
    IcmpUnreachable(u8),
    /// TCP reset.
    TcpReset,
}

/// What a rule does with a dynamic set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DynsetOp {
    /// Inserts unless present.
    Add,
    /// Inserts or refreshes; counts in either case.
    Update,
    /// Removes.
    Delete,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// Loads a property.
    Meta {
        /// Which one.
        key: MetaKey,
        /// Where to.
        to: Register,
    },
    /// Sets a property.
    MetaSet {
        /// Which one.
        key: MetaKey,
        /// From where.
        from: Register,
    },
    /// Loads a property of the connection.
    Ct {
        /// Which one.
        key: CtKey,
        /// Where to.
        to: Register,
    },
    /// Sets a property of the connection.
    CtSet {
        /// Which one.
        key: CtKey,
        /// From where.
        from: Register,
    },
    /// Ends the rule unless the comparison holds.
    Cmp {
        /// Left side.
        register: Register,
        /// Operator.
        op: CmpOp,
        /// Right side.
        value: Vec<u8>,
    },
    /// Ends the rule unless the value is inside (`Eq`) or outside (`Ne`) the inclusive range.
    Range {
        /// The value.
        register: Register,
        /// `Eq` or `Ne`.
        op: CmpOp,
        /// Lowest value.
        low: Vec<u8>,
        /// Highest value.
        high: Vec<u8>,
    },
    /// `to = (from & mask) ^ xor`.
    Bitwise {
        /// Source.
        from: Register,
        /// Destination.
        to: Register,
        /// Bits to keep.
        mask: Vec<u8>,
        /// Bits to flip, as long as the mask.
        xor: Vec<u8>,
    },
    /// Loads bytes of the packet.
    Payload {
        /// Header.
        base: PayloadBase,
        /// Offset in bytes.
        offset: u32,
        /// Length in bytes.
        len: u32,
        /// Where to.
        to: Register,
    },
    /// Looks an address up in the routing tables.
    Fib {
        /// What to return.
        result: FibResult,
        /// What to look up.
        flags: FibFlags,
        /// Where to.
        to: Register,
    },
    /// Looks a key up in a set.
    Lookup {
        /// Name of the set.
        set: String,
        /// Key.
        key: Register,
        /// Members or others.
        mode: LookupMode,
    },
    /// Looks a key up in a map and loads its value; ends the rule if there is none.
    LookupValue {
        /// Name of the map.
        map: String,
        /// Key.
        key: Register,
        /// Where to.
        to: Register,
    },
    /// Looks a key up in a verdict map and acts on it; goes on if there is none.
    LookupVerdict {
        /// Name of the map.
        map: String,
        /// Key.
        key: Register,
    },
    /// Loads a constant.
    Immediate {
        /// Where to.
        to: Register,
        /// The constant.
        value: Vec<u8>,
    },
    /// Decides.
    Verdict(Verdict),
    /// Translates an address.
    Nat {
        /// Source or destination.
        kind: NatKind,
        /// Family of the address.
        family: Family,
        /// The new address.
        address: Register,
        /// Choice of the port.
        random: Random,
    },
    /// Counts packets and bytes in the rule.
    Counter,
    /// Counts in a named counter.
    NamedCounter(String),
    /// Counts in the counter that an object map gives for a key; ends the rule if there is none.
    MappedCounter {
        /// Name of the map.
        map: String,
        /// Key.
        key: Register,
    },
    /// Changes a dynamic set.
    Dynset {
        /// Name of the set.
        set: String,
        /// What to do.
        op: DynsetOp,
        /// Key.
        key: Register,
    },
    /// Refuses the packet with an answer.
    Reject(Reject),
}
