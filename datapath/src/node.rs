//! The node itself: MTU of the primary ENI, the rules for marked packets and for external services, and the nf_tables table
//! that marks and translates.
//!
//! Everything is compared first and touched only where it differs, so that a restart interrupts no connection. Sets no
//! system control: the daemon may not. Called by the daemon, at start, when the VPC's networks change, and after others
//! changed the ruleset.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlink::message::{LinkRef, set_link};
use netlink::packet::link::LinkAttribute;
use netlink::{AnswerError, DumpError, RouteSocket, SocketError};
use nft::{CommitError, Comparison, Difference, NftSocket, Random, ReadError, Table, Transaction};
use vpc_types::{FwMark, MacAddress, VethPrefix};

use crate::devices::{self, Devices};
pub use crate::eni::Change;
use crate::ids::{RULE_EXTERNAL_SERVICE, RULE_MARK};
use crate::kernel::{Link, find_eni, links, rule_messages};
use crate::mark_rule::MarkRules;
use crate::service_rules::ServiceRules;
use crate::snat::{desired_table, table_id};

/// Who translates the source of traffic that leaves the VPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnatPolicy {
    /// Something outside, such as a NAT gateway.
    External,
    /// This node, to its primary address.
    ToPrimary {
        /// Choice of ports.
        random: Random,
    },
}

/// Whether traffic to node ports comes back through the primary ENI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodePorts {
    /// Yes: connections that arrive there are marked.
    Supported,
    /// No.
    Unsupported,
}

/// What the node needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// Link-layer address of the primary ENI.
    pub primary_mac: MacAddress,
    /// Its primary private address.
    pub primary_address: Ipv4Addr,
    /// MTU of the primary ENI, in bytes.
    pub mtu: u32,
    /// Source translation.
    pub snat: SnatPolicy,
    /// Node ports.
    pub node_ports: NodePorts,
    /// The VPC's networks: no translation towards them.
    pub vpc_cidrs: Vec<Ipv4Net>,
    /// More networks without translation.
    pub exclude_cidrs: Vec<Ipv4Net>,
    /// Networks reached through table main, whatever ENI a pod is on.
    pub service_cidrs: Vec<Ipv4Net>,
    /// The mark of connections that leave by the primary ENI.
    pub mark: FwMark,
    /// Beginning of host veth names.
    pub veth_prefix: VethPrefix,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeApplied {
    /// The devices that the table names.
    pub devices: Devices,
    /// The device.
    pub mtu: Change,
    /// The mark rule.
    pub mark_rule: Change,
    /// The rules for external services.
    pub service_rules: Change,
    /// The nf_tables table; what was different before, if it was replaced.
    pub table: Option<Difference>,
}

impl NodeApplied {
    /// Whether anything had to be done.
    pub fn change(&self) -> Change {
        let parts = [self.mtu, self.mark_rule, self.service_rules];
        if self.table.is_none() && parts.iter().all(|part| *part == Change::Unchanged) {
            Change::Unchanged
        } else {
            Change::Changed
        }
    }
}

/// A node that is not as it should be. What came before the failing step is done.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// No device has the primary ENI's address.
    #[error("no device has the primary ENI's link-layer address {mac}")]
    PrimaryMissing {
        /// The address.
        mac: MacAddress,
    },
    /// The kernel's state cannot be read.
    #[error("look at devices and rules")]
    Look(#[source] DumpError),
    /// The MTU was refused.
    #[error("set MTU {mtu} on {device}")]
    Mtu {
        /// The MTU.
        mtu: u32,
        /// The primary ENI's device.
        device: String,
        /// What the kernel said.
        #[source]
        source: AnswerError,
    },
    /// The mark rule was refused.
    #[error("change rule {RULE_MARK} for marked packets")]
    MarkRule(#[source] AnswerError),
    /// A rule for an external service was refused.
    #[error("change rules {RULE_EXTERNAL_SERVICE} for external services")]
    ServiceRules(#[source] AnswerError),
    /// No nf_tables socket.
    #[error("open nf_tables socket")]
    OpenNft(#[source] SocketError),
    /// The ruleset cannot be read.
    #[error("read table ip aws-cni")]
    ReadTable(#[source] ReadError),
    /// The ruleset was refused; the old one is still there.
    #[error("load table ip aws-cni")]
    LoadTable(#[source] CommitError),
}

/// Brings the node's kernel state to what it should be, in the current namespace.
pub fn apply_node(s: &mut RouteSocket, config: &NodeConfig) -> Result<NodeApplied, NodeError> {
    let (primary, devices, found) = look(s, config)?;
    let mut nft = NftSocket::open().map_err(NodeError::OpenNft)?;
    let retired = found.marks.retired(&mut nft).map_err(NodeError::ReadTable)?;
    let mtu = apply_mtu(s, &primary, config.mtu)?;
    let service_rules = found
        .services
        .apply(s, &config.service_cidrs)
        .map_err(NodeError::ServiceRules)?;
    if wants_mark_rule(config) {
        found.marks.add(s).map_err(NodeError::MarkRule)?;
    }
    let table = apply_table(&mut nft, desired_table(config, &devices))?;
    if !wants_mark_rule(config) {
        found.marks.delete_own(s).map_err(NodeError::MarkRule)?;
    }
    found.marks.delete(s, &retired).map_err(NodeError::MarkRule)?;
    Ok(NodeApplied {
        devices,
        mtu,
        mark_rule: found.mark_change(config, &retired),
        service_rules,
        table,
    })
}

/// As [`apply_node`], for the nf_tables table alone: others change rulesets often, and routes and rules are not theirs. `devices`
/// are those of the last application.
pub fn apply_ruleset(config: &NodeConfig, devices: &Devices) -> Result<Option<Difference>, NodeError> {
    let mut nft = NftSocket::open().map_err(NodeError::OpenNft)?;
    apply_table(&mut nft, desired_table(config, devices))
}

/// What of the node's kernel state is not as it should be. Changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInspection {
    /// Whether the mark rule would have to be added or deleted.
    pub mark_rule: Change,
    /// Whether a rule for an external service would have to be added or deleted.
    pub service_rules: Change,
    /// The first difference of the nf_tables table.
    pub table: Option<Difference>,
}

/// Compares the node's kernel state with what it should be, in the current namespace.
pub fn inspect_node(s: &mut RouteSocket, config: &NodeConfig) -> Result<NodeInspection, NodeError> {
    let (_, devices, found) = look(s, config)?;
    let mut nft = NftSocket::open().map_err(NodeError::OpenNft)?;
    let retired = found.marks.retired(&mut nft).map_err(NodeError::ReadTable)?;
    Ok(NodeInspection {
        mark_rule: found.mark_change(config, &retired),
        service_rules: found.services.change(&config.service_cidrs),
        table: difference(&mut nft, desired_table(config, &devices).as_ref())?,
    })
}

/// The primary ENI's device, all devices that the table names, and the rules.
fn look(s: &mut RouteSocket, config: &NodeConfig) -> Result<(Link, Devices, FoundRules), NodeError> {
    let links = links(s).map_err(NodeError::Look)?;
    let primary = find_eni(&links, config.primary_mac).ok_or(NodeError::PrimaryMissing {
        mac: config.primary_mac,
    })?;
    let rules = rule_messages(s).map_err(NodeError::Look)?;
    let devices = devices::find(s, primary, &links, &rules, &config.veth_prefix).map_err(NodeError::Look)?;
    let found = FoundRules {
        marks: MarkRules::among(&rules, config.mark),
        services: ServiceRules::among(&rules),
    };
    Ok((primary.clone(), devices, found))
}

struct FoundRules {
    marks: MarkRules,
    services: ServiceRules,
}

impl FoundRules {
    /// Whether the mark rule, or one of an earlier mark, has to be added or deleted.
    fn mark_change(&self, config: &NodeConfig, retired: &[(u32, u32)]) -> Change {
        let is_due = if wants_mark_rule(config) {
            !self.marks.exists()
        } else {
            self.marks.may_delete_own()
        };
        if is_due || retired.iter().any(|mark| self.marks.may_delete(mark)) {
            Change::Changed
        } else {
            Change::Unchanged
        }
    }
}

fn wants_mark_rule(config: &NodeConfig) -> bool {
    config.node_ports == NodePorts::Supported || config.snat != SnatPolicy::External
}

fn apply_mtu(s: &mut RouteSocket, primary: &Link, mtu: u32) -> Result<Change, NodeError> {
    if primary.mtu == mtu {
        return Ok(Change::Unchanged);
    }
    let refused = |source| NodeError::Mtu {
        mtu,
        device: primary.name.clone(),
        source,
    };
    let message = set_link(LinkRef::Index(primary.index.get()), LinkAttribute::Mtu(mtu));
    s.request("MTU", 0, message).map_err(refused)?;
    Ok(Change::Changed)
}

fn apply_table(nft: &mut NftSocket, desired: Option<Table>) -> Result<Option<Difference>, NodeError> {
    let Some(difference) = difference(nft, desired.as_ref())? else {
        return Ok(None);
    };
    let mut transaction = Transaction::new();
    match &desired {
        Some(table) => transaction.replace_table(table),
        None => transaction.delete_table(&table_id()),
    };
    nft.commit(&transaction).map_err(NodeError::LoadTable)?;
    Ok(Some(difference))
}

/// Without a desired table, one that is there is the difference.
fn difference(nft: &mut NftSocket, desired: Option<&Table>) -> Result<Option<Difference>, NodeError> {
    let none = || Table {
        id: table_id(),
        ..Table::empty(nft::Family::Ipv4, "")
    };
    let wanted = desired.cloned().unwrap_or_else(none);
    Ok(match (nft.compare(&wanted).map_err(NodeError::ReadTable)?, desired) {
        (Comparison::Equal, Some(_)) | (Comparison::Different(Difference::TableMissing), None) => None,
        (Comparison::Different(difference), _) => Some(difference),
        (Comparison::Equal, None) => Some(Difference::TableMissing),
    })
}
