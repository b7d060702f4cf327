//! `kill -9` of the daemon around each call that changes something at EC2: the call never arrived, or it took effect and
//! its answer never came. The next daemon finds out which, and nothing is lost.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use vpc_sim::LostAnswers;
use vpc_sim::model::{Action, Effect, Fault};

use super::world::{NODE, SHRINKING, SMALL, SOON, World, vpc_of};
use super::{Bench, Scenario};
use crate::wait;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "kill -9 before addresses are assigned: they are asked for again",
        |bench| while_growing(bench, Action::AssignPrivateIpAddresses, Effect::NotApplied),
    ),
    Scenario::new("kill -9 after addresses were assigned: they are found", |bench| {
        while_growing(bench, Action::AssignPrivateIpAddresses, Effect::Applied)
    }),
    Scenario::new("kill -9 before an ENI is created: one is made, not two", |bench| {
        while_growing(bench, Action::CreateNetworkInterface, Effect::NotApplied)
    }),
    Scenario::new("kill -9 after an ENI was created: it is found, and used", |bench| {
        while_growing(bench, Action::CreateNetworkInterface, Effect::Applied)
    }),
    Scenario::new("kill -9 before an ENI is attached: it is attached, or goes", |bench| {
        while_growing(bench, Action::AttachNetworkInterface, Effect::NotApplied)
    }),
    Scenario::new("kill -9 after an ENI was attached: it is used", |bench| {
        while_growing(bench, Action::AttachNetworkInterface, Effect::Applied)
    }),
    Scenario::new("kill -9 before an ENI is told to end with its instance", |bench| {
        while_growing(bench, Action::ModifyNetworkInterfaceAttribute, Effect::NotApplied)
    }),
    Scenario::new("kill -9 after an ENI was told to end with its instance", |bench| {
        while_growing(bench, Action::ModifyNetworkInterfaceAttribute, Effect::Applied)
    }),
    Scenario::new("kill -9 before addresses are given back: none is lost", |bench| {
        while_giving_back(bench, Effect::NotApplied)
    }),
    Scenario::new(
        "kill -9 after addresses were given back: none of them is granted",
        |bench| while_giving_back(bench, Effect::Applied),
    ),
    Scenario::new("kill -9 before an ENI is detached: it goes later", |bench| {
        while_removing(bench, Action::DetachNetworkInterface, Effect::NotApplied)
    }),
    Scenario::new("kill -9 after an ENI was detached: it is deleted", |bench| {
        while_removing(bench, Action::DetachNetworkInterface, Effect::Applied)
    }),
    Scenario::new("kill -9 before an ENI is deleted: it is deleted later", |bench| {
        while_removing(bench, Action::DeleteNetworkInterface, Effect::NotApplied)
    }),
    Scenario::new("kill -9 after an ENI was deleted: nothing is left to do", |bench| {
        while_removing(bench, Action::DeleteNetworkInterface, Effect::Applied)
    }),
];

/// The next call of the action gets no answer while the daemon lives.
fn hold(world: &World, action: Action, effect: Effect) {
    world.cluster.vpc.simulator().set_lost_answers(LostAnswers::Hang);
    world.inject(action, &Fault::LoseAnswer(effect), 1);
}

/// Kills the daemon while it waits for the answer, and starts the next one.
fn kill_while_held(world: &mut World, action: Action) -> Result<()> {
    let before = |world: &World| {
        let simulator = world.cluster.vpc.simulator();
        simulator.with_model(|model, _| model.faults_mut().waiting(action))
    };
    wait::until("the call is made", SOON, || Ok((before(world) == 0).then_some(())))
        .with_context(|| format!("{:?}", world.cluster.ec2_calls()))?;
    world.cluster.daemon(NODE)?.stop(Signal::SIGKILL)?;
    world.cluster.start_daemon(NODE)?;
    Ok(())
}

fn while_growing(bench: &Bench, action: Action, effect: Effect) -> Result<()> {
    let mut world = World::prepare(bench, vpc_of(1, SMALL), &[], &[("MAX_ENI", "2")])?;
    hold(&world, action, effect);
    world.cluster.start_daemons()?;
    let mut pods = Vec::new();
    if action != Action::AssignPrivateIpAddresses {
        // It takes an address of the only ENI, so that a second one is wanted.
        pods.push(world.add_one(NODE, "first")?);
    }
    kill_while_held(&mut world, action)?;
    pods.extend(world.add(NODE, "pod", 4)?);
    world.check_mesh(&pods)?;
    ensure!(world.eni_count() == 2, "{} ENIs exist", world.eni_count());
    world.wait_for_quiet()?;
    let keeps = world.cluster.vpc.simulator().with_model(|model, _| {
        let keeps = |eni: &&std::sync::Arc<vpc_sim::model::Eni>| {
            let tie = eni.attachment.as_ref();
            tie.is_none_or(|tie| tie.on_termination != vpc_sim::model::OnTermination::Delete)
        };
        model.enis().filter(keeps).count()
    });
    ensure!(keeps == 0, "{keeps} ENIs would outlive the instance");
    world.finish()
}

fn while_giving_back(bench: &Bench, effect: Effect) -> Result<()> {
    let timers = [("release_window", "1"), ("start_grace", "0")];
    let targets = [("WARM_IP_TARGET", "1"), ("MAX_ENI", "1")];
    // One ENI with room for five pods: enough to give back at once.
    let mut world = World::start(bench, vpc_of(1, "t3.medium"), &timers, &targets)?;
    let pods = world.add(NODE, "pod", 5)?;
    hold(&world, Action::UnassignPrivateIpAddresses, effect);
    world.remove(&pods)?;
    kill_while_held(&mut world, Action::UnassignPrivateIpAddresses)?;
    let pods = world.add(NODE, "next", 5)?;
    world.check_mesh(&pods)?;
    world.remove(&pods)?;
    world.wait_for_quiet()?;
    world.finish()
}

fn while_removing(bench: &Bench, action: Action, effect: Effect) -> Result<()> {
    let mut world = World::start(bench, vpc_of(1, SMALL), SHRINKING, &[])?;
    let pods = world.add(NODE, "pod", 4)?;
    ensure!(world.eni_count() > 1, "one ENI carries all pods");
    hold(&world, action, effect);
    world.remove(&pods)?;
    kill_while_held(&mut world, action)?;
    wait::until("one ENI is left", SOON, || Ok((world.eni_count() == 1).then_some(())))
        .with_context(|| format!("{:?}", world.cluster.ec2_calls()))?;
    let pods = world.add(NODE, "next", 2)?;
    world.check_mesh(&pods)?;
    world.finish()
}
