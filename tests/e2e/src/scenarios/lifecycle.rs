//! DELs that come late, or while the daemon is away, and containers that are no pods.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::world::{NODE, SMALL, SMALL_SLOTS, SOON, World, pings, vpc_of};
use super::{Bench, Scenario};
use crate::kernel::KernelState;
use crate::runtime::{Identity, Pod};
use crate::wait;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "DEL without the daemon cleans up, and the daemon's next start reclaims the address for another pod",
        del_without_the_daemon,
    )
    .also_unprivileged(),
    Scenario::new(
        "a sandbox that vanishes without DEL gives its address back",
        a_vanished_sandbox,
    ),
    Scenario::new(
        "the late DEL of an old sandbox does not harm the new pod of the same name",
        a_late_del,
    ),
    Scenario::new(
        "a late DEL without the daemon does not harm the new owner of the address",
        a_late_del_of_a_reused_address,
    ),
    Scenario::new(
        "while the leases cannot be written an ADD is refused and a DEL succeeds",
        unwritable_checkpoint,
    ),
    Scenario::new("DEL may be repeated, and may come for nothing", repeated_dels),
    Scenario::new(
        "containers without a pod name get veths and addresses of their own",
        nameless_containers,
    ),
];

/// Leases whose sandbox is gone are found quickly. Plugins of these scenarios are done long before.
const SWEEPING: &[(&str, &str)] = &[("sweep_grace", "1"), ("sweep_gap", "0.3")];
/// One ENI alone: its three slots make a reused address likely.
const ONE_ENI: (&str, &str) = ("MAX_ENI", "1");

fn del_without_the_daemon(bench: &Bench) -> Result<()> {
    let mut world = World::start(bench, vpc_of(1, SMALL), SWEEPING, &[ONE_ENI])?;
    let baseline = KernelState::of(world.node(NODE)?)?;
    let pods = world.add(NODE, "pod", 3)?;
    world.cluster.daemon(NODE)?.stop(Signal::SIGTERM)?;
    let before: BTreeSet<Ipv4Addr> = pods.iter().map(|pod| pod.address).collect();
    for pod in pods {
        let result = world.cluster.runtime.remove(world.node(NODE)?, &pod)?;
        ensure!(result.stdout.is_empty(), "DEL printed {}", result.stdout);
    }
    world.wait_for_kernel(NODE, &baseline).context("without the daemon")?;
    ensure!(
        world.checkpointed(NODE)?.len() == before.len(),
        "who changed ipam.json?"
    );
    world.cluster.start_daemon(NODE)?;
    // All slots are taken: the new pods live only if the addresses were reclaimed.
    let after: BTreeSet<Ipv4Addr> = world.add(NODE, "next", 3)?.iter().map(|pod| pod.address).collect();
    ensure!(before == after, "{before:?} became {after:?}");
    ensure!(
        world.checkpointed(NODE)?.len() == after.len(),
        "leases are left in ipam.json"
    );
    world.finish()
}

fn a_vanished_sandbox(bench: &Bench) -> Result<()> {
    let world = World::start(bench, vpc_of(1, SMALL), SWEEPING, &[ONE_ENI])?;
    let baseline = KernelState::of(world.node(NODE)?)?;
    for pod in world.add(NODE, "pod", 2)? {
        world.cluster.runtime.lose(world.node(NODE)?, &pod)?;
    }
    world.wait_for_pool(NODE, "the addresses are back", |pool| {
        pool["free"].as_u64() == Some(SMALL_SLOTS) && pool["cooling"] == 0
    })?;
    world.wait_for_kernel(NODE, &baseline)?;
    ensure!(world.checkpointed(NODE)?.is_empty(), "leases are left in ipam.json");
    world.finish()
}

/// The kubelet starts the new sandbox while the old one's DEL is still to come.
fn a_late_del(bench: &Bench) -> Result<()> {
    let mut world = World::start(bench, vpc_of(1, SMALL), &[], &[])?;
    let peer = world.add_one(NODE, "peer")?;
    let old = world.add_one(NODE, "web-0")?;
    let new = world.add_one(NODE, "web-0")?;
    ensure!(old.address != new.address, "both sandboxes have {}", old.address);
    ensure!(pings(&new, peer.address)?, "the new pod has no network");
    world.remove(std::slice::from_ref(&old))?;
    ensure!(
        pings(&new, peer.address)? && pings(&peer, new.address)?,
        "the late DEL cut the new pod off"
    );
    // Again, with the namespace gone and the daemon away.
    world.cluster.daemon(NODE)?.stop(Signal::SIGTERM)?;
    world.cluster.runtime.del(world.node(NODE)?, &old)?;
    ensure!(
        pings(&new, peer.address)? && pings(&peer, new.address)?,
        "the late DEL cut the new pod off"
    );
    world.cluster.start_daemon(NODE)?;
    let leases = world.leases(NODE)?;
    ensure!(leases.len() == 2, "expected leases of two pods: {leases:?}");
    world.remove(&[new, peer])?;
    world.finish()
}

/// The old sandbox's rules are keyed by an address that belongs to another pod by now.
fn a_late_del_of_a_reused_address(bench: &Bench) -> Result<()> {
    let mut world = World::start(bench, vpc_of(1, SMALL), &[], &[ONE_ENI])?;
    let old = world.add_one(NODE, "web-0")?;
    world.remove(std::slice::from_ref(&old))?;
    let pods = world.add(NODE, "next", 3)?;
    let heir = pods
        .iter()
        .find(|pod| pod.address == old.address)
        .context("nobody got the address")?;
    let peer = pods
        .iter()
        .find(|pod| pod.address != old.address)
        .context("there are three")?;
    let check = |world: &World, when: &str| -> Result<()> {
        world.cluster.runtime.del(world.node(NODE)?, &old)?;
        ensure!(
            pings(heir, peer.address)? && pings(peer, heir.address)?,
            "the late DEL cut off the new owner of {} {when}",
            old.address
        );
        Ok(())
    };
    check(&world, "with the daemon")?;
    world.cluster.daemon(NODE)?.stop(Signal::SIGKILL)?;
    check(&world, "without the daemon")?;
    world.cluster.start_daemon(NODE)?;
    ensure!(world.leases(NODE)?.len() == pods.len(), "a lease is missing");
    world.finish()
}

/// A directory that can be taken away.
const STORE: &str = "/var/run/aws-node/store";

fn unwritable_checkpoint(bench: &Bench) -> Result<()> {
    let file = format!("{STORE}/ipam.json");
    let environment = [("AWS_VPC_K8S_CNI_BACKING_STORE", file.as_str())];
    let mut world = World::prepare(bench, vpc_of(1, SMALL), &[("add_deadline", "1")], &environment)?;
    let directory = world.node(NODE)?.outside(STORE.as_ref());
    std::fs::create_dir_all(&directory)?;
    world.cluster.start_daemons()?;
    let pods = world.add(NODE, "pod", 2)?;
    std::fs::remove_dir_all(&directory)?;
    let refused = Identity::pod("refused");
    let complaint = world.cluster.runtime.add(world.node(NODE)?, &refused);
    let complaint = complaint.err().context("an ADD was granted")?.to_string();
    ensure!(
        complaint.contains("CHECKPOINT_FAILING"),
        "refused for another reason: {complaint}"
    );
    world.cluster.runtime.forget(world.node(NODE)?, &refused)?;
    world.remove(&pods[..1])?;
    std::fs::create_dir_all(&directory)?;
    let next = wait::until("an ADD is granted again", SOON, || {
        let identity = Identity::pod("next");
        let added = world.cluster.runtime.add(world.node(NODE)?, &identity);
        if added.is_err() {
            world.cluster.runtime.forget(world.node(NODE)?, &identity)?;
        }
        Ok(added.ok())
    })?;
    // What was written at last tells of everything that happened meanwhile.
    world.cluster.daemon(NODE)?.stop(Signal::SIGKILL)?;
    world.cluster.start_daemon(NODE)?;
    let leased = world
        .leases(NODE)?
        .into_iter()
        .filter(|lease| lease["state"] != "cooling");
    let leased: BTreeSet<String> = leased
        .map(|lease| lease["pod"].as_str().unwrap_or_default().to_owned())
        .collect();
    ensure!(
        leased == ["next", "pod-2"].map(str::to_owned).into(),
        "leases of {leased:?}"
    );
    world.remove(&[next])?;
    world.remove(&pods[1..])?;
    world.finish()
}

fn repeated_dels(bench: &Bench) -> Result<()> {
    let mut world = World::start(bench, vpc_of(1, SMALL), &[], &[ONE_ENI])?;
    let baseline = KernelState::of(world.node(NODE)?)?;
    let pod = world.add_one(NODE, "pod")?;
    for _ in 0..3 {
        world.cluster.runtime.del(world.node(NODE)?, &pod)?;
    }
    world.remove(std::slice::from_ref(&pod))?;
    world.cluster.runtime.del(world.node(NODE)?, &pod)?;
    let never_added = Identity::pod("never-added");
    world.cluster.runtime.forget(world.node(NODE)?, &never_added)?;
    world.cluster.daemon(NODE)?.stop(Signal::SIGTERM)?;
    world.cluster.runtime.forget(world.node(NODE)?, &never_added)?;
    drop(pod);
    world.wait_for_kernel(NODE, &baseline)?;
    world.finish()
}

fn nameless_containers(bench: &Bench) -> Result<()> {
    let world = World::start(bench, vpc_of(1, SMALL), &[], &[ONE_ENI])?;
    let baseline = KernelState::of(world.node(NODE)?)?;
    let node = world.node(NODE)?;
    let containers: Vec<Pod> = (0..3)
        .map(|_| world.cluster.runtime.add(node, &Identity::container()))
        .collect::<Result<_>>()?;
    let veths: BTreeSet<String> = KernelState::of(node)?.host_veths().cloned().collect();
    let named: BTreeSet<String> = containers
        .iter()
        .filter_map(|pod| pod.result["interfaces"][0]["name"].as_str().map(str::to_owned))
        .collect();
    ensure!(
        veths == named && veths.len() == 3,
        "veths {veths:?}, in results {named:?}"
    );
    world.check_mesh(&containers)?;
    world.remove(&containers)?;
    drop(containers);
    wait::until("all leases are gone", SOON, || {
        Ok(world
            .leases(NODE)?
            .iter()
            .all(|lease| lease["state"] == "cooling")
            .then_some(()))
    })?;
    world.wait_for_kernel(NODE, &baseline)?;
    world.finish()
}
