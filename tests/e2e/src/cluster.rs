//! A VPC with a daemon and a runtime on every node.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use vpc_fabric::probe::{MeshReport, Peer, mesh};
use vpc_fabric::{Node, Sandbox};
use vpc_sim::config::Config;
use vpc_sim::vpc::Vpc;

use crate::binaries::Binaries;
use crate::node::{Daemon, environment};
use crate::runtime::{Pod, Runtime};

/// Port of the echo servers in pods.
const ECHO_PORT: u16 = 7;
/// Loopback speed; only a loss takes longer.
const PROBE_DEADLINE: Duration = Duration::from_secs(10);

/// The whole set-up.
#[derive(Debug)]
pub struct Cluster {
    /// The VPC.
    pub vpc: Vpc,
    /// Daemons by node.
    pub daemons: BTreeMap<String, Daemon>,
    /// The plugin's caller.
    pub runtime: Runtime,
}

/// A node whose API calls are counted.
pub type CallCounts = BTreeMap<String, u64>;

impl Cluster {
    /// Starts the VPC; daemons are prepared with `settings` but not started.
    pub fn new(sandbox: &Sandbox, config: &Config, binaries: &Binaries, settings: &[(&str, &str)]) -> Result<Self> {
        let vpc = Vpc::start(config, sandbox).context("cannot start the VPC")?;
        let daemon: PathBuf = binaries.daemon()?;
        let mut daemons = BTreeMap::new();
        for node in &config.nodes {
            let mut environment = environment(&vpc.ec2_url());
            environment.extend(
                settings
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
            );
            daemons.insert(node.name.clone(), Daemon::new(daemon.clone(), environment));
        }
        Ok(Self {
            vpc,
            daemons,
            runtime: Runtime::new(binaries.plugin()?),
        })
    }

    /// Starts all daemons; the longest time to serving.
    pub fn start_daemons(&mut self) -> Result<Duration> {
        let mut longest = Duration::ZERO;
        for (name, daemon) in &mut self.daemons {
            let node = self.vpc.node(name).context("daemons are made for nodes")?;
            longest = longest.max(daemon.start(node)?);
        }
        Ok(longest)
    }

    /// Starts one daemon and waits until it serves; the time that took.
    pub fn start_daemon(&mut self, name: &str) -> Result<Duration> {
        let node = self
            .vpc
            .node(name)
            .with_context(|| format!("there is no node {name}"))?;
        let daemon = self.daemons.get_mut(name);
        daemon
            .with_context(|| format!("there is no daemon {name}"))?
            .start(node)
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.vpc.node(name).with_context(|| format!("there is no node {name}"))
    }

    /// A daemon by its node's name.
    pub fn daemon(&mut self, name: &str) -> Result<&mut Daemon> {
        self.daemons
            .get_mut(name)
            .with_context(|| format!("there is no node {name}"))
    }

    /// One of a daemon's commands, with JSON output.
    pub fn ask(&self, node: &str, command: &str) -> Result<Value> {
        let daemon = self
            .daemons
            .get(node)
            .with_context(|| format!("there is no node {node}"))?;
        daemon.ask(self.node(node)?, command)
    }

    /// Every pod asks every other one by ICMP, UDP and TCP, over its own address.
    pub fn mesh(&self, pods: &[Pod]) -> Result<MeshReport> {
        let peers: Vec<Peer> = pods
            .iter()
            .map(|pod| Peer {
                name: pod.identity.label(),
                netns: pod.netns.netns.clone(),
                address: pod.address,
            })
            .collect();
        Ok(mesh(&peers, ECHO_PORT, PROBE_DEADLINE)?)
    }

    /// EC2 calls so far, by action.
    pub fn ec2_calls(&self) -> CallCounts {
        self.vpc.simulator().with_model(|model, _| {
            model
                .counters()
                .iter()
                .map(|(action, count)| (action.name().to_owned(), count.total()))
                .collect()
        })
    }

    /// Packets that the VPC dropped because their source does not belong to the ENI.
    pub fn wrong_source_drops(&self) -> Result<u64> {
        let totals = self.vpc.handle().drop_totals()?;
        Ok(totals
            .get(&vpc_fabric::fabric::DropReason::WrongSource)
            .copied()
            .unwrap_or(0))
    }

    /// Pods of a node out of a list.
    pub fn on<'a>(pods: &'a [Pod], node: &'a str) -> impl Iterator<Item = &'a Pod> {
        pods.iter().filter(move |pod| pod.node == node)
    }
}
