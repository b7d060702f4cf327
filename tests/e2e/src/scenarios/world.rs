//! A cluster with short timers, and what must be true of it at the end of every scenario.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netlink::RouteSocket;
use netlink::packet::RouteNetlinkMessage;
use nix::sys::signal::Signal;
use serde_json::Value;
use vpc_fabric::Node;
use vpc_fabric::probe::Vantage;
use vpc_sim::config::Config;
use vpc_sim::model::request::{CreateNetworkInterface, DeleteNetworkInterface, Ipv4Request};
use vpc_sim::model::{Action, Fault};
use vpc_types::EniId;

use super::{Bench, logs};
use crate::cluster::Cluster;
use crate::kernel::KernelState;
use crate::runtime::{Identity, Pod};
use crate::wait;

/// Three slots for pods on each of at most three ENIs: four pods need a second ENI.
pub(crate) const SMALL: &str = "t3.small";
/// Slots for pods on an ENI of [`SMALL`].
pub(super) const SMALL_SLOTS: u64 = 3;
/// The first node.
pub(crate) const NODE: &str = "node-1";
/// The second one.
pub(crate) const OTHER: &str = "node-2";
/// For things that take a fraction of a second on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// For probes; only a loss takes as long.
pub(crate) const PROBE: Duration = Duration::from_secs(10);

/// For one look whether a device passes packets yet.
const CARRIER: Duration = Duration::from_millis(100);

/// Shortened for every scenario. What waits for a pod's plugin (`sweep_grace`) stays long, for the plugin's deadline does.
const TIMERS: &[(&str, &str)] = &[
    ("cooldown", "1"),
    ("minimum_hold", "1"),
    ("coalesce", "0.05"),
    ("refill_delay", "0.2"),
    ("settle", "0.3"),
    ("call_life", "0.5"),
    ("confirm_gap", "1"),
    ("backoff_start", "0.1"),
    ("backoff_max", "1"),
    ("kernel_view_gap", "0.1"),
];

/// For scenarios that watch the pool shrink.
pub(crate) const SHRINKING: &[(&str, &str)] = &[
    ("release_window", "1"),
    ("start_grace", "0"),
    ("eni_idle", "1"),
    ("eni_minimum_life", "1"),
];

/// See the module's description.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) config: Config,
    is_well: bool,
}

/// The demo's VPC with other instances: one node or two.
pub(crate) fn vpc_of(nodes: usize, instance_type: &str) -> Config {
    let mut config = Config::default();
    config.nodes.truncate(nodes);
    for node in &mut config.nodes {
        instance_type.clone_into(&mut node.instance_type);
    }
    config
}

impl World {
    /// Daemons are prepared, not started. `timers` come on top of the usual shortened ones.
    pub(crate) fn prepare(
        bench: &Bench,
        config: Config,
        timers: &[(&str, &str)],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let all: BTreeMap<&str, &str> = TIMERS.iter().chain(timers).copied().collect();
        let all: Vec<String> = all.iter().map(|(name, seconds)| format!("{name}={seconds}")).collect();
        let all = all.join(",");
        let settings: Vec<(&str, &str)> = [("VPC_CNI_TIMERS", all.as_str())]
            .into_iter()
            .chain(environment.iter().copied())
            .collect();
        let cluster = Cluster::new(&bench.sandbox, &config, &bench.binaries, &settings)?;
        Ok(Self {
            cluster,
            config,
            is_well: false,
        })
    }

    /// Daemons serve, and the first addresses are there.
    pub(crate) fn start(
        bench: &Bench,
        config: Config,
        timers: &[(&str, &str)],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let mut world = Self::prepare(bench, config, timers, environment)?;
        world.cluster.start_daemons()?;
        for node in world.node_names() {
            world.wait_for_pool(&node, "the first addresses are there", |pool| {
                pool["free"].as_u64() > Some(0)
            })?;
        }
        Ok(world)
    }

    pub(crate) fn node_names(&self) -> Vec<String> {
        self.config.nodes.iter().map(|node| node.name.clone()).collect()
    }

    pub(crate) fn node(&self, name: &str) -> Result<&Node> {
        self.cluster.node(name)
    }

    /// Primary address of a node.
    pub(crate) fn primary(&self, name: &str) -> Result<Ipv4Addr> {
        let node = self.config.nodes.iter().find(|node| node.name == name);
        node.and_then(|node| node.address).context("nodes have fixed addresses")
    }

    /// Waits until the pool in `ipamd status` looks right.
    pub(crate) fn wait_for_pool(&self, node: &str, what: &str, looks_right: impl Fn(&Value) -> bool) -> Result<()> {
        let mut last = Value::Null;
        let waited = wait::until(what, SOON, || {
            last = self.cluster.ask(node, "status")?;
            Ok(looks_right(&last["pool"]).then_some(()))
        });
        waited.with_context(|| format!("{node}: {last:#}"))
    }

    /// Adds pods `prefix-1` …
    pub(crate) fn add(&self, node: &str, prefix: &str, count: usize) -> Result<Vec<Pod>> {
        (1..=count)
            .map(|number| self.add_one(node, &format!("{prefix}-{number}")))
            .collect()
    }

    /// Adds a pod.
    pub(crate) fn add_one(&self, node: &str, name: &str) -> Result<Pod> {
        self.cluster.runtime.add(self.node(node)?, &Identity::pod(name))
    }

    /// DEL and the end of the namespaces' names. The namespaces themselves go with the pods' handles.
    pub(crate) fn remove(&self, pods: &[Pod]) -> Result<()> {
        for pod in pods {
            self.cluster.runtime.remove(self.node(&pod.node)?, pod)?;
        }
        Ok(())
    }

    /// Waits until the pods' ENIs pass packets. The kernel activates the simulated VPC's end of a new device a moment after
    /// the node has brought its own end up, and an ARP answer that is lost before is asked for again only after a second.
    /// Probes are not repeated, so they would show it.
    pub(crate) fn wait_for_carrier(&self, pods: &[Pod]) -> Result<()> {
        for pod in pods {
            let node = self.config.nodes.iter().find(|node| node.name == pod.node);
            let name = node.map(|node| node.subnet.as_str());
            let subnet = self
                .config
                .subnets
                .iter()
                .find(|subnet| Some(subnet.name.as_str()) == name);
            let router = subnet.and_then(|subnet| subnet.cidr.hosts().next());
            let router = router.context("nodes are in subnets")?;
            let vantage = Vantage::new(&pod.netns.netns).within(CARRIER);
            wait::until("a pod's ENI passes packets", PROBE, || {
                Ok(vantage.ping(&[router])?[0].map(drop))
            })
            .with_context(|| format!("{} on device {}", pod.address, pod.device))?;
        }
        Ok(())
    }

    /// Every pod reaches every other one by its own address.
    pub(crate) fn check_mesh(&self, pods: &[Pod]) -> Result<()> {
        self.wait_for_carrier(pods)?;
        let report = self.cluster.mesh(pods)?;
        ensure!(
            report.faults.is_empty(),
            "pods do not reach each other: {:?}",
            report.faults
        );
        ensure!(report.good_pairs == pods.len() * (pods.len() - 1), "{report:?}");
        Ok(())
    }

    /// Leases of a node as its daemon tells.
    pub(crate) fn leases(&self, node: &str) -> Result<Vec<Value>> {
        let answer = self.cluster.ask(node, "leases")?;
        answer["leases"].as_array().cloned().context("the daemon lists leases")
    }

    /// All EC2 calls so far.
    pub(super) fn calls(&self) -> u64 {
        self.cluster
            .vpc
            .simulator()
            .with_model(|model, _| model.counters().total())
    }

    /// Calls of one action so far.
    pub(super) fn calls_of(&self, action: Action) -> u64 {
        let simulator = self.cluster.vpc.simulator();
        simulator.with_model(|model, _| model.counters().of(action).total())
    }

    /// Starts counting anew.
    pub(super) fn reset_calls(&self) {
        self.cluster.vpc.simulator().reset_counts();
    }

    /// Routers of the two subnets: the first address of each.
    pub(crate) fn routers(&self) -> [Ipv4Addr; 2] {
        let subnets = &self.config.subnets;
        [0, 1].map(|side| subnets[side].cidr.hosts().next().unwrap_or(Ipv4Addr::UNSPECIFIED))
    }

    /// ENIs in EC2, whatever their state.
    pub(super) fn eni_count(&self) -> usize {
        self.cluster.vpc.simulator().with_model(|model, _| model.enis().count())
    }

    /// The next calls of an action go wrong.
    pub(super) fn inject(&self, action: Action, fault: &Fault, calls: usize) {
        let simulator = self.cluster.vpc.simulator();
        simulator.with_model(|model, _| model.faults_mut().inject(action, fault, calls));
    }

    /// Waits until the daemons have had nothing to tell EC2 for a second.
    pub(crate) fn wait_for_quiet(&self) -> Result<()> {
        let quiet = Duration::from_secs(1);
        let (mut calls, mut since) = (self.calls(), Instant::now());
        wait::until("no EC2 call is made", SOON, || {
            let now = self.calls();
            if now != calls {
                (calls, since) = (now, Instant::now());
            }
            Ok((since.elapsed() >= quiet).then_some(()))
        })
    }

    /// Sends a signal to a node's daemon.
    pub(super) fn signal(&mut self, node: &str, signal: Signal) -> Result<()> {
        let child = self.cluster.daemon(node)?.child();
        child.context("the daemon does not run")?.signal(signal)?;
        Ok(())
    }

    /// Somebody else's ENI takes its primary and further addresses from the first subnet.
    pub(super) fn take_from_subnet(&self, count: u32) -> Result<()> {
        self.cluster.vpc.simulator().with_model(|model, now| {
            let eni = model.enis().next().context("the node has an ENI")?;
            let mut call = CreateNetworkInterface::new(eni.subnet.clone());
            call.ipv4 = Some(Ipv4Request::Count(count - 1));
            model.call_directly(now, &call).context("somebody else's ENI")?;
            Ok(())
        })
    }

    /// Deletes what [`World::take_from_subnet`] made.
    pub(super) fn give_back_to_subnet(&self) -> Result<()> {
        self.cluster.vpc.simulator().with_model(|model, now| {
            let theirs = model
                .enis()
                .filter(|eni| eni.attachment.is_none() && eni.tags.is_empty());
            let theirs: Vec<EniId> = theirs.map(|eni| eni.id.clone()).collect();
            for eni in theirs {
                model
                    .call_directly(now, &DeleteNetworkInterface { eni })
                    .context("delete")?;
            }
            Ok(())
        })
    }

    /// Allocations in a node's `ipam.json`.
    pub(crate) fn checkpointed(&self, node: &str) -> Result<Vec<Value>> {
        let path = self.node(node)?.outside(std::path::Path::new(IPAM_JSON));
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let json: Value = serde_json::from_str(&text).context("ipam.json")?;
        Ok(json["allocations"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until a node's kernel is as it was.
    pub(super) fn wait_for_kernel(&self, node: &str, baseline: &KernelState) -> Result<()> {
        let mut found = KernelState::default();
        let waited = wait::until("rules, routes and devices are back to the start", SOON, || {
            found = KernelState::of(self.node(node)?)?;
            Ok((found == *baseline).then_some(()))
        });
        waited.with_context(|| format!("{node} differs from its start:\n{}", found.difference(baseline)))
    }

    /// What must hold at the end of every scenario.
    pub(crate) fn finish(mut self) -> Result<()> {
        let wrong = self.cluster.vpc.simulator().with_model(|model, _| model.audit());
        ensure!(wrong.is_empty(), "the model is wrong: {wrong:?}");
        let errors = self.cluster.vpc.handle().errors();
        ensure!(errors.is_empty(), "the data plane had errors: {errors:?}");
        wait::until("EC2 and the daemons agree", SOON, || {
            Ok(self.disagreement()?.is_none().then_some(()))
        })
        .with_context(|| format!("{:?}", self.disagreement()))?;
        self.is_well = true;
        Ok(())
    }

    /// ENIs that nobody attached, and addresses that a serving daemon does not know.
    fn disagreement(&mut self) -> Result<Option<String>> {
        let simulator = self.cluster.vpc.simulator().clone();
        let lost: Vec<String> = simulator.with_model(|model, _| {
            let lost = model
                .enis()
                .filter(|eni| !model.is_plugged(eni) && !model.is_somebody_elses(eni));
            lost.map(|eni| eni.id.to_string()).collect()
        });
        if !lost.is_empty() {
            return Ok(Some(format!("attached to nothing: {lost:?}")));
        }
        for node in self.node_names() {
            if self.cluster.daemon(&node)?.child().is_none() {
                continue;
            }
            let instance = self
                .cluster
                .vpc
                .handle()
                .instance(&node)
                .context("nodes are instances")?;
            let in_ec2: usize =
                simulator.with_model(|model, _| model.enis_of(instance).map(|eni| pod_addresses(eni)).sum());
            let status = self.cluster.ask(&node, "status")?;
            if status["pool"]["total"].as_u64() != Some(in_ec2 as u64) {
                return Ok(Some(format!("EC2 gave {node} {in_ec2} addresses; {}", status["pool"])));
            }
        }
        Ok(None)
    }
}

/// The daemon's leases, as programs on the node see the file.
pub(super) const IPAM_JSON: &str = "/var/run/aws-node/ipam.json";

impl Drop for World {
    fn drop(&mut self) {
        if !self.is_well {
            logs::show();
        }
    }
}

/// Addresses on an ENI that pods can have.
pub(super) fn pod_addresses(eni: &vpc_sim::model::Eni) -> usize {
    eni.secondary.len() + 16 * eni.prefixes.len()
}

/// Whether a pod gets an answer to a ping.
pub(crate) fn pings(pod: &Pod, target: Ipv4Addr) -> Result<bool> {
    let answers = Vantage::new(&pod.netns.netns).within(PROBE).ping(&[target])?;
    Ok(answers.iter().all(Option::is_some))
}

/// One change of a node's rules or routes behind the daemon's back.
pub(crate) fn change(node: &Node, flags: u16, message: RouteNetlinkMessage) -> Result<()> {
    node.run(move || -> Result<()> {
        RouteSocket::open()?.request("change by a scenario", flags, message)?;
        Ok(())
    })?
}
