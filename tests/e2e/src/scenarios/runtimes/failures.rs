//! ADDs that are refused: what the kubelet reads, and what is left.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use cri::PodSandboxState;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::site::Site;
use crate::kernel::KernelState;
use crate::runtimes::client::Order;
use crate::scenarios::world::{NODE, SMALL, SOON, vpc_of};
use crate::scenarios::{Bench, Scenario};
use crate::wait;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "containerd: a refused ADD tells the kubelet the cause, and leaves nothing",
        refused,
    ),
    Scenario::new(
        "containerd: without the daemon a pod is refused in time, and leaves nothing",
        without_the_daemon,
    ),
    Scenario::new(
        "containerd: a sandbox that is not ready is stopped and removed, again and again",
        not_ready,
    ),
];

/// All slots are pods'.
const ONE_ENI: &[(&str, &str)] = &[("MAX_ENI", "1")];

/// Runs a sandbox that must fail; the text that becomes the pod's event.
fn refusal(site: &Site, order: &Order) -> Result<String> {
    let refused = site.cri(NODE)?.run(order);
    let error = refused.err().context("the sandbox was made")?;
    Ok(format!("{error:#}"))
}

/// After a refusal: DEL came for the same sandbox and succeeded; whatever the runtime still lists can be ended, twice.
fn check_clean_up(site: &Site, pods_before: usize) -> Result<()> {
    let verbs = |verb: &str| -> Result<usize> {
        Ok(site
            .all_plugin_lines(NODE)?
            .iter()
            .filter(|line| line["verb"] == verb)
            .count())
    };
    ensure!(verbs("DEL")? > 0, "no DEL followed the refused ADD");
    let failed_dels = site.all_plugin_lines(NODE)?.into_iter();
    let failed_dels: Vec<_> = failed_dels
        .filter(|line| line["verb"] == "DEL" && line["level"] == "error")
        .collect();
    ensure!(failed_dels.is_empty(), "{failed_dels:?}");
    let listed = site.cri(NODE)?.list()?;
    let dead: Vec<_> = listed
        .iter()
        .filter(|(_, state)| *state == PodSandboxState::SandboxNotready)
        .collect();
    ensure!(listed.len() - dead.len() == pods_before, "{listed:?}");
    for (id, _) in dead {
        for _ in 0..2 {
            site.cri(NODE)?.stop(id)?;
        }
        site.cri(NODE)?.remove(id)?;
        site.cri(NODE)?.remove(id)?;
    }
    Ok(())
}

fn refused(bench: &Bench) -> Result<()> {
    let site = Site::start(bench, vpc_of(1, SMALL), &[], ONE_ENI)?;
    let baseline = KernelState::of(site.node(NODE)?)?;
    let pods = site.run(NODE, "pod", 3)?;
    let full = KernelState::of(site.node(NODE)?)?;
    let event = refusal(&site, &Order::new("one-too-many"))?;
    for part in ["plugin type=\"aws-cni\" failed (add)", "ENI_LIMIT", "addresses"] {
        ensure!(event.contains(part), "no {part:?} in {event:?}");
    }
    check_clean_up(&site, pods.len())?;
    site.world.wait_for_kernel(NODE, &full)?;
    let leased = site.world.leases(NODE)?.len();
    ensure!(leased == pods.len(), "{leased} leases for {} pods", pods.len());
    // A slot becomes free, and the kubelet's next try has it.
    site.remove(&pods[..1])?;
    let order = Order {
        attempt: 1,
        ..Order::new("one-too-many")
    };
    let id = wait::until("the pod has its address", SOON, || Ok(site.cri(NODE)?.run(&order).ok()))?;
    let late = site.pod(NODE, "one-too-many", &id)?;
    let addresses: Vec<Ipv4Addr> = pods.iter().map(|pod| pod.address).collect();
    site.remove(&[late])?;
    site.remove(&pods[1..])?;
    drop(pods);
    site.check_no_trace(NODE, &addresses)?;
    site.world.wait_for_kernel(NODE, &baseline)?;
    site.finish()
}

fn without_the_daemon(bench: &Bench) -> Result<()> {
    let mut site = Site::configured(bench, vpc_of(1, SMALL), &[], ONE_ENI)?;
    site.start_containerd(NODE, &[("VPC_CNI_ADD_DEADLINE", "2")])?;
    site.wait_for_network(NODE)?;
    let baseline = KernelState::of(site.node(NODE)?)?;
    site.world.cluster.daemon(NODE)?.stop(Signal::SIGKILL)?;
    let event = refusal(&site, &Order::new("early"))?;
    ensure!(
        event.contains("plugin type=\"aws-cni\" failed (add)") && event.contains("ipamd"),
        "{event}"
    );
    check_clean_up(&site, 0)?;
    site.world.wait_for_kernel(NODE, &baseline)?;
    site.world.cluster.start_daemon(NODE)?;
    site.check_no_trace(NODE, &[])?;
    site.finish()
}

/// The pod's first process dies, as out of memory.
fn not_ready(bench: &Bench) -> Result<()> {
    let site = Site::start(bench, vpc_of(1, SMALL), &[], ONE_ENI)?;
    let pods = site.run(NODE, "pod", 2)?;
    let addresses: Vec<Ipv4Addr> = pods.iter().map(|pod| pod.address).collect();
    let id = pods[0].identity.container_id.clone();
    let pid = site.cri(NODE)?.status(&id)?.pid;
    ensure!(pid > 0, "the sandbox has no process");
    kill(Pid::from_raw(pid), Signal::SIGKILL).context("kill the pod's first process")?;
    wait::until("the sandbox is not ready", SOON, || {
        let state = site.cri(NODE)?.status(&id)?.state;
        Ok((state == PodSandboxState::SandboxNotready).then_some(()))
    })?;
    for _ in 0..3 {
        site.cri(NODE)?.stop(&id)?;
    }
    let dels = site.plugin_lines(NODE, &id)?;
    ensure!(dels.iter().any(|line| line["verb"] == "DEL"), "no DEL came: {dels:?}");
    ensure!(site.lease(NODE, &id)?.is_none(), "the lease is still there");
    // The other pod is none the worse for it.
    super::site::wait_until_reached(&pods[1].netns.netns, site.world.primary(NODE)?)?;
    for _ in 0..2 {
        site.cri(NODE)?.remove(&id)?;
    }
    site.remove(&pods[1..])?;
    drop(pods);
    site.check_no_trace(NODE, &addresses)?;
    site.finish()
}
