//! A world whose nodes run containerd, and what a sandbox of it must and must not leave.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cri::PodSandboxState;
use nix::sys::signal::Signal;
use serde_json::Value;
use vpc_fabric::Node;
use vpc_sim::config::Config;

use crate::kernel::KernelState;
use crate::runtime::{Identity, Pod};
use crate::runtimes::client::{Client, Order};
use crate::runtimes::containerd::{self, Containerd, NETWORKS};
use crate::runtimes::{cgroups, network};
use crate::scenarios::Bench;
use crate::scenarios::world::{SOON, World};
use crate::wait;

/// Only a loss takes as long.
const REACH: Duration = Duration::from_secs(15);
/// For one question; the first packets over a new link may be lost.
const TRY: Duration = Duration::from_millis(300);

/// A world, prepared for runtimes that may or may not have been started.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) world: World,
    containerds: BTreeMap<String, Containerd>,
}

impl Site {
    /// Daemons serve; nodes have plugins, an image and cgroups, but no network configuration and no runtime.
    pub(super) fn bare(
        bench: &Bench,
        mut config: Config,
        timers: &[(&str, &str)],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        for node in &mut config.nodes {
            node.private_dirs = containerd::private_dirs();
        }
        let world = World::start(bench, config, timers, environment)?;
        let (plugin, pause) = (bench.binaries.plugin()?, bench.tools.pause()?);
        for name in world.node_names() {
            let node = world.node(&name)?;
            cgroups::mount_in(node)?;
            containerd::prepare(node, &plugin, &pause)?;
        }
        Ok(Self {
            world,
            containerds: BTreeMap::new(),
        })
    }

    /// On every node a configuration as the daemon's entrypoint writes it.
    pub(super) fn configured(
        bench: &Bench,
        config: Config,
        timers: &[(&str, &str)],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let site = Self::bare(bench, config, timers, environment)?;
        for name in site.world.node_names() {
            site.install(&name, &network::installed())?;
        }
        Ok(site)
    }

    /// And a containerd whose network is ready.
    pub(super) fn start(
        bench: &Bench,
        config: Config,
        timers: &[(&str, &str)],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let mut site = Self::configured(bench, config, timers, environment)?;
        for name in site.world.node_names() {
            site.start_containerd(&name, &[])?;
            site.wait_for_network(&name)?;
        }
        Ok(site)
    }

    pub(super) fn node(&self, name: &str) -> Result<&Node> {
        self.world.node(name)
    }

    pub(super) fn install(&self, node: &str, list: &Value) -> Result<()> {
        network::install(&self.node(node)?.outside(Path::new(NETWORKS)), list)
    }

    /// For the first time on this node; plugins inherit the environment.
    pub(super) fn start_containerd(&mut self, node: &str, environment: &[(&str, &str)]) -> Result<()> {
        let containerd = Containerd::start(self.world.node(node)?, environment)?;
        self.containerds.insert(node.to_owned(), containerd);
        Ok(())
    }

    /// Kills containerd alone, and starts it again on what it has on file.
    pub(super) fn kill_and_restart_containerd(&mut self, node: &str) -> Result<()> {
        let old = self.containerds.remove(node).context("containerd runs")?;
        old.stop(Signal::SIGKILL)?;
        let new = Containerd::restart(self.world.node(node)?, &[])?;
        self.containerds.insert(node.to_owned(), new);
        Ok(())
    }

    /// The kubelet's connection.
    pub(super) fn cri(&self, node: &str) -> Result<&Client> {
        let containerd = self.containerds.get(node);
        Ok(containerd
            .with_context(|| format!("no containerd runs on {node}"))?
            .client())
    }

    pub(super) fn wait_for_network(&self, node: &str) -> Result<()> {
        let mut complaint = String::new();
        let waited = wait::until("the runtime's network is ready", SOON, || {
            let network = self.cri(node)?.network()?;
            complaint = network.as_ref().err().cloned().unwrap_or_default();
            Ok(network.ok())
        });
        waited.with_context(|| format!("{node} says: {complaint}"))
    }

    /// Makes sandboxes `prefix-1` … at once, and checks what each was given.
    pub(super) fn run(&self, node: &str, prefix: &str, count: usize) -> Result<Vec<Pod>> {
        let orders: Vec<Order> = (1..=count).map(|n| Order::new(&format!("{prefix}-{n}"))).collect();
        let ids = self.cri(node)?.run_all(&orders)?;
        let pods = orders.iter().zip(ids);
        pods.map(|(order, id)| self.pod(node, &order.name, &id?)).collect()
    }

    /// Whether a pod still has its address, by all accounts.
    pub(super) fn check_address(&self, pod: &Pod) -> Result<()> {
        let (_, name) = pod.identity.pod.clone().context("pods have names")?;
        let again = self.pod(&pod.node, &name, &pod.identity.container_id)?.address;
        ensure!(again == pod.address, "{name}: {} became {again}", pod.address);
        Ok(())
    }

    /// A sandbox that is there: runtime, daemon and EC2 must agree on its address.
    pub(super) fn pod(&self, node: &str, name: &str, id: &str) -> Result<Pod> {
        let status = self.cri(node)?.status(id)?;
        ensure!(status.state == PodSandboxState::SandboxReady, "{name}: {status:?}");
        let address: Ipv4Addr = status.ip.parse().with_context(|| format!("{name}: {status:?}"))?;
        let netns = self.node(node)?.pod_netns(Path::new(&status.netns))?;
        let identity = Identity {
            pod: Some(("default".to_owned(), name.to_owned())),
            container_id: id.to_owned(),
        };
        let lease = self.lease(node, id)?.with_context(|| format!("{name} has no lease"))?;
        ensure!(
            lease["namespace"] == "default" && lease["pod"] == name && lease["ifName"] == "eth0",
            "{name} has the lease of another pod: {lease}"
        );
        ensure!(
            lease["address"] == status.ip,
            "{name} has {}, its lease is {lease}",
            status.ip
        );
        self.check_eni(node, address, &lease)?;
        let number = |key: &str| lease[key].as_u64().and_then(|number| u32::try_from(number).ok());
        Ok(Pod {
            identity,
            node: node.to_owned(),
            netns,
            result: Value::Null,
            address,
            device: number("deviceNumber").context("a device")?,
            table: number("routeTable").context("a table")?,
            took: Duration::ZERO,
        })
    }

    /// The lease of a sandbox, unless its address rests already.
    pub(super) fn lease(&self, node: &str, container_id: &str) -> Result<Option<Value>> {
        let leases = self.world.leases(node)?.into_iter();
        let mut ours = leases.filter(|lease| lease["containerID"] == container_id && lease["state"] != "cooling");
        Ok(ours.next())
    }

    /// The address must be a secondary one of that ENI of that instance, in EC2's own books.
    pub(super) fn check_eni(&self, node: &str, address: Ipv4Addr, lease: &Value) -> Result<()> {
        let instance = self
            .world
            .cluster
            .vpc
            .handle()
            .instance(node)
            .context("nodes are instances")?;
        let simulator = self.world.cluster.vpc.simulator();
        let holder = simulator.with_model(|model, _| {
            let mut enis = model.enis_of(instance);
            let holder = enis.find(|eni| eni.secondary.contains(&address));
            holder.map(|eni| eni.id.to_string())
        });
        let holder = holder.with_context(|| format!("{address} is on no ENI of {node}"))?;
        ensure!(
            lease["eni"] == holder,
            "{address} is on {holder}, its lease says {lease}"
        );
        Ok(())
    }

    /// StopPodSandbox and RemovePodSandbox.
    pub(super) fn remove(&self, pods: &[Pod]) -> Result<()> {
        for pod in pods {
            let cri = self.cri(&pod.node)?;
            cri.stop(&pod.identity.container_id)?;
            cri.remove(&pod.identity.container_id)?;
        }
        Ok(())
    }

    /// Nothing is left on a node of sandboxes that had these addresses: links, rules, routes, leases, namespaces, cached results,
    /// entries of the runtime.
    pub(super) fn check_no_trace(&self, node: &str, addresses: &[Ipv4Addr]) -> Result<()> {
        if self.containerds.contains_key(node) {
            let left = self.cri(node)?.list()?;
            ensure!(left.is_empty(), "{node} still lists sandboxes: {left:?}");
        }
        for directory in ["/run/netns", "/var/lib/cni"] {
            let mut files = Vec::new();
            collect(&self.node(node)?.outside(Path::new(directory)), &mut files)?;
            ensure!(files.is_empty(), "{node} still has {files:?}");
        }
        let mut left = Vec::new();
        let waited = wait::until("nothing is left in the kernel and of leases", SOON, || {
            left = self.traces(node, addresses)?;
            Ok(left.is_empty().then_some(()))
        });
        waited.with_context(|| format!("{node} still has {left:?}"))
    }

    /// Rules and routes of these addresses in a node's kernel.
    pub(super) fn kernel_lines(&self, node: &str, addresses: &[Ipv4Addr]) -> Result<Vec<String>> {
        let state = KernelState::of(self.node(node)?)?;
        let forms = addresses
            .iter()
            .flat_map(|address| [format!("{address}/"), format!("({address})")]);
        let forms: Vec<String> = forms.collect();
        let lines = state.rules.into_iter().chain(state.routes);
        Ok(lines
            .filter(|line| forms.iter().any(|form| line.contains(form)))
            .collect())
    }

    fn traces(&self, node: &str, addresses: &[Ipv4Addr]) -> Result<Vec<String>> {
        let mut left = self.kernel_lines(node, addresses)?;
        left.extend(KernelState::of(self.node(node)?)?.host_veths().cloned());
        let leases = self.world.leases(node)?.into_iter();
        left.extend(
            leases
                .filter(|lease| lease["state"] != "cooling")
                .map(|lease| lease.to_string()),
        );
        Ok(left)
    }

    /// The plugin's log on a node: its lines about one sandbox.
    pub(super) fn plugin_lines(&self, node: &str, container_id: &str) -> Result<Vec<Value>> {
        let mut lines = self.all_plugin_lines(node)?;
        lines.retain(|line| line["container"] == container_id);
        Ok(lines)
    }

    /// The plugin's log on a node.
    pub(super) fn all_plugin_lines(&self, node: &str) -> Result<Vec<Value>> {
        let file = self
            .node(node)?
            .outside(Path::new("/var/log/aws-routed-eni/plugin.log"));
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        text.lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}")))
            .collect()
    }

    /// See [`World::finish`].
    pub(super) fn finish(self) -> Result<()> {
        self.world.finish()
    }
}

/// Both pods reach each other; single losses of a new link do not count.
pub(super) fn wait_until_reached(from: &vpc_fabric::NetnsRef, to: Ipv4Addr) -> Result<()> {
    let vantage = vpc_fabric::probe::Vantage::new(from).within(TRY);
    wait::until("a pod answers", REACH, || Ok(vantage.ping(&[to])?[0].map(drop))).with_context(|| to.to_string())
}

/// Files below a directory, which may be missing. Directories alone are no trace.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => bail!("cannot read {}: {error}", directory.display()),
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", directory.display()))?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}
