//! The network policy agent beside the daemon: what it is told at its start, of every pod, and when it is away.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use policy_agent::{PolicyAgent, configuration};

use super::world::{NODE, SMALL, World, pings, vpc_of};
use super::{Bench, Scenario};
use crate::kernel::KernelState;
use crate::runtime::Identity;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "the network policy agent learns its configuration, finds every pod's device, and hears of every pod that goes",
        told,
    )
    .also_unprivileged(),
    Scenario::new(
        "without the network policy agent an ADD fails and leaves nothing, and a DEL succeeds",
        agent_away,
    ),
];

const MODE: &str = "NETWORK_POLICY_ENFORCING_MODE";
const AGENT: &str = "/run/aws-node/npa.sock";
const DAEMON: &str = "/run/aws-node/ipamd.sock";
const ONE_ENI: (&str, &str) = ("MAX_ENI", "1");

fn start_agent(world: &World) -> Result<PolicyAgent> {
    let agent = world.node(NODE)?.run(|| PolicyAgent::start(Path::new(AGENT)))?;
    agent.context("cannot start the agent")
}

fn told(bench: &Bench) -> Result<()> {
    let mut world = World::prepare(bench, vpc_of(1, SMALL), &[], &[ONE_ENI])?;
    for mode in ["standard", "strict"] {
        world.cluster.daemon(NODE)?.set(MODE, mode);
        world.cluster.start_daemon(NODE)?;
        told_in(&mut world, mode).with_context(|| mode.to_owned())?;
    }
    world.finish()
}

/// Ends with the daemon away.
fn told_in(world: &mut World, mode: &str) -> Result<()> {
    let daemon = world.node(NODE)?.outside(Path::new(DAEMON));
    let told = configuration(&daemon).context("the agent would end")?;
    let is_right = told.network_policy_mode == mode
        && told.node_i_pv4 == world.primary(NODE)?.to_string()
        && told.instance_id.starts_with("i-")
        && told.region == "us-east-1"
        && !told.multi_nic_enabled;
    ensure!(is_right, "{told:?}");
    let agent = start_agent(world)?;
    let pods = world.add(NODE, mode, 2)?;
    for pod in &pods {
        ensure!(pings(pod, world.primary(NODE)?)?, "{} is cut off", pod.address);
    }
    let enforced = pods.iter().map(|pod| {
        let veth = pod.result["interfaces"][0]["name"].as_str().unwrap_or_default();
        format!("enforce {} {mode} on {veth}", pod.identity.label())
    });
    ensure!(agent.calls() == enforced.collect::<Vec<_>>(), "{:?}", agent.calls());
    // One goes as usual, the other while the daemon is away.
    world.remove(&pods[..1])?;
    world.cluster.daemon(NODE)?.stop(Signal::SIGTERM)?;
    world.remove(&pods[1..])?;
    let deleted = [1, 2].map(|number| format!("delete default/{mode}-{number}"));
    ensure!(agent.calls()[2..] == deleted, "{:?}", agent.calls());
    Ok(())
}

fn agent_away(bench: &Bench) -> Result<()> {
    let world = World::start(bench, vpc_of(1, SMALL), &[], &[ONE_ENI, (MODE, "strict")])?;
    let baseline = KernelState::of(world.node(NODE)?)?;
    let refused = Identity::pod("refused");
    let complaint = world.cluster.runtime.add(world.node(NODE)?, &refused);
    let complaint = complaint
        .err()
        .context("an ADD succeeded without the agent")?
        .to_string();
    let is_named = complaint.contains("failed to setup network policy") && complaint.contains("npa.sock");
    ensure!(is_named, "{complaint}");
    world.wait_for_kernel(NODE, &baseline)?;
    let leases = world.leases(NODE)?;
    ensure!(leases.iter().all(|lease| lease["state"] == "cooling"), "{leases:?}");
    world.cluster.runtime.forget(world.node(NODE)?, &refused)?;
    let agent = start_agent(&world)?;
    let pod = world.add_one(NODE, "pod")?;
    drop(agent);
    world.remove(&[pod])?;
    world.wait_for_kernel(NODE, &baseline)?;
    world.finish()
}
