//! The demo's steps, in order. Each ends with a tick, or with an error that says what did not hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use vpc_fabric::Sandbox;
use vpc_fabric::probe::{EchoServer, Vantage};
use vpc_sim::config::Config;

use super::report::{self, Screen};
use super::{COOLDOWN, Demo, PODS_PER_NODE, Settings, TIMERS, timed};
use crate::cluster::Cluster;
use crate::kernel::KernelState;
use crate::runtime::{Identity, Pod};
use crate::wait;

/// Slots for pods on one ENI of the demo's nodes, which are `m5.large`.
const SLOTS_PER_ENI: u64 = 9;
const ECHO_PORT: u16 = 7;
const PROBE_DEADLINE: Duration = Duration::from_secs(10);
/// Rests, idle times and the 2 s between detach and delete, with room for a busy machine.
const SHRINK_DEADLINE: Duration = Duration::from_secs(60);
/// Half of what the kubelet waits before SIGKILL. It takes milliseconds, which the bench shows; a busy machine may stall.
const STOP_LIMIT: Duration = Duration::from_secs(5);

pub(super) fn start_vpc(screen: &mut Screen, sandbox: &Sandbox, settings: &Settings) -> Result<Demo> {
    let config = Config::default();
    let timers: Vec<String> = TIMERS
        .iter()
        .map(|(name, seconds, _)| format!("{name}={seconds}"))
        .collect();
    let environment = [
        ("VPC_CNI_TIMERS", timers.join(",")),
        ("IP_COOLDOWN_PERIOD", COOLDOWN.to_owned()),
    ];
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let (cluster, took) = timed(|| Cluster::new(sandbox, &config, &settings.binaries, &environment))?;
    let nodes: Vec<String> = config
        .nodes
        .iter()
        .map(|node| format!("{} ({})", node.name, node.instance_type))
        .collect();
    let cidrs: Vec<String> = config.vpc_cidrs.iter().map(ToString::to_string).collect();
    let text = format!(
        "VPC {}, {} subnets; {}; internet {}",
        cidrs.join(", "),
        config.subnets.len(),
        nodes.join(", "),
        internet(&config)?
    );
    screen.tick(&text, took, "");
    let shortened = std::iter::once(("cooldown", COOLDOWN, "30 s")).chain(TIMERS.iter().copied());
    let shortened: Vec<String> = shortened
        .map(|(name, now, usual)| format!("{name} {now} s (for {usual})"))
        .collect();
    for (number, line) in shortened.chunks(3).enumerate() {
        let title = if number == 0 { "timers shortened:" } else { "" };
        screen.plain(&format!("    {title:<17} {}", line.join(", ")));
    }
    Ok(Demo {
        cluster,
        config,
        baseline: BTreeMap::new(),
        pods: Vec::new(),
    })
}

fn internet(config: &Config) -> Result<Ipv4Addr> {
    let host = config.internet.first().context("the demo has an internet host")?;
    host.addresses
        .first()
        .copied()
        .context("the internet host has an address")
}

pub(super) fn start_daemons(screen: &mut Screen, demo: &mut Demo) -> Result<()> {
    let took = demo.cluster.start_daemons()?;
    for node in node_names(&demo.config) {
        // The baseline is taken once the first fill is in: from then on only pods change the kernel.
        wait::until("the first addresses are there", PROBE_DEADLINE * 3, || {
            let status = demo.cluster.ask(&node, "status")?;
            Ok((status["pool"]["free"].as_u64() >= Some(SLOTS_PER_ENI)).then_some(()))
        })?;
        let state = KernelState::of(demo.cluster.node(&node)?)?;
        demo.baseline.insert(node, state);
    }
    let calls = report::calls("EC2 calls", &demo.cluster.ec2_calls());
    screen.tick("ipamd serves on both nodes", took, calls.trim());
    Ok(())
}

fn node_names(config: &Config) -> Vec<String> {
    config.nodes.iter().map(|node| node.name.clone()).collect()
}

/// Alternates between the nodes, as a scheduler would.
pub(super) fn add_pods(screen: &mut Screen, demo: &mut Demo) -> Result<()> {
    let nodes = node_names(&demo.config);
    let all = PODS_PER_NODE * nodes.len();
    for number in 1..=all {
        let node = &nodes[(number - 1) % nodes.len()];
        let identity = Identity::pod(&format!("web-{number:02}"));
        let pod = demo.cluster.runtime.add(demo.cluster.node(node)?, &identity)?;
        demo.pods.push(pod);
        let median = report::median(demo.pods.iter().map(|pod| pod.took));
        screen.progress("ADD", number, all, &format!("median {}", report::duration(median)));
    }
    let leases = leases(demo)?;
    let eni_of = |pod: &Pod| leases.get(&pod.address).cloned().unwrap_or_default();
    screen.plain(&report::pods(&demo.pods, eni_of));
    check_addresses(demo, &nodes)
}

/// ENI of each leased address, as the daemons tell.
fn leases(demo: &Demo) -> Result<BTreeMap<Ipv4Addr, String>> {
    let mut enis = BTreeMap::new();
    for node in node_names(&demo.config) {
        let answer = demo.cluster.ask(&node, "leases")?;
        for lease in answer["leases"].as_array().context("the daemon lists leases")? {
            let address = lease["address"].as_str().and_then(|text| text.parse().ok());
            enis.insert(
                address.context("a lease has an address")?,
                lease["eni"].as_str().unwrap_or_default().to_owned(),
            );
        }
    }
    Ok(enis)
}

fn check_addresses(demo: &Demo, nodes: &[String]) -> Result<()> {
    let distinct: BTreeSet<Ipv4Addr> = demo.pods.iter().map(|pod| pod.address).collect();
    ensure!(distinct.len() == demo.pods.len(), "two pods have the same address");
    for node in nodes {
        let devices: BTreeSet<u32> = Cluster::on(&demo.pods, node).map(|pod| pod.device).collect();
        ensure!(devices.contains(&0), "no pod of {node} is on the primary ENI");
        ensure!(devices.len() > 1, "no pod of {node} is on a secondary ENI");
    }
    Ok(())
}

pub(super) fn ping_everything(screen: &mut Screen, demo: &Demo) -> Result<()> {
    let (report, took) = timed(|| demo.cluster.mesh(&demo.pods))?;
    ensure!(
        report.faults.is_empty(),
        "pods do not reach each other: {:?}",
        report.faults
    );
    let pairs = report.pairs;
    let text = format!(
        "{}/{pairs} pod pairs reach each other by their own addresses",
        report.good_pairs
    );
    screen.tick(&text, took, "ICMP, UDP, TCP");
    Ok(())
}

pub(super) fn reach_the_internet(screen: &mut Screen, demo: &Demo) -> Result<()> {
    let host = demo.config.internet.first().context("the demo has an internet host")?;
    let netns = demo
        .cluster
        .vpc
        .handle()
        .internet_host(&host.name)
        .context("the internet host is up")?;
    let server = EchoServer::start(&netns, SocketAddrV4::new(internet(&demo.config)?, ECHO_PORT))?;
    let (seen, took) = timed(|| sources_seen(demo, server.address()))?;
    for (node, sources) in &seen {
        let primary = demo
            .config
            .nodes
            .iter()
            .find(|config| config.name == *node)
            .and_then(|config| config.address);
        let expected: BTreeSet<Ipv4Addr> = primary.into_iter().collect();
        ensure!(
            *sources == expected,
            "the internet host saw {node} as {sources:?}, not as {expected:?}"
        );
    }
    let views: Vec<String> = seen
        .iter()
        .map(|(node, sources)| {
            format!(
                "{node} as {}",
                sources.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            )
        })
        .collect();
    screen.tick(
        &format!("the internet host saw {}", views.join(" and ")),
        took,
        "UDP, TCP, every pod",
    );
    Ok(())
}

/// Addresses that the server saw, by node.
fn sources_seen(demo: &Demo, server: SocketAddrV4) -> Result<BTreeMap<String, BTreeSet<Ipv4Addr>>> {
    let mut seen: BTreeMap<String, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    for pod in &demo.pods {
        let vantage = Vantage::new(&pod.netns.netns).within(PROBE_DEADLINE);
        let answers = vantage
            .ask_tcp(&[server])?
            .into_iter()
            .chain(vantage.ask_udp(&[server])?);
        for answer in answers {
            let source = answer.with_context(|| format!("{} does not reach the internet", pod.identity.label()))?;
            seen.entry(pod.node.clone()).or_default().insert(*source.ip());
        }
    }
    Ok(seen)
}

pub(super) fn count_drops(screen: &mut Screen, demo: &Demo) -> Result<()> {
    let (drops, took) = timed(|| demo.cluster.wrong_source_drops())?;
    ensure!(drops == 0, "the VPC dropped {drops} packets for a wrong source");
    screen.tick("packets dropped by the VPC for a wrong source: 0", took, "");
    Ok(())
}

pub(super) fn delete_pods(screen: &mut Screen, demo: &mut Demo) -> Result<()> {
    let all = demo.pods.len();
    let mut times = Vec::new();
    for (number, pod) in std::mem::take(&mut demo.pods).iter().enumerate() {
        let result = demo.cluster.runtime.remove(demo.cluster.node(&pod.node)?, pod)?;
        times.push(result.took);
        let median = report::median(times.iter().copied());
        screen.progress("DEL", number + 1, all, &format!("median {}", report::duration(median)));
    }
    Ok(())
}

/// Waits until each node holds no lease, one ENI's worth of addresses, and the kernel state of the beginning.
pub(super) fn watch_the_pool_shrink(screen: &mut Screen, demo: &Demo) -> Result<()> {
    let before = total_enis(demo)?;
    let (_, took) = timed(|| {
        for node in node_names(&demo.config) {
            wait::until("the pool has shrunk to its target", SHRINK_DEADLINE, || {
                let status = demo.cluster.ask(&node, "status")?;
                Ok(has_shrunk(&status).then_some(()))
            })?;
            let target = &demo.baseline[&node];
            wait::until(
                "rules, routes and devices are back to the start",
                SHRINK_DEADLINE,
                || Ok((KernelState::of(demo.cluster.node(&node)?)? == *target).then_some(())),
            )
            .with_context(|| difference(demo, &node, target))?;
        }
        Ok(())
    })?;
    let after = total_enis(demo)?;
    ensure!(after == demo.config.nodes.len(), "{after} ENIs are left");
    let text = format!("pool shrank to its targets: {before} ENIs → {after}; rules, routes, leases: back to the start");
    screen.tick(&text, took, "");
    Ok(())
}

fn has_shrunk(status: &Value) -> bool {
    let pool = &status["pool"];
    pool["assigned"] == 0
        && pool["cooling"] == 0
        && pool["total"].as_u64() == Some(SLOTS_PER_ENI)
        && status["enis"].as_array().is_some_and(|enis| enis.len() == 1)
}

fn difference(demo: &Demo, node: &str, target: &KernelState) -> String {
    let found = demo.cluster.node(node).and_then(KernelState::of).unwrap_or_default();
    format!("{node} differs from its start:\n{}", found.difference(target))
}

/// ENIs that exist in EC2.
fn total_enis(demo: &Demo) -> Result<usize> {
    Ok(demo.cluster.vpc.simulator().with_model(|model, _| model.enis().count()))
}

pub(super) fn stop_daemons(screen: &mut Screen, demo: &mut Demo) -> Result<()> {
    let mut longest = Duration::ZERO;
    for node in node_names(&demo.config) {
        let (status, took) = demo.cluster.daemon(&node)?.stop(Signal::SIGTERM)?;
        ensure!(status.success(), "ipamd of {node} ended with {status}");
        longest = longest.max(took);
    }
    ensure!(longest <= STOP_LIMIT, "SIGTERM took {longest:?}");
    screen.tick("SIGTERM ended ipamd on both nodes", longest, "");
    Ok(())
}
