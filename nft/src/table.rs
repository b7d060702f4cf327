//! Rulesets as values.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::numbers::{DATA_TYPE_VERDICT, set_flag};
use crate::{Expr, Verdict, interval, key};

/// Address family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// `NFPROTO_*`.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ipv4 => 2,
            Self::Ipv6 => 10,
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Ipv4 => "ip",
            Self::Ipv6 => "ip6",
        })
    }
}

/// Which table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId {
    /// Family.
    pub family: Family,
    /// Name, ≤ 255 bytes.
    pub name: String,
}

impl TableId {
    /// A table of this family and name.
    pub fn new(family: Family, name: &str) -> Self {
        Self {
            family,
            name: name.to_owned(),
        }
    }
}

impl std::fmt::Display for TableId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

/// A table with all its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Family and name.
    pub id: TableId,
    /// Named counters.
    pub counters: Vec<String>,
    /// Sets and maps.
    pub sets: Vec<Set>,
    /// Chains with their rules.
    pub chains: Vec<Chain>,
}

impl Table {
    /// A table without contents.
    pub fn empty(family: Family, name: &str) -> Self {
        Self {
            id: TableId::new(family, name),
            counters: Vec::new(),
            sets: Vec::new(),
            chains: Vec::new(),
        }
    }
}

/// Where packets enter a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// To this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// After routing.
    Postrouting,
}

/// Type of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Sees every packet.
    Filter,
    /// Sees the first packet of a connection; priority above −200, not in forward.
    Nat,
}

/// What happens at the end of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Passes.
    Accept,
    /// Drops.
    Drop,
}

/// What makes a chain a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseChain {
    /// Type.
    pub kind: ChainKind,
    /// Hook.
    pub hook: Hook,
    /// Order within the hook: raw −300, mangle −150, dstnat −100, filter 0, srcnat 100.
    pub priority: i32,
    /// Policy.
    pub policy: Policy,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Name.
    pub name: String,
    /// `None` for chains that are only jumped to.
    pub base: Option<BaseChain>,
    /// Rules in order.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// Instructions in order.
    pub exprs: Vec<Expr>,
    /// Shown in listings; ≤ 200 bytes.
    pub comment: Option<String>,
}

impl Rule {
    /// A rule made of several runs of instructions.
    pub fn new(parts: impl IntoIterator<Item = Vec<Expr>>) -> Self {
        Self {
            exprs: parts.into_iter().flatten().collect(),
            comment: None,
        }
    }

    /// With a comment.
    pub fn with_comment(mut self, comment: &str) -> Self {
        self.comment = Some(comment.to_owned());
        self
    }
}

/// Type of a key or value: its length, and how listings print it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataType {
    /// IPv4 address.
    Ipv4Addr,
    /// IPv6 address.
    Ipv6Addr,
    /// Transport protocol.
    InetProto,
    /// Transport port.
    InetService,
    /// Packet mark.
    Mark,
    /// ICMPv6 type.
    Icmpv6Type,
    /// Device group.
    DevGroup,
    /// Interface name.
    IfName,
}

impl DataType {
    /// `enum datatypes` of the `nft` program; the kernel only stores it.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Ipv4Addr => 7,
            Self::Ipv6Addr => 8,
            Self::InetProto => 12,
            Self::InetService => 13,
            Self::Mark => 19,
            Self::Icmpv6Type => 29,
            Self::DevGroup => 35,
            Self::IfName => 41,
        }
    }

    /// `enum byteorder` of the `nft` program: 1 host, 2 network. It needs to be told to list elements rightly.
    fn byte_order(self) -> u32 {
        match self {
            Self::Mark | Self::DevGroup | Self::IfName => 1,
            Self::Ipv4Addr | Self::Ipv6Addr | Self::InetProto | Self::InetService | Self::Icmpv6Type => 2,
        }
    }

    /// Length in bytes.
    pub(crate) fn len(self) -> u32 {
        match self {
            Self::InetProto | Self::Icmpv6Type => 1,
            Self::InetService => 2,
            Self::Ipv4Addr | Self::Mark | Self::DevGroup => 4,
            Self::Ipv6Addr | Self::IfName => 16,
        }
    }
}

/// What elements carry besides their key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetKind {
    /// Nothing.
    Set,
    /// A value.
    Map(DataType),
    /// A verdict.
    VerdictMap,
    /// A reference to a named counter.
    CounterMap,
}

/// How elements come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetFlavor {
    /// Single keys, put in by transactions.
    Plain,
    /// Ranges, put in by transactions; see [`Set::of_networks`].
    Interval,
    /// Single keys, put in by rules too ([`Expr::Dynset`]), at most this many.
    Dynamic {
        /// Limit; when it is reached, inserting ends the rule without effect.
        size: u32,
    },
}

/// Whether each element counts its look-ups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementCounters {
    /// No.
    No,
    /// Packets and bytes.
    Yes,
}

/// A set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Name.
    pub name: String,
    /// Parts of the key; several make a concatenation.
    pub key: Vec<DataType>,
    /// Set or map.
    pub kind: SetKind,
    /// How elements come and go.
    pub flavor: SetFlavor,
    /// Counting.
    pub counters: ElementCounters,
    /// Initial contents.
    pub elements: Vec<Element>,
}

impl Set {
    /// An empty plain set or map.
    pub fn new(name: &str, key: &[DataType], kind: SetKind) -> Self {
        Self {
            name: name.to_owned(),
            key: key.to_vec(),
            kind,
            flavor: SetFlavor::Plain,
            counters: ElementCounters::No,
            elements: Vec::new(),
        }
    }

    /// An interval set of IPv4 networks, which may overlap and touch.
    pub fn of_networks(name: &str, networks: &[Ipv4Net]) -> Self {
        let elements = interval::elements_of(networks);
        Self {
            flavor: SetFlavor::Interval,
            elements,
            ..Self::new(name, &[DataType::Ipv4Addr], SetKind::Set)
        }
    }

    /// Concatenations are typed by six bits per part.
    pub(crate) fn key_type(&self) -> u32 {
        self.key.iter().fold(0, |all, part| (all << 6) | part.number())
    }

    /// Parts of a concatenation are padded to four bytes; a single key is not.
    pub(crate) fn key_len(&self) -> u32 {
        match self.key.as_slice() {
            [single] => single.len(),
            parts => parts.iter().map(|part| part.len().next_multiple_of(4)).sum(),
        }
    }

    pub(crate) fn flags(&self) -> u32 {
        let flavor = match self.flavor {
            SetFlavor::Plain => 0,
            SetFlavor::Interval => set_flag::INTERVAL,
            SetFlavor::Dynamic { .. } => set_flag::EVAL,
        };
        let kind = match self.kind {
            SetKind::Set => 0,
            SetKind::Map(_) | SetKind::VerdictMap => set_flag::MAP,
            SetKind::CounterMap => set_flag::OBJECT,
        };
        flavor | kind
    }

    /// Byte orders, for listings: (type, length, value) of the key and of the values.
    pub(crate) fn userdata(&self) -> Vec<u8> {
        let mut userdata = Vec::new();
        if let [single] = self.key.as_slice() {
            userdata.extend([0, 4]);
            userdata.extend(single.byte_order().to_ne_bytes());
        }
        if let SetKind::Map(data) = self.kind {
            userdata.extend([1, 4]);
            userdata.extend(data.byte_order().to_ne_bytes());
        }
        userdata
    }

    /// Type and length of the values of a map.
    pub(crate) fn data(&self) -> Option<(u32, u32)> {
        match self.kind {
            SetKind::Map(data) => Some((data.number(), data.len())),
            SetKind::VerdictMap => Some((DATA_TYPE_VERDICT, 0)),
            SetKind::Set | SetKind::CounterMap => None,
        }
    }
}

/// What a map gives for a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ElementValue {
    /// Nothing (sets).
    None,
    /// A value.
    Data(Vec<u8>),
    /// A verdict.
    Verdict(Verdict),
    /// Name of a counter.
    Counter(String),
}

/// One element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    /// Key, see [`crate::key`].
    pub key: Vec<u8>,
    /// Value.
    pub value: ElementValue,
    /// The key is the exclusive end of an interval.
    pub(crate) end: IntervalSide,
}

/// Which side of an interval an element is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum IntervalSide {
    Start,
    End,
}

impl Element {
    /// A member of a set.
    pub fn member(key: Vec<u8>) -> Self {
        Self {
            key,
            value: ElementValue::None,
            end: IntervalSide::Start,
        }
    }

    /// An entry of a map.
    pub fn entry(key: Vec<u8>, value: ElementValue) -> Self {
        Self {
            key,
            value,
            end: IntervalSide::Start,
        }
    }

    /// An address of a plain set.
    pub fn address(address: Ipv4Addr) -> Self {
        Self::member(key::ipv4(address))
    }

    pub(crate) fn interval_end(key: Vec<u8>) -> Self {
        Self {
            key,
            value: ElementValue::None,
            end: IntervalSide::End,
        }
    }
}
