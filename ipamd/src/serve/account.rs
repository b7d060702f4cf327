//! The daemon's account of itself for `ipamd audit`: everything it believes, nothing it would have to look up.

use datapath::{NodeConfig, NodePorts, Random, SnatPolicy};
use ipam_core::{AddressState, Eni, Lease, Status};
use proto::agent;

use super::Context;
use super::agent::{lease_row, small};

pub(super) fn account(context: &Context, status: &Status) -> agent::GetAccountReply {
    let mut leases: Vec<&Lease> = status.pool.leases().collect();
    leases.sort_by_key(|lease| lease.address);
    agent::GetAccountReply {
        node: Some(node(context)),
        enis: status.pool.enis().map(|one| eni(one, status)).collect(),
        leases: leases.into_iter().map(|lease| lease_row(lease, status)).collect(),
        operations: small(status.open_ops),
        waiting: small(status.waiting),
        seen_ec2: status.seen_ec2,
    }
}

fn node(context: &Context) -> agent::NodeAccount {
    let NodeConfig {
        primary_mac,
        primary_address,
        mtu,
        snat,
        node_ports,
        exclude_cidrs,
        service_cidrs,
        mark,
        veth_prefix,
        ..
    } = &context.node.rules;
    let vpc_cidrs = context.vpc_cidrs.borrow();
    agent::NodeAccount {
        instance_id: context.node.instance_id.clone(),
        primary_mac: primary_mac.to_string(),
        primary_address: primary_address.to_string(),
        vpc_cidrs: vpc_cidrs.iter().map(ToString::to_string).collect(),
        exclude_cidrs: exclude_cidrs.iter().map(ToString::to_string).collect(),
        service_cidrs: service_cidrs.iter().map(ToString::to_string).collect(),
        snat: snat_word(*snat).to_owned(),
        node_ports: *node_ports == NodePorts::Supported,
        mark: mark.value,
        mark_mask: mark.mask,
        mtu: *mtu,
        veth_prefix: veth_prefix.as_str().to_owned(),
    }
}

/// Inverse: [`parse_snat`].
fn snat_word(snat: SnatPolicy) -> &'static str {
    match snat {
        SnatPolicy::External => "external",
        SnatPolicy::ToPrimary { random: Random::No } => "none",
        SnatPolicy::ToPrimary { random: Random::Hash } => "hash",
        SnatPolicy::ToPrimary { random: Random::Fully } => "random",
    }
}

/// The policy that a daemon names in its account.
pub fn parse_snat(word: &str) -> Option<SnatPolicy> {
    [
        SnatPolicy::External,
        SnatPolicy::ToPrimary { random: Random::No },
        SnatPolicy::ToPrimary { random: Random::Hash },
        SnatPolicy::ToPrimary { random: Random::Fully },
    ]
    .into_iter()
    .find(|snat| snat_word(*snat) == word)
}

fn eni(eni: &Eni, status: &Status) -> agent::EniAccount {
    agent::EniAccount {
        id: eni.id.to_string(),
        mac: eni.mac.to_string(),
        route_table: eni.table().0,
        primary_address: eni.primary_address.to_string(),
        role: eni.role.as_str().to_owned(),
        state: eni.phase.as_str().to_owned(),
        in_motion: status.in_motion.contains(&eni.id),
        addresses: eni
            .addresses()
            .map(|(address, state)| address_row(address, state))
            .collect(),
    }
}

fn address_row(address: std::net::Ipv4Addr, state: &AddressState) -> agent::AddressAccount {
    let since = state.since().map_or(0, |since| since.0.as_nanos());
    agent::AddressAccount {
        address: address.to_string(),
        state: state.kind().as_str().to_owned(),
        since: u64::try_from(since).unwrap_or(u64::MAX),
    }
}
