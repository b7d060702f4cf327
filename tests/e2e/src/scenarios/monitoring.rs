//! The node monitoring agent of EKS: several of its findings make node auto repair replace the node.
//!
//! The checks are written after what the agent looks at (process names, lines of the log, `ipam.json`, the text of `ip rule`
//! and `ip route`, flags of interfaces, `iptables-save`, a sysctl), and judge a node with the real daemon. Left out is its
//! look at `/v1/enis`, which the daemon does not serve yet.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use vpc_fabric::Node;
use vpc_fabric::node::CommandSpec;

use super::subnets::{EAGER, fill};
use super::world::{IPAM_JSON, NODE, SMALL, World, vpc_of};
use super::{Bench, Scenario};
use crate::node::Daemon;
use crate::runtime::{Identity, Pod};
use crate::wait;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario::new(
    "the node monitoring agent finds nothing wrong, and a full subnet",
    agent,
)];

/// The file name under which the daemon is executed; agents find its process by it.
const PROCESS: &str = "aws-k8s-agent";
/// A line with one of these makes the node count as broken.
const FATAL: [&str; 2] = ["Unable to reach API Server", "Failed to check API server connectivity"];
/// Once per start.
const STARTING: &str = "Starting L-IPAMD";
/// The node has no addresses left to give.
const EXHAUSTED: &str = "InsufficientFreeAddressesInSubnet";
/// Between two looks at interfaces: what is wrong in both counts.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);
/// For programs that only look.
const LOOK: Duration = Duration::from_secs(10);

fn agent(bench: &Bench) -> Result<()> {
    let mut world = World::prepare(bench, vpc_of(1, SMALL), EAGER, &[("WARM_IP_TARGET", "1")])?;
    let named = under_its_name(world.node(NODE)?, &bench.binaries.daemon()?)?;
    world.cluster.daemon(NODE)?.execute(named);
    world.cluster.start_daemons()?;
    let mut pods = world.add(NODE, "pod", 4)?;
    ensure!(
        pods.iter().any(|pod| pod.device == 0) && pods.iter().any(|pod| pod.device > 0),
        "pods are on the primary and on a secondary ENI"
    );
    world.wait_for_carrier(&pods)?;
    look(&mut world, &pods, 1)?;
    the_checks_can_fail(world.node(NODE)?, &pods[0])?;
    ensure!(!log_has(&world, EXHAUSTED)?, "the subnet is not full yet");

    world.cluster.daemon(NODE)?.stop(Signal::SIGTERM)?;
    world.cluster.start_daemon(NODE)?;
    look(&mut world, &pods, 2)?;

    world.wait_for_quiet()?;
    fill(&world)?;
    let complaint = loop {
        let identity = Identity::pod(&format!("more-{}", pods.len()));
        match world.cluster.runtime.add(world.node(NODE)?, &identity) {
            Ok(pod) => pods.push(pod),
            Err(complaint) => {
                world.cluster.runtime.forget(world.node(NODE)?, &identity)?;
                break complaint.to_string();
            }
        }
    };
    ensure!(complaint.contains("SUBNET_FULL"), "{complaint}");
    ensure!(
        log_has(&world, EXHAUSTED)?,
        "the agent would not learn that the subnet is full"
    );
    world.remove(&pods)?;
    look(&mut world, &[], 2)?;
    world.finish()
}

/// A sandbox with another address than the file and the kernel have is found.
fn the_checks_can_fail(node: &Node, pod: &Pod) -> Result<()> {
    let mut other = pod.clone();
    other.address = Ipv4Addr::new(192, 0, 2, 1);
    let others = std::slice::from_ref(&other);
    ensure!(checkpoint(node, others).is_err(), "a wrong address in ipam.json passes");
    ensure!(
        text_of_rules_and_routes(node, others).is_err(),
        "an address without rules passes"
    );
    Ok(())
}

/// A link to the daemon's file: a process is called after the name that was executed, wherever that leads.
fn under_its_name(node: &Node, daemon: &Path) -> Result<PathBuf> {
    let named = Path::new("/run").join(PROCESS);
    let link = node.outside(&named);
    std::os::unix::fs::symlink(daemon, &link).with_context(|| format!("cannot make the link {}", link.display()))?;
    Ok(named)
}

fn log_has(world: &World, text: &str) -> Result<bool> {
    Ok(Daemon::log(world.node(NODE)?).contains(text))
}

/// All that the agent looks at, after so many starts of the daemon.
fn look(world: &mut World, pods: &[Pod], starts: usize) -> Result<()> {
    let pid = world.cluster.daemon(NODE)?.child().context("the daemon runs")?.pid();
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm"))?;
    ensure!(name.trim().contains(PROCESS), "the daemon's process is called {name:?}");
    let node = world.node(NODE)?;
    let log = Daemon::log(node);
    for line in log.lines() {
        ensure!(!FATAL.iter().any(|words| line.contains(words)), "a fatal line: {line}");
    }
    let found = log.lines().filter(|line| line.contains(STARTING)).count();
    ensure!(
        found == starts,
        "{STARTING:?} is there {found} times after {starts} starts"
    );
    checkpoint(node, pods)?;
    text_of_rules_and_routes(node, pods)?;
    interfaces(node)?;
    ensure!(sysctl(node, "net/ipv4/ip_forward")? == "1", "the node does not forward");
    for program in ["iptables-save", "ip6tables-save"] {
        let rules = run(node, program, &[])?;
        ensure!(!rules.contains("REJECT"), "{program} shows a REJECT: {rules}");
    }
    Ok(())
}

/// Each entry whose container is there has the address of that container's sandbox.
fn checkpoint(node: &Node, pods: &[Pod]) -> Result<()> {
    let text = std::fs::read_to_string(node.outside(Path::new(IPAM_JSON)))?;
    let file: Value = serde_json::from_str(&text)?;
    ensure!(file["version"] == "vpc-cni-ipam/1", "{file:#}");
    let sandboxes: BTreeMap<&str, Ipv4Addr> = pods
        .iter()
        .map(|pod| (pod.identity.container_id.as_str(), pod.address))
        .collect();
    let entries = file["allocations"].as_array().context("allocations is a list")?;
    let mut known = 0;
    for entry in entries {
        let id = entry["containerID"].as_str().context("an entry has a containerID")?;
        let Some(address) = sandboxes.get(id) else { continue };
        known += 1;
        ensure!(
            entry["ipv4"].as_str() == Some(address.to_string().as_str()),
            "the sandbox has {address}, ipam.json says {entry}"
        );
    }
    ensure!(
        known == pods.len(),
        "{known} of {} sandboxes are in ipam.json",
        pods.len()
    );
    Ok(())
}

/// The lines that the agent puts together for each address, compared without regard to blanks.
fn text_of_rules_and_routes(node: &Node, pods: &[Pod]) -> Result<()> {
    let rules = lines(&run(node, "ip", &["rule"])?);
    let routes = lines(&run(node, "ip", &["route", "show", "table", "all"])?);
    let main = lines(&run(node, "ip", &["route"])?);
    for pod in pods {
        let address = pod.address;
        let to_pod = format!("512: from all to {address} lookup main");
        ensure!(rules.contains(&to_pod), "no line {to_pod:?} in {rules:#?}");
        let is_route = |line: &&String| line.starts_with(&format!("{address} dev ")) && line.contains("scope link");
        ensure!(
            main.iter().any(|line| is_route(&line)),
            "no route of {address} in {main:#?}"
        );
        if pod.device == 0 {
            continue;
        }
        let from_pod = format!("1536: from {address} lookup {}", pod.table);
        ensure!(rules.contains(&from_pod), "no line {from_pod:?} in {rules:#?}");
        let table = format!("table {}", pod.table);
        let is_default = |line: &String| {
            let mut words = line.split(' ');
            line.starts_with("default via ") && words.nth(3) == Some("dev") && line.contains(&table)
        };
        ensure!(
            routes.iter().any(is_default),
            "no default route of {table} in {routes:#?}"
        );
    }
    Ok(())
}

/// Broadcast and multicast ones that are not up, or not running, in two looks in a row.
fn interfaces(node: &Node) -> Result<()> {
    let bad = |text: String| -> Vec<String> {
        let flags = |line: &str| line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
        let is_bad = |line: &&str| {
            let flags = flags(line);
            let flags: Vec<&str> = flags.split(',').collect();
            let has = |flag| flags.contains(&flag);
            let is_judged = has("BROADCAST") && has("MULTICAST") && !line.contains(": docker");
            is_judged && (!has("UP") || !has("LOWER_UP") || has("NO-CARRIER"))
        };
        text.lines().filter(is_bad).map(str::to_owned).collect()
    };
    let first = bad(run(node, "ip", &["-o", "link"])?);
    wait::pause(BETWEEN_LOOKS);
    let second = bad(run(node, "ip", &["-o", "link"])?);
    let name = |line: &String| line.split(": ").nth(1).unwrap_or_default().to_owned();
    let first: Vec<String> = first.iter().map(name).collect();
    let both: Vec<&String> = second.iter().filter(|line| first.contains(&name(line))).collect();
    ensure!(both.is_empty(), "interfaces that are not up and running: {both:#?}");
    Ok(())
}

fn lines(text: &str) -> Vec<String> {
    let plain = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    text.lines().map(plain).collect()
}

/// Settings of the node's namespace are shown to whoever is in it.
fn sysctl(node: &Node, name: &'static str) -> Result<String> {
    let read = move || std::fs::read_to_string(Path::new("/proc/sys").join(name));
    Ok(node.run(read)??.trim().to_owned())
}

/// A program of the machine, in the node.
fn run(node: &Node, program: &str, arguments: &[&str]) -> Result<String> {
    let output = node.output(&CommandSpec::new(program).args(arguments), b"", LOOK)?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {complaint}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
