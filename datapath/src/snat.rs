//! The node's table `ip aws-cni` as a value. Pure.
//!
//! Marks: a connection that must leave by the primary ENI gets a mark on its first packet, and every later packet from a
//! pod gets it back, so that the mark rule routes it through table main. Marks are always masked: other software uses other
//! bits of the same word.

use nft::rule as say;
use nft::{
    BaseChain, Chain, ChainKind, CmpOp, Expr, Family, FibFlags, Hook, Policy, Random, Rule, Set, Table, TableId,
    Verdict,
};

use crate::devices::Devices;
use crate::ids::NFT_TABLE;
use crate::node::{NodeConfig, NodePorts, SnatPolicy};

const VPC_SET: &str = "vpc-cidrs";
const EXCLUDE_SET: &str = "exclude-cidrs";
/// Branch ENIs of pods with security groups of their own; they are never translated.
const VLAN_PREFIX: &str = "vlan";

/// `mangle`: before destination translation, which would hide that the packet was for the node.
const PRIORITY_MARK_INCOMING: i32 = -150;
/// Behind `dstnat` (−100): a mark set before it would pin service traffic to the primary ENI. Before routing.
const PRIORITY_RESTORE: i32 = -90;
/// Behind `srcnat` (100), where other software masquerades first.
const PRIORITY_SNAT: i32 = 110;

pub(crate) fn table_id() -> TableId {
    TableId::new(Family::Ipv4, NFT_TABLE)
}

/// The table that the node needs; none when nothing is marked or translated.
pub(crate) fn desired_table(config: &NodeConfig, devices: &Devices) -> Option<Table> {
    let mut table = Table::empty(Family::Ipv4, NFT_TABLE);
    if config.node_ports == NodePorts::Supported {
        table.chains.push(mark_incoming(config, &devices.primary));
    }
    if config.node_ports == NodePorts::Supported || config.snat != SnatPolicy::External {
        table.chains.push(restore(config, devices));
    }
    if let SnatPolicy::ToPrimary { random } = config.snat {
        table.sets.push(Set::of_networks(VPC_SET, &config.vpc_cidrs));
        table.sets.push(Set::of_networks(EXCLUDE_SET, &config.exclude_cidrs));
        table.chains.push(translate(config, &devices.primary, random));
    }
    (!table.chains.is_empty()).then_some(table)
}

/// Connections that arrive on the primary ENI for an address on it, such as node ports: replies go back the same way.
fn mark_incoming(config: &NodeConfig, primary_device: &str) -> Chain {
    let rule = Rule::new([
        say::iifname(primary_device),
        say::fib_local(FibFlags::DADDR | FibFlags::IIF, CmpOp::Eq),
        say::set_ct_mark(config.mark.value, config.mark.mask),
    ]);
    chain(
        "mangle-prerouting",
        ChainKind::Filter,
        Hook::Prerouting,
        PRIORITY_MARK_INCOMING,
        vec![rule],
    )
}

/// Packets from pods: marks new connections that leave the VPC, then copies the connection's mark to the packet. A filter
/// chain, because nat chains see neither later packets nor those whose destination was translated.
fn restore(config: &NodeConfig, devices: &Devices) -> Chain {
    let older = devices.older_prefixes.iter().map(String::as_str);
    let prefixes: Vec<&str> = std::iter::once(config.veth_prefix.as_str()).chain(older).collect();
    let mut from_others = prefixes
        .iter()
        .flat_map(|prefix| say::iifname_not_prefix(prefix))
        .collect::<Vec<_>>();
    if config.node_ports == NodePorts::Supported {
        from_others.extend(say::iifname_not_prefix(VLAN_PREFIX));
    }
    let mut rules = vec![Rule::new([from_others, say::verdict(Verdict::Return)])];
    if config.snat != SnatPolicy::External {
        rules.extend(prefixes.iter().map(|prefix| mark_outgoing(config, prefix)));
    }
    rules.push(Rule::new([
        say::ct_mark_is(config.mark.value, config.mark.mask),
        say::set_packet_mark(config.mark.value, config.mark.mask),
    ]));
    // A predecessor that takes over replaces the chain of this name.
    chain(
        "nat-prerouting",
        ChainKind::Filter,
        Hook::Prerouting,
        PRIORITY_RESTORE,
        rules,
    )
}

fn mark_outgoing(config: &NodeConfig, prefix: &str) -> Rule {
    Rule::new([
        say::iifname_prefix(prefix),
        say::ct_state_new(),
        say::ct_direction_original(),
        say::fib_local(FibFlags::DADDR, CmpOp::Ne),
        outside_of_sets(),
        say::set_ct_mark(config.mark.value, config.mark.mask),
    ])
}

/// Everything that leaves the VPC gets the primary address, but for packets that have the address of the device they leave by,
/// unless that is the primary ENI: a host process that uses a secondary ENI's address leaves by that ENI, where the VPC drops
/// every other source. The kernel knows which device has which address, so ENIs may come and go without a change here.
fn translate(config: &NodeConfig, primary_device: &str, random: Random) -> Chain {
    let leave = |condition| Rule::new([condition, say::verdict(Verdict::Return)]);
    let rules = vec![
        leave(say::oifname_prefix(VLAN_PREFIX)),
        leave([say::daddr(), say::in_set(VPC_SET)].concat()),
        leave([say::daddr(), say::in_set(EXCLUDE_SET)].concat()),
        leave(say::fib_local(FibFlags::DADDR, CmpOp::Eq)),
        leave(
            [
                say::oifname_not(primary_device),
                say::fib_local(FibFlags::SADDR | FibFlags::OIF, CmpOp::Eq),
            ]
            .concat(),
        ),
        Rule::new([say::snat_to(config.primary_address, random)]),
    ];
    chain(
        "nat-postrouting",
        ChainKind::Nat,
        Hook::Postrouting,
        PRIORITY_SNAT,
        rules,
    )
}

fn outside_of_sets() -> Vec<Expr> {
    [say::daddr(), say::not_in_set(VPC_SET), say::not_in_set(EXCLUDE_SET)].concat()
}

fn chain(name: &str, kind: ChainKind, hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    let base = BaseChain {
        kind,
        hook,
        priority,
        policy: Policy::Accept,
    };
    Chain {
        name: name.to_owned(),
        base: Some(base),
        rules,
    }
}
