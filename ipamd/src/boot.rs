//! What must be known before the first request: who the node is, what it may hold, what the files say.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use cloud::{Ec2Client, ImdsClient, InstanceFacts, ReadEc2};
use datapath::NodeConfig;
use ipam_core::{
    AllocationMode, Core, CoreConfig, LeakSweep, NodeFacts, Provisioning, Restored, StartMode, SubnetChoice, TrunkSlot,
};
use ipnet::Ipv4Net;
use vpc_types::{InstanceLimits, SubnetId};

use crate::config::Config;
use crate::files;
use crate::{clock, observe};

/// Requests in line at most: more pods than any node runs.
const MAX_WAITING: usize = 1024;
/// Identifies this boot of the kernel.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Facts about the node.
#[derive(Debug, Clone)]
pub struct Node {
    /// From IMDS.
    pub facts: InstanceFacts,
    /// From the table, or EC2 for types that the table does not have.
    pub limits: InstanceLimits,
}

/// Asks IMDS, and EC2 only about an unknown instance type.
pub async fn learn(imds: &ImdsClient, ec2: &Ec2Client) -> Result<Node> {
    let facts = imds.facts().await.context("cannot learn from IMDS who this node is")?;
    let limits = match InstanceLimits::of(&facts.instance_type) {
        Some(limits) => limits,
        None => ec2
            .describe_instance_type(&facts.instance_type)
            .await
            .with_context(|| format!("cannot learn the limits of instance type {}", facts.instance_type))?,
    };
    Ok(Node { facts, limits })
}

impl Node {
    /// What the node's rules and SNAT depend on.
    pub fn datapath(&self, config: &Config, vpc_cidrs: Vec<Ipv4Net>) -> NodeConfig {
        NodeConfig {
            primary_mac: self.facts.mac,
            primary_address: self.facts.local_ipv4,
            mtu: u32::from(config.mtu),
            snat: config.snat,
            node_ports: config.node_ports,
            vpc_cidrs,
            exclude_cidrs: config.exclude_cidrs.clone(),
            mark: config.mark,
            veth_prefix: config.veth_prefix.clone(),
        }
    }

    /// Ranges of subnets known at start.
    pub fn subnets(&self) -> BTreeMap<SubnetId, Ipv4Net> {
        BTreeMap::from([(self.facts.subnet_id.clone(), self.facts.subnet_cidr)])
    }

    fn core_config(&self, config: &Config) -> CoreConfig {
        let limit = self.limits.enis_on_default_card();
        CoreConfig {
            target: config.target,
            mode: AllocationMode::Addresses,
            provisioning: Provisioning::Full,
            subnets: SubnetChoice::PrimaryOnly,
            leak_sweep: LeakSweep::Off,
            start: StartMode::Normal,
            cluster: config.cluster_name.clone(),
            timers: config.timers,
            node: NodeFacts {
                instance: self.facts.instance_id.clone(),
                primary_mac: self.facts.mac,
                subnet: self.facts.subnet_id.clone(),
                max_enis: config.max_eni.map_or(limit, |max| max.min(limit)),
                slots_per_eni: self.limits.ipv4_per_eni.saturating_sub(1),
                groups: self.facts.security_groups.clone(),
                trunk: TrunkSlot::NotWanted,
                max_pods: None,
                cluster_nodes: None,
            },
            veth_prefix: config.veth_prefix.clone(),
            max_waiting: MAX_WAITING,
            boot_id: fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned(),
            nonce: fastrand::u64(..),
        }
    }
}

/// The core as the files left it. A file that cannot be used is set aside: the kernel then tells which addresses live.
pub fn restore(node: &Node, config: &Config) -> Result<Core> {
    let core_config = node.core_config(config);
    let mut stored = files::read(&config.paths)?;
    loop {
        match Core::restore(core_config.clone(), &stored, clock::now()) {
            Ok((core, restored)) => {
                tracing::info!(?restored, leases = core.pool().leases().count(), "state");
                if restored == Restored::Leases {
                    tracing::warn!("the files do not belong together: addresses without a lease rest once");
                }
                return Ok(core);
            }
            Err(error) => {
                let aside = files::set_aside(&config.paths.ipam_json)?;
                tracing::error!(error = %observe::Chain(&error), aside = %aside.display(), "set aside");
                stored.ipam_json = None;
                // An empty side file says that there were files: addresses of unknown past then rest once.
                stored.side_file.get_or_insert_default();
            }
        }
    }
}
