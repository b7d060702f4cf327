//! The simulated VPC in which is measured: a node for us, one without a daemon for the plugin in Go.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::binaries::Binaries;
use e2e::cluster::Cluster;
use e2e::wait;
use ipnet::Ipv4Net;
use serde_json::Value;
use vpc_fabric::{Node, Sandbox};
use vpc_sim::config::{Config, NodeConfig};

use crate::launcher::Launcher;
use crate::machine::Programs;

/// Our node.
pub(crate) const NODE: &str = "node-1";
/// The other plugin's node; our daemon never runs there.
pub(crate) const GO_NODE: &str = "node-2";
/// The subnet's router.
pub(crate) const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 64, 1);
/// 15 ENIs with 49 addresses for pods each.
pub(crate) const BIG: &str = "m5.24xlarge";
/// The daemon's socket, as programs on the node see it.
pub(crate) const SOCKET: &str = "/run/aws-node/ipamd.sock";

/// For the pool to fill, without EC2's latencies.
const FILL: Duration = Duration::from_secs(60);

/// See the module's description.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) programs: Programs,
    pub(crate) launcher: Launcher,
}

/// A VPC with so many nodes of a type, in one large subnet.
pub(crate) fn config(instance_type: &str, nodes: u8) -> Config {
    let mut config = Config::default();
    config.subnets.truncate(1);
    config.subnets[0].cidr = ipnet(Ipv4Addr::new(10, 0, 64, 0));
    let template = config.nodes.remove(0);
    config.nodes = (1..=nodes)
        .map(|number| NodeConfig {
            name: format!("node-{number}"),
            instance_type: instance_type.to_owned(),
            address: Some(Ipv4Addr::new(10, 0, 64, 9 + number)),
            ..template.clone()
        })
        .collect();
    config
}

fn ipnet(address: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::new_assert(address, 20)
}

impl World {
    /// Daemons are prepared, not started.
    pub(crate) fn prepare(
        sandbox: &Sandbox,
        binaries: &Binaries,
        programs: &Programs,
        config: &Config,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let cluster = Cluster::new(sandbox, config, binaries, environment)?;
        Ok(Self {
            cluster,
            launcher: Launcher(programs.launcher.clone()),
            programs: programs.clone(),
        })
    }

    /// Our node.
    pub(crate) fn node(&self) -> Result<&Node> {
        self.cluster.node(NODE)
    }

    /// The node of the plugin in Go.
    pub(crate) fn go_node(&self) -> Result<&Node> {
        self.cluster.node(GO_NODE)
    }

    /// Waits until so many addresses are free on our node.
    pub(crate) fn wait_for_free(&self, wanted: u64) -> Result<()> {
        let mut last = Value::Null;
        let what = format!("{wanted} addresses are free");
        let waited = wait::until(&what, FILL, || {
            last = self.cluster.ask(NODE, "status")?;
            Ok((last["pool"]["free"].as_u64() >= Some(wanted)).then_some(()))
        });
        waited.with_context(|| format!("{}", last["pool"]))
    }

    /// Calls to EC2 so far.
    pub(crate) fn ec2_calls(&self) -> u64 {
        self.cluster.ec2_calls().values().sum()
    }

    /// Waits until nobody has called EC2 for as long as `quiet`.
    pub(crate) fn wait_for_quiet(&self, quiet: Duration) -> Result<()> {
        let (mut calls, mut since) = (self.ec2_calls(), std::time::Instant::now());
        wait::until("no EC2 call is made", FILL, || {
            let now = self.ec2_calls();
            if now != calls {
                (calls, since) = (now, std::time::Instant::now());
            }
            Ok((since.elapsed() >= quiet).then_some(()))
        })
    }

    /// Devices of a node.
    pub(crate) fn devices(node: &Node) -> Result<usize> {
        Ok(node.run(|| std::fs::read_dir("/sys/class/net").map(Iterator::count))??)
    }

    /// TCP segments and UDP datagrams that a node has sent: what leaves it for EC2, IMDS or anybody else. Calls of plugins
    /// go over a Unix socket and are not among them.
    pub(crate) fn sent(node: &Node) -> Result<u64> {
        let text = node.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
        let column = |protocol: &str, name: &str| -> Option<u64> {
            let mut lines = text.lines().filter(|line| line.starts_with(protocol));
            let (names, values) = (lines.next()?, lines.next()?);
            let at = names.split(' ').position(|word| word == name)?;
            values.split(' ').nth(at)?.parse().ok()
        };
        let tcp = column("Tcp:", "OutSegs").context("no count of TCP segments")?;
        Ok(tcp + column("Udp:", "OutDatagrams").context("no count of UDP datagrams")?)
    }
}
