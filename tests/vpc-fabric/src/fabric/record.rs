//! A record of what ENIs sent: per port, addresses, protocol and transport ports, how many packets.
//!
//! A table of its own, loaded only on demand: it costs every packet a look-up. Its chain comes before the filter's, so that
//! packets which a check drops are recorded too. Bounded: beyond its size new flows are not recorded, which `flows` says
//! instead of giving a part.

use std::net::{Ipv4Addr, SocketAddrV4};

use nft::{
    BaseChain, Chain, ChainKind, CmpOp, DataType, DynsetOp, ElementCounters, Expr, Family, Hook, MetaKey, PayloadBase,
    Policy, Register, Rule, Set, SetFlavor, SetKind, Table, TableId, key, rule,
};
use vpc_types::EniId;

/// Flows that can be recorded; some 150 bytes each.
pub(super) const FLOWS_MAX: u32 = 65_536;

pub(super) const FLOWS: &str = "flows";

/// One step before the filter's chain.
const PRIORITY: i32 = -301;
const IP_SOURCE: u32 = 12;
const IP_DESTINATION: u32 = 16;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// A key after the device's name: two addresses, then a protocol and two ports in four bytes each.
const REST_LEN: usize = 20;

/// A transport protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Packets that an ENI sent with the same addresses and ports, whether they were dropped or not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// The ENI. Stays known after it is detached.
    pub eni: EniId,
    /// TCP or UDP.
    pub transport: Transport,
    /// Source as it left the node.
    pub source: SocketAddrV4,
    /// Destination as it left the node.
    pub destination: SocketAddrV4,
    /// How many.
    pub packets: u64,
}

/// The table of the record.
pub(super) fn table_id() -> TableId {
    TableId::new(Family::Ipv4, "fabric-record")
}

/// The table, with an empty record.
pub(super) fn table() -> Table {
    let set = Set {
        flavor: SetFlavor::Dynamic { size: FLOWS_MAX },
        counters: ElementCounters::Yes,
        ..Set::new(
            FLOWS,
            &[
                DataType::IfName,
                DataType::Ipv4Addr,
                DataType::Ipv4Addr,
                DataType::InetProto,
                DataType::InetService,
                DataType::InetService,
            ],
            SetKind::Set,
        )
    };
    let chain = Chain {
        name: "prerouting".to_owned(),
        base: Some(BaseChain {
            kind: ChainKind::Filter,
            hook: Hook::Prerouting,
            priority: PRIORITY,
            policy: Policy::Accept,
        }),
        rules: vec![record(TCP), record(UDP)],
    };
    Table {
        sets: vec![set],
        chains: vec![chain],
        ..Table::empty(Family::Ipv4, &table_id().name)
    }
}

/// One concatenated key in consecutive registers: 16 bytes of name, then a word for each other part.
fn record(protocol: u8) -> Rule {
    let load = |base, offset, len, word| Expr::Payload {
        base,
        offset,
        len,
        to: Register::word(word),
    };
    let record = vec![
        Expr::Meta {
            key: MetaKey::IifName,
            to: Register::R1,
        },
        load(PayloadBase::Network, IP_SOURCE, 4, 4),
        load(PayloadBase::Network, IP_DESTINATION, 4, 5),
        Expr::Meta {
            key: MetaKey::L4Proto,
            to: Register::word(6),
        },
        load(PayloadBase::Transport, 0, 2, 7),
        load(PayloadBase::Transport, 2, 2, 8),
        Expr::Dynset {
            set: FLOWS.to_owned(),
            op: DynsetOp::Update,
            key: Register::R1,
        },
    ];
    Rule::new([
        rule::iifname_prefix("p"),
        rule::meta_cmp(MetaKey::L4Proto, CmpOp::Eq, vec![protocol]),
        record,
    ])
}

/// What a key says besides the device; the device's part is given to `eni_of`.
pub(super) fn flow_of(key: &[u8], packets: u64, eni_of: impl FnOnce(&[u8]) -> Option<EniId>) -> Option<Flow> {
    let (device, rest) = key.split_at_checked(key::IFNAME_LEN)?;
    let rest: &[u8; REST_LEN] = rest.first_chunk()?;
    let address = |at: usize| Some(Ipv4Addr::from(*rest.get(at..at + 4)?.first_chunk::<4>()?));
    let port = |at: usize| Some(u16::from_be_bytes(*rest.get(at..at + 2)?.first_chunk::<2>()?));
    Some(Flow {
        eni: eni_of(device)?,
        transport: if rest[8] == TCP { Transport::Tcp } else { Transport::Udp },
        source: SocketAddrV4::new(address(0)?, port(12)?),
        destination: SocketAddrV4::new(address(4)?, port(16)?),
        packets,
    })
}
