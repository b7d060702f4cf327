//! Runtime and daemon die and come back while pods live.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use cri::PodSandboxState;
use nix::sys::signal::Signal;

use super::site::Site;
use crate::scenarios::world::{NODE, OTHER, SMALL, vpc_of};
use crate::scenarios::{Bench, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "containerd: pods survive the runtime's death, stay in reach, and are removed by its successor",
        runtime_killed,
    ),
    Scenario::new(
        "containerd: pods keep their addresses over the daemon's death, and one is removed meanwhile",
        daemon_killed,
    ),
];

/// A lease whose sandbox vanished is found soon; a plugin that has just been granted one is done long before.
const SWEEPING: &[(&str, &str)] = &[("sweep_grace", "5"), ("sweep_gap", "0.3")];

fn runtime_killed(bench: &Bench) -> Result<()> {
    let mut site = Site::start(bench, vpc_of(2, SMALL), &[], &[])?;
    let mut pods = site.run(NODE, "web", 2)?;
    pods.extend(site.run(OTHER, "db", 1)?);
    site.kill_and_restart_containerd(NODE)?;
    site.world.check_mesh(&pods)?;
    let ours: BTreeSet<&str> = pods[..2].iter().map(|pod| pod.identity.container_id.as_str()).collect();
    let listed = site.cri(NODE)?.list()?;
    ensure!(
        listed.iter().map(|(id, _)| id.as_str()).collect::<BTreeSet<_>>() == ours
            && listed.iter().all(|(_, state)| *state == PodSandboxState::SandboxReady),
        "the new containerd lists {listed:?}"
    );
    for pod in &pods[..2] {
        site.check_address(pod)?;
    }
    site.wait_for_network(NODE)?;
    pods.extend(site.run(NODE, "next", 1)?);
    site.world.check_mesh(&pods)?;
    let addresses: Vec<Ipv4Addr> = pods.iter().map(|pod| pod.address).collect();
    site.remove(&pods)?;
    drop(pods);
    site.check_no_trace(NODE, &addresses)?;
    site.check_no_trace(OTHER, &addresses)?;
    site.finish()
}

fn daemon_killed(bench: &Bench) -> Result<()> {
    let mut site = Site::start(bench, vpc_of(2, SMALL), SWEEPING, &[])?;
    let mut pods = site.run(NODE, "web", 3)?;
    pods.extend(site.run(OTHER, "db", 1)?);
    let addresses: Vec<Ipv4Addr> = pods.iter().map(|pod| pod.address).collect();
    site.world.cluster.daemon(NODE)?.stop(Signal::SIGKILL)?;
    site.world.check_mesh(&pods)?;
    // libcni hands its cached result to DEL, which is all that the plugin has now.
    let gone = pods.remove(0);
    ensure!(
        !site.kernel_lines(NODE, &[gone.address])?.is_empty(),
        "the pod has neither rule nor route"
    );
    site.remove(std::slice::from_ref(&gone))?;
    let left = site.kernel_lines(NODE, &[gone.address])?;
    ensure!(left.is_empty(), "DEL without the daemon left {left:?}");
    let gone_address = gone.address;
    drop(gone);
    site.world.check_mesh(&pods)?;
    site.world.cluster.start_daemon(NODE)?;
    for pod in pods.iter().filter(|pod| pod.node == NODE) {
        site.check_address(pod)?;
    }
    let next = site.run(NODE, "next", 1)?;
    ensure!(
        pods.iter().all(|pod| pod.address != next[0].address),
        "the new pod has an old one's address"
    );
    pods.extend(next);
    site.world.check_mesh(&pods)?;
    site.remove(&pods)?;
    drop(pods);
    site.check_no_trace(NODE, &addresses)
        .with_context(|| format!("{gone_address} was removed without the daemon"))?;
    site.finish()
}
