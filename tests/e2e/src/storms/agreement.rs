//! Whether everything agrees: the daemons' audit, and independently the kernels, the leases and EC2's model against the
//! pods that are known to live.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::kernel::KernelState;
use crate::runtime::{Pod, netns_name};
use crate::scenarios::world::{SOON, World};
use crate::wait;

/// Leases of sandboxes that were lost end by two kernel dumps, addresses rest: longer than all of that with a storm's timers.
const SETTLE: Duration = Duration::from_secs(40);

/// Waits until it is quiet, then looks from every side. `live` are all pods that should be there.
pub(super) fn check(world: &World, live: &[Pod]) -> Result<()> {
    for node in world.node_names() {
        wait_for_audit(world, &node)?;
        let pods: Vec<&Pod> = Cluster::on(live, &node).collect();
        let mut last = None;
        let waited = wait::until("kernel, leases and EC2 are what the live pods need", SOON, || {
            last = disagreement(world, &node, &pods)?;
            Ok(last.is_none().then_some(()))
        });
        waited.with_context(|| format!("{node}: {}", last.unwrap_or_default()))?;
    }
    let wrong = world.cluster.vpc.simulator().with_model(|model, _| model.audit());
    ensure!(wrong.is_empty(), "the model is wrong: {wrong:?}");
    ensure!(
        world.cluster.wrong_source_drops()? == 0,
        "packets were dropped for a wrong source: {:?}",
        world.cluster.vpc.handle().drops()?
    );
    if live.len() > 1 {
        world.check_mesh(live)?;
    }
    Ok(())
}

/// How soon leases must have ended that a DEL ended: long before the daemon would find out by itself.
const ENDED: Duration = Duration::from_secs(3);

/// Whether a node's file soon holds so many leases, and not more.
pub(super) fn leases_end(world: &World, node: &str, left: usize) -> Result<bool> {
    let began = std::time::Instant::now();
    loop {
        if world.checkpointed(node)?.len() <= left {
            return Ok(true);
        }
        if began.elapsed() >= ENDED {
            return Ok(false);
        }
        wait::pause(Duration::from_millis(5));
    }
}

/// Until `ipamd audit` ends with 0 and nothing is in motion.
fn wait_for_audit(world: &World, node: &str) -> Result<()> {
    let mut last = Value::Null;
    let waited = wait::until("the audit agrees and nothing is in motion", SETTLE, || {
        let (status, answer) = audit(world, node)?;
        let agrees = status == Some(0) && answer["findings"] == Value::Array(Vec::new());
        let is_quiet = answer["inMotion"] == 0;
        last = answer;
        Ok((agrees && is_quiet).then_some(()))
    });
    waited.with_context(|| format!("{node}: {last:#}"))
}

/// `ipamd audit` of a node: status and answer.
pub(super) fn audit(world: &World, node: &str) -> Result<(Option<i32>, Value)> {
    let daemon = world.cluster.daemons.get(node).context("nodes have daemons")?;
    daemon.ask_for_status(world.node(node)?, &["audit"])
}

/// What the independent look finds wrong, without waiting.
pub(super) fn disagreement(world: &World, node: &str, live: &[&Pod]) -> Result<Option<String>> {
    Ok(kernel(world, node, live)?
        .or(leases(world, node, live)?)
        .or(ec2(world, node, live)?)
        .or(namespaces(world, node, live)?))
}

/// Two sets of words, and what they are.
fn differ(what: &str, found: &BTreeSet<String>, wanted: &BTreeSet<String>) -> Option<String> {
    let extra: Vec<_> = found.difference(wanted).collect();
    let missing: Vec<_> = wanted.difference(found).collect();
    let same = extra.is_empty() && missing.is_empty();
    (!same).then(|| format!("{what}: too much {extra:?}, missing {missing:?}"))
}

/// Rules, routes and veths of pods; rules and tables of the ENIs that EC2 shows.
fn kernel(world: &World, node: &str, live: &[&Pod]) -> Result<Option<String>> {
    let state = KernelState::of(world.node(node)?)?;
    let (mut rules, mut routes, mut veths) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for pod in live {
        let address = pod.address;
        rules.insert(format!("rule 512: from all to {address}/32 lookup 254"));
        if pod.table != 254 {
            rules.insert(format!("rule 1536: from {address}/32 lookup {}", pod.table));
        }
        routes.insert(format!("{address}/32"));
        veths.extend(pod.result["interfaces"][0]["name"].as_str().map(str::to_owned));
    }
    let mut tables = BTreeSet::new();
    for (device, primary, _) in enis(world, node)? {
        if device > 0 {
            rules.insert(format!("rule 32765: from {primary}/32 lookup {}", device + 1));
            tables.insert((device + 1).to_string());
        }
    }
    let ours = ["rule 512:", "rule 1536:", "rule 32765:"];
    let is_ours = |rule: &&String| ours.iter().any(|start| rule.starts_with(start));
    let found_rules = state.rules.iter().filter(is_ours).cloned().collect();
    let found_routes = state.routes.iter().filter_map(|line| pod_route(line)).collect();
    let found_tables = state.routes.iter().filter_map(|line| own_default(line)).collect();
    let found_veths = state.host_veths().cloned().collect();
    Ok(differ("rules", &found_rules, &rules)
        .or_else(|| differ("routes", &found_routes, &routes))
        .or_else(|| differ("veths", &found_veths, &veths))
        .or_else(|| differ("ENI tables", &found_tables, &tables)))
}

/// `A/32` of a directly connected route of table main.
fn pod_route(line: &str) -> Option<String> {
    let rest = line.strip_prefix("route table 254: Inet(")?;
    let (address, rest) = rest.split_once(")/32")?;
    (!rest.contains(" via ")).then(|| format!("{address}/32"))
}

/// Number of a table other than main that has a default route.
fn own_default(line: &str) -> Option<String> {
    let (table, route) = line.strip_prefix("route table ")?.split_once(": ")?;
    (route.starts_with("default via") && table != "254").then(|| table.to_owned())
}

/// Attached ENIs as the model has them: slot, primary address, further addresses.
fn enis(world: &World, node: &str) -> Result<Vec<(u32, Ipv4Addr, BTreeSet<Ipv4Addr>)>> {
    let instance = world
        .cluster
        .vpc
        .handle()
        .instance(node)
        .context("nodes are instances")?;
    let simulator = world.cluster.vpc.simulator();
    Ok(simulator.with_model(|model, _| {
        let enis = model.enis_of(instance).filter(|eni| model.is_plugged(eni));
        enis.map(|eni| {
            let slot = eni.attachment.as_ref().map_or(0, |tie| u32::from(tie.device.0));
            (slot, eni.primary, eni.secondary.iter().copied().collect())
        })
        .collect()
    }))
}

fn leases(world: &World, node: &str, live: &[&Pod]) -> Result<Option<String>> {
    let wanted: BTreeSet<String> = live
        .iter()
        .map(|pod| format!("{} {}", pod.address, pod.identity.container_id))
        .collect();
    let line = |lease: &Value| {
        let text = |key: &str| lease[key].as_str().unwrap_or_default().to_owned();
        format!("{} {}", text("address"), text("containerID"))
    };
    let told: BTreeSet<String> = world.leases(node)?.iter().map(line).collect();
    let file = world.checkpointed(node)?;
    // A moment's difference is none: the file of a lease that has just ended is being written.
    let unlike = (file.len() != wanted.len()).then(|| {
        format!(
            "ipam.json of {node} has {} leases, the daemon {}",
            file.len(),
            told.len()
        )
    });
    Ok(differ("leases", &told, &wanted).or(unlike))
}

/// The model's ENIs and addresses against the daemon's account, and no ENI that is attached to nothing.
fn ec2(world: &World, node: &str, live: &[&Pod]) -> Result<Option<String>> {
    let enis = enis(world, node)?;
    let status = world.cluster.ask(node, "status")?;
    let rows = status["enis"].as_array().cloned().unwrap_or_default();
    let row = |eni: &Value| format!("{} {} {}", eni["deviceNumber"], eni["primaryAddress"], eni["total"]);
    let told = rows.iter().map(row).collect();
    let shown = enis
        .iter()
        .map(|(slot, primary, addresses)| format!("{slot} \"{primary}\" {}", addresses.len()))
        .collect();
    let homeless = live.iter().find(|pod| {
        let mut homes = enis.iter().filter(|(slot, ..)| *slot == pod.device);
        !homes.any(|(_, _, addresses)| addresses.contains(&pod.address))
    });
    if let Some(pod) = homeless {
        return Ok(Some(format!(
            "{} is not an address of ENI {} in EC2",
            pod.address, pod.device
        )));
    }
    let lost = world.cluster.vpc.simulator().with_model(|model, _| {
        let lost = model.enis().filter(|eni| !model.is_plugged(eni));
        lost.map(|eni| eni.id.to_string()).collect()
    });
    Ok(differ("ENIs", &told, &shown).or_else(|| differ("ENIs attached to nothing", &lost, &BTreeSet::new())))
}

/// Namespaces that have a name.
fn namespaces(world: &World, node: &str, live: &[&Pod]) -> Result<Option<String>> {
    let directory = world.node(node)?.outside("/run/netns".as_ref());
    let mut found = BTreeSet::new();
    match std::fs::read_dir(&directory) {
        Ok(entries) => {
            for entry in entries {
                found.insert(entry?.file_name().to_string_lossy().into_owned());
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => bail!("cannot list {}: {error}", directory.display()),
    }
    let wanted = live.iter().map(|pod| netns_name(&pod.identity)).collect();
    Ok(differ("namespaces", &found, &wanted))
}
