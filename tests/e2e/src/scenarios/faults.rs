//! EC2 refuses, loses answers, or is slow while the daemon dies.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use vpc_sim::model::{Action, Ec2Error, Effect, ErrorCode, Fault};

use super::world::{IPAM_JSON, NODE, SHRINKING, SMALL, SOON, World, vpc_of};
use super::{Bench, Scenario};
use crate::runtime::Pod;
use crate::wait;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "throttled calls are repeated with growing pauses until every pod has its address",
        throttling,
    ),
    Scenario::new("a creation whose answer is lost leaves no second ENI", lost_creation),
    Scenario::new("lost answers of other calls leave nothing behind", lost_answers),
    Scenario::new(
        "a daemon killed between creation and attachment finds its ENI again",
        killed_while_creating,
    ),
    Scenario::new(
        "a half-made ENI is found after a reboot, without files, and deleted",
        half_made_after_reboot,
    ),
    Scenario::new(
        "a daemon killed between detachment and deletion deletes its ENI later",
        killed_while_deleting,
    ),
    Scenario::new(
        "lost and refused answers while the pool shrinks leave no ENI",
        lost_answers_while_shrinking,
    ),
    Scenario::new(
        "addresses taken away behind the daemon's back are not granted, and pods on them are told as orphans",
        taken_away,
    ),
];

/// Pods that fill the first ENI and begin a second one.
const PODS: usize = 4;

fn refusal(code: ErrorCode) -> Fault {
    Fault::Refuse(Ec2Error::stock(code))
}

fn throttling(bench: &Bench) -> Result<()> {
    let mut world = World::prepare(bench, vpc_of(1, SMALL), &[], &[])?;
    let throttled = refusal(ErrorCode::RequestLimitExceeded);
    world.inject(Action::AssignPrivateIpAddresses, &throttled, 3);
    world.inject(Action::CreateNetworkInterface, &throttled, 3);
    world.inject(Action::AttachNetworkInterface, &throttled, 2);
    world.cluster.start_daemons()?;
    let pods = world.add(NODE, "pod", PODS)?;
    world.check_mesh(&pods)?;
    let assigned = world.calls_of(Action::AssignPrivateIpAddresses);
    let created = world.calls_of(Action::CreateNetworkInterface);
    // Three refusals each, by either path while pods wait; then the first ENI and at most two further ones are filled.
    ensure!(assigned <= 6 && created <= 5, "{:?}", world.cluster.ec2_calls());
    world.finish()
}

fn lost_creation(bench: &Bench) -> Result<()> {
    let mut world = World::prepare(bench, vpc_of(1, SMALL), &[], &[("MAX_ENI", "2")])?;
    world.inject(Action::CreateNetworkInterface, &Fault::LoseAnswer(Effect::Applied), 1);
    world.cluster.start_daemons()?;
    let pods = world.add(NODE, "pod", PODS)?;
    world.check_mesh(&pods)?;
    ensure!(
        world.calls_of(Action::CreateNetworkInterface) >= 2,
        "the creation was not repeated"
    );
    ensure!(world.eni_count() == 2, "{} ENIs exist", world.eni_count());
    world.finish()
}

fn lost_answers(bench: &Bench) -> Result<()> {
    let mut world = World::prepare(bench, vpc_of(1, SMALL), &[], &[("MAX_ENI", "2")])?;
    for (action, effect) in [
        (Action::AssignPrivateIpAddresses, Effect::Applied),
        (Action::CreateNetworkInterface, Effect::NotApplied),
        (Action::AttachNetworkInterface, Effect::Applied),
        (Action::ModifyNetworkInterfaceAttribute, Effect::NotApplied),
    ] {
        world.inject(action, &Fault::LoseAnswer(effect), 1);
    }
    world.cluster.start_daemons()?;
    let pods = world.add(NODE, "pod", PODS)?;
    world.check_mesh(&pods)?;
    ensure!(world.eni_count() == 2, "{} ENIs exist", world.eni_count());
    world.finish()
}

/// Kills the daemon when EC2 has made the ENI, long before EC2's answer.
fn kill_while_creating(world: &mut World) -> Result<Pod> {
    let slow = Fault::Delay(Duration::from_secs(20));
    world.inject(Action::CreateNetworkInterface, &slow, 1);
    world.cluster.start_daemons()?;
    // The pod uses the only ENI, so that a second one is wanted.
    let first = world.add_one(NODE, "first")?;
    wait::until("EC2 has made an ENI", SOON, || {
        Ok((world.eni_count() == 2).then_some(()))
    })?;
    world.cluster.daemon(NODE)?.stop(Signal::SIGKILL)?;
    Ok(first)
}

fn killed_while_creating(bench: &Bench) -> Result<()> {
    let mut world = World::prepare(bench, vpc_of(1, SMALL), &[], &[("MAX_ENI", "2")])?;
    let _first = kill_while_creating(&mut world)?;
    world.cluster.start_daemon(NODE)?;
    let pods = world.add(NODE, "pod", PODS)?;
    world.check_mesh(&pods)?;
    ensure!(world.eni_count() == 2, "{} ENIs exist", world.eni_count());
    world.finish()
}

fn half_made_after_reboot(bench: &Bench) -> Result<()> {
    let timers = [("half_made_after", "0.5"), ("half_made_age", "1"), ("sweep_grace", "2")];
    let mut world = World::prepare(bench, vpc_of(1, SMALL), &timers, &[("MAX_ENI", "2")])?;
    let first = kill_while_creating(&mut world)?;
    // A reboot ends all pods and empties the directory.
    world.remove(&[first])?;
    for name in ["ipam.json", "vpc-cni-state.json"] {
        let file = world.node(NODE)?.outside(IPAM_JSON.as_ref()).with_file_name(name);
        std::fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    world.cluster.start_daemon(NODE)?;
    wait::until("the half-made ENI is gone", SOON, || {
        Ok((world.calls_of(Action::DeleteNetworkInterface) >= 1 && world.eni_count() <= 2).then_some(()))
    })?;
    let pods = world.add(NODE, "pod", PODS)?;
    world.check_mesh(&pods)?;
    world.finish()
}

/// Pods on two ENIs come and go, so that ENIs are given back. `start` adds what is to go wrong.
fn with_idle_enis(bench: &Bench, start: impl FnOnce(&World)) -> Result<World> {
    let world = World::start(bench, vpc_of(1, SMALL), SHRINKING, &[])?;
    let pods = world.add(NODE, "pod", PODS)?;
    ensure!(world.eni_count() > 1, "one ENI carries all pods");
    start(&world);
    world.remove(&pods)?;
    Ok(world)
}

fn wait_for_one_eni(world: &World) -> Result<()> {
    wait::until("one ENI is left", SOON, || Ok((world.eni_count() == 1).then_some(())))
        .with_context(|| format!("{:?}", world.cluster.ec2_calls()))
}

fn killed_while_deleting(bench: &Bench) -> Result<()> {
    let slow = Fault::Delay(Duration::from_secs(20));
    let mut world = with_idle_enis(bench, |world| world.inject(Action::DetachNetworkInterface, &slow, 3))?;
    wait::until("EC2 detaches an ENI", SOON, || {
        Ok((world.calls_of(Action::DetachNetworkInterface) >= 1).then_some(()))
    })?;
    world.cluster.daemon(NODE)?.stop(Signal::SIGKILL)?;
    let simulator = world.cluster.vpc.simulator();
    simulator.with_model(|model, _| model.faults_mut().clear());
    world.cluster.start_daemon(NODE)?;
    wait_for_one_eni(&world)?;
    world.finish()
}

fn lost_answers_while_shrinking(bench: &Bench) -> Result<()> {
    let world = with_idle_enis(bench, |world| {
        for (action, fault) in [
            (Action::DetachNetworkInterface, Fault::LoseAnswer(Effect::Applied)),
            (Action::DetachNetworkInterface, refusal(ErrorCode::RequestLimitExceeded)),
            (Action::DeleteNetworkInterface, refusal(ErrorCode::InvalidEniInUse)),
            (Action::DeleteNetworkInterface, Fault::LoseAnswer(Effect::Applied)),
            (Action::DeleteNetworkInterface, Fault::LoseAnswer(Effect::NotApplied)),
        ] {
            world.inject(action, &fault, 1);
        }
    })?;
    wait_for_one_eni(&world)?;
    world.finish()
}

fn taken_away(bench: &Bench) -> Result<()> {
    let mut world = World::start(bench, vpc_of(1, SMALL), &[], &[("MAX_ENI", "1")])?;
    let pod = world.add_one(NODE, "pod")?;
    // A view that starts right after a change of ours proves nothing.
    world.wait_for_quiet()?;
    let simulator = world.cluster.vpc.simulator().clone();
    simulator.with_model(|model, now| {
        let eni = model.enis().next().cloned().context("there is an ENI")?;
        let call = vpc_sim::model::request::UnassignPrivateIpAddresses {
            eni: eni.id.clone(),
            addresses: eni.secondary.clone(),
            prefixes: Vec::new(),
        };
        model.call_directly(now, &call).context("unassign")
    })?;
    // The daemon looks at EC2 when it starts.
    world.cluster.daemon(NODE)?.stop(Signal::SIGTERM)?;
    world.cluster.start_daemon(NODE)?;
    world.wait_for_pool(NODE, "the pod is an orphan, and there are new addresses", |pool| {
        pool["orphans"] == 1 && pool["free"].as_u64() > Some(0)
    })?;
    let next = world.add(NODE, "next", 2)?;
    ensure!(next.iter().all(|other| other.address != pod.address), "granted again");
    world.check_mesh(&next)?;
    world.remove(&[pod])?;
    world.finish()
}
