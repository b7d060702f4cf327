//! What must be known before the first request: who the node is, what it may hold, what the files say.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use cloud::{Ec2Client, ImdsClient, InstanceFacts, ReadEc2};
use datapath::NodeConfig;
use ipam_core::{BootKind, Core, CoreConfig, LeakSweep, NodeFacts, Provisioning, Restored, StoredFiles, TrunkSlot};
use ipnet::Ipv4Net;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use vpc_types::limits::PrefixDelegation;
use vpc_types::{InstanceLimits, NetworkCard, SubnetId};

use crate::config::{Config, LeakedEnis};
use crate::files;
use crate::paths::Paths;
use crate::{aborts, clock, observe};

/// Has the moment of the kernel's boot.
const STAT: &str = "/proc/stat";
/// Requests in line at most: more pods than any node runs.
const MAX_WAITING: usize = 1024;

/// Facts about the node.
#[derive(Debug, Clone)]
pub struct Node {
    /// From IMDS.
    pub facts: InstanceFacts,
    /// From the table, or EC2 for types that the table does not have.
    pub limits: InstanceLimits,
    /// Which boot of the instance this is.
    pub boot: BootKind,
}

/// Asks IMDS, and EC2 only about an unknown instance type, if it may be asked.
pub async fn learn(imds: &ImdsClient, ec2: &Ec2Client, provisioning: Provisioning) -> Result<Node> {
    let facts = imds.facts().await.context("cannot learn from IMDS who this node is")?;
    let limits = match InstanceLimits::of(&facts.instance_type) {
        Some(limits) => limits,
        None if provisioning == Provisioning::ImdsOnly => unlimited(),
        None => ec2
            .describe_instance_type(&facts.instance_type)
            .await
            .with_context(|| format!("cannot learn the limits of instance type {}", facts.instance_type))?,
    };
    let boot = boot_kind(imds).await;
    Ok(Node { facts, limits, boot })
}

/// On the boot of its launch an instance with nothing but its bare primary ENI has never seen a daemon at work. What cannot be
/// read counts as a later boot, which costs one call.
async fn boot_kind(imds: &ImdsClient) -> BootKind {
    let booted = fs::read_to_string(STAT).ok().and_then(|stat| booted_at(&stat));
    let launched = imds.launched_at().await.ok().flatten();
    let launched = launched.and_then(|text| OffsetDateTime::parse(&text, &Rfc3339).ok());
    match (booted, launched) {
        (Some(booted), Some(launched)) if is_launch(booted, launched.unix_timestamp()) => match imds.enis().await {
            Ok(enis) if enis.len() == 1 && enis.iter().all(|eni| eni.addresses.len() == 1) => BootKind::Launch,
            Ok(_) | Err(_) => BootKind::Later,
        },
        _ => BootKind::Later,
    }
}

/// Seconds since 1970 at which the kernel booted, out of `/proc/stat`.
fn booted_at(stat: &str) -> Option<i64> {
    stat.lines()
        .find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

/// An instance boots within minutes of its launch; clocks may differ by a little until they are set.
fn is_launch(booted: i64, launched: i64) -> bool {
    const LATEST: i64 = 600;
    const SKEW: i64 = 60;
    (-SKEW..=LATEST).contains(&(booted - launched))
}

/// Where nothing is ever asked of EC2, no limit can be passed.
fn unlimited() -> InstanceLimits {
    InstanceLimits {
        enis_per_card: vec![u16::MAX],
        default_card: NetworkCard::DEFAULT,
        ipv4_per_eni: u16::MAX,
        prefix_delegation: PrefixDelegation::Supported,
    }
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
            service_cidrs: config.service_cidrs.clone(),
            mark: config.mark,
            veth_prefix: config.veth_prefix.clone(),
        }
    }

    /// Ranges of subnets known at start.
    pub fn subnets(&self) -> BTreeMap<SubnetId, Ipv4Net> {
        BTreeMap::from([(self.facts.subnet_id.clone(), self.facts.subnet_cidr)])
    }

    /// What the core is told before its first event.
    pub fn core_config(&self, config: &Config) -> CoreConfig {
        let limit = self.limits.enis_on_default_card();
        let pool = &config.pool;
        let mode = pool.mode_on(self.limits.prefix_delegation);
        CoreConfig {
            target: pool.target(mode),
            mode,
            provisioning: pool.provisioning,
            subnets: pool.subnets,
            leak_sweep: leak_sweep(config),
            start: aborts::start_mode(&config.paths),
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
                boot: self.boot,
            },
            veth_prefix: config.veth_prefix.clone(),
            max_waiting: MAX_WAITING,
            boot_id: aborts::boot_id(),
            nonce: fastrand::u64(..),
        }
    }
}

/// Only what may be changed is looked for, and only where the cluster's name tells ours from others'.
fn leak_sweep(config: &Config) -> LeakSweep {
    let may = config.pool.provisioning == Provisioning::Full && config.cluster_name.is_some();
    match config.pool.leaked {
        LeakedEnis::Swept if may => LeakSweep::On,
        LeakedEnis::Swept | LeakedEnis::Left => LeakSweep::Off,
    }
}

/// The core as the files left it. A file that cannot be used is set aside: the kernel then tells which addresses live.
pub fn restore(node: &Node, config: &Config) -> Result<Core> {
    let core_config = node.core_config(config);
    tracing::info!(warm = ?core_config.target, mode = ?core_config.mode, provisioning = ?core_config.provisioning, "pool");
    if config.pool.mode != core_config.mode {
        tracing::warn!(
            kind = node.facts.instance_type,
            "ENABLE_PREFIX_DELEGATION: this instance type has no prefixes; single addresses instead"
        );
    }
    restore_from(&core_config, &config.paths)
}

fn restore_from(core_config: &CoreConfig, paths: &Paths) -> Result<Core> {
    let mut stored = files::read(paths)?;
    loop {
        match Core::restore(core_config.clone(), &stored, clock::now()) {
            Ok((core, restored)) => {
                tracing::info!(?restored, leases = core.pool().leases().count(), "state");
                if restored == Restored::Leases {
                    tracing::warn!("the files do not belong together: addresses without a lease rest once");
                }
                report_faults(&core, &stored, paths);
                return Ok(core);
            }
            Err(error) => {
                let aside = files::set_aside(&paths.ipam_json)?;
                tracing::error!(error = %observe::Chain(&error), aside = %aside.display(), "set aside");
                stored.ipam_json = None;
                files::there_were_files(&mut stored);
            }
        }
    }
}

/// The first checkpoint leaves out what made no sense, so a person needs the copy. Pods do not: without it the daemon goes on.
fn report_faults(core: &Core, stored: &StoredFiles, paths: &Paths) {
    let (Some(bytes), false) = (&stored.ipam_json, core.file_faults().is_empty()) else {
        return;
    };
    for fault in core.file_faults() {
        tracing::error!(%fault, "left out of what the file says");
    }
    match files::keep_copy(&paths.ipam_json, bytes) {
        Ok(aside) => tracing::error!(aside = %aside.display(), "copied"),
        Err(error) => tracing::error!(error = %observe::Chain(&error), "no copy"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_boot_soon_after_the_launch_is_the_launchs() {
        let booted = booted_at("cpu 1 2 3\nbtime 1700000000\nprocesses 7\n").unwrap();
        assert_eq!(booted, 1_700_000_000);
        assert!(is_launch(booted, booted - 30) && is_launch(booted, booted - 600) && is_launch(booted, booted + 5));
        assert!(!is_launch(booted, booted - 601) && !is_launch(booted, booted + 3_600));
        assert_eq!(booted_at("cpu 1 2 3\n"), None);
    }

    fn node() -> Node {
        let local_ipv4 = [10, 0, 1, 10].into();
        let subnet_cidr = "10.0.1.0/24".parse().unwrap();
        Node {
            facts: InstanceFacts {
                instance_id: "i-0123456789abcdef0".parse().unwrap(),
                instance_type: "m5.large".to_owned(),
                az: "eu-west-1a".to_owned(),
                region: "eu-west-1".to_owned(),
                mac: "02:00:00:00:00:01".parse().unwrap(),
                local_ipv4,
                interface_id: "eni-0123456789abcdef0".parse().unwrap(),
                subnet_id: "subnet-0123".parse().unwrap(),
                vpc_id: "vpc-0123".parse().unwrap(),
                subnet_cidr,
                vpc_cidrs: vec![subnet_cidr],
                security_groups: BTreeSet::new(),
            },
            limits: InstanceLimits::of("m5.large").unwrap(),
            boot: BootKind::Later,
        }
    }

    /// A core restored from an `ipam.json` with this text, and where the files are.
    fn restored_from(text: &str) -> (Core, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_str().unwrap().to_owned();
        let set = [
            ("VPC_CNI_ROOT", root.as_str()),
            ("AWS_VPC_K8S_CNI_BACKING_STORE", "/ipam.json"),
        ];
        let environment = set.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        let config = Config::from_environment(&environment).unwrap();
        fs::write(&config.paths.ipam_json, text).unwrap();
        (restore(&node(), &config).unwrap(), directory)
    }

    const GOOD: &str = r#"{"networkName":"aws-cni","containerID":"a","ifName":"eth0","ipv4":"10.0.1.20"}"#;

    #[test]
    fn a_file_with_a_bad_entry_is_used_and_a_copy_of_it_is_kept() {
        let bad = r#"{"networkName":"","containerID":"b","ifName":"eth0","ipv4":"10.0.1.21"}"#;
        let text = format!(r#"{{"version":"vpc-cni-ipam/1","allocations":[{GOOD},{bad}]}}"#);
        let (core, directory) = restored_from(&text);
        assert_eq!((core.pool().leases().count(), core.file_faults().len()), (1, 1));
        for name in ["ipam.json", "ipam.json.bad"] {
            assert_eq!(fs::read_to_string(directory.path().join(name)).unwrap(), text, "{name}");
        }
    }

    #[test]
    fn of_a_file_without_bad_entries_no_copy_is_kept() {
        let text = format!(r#"{{"version":"vpc-cni-ipam/1","allocations":[{GOOD}]}}"#);
        let (core, directory) = restored_from(&text);
        assert_eq!((core.pool().leases().count(), core.file_faults()), (1, &[][..]));
        assert!(!directory.path().join("ipam.json.bad").exists());
    }

    #[test]
    fn a_file_that_is_no_state_file_is_set_aside() {
        let (core, directory) = restored_from("{");
        assert_eq!(core.pool().leases().count(), 0);
        assert!(!directory.path().join("ipam.json").exists());
        assert_eq!(fs::read_to_string(directory.path().join("ipam.json.bad")).unwrap(), "{");
    }
}
