//! The daemon ends and comes back; how many calls it makes when it is told nothing.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use vpc_fabric::probe::Vantage;
use vpc_sim::Launch;
use vpc_sim::model::Action;

use super::world::{IPAM_JSON, NODE, OTHER, SMALL, SMALL_SLOTS, SOON, World, vpc_of};
use super::{Bench, Scenario};
use crate::runtime::Pod;
use crate::wait;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "a first boot makes at most four EC2 calls, an ENI three, and an idle daemon none",
        calls_are_few,
    ),
    Scenario::new("the boot of the launch makes three EC2 calls", launch_makes_three_calls),
    Scenario::new(
        "a restart with its files makes one EC2 call, and pods do not notice it",
        pods_do_not_notice,
    )
    .also_unprivileged(),
    Scenario::new("SIGTERM ends the daemon at once and leaves no socket", sigterm),
    Scenario::new(
        "a corrupt ipam.json is set aside, and no live pod loses its address",
        a_corrupt_checkpoint,
    ),
    Scenario::new(
        "without its files the daemon grants no address of a live pod",
        lost_files,
    ),
];

/// The look for half-made ENIs after a first boot comes soon.
const LOOKING: (&str, &str) = ("half_made_after", "0.5");
/// Without files, addresses rest once: a plugin may be about to wire one.
const RESTING: &[(&str, &str)] = &[("sweep_grace", "2")];
/// Long against all shortened timers.
const IDLE: Duration = Duration::from_secs(4);
/// Half of what the kubelet waits before SIGKILL. It takes milliseconds, which the bench shows; a busy machine may stall.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// An answer within one machine takes less than a millisecond; a busy one may take longer.
const PING_LIMIT: Duration = Duration::from_secs(1);

fn calls_are_few(bench: &Bench) -> Result<()> {
    let world = World::start(bench, vpc_of(1, SMALL), &[LOOKING], &[])?;
    wait::until("the look for half-made ENIs was made", SOON, || {
        Ok((world.calls_of(Action::DescribeNetworkInterfaces) >= 2).then_some(()))
    })?;
    wait::pause(IDLE);
    let counts = world.cluster.ec2_calls();
    // One of them reads the subnets' tags.
    ensure!(world.calls() <= 4, "a first boot and an idle time made {counts:?}");
    world.reset_calls();
    // The first pod breaks into the only ENI: another one is to be kept warm.
    let pods = world.add(NODE, "pod", 1)?;
    wait::until("the second ENI serves", SOON, || {
        let status = world.cluster.ask(NODE, "status")?;
        Ok((status["pool"]["total"].as_u64() == Some(2 * SMALL_SLOTS)).then_some(()))
    })?;
    wait::pause(IDLE);
    let counts = world.cluster.ec2_calls();
    ensure!(world.calls() == 3, "an ENI and an idle time made {counts:?}");
    world.remove(&pods)?;
    world.finish()
}

fn launch_makes_three_calls(bench: &Bench) -> Result<()> {
    let mut config = vpc_of(1, SMALL);
    config.imds.launch = Launch::BeforeBoot;
    let world = World::start(bench, config, &[LOOKING], &[])?;
    wait::until("the pool is filled", SOON, || {
        let status = world.cluster.ask(NODE, "status")?;
        Ok((status["pool"]["free"].as_u64() > Some(0)).then_some(()))
    })?;
    wait::pause(IDLE);
    let counts = world.cluster.ec2_calls();
    ensure!(world.calls() == 3, "the boot of the launch made {counts:?}");
    world.finish()
}

/// Pings without a pause until told to stop.
struct Pings {
    stop: AtomicBool,
    answered: AtomicU64,
    lost: AtomicU64,
}

impl Pings {
    fn run(&self, from: &Pod, to: Ipv4Addr) -> Result<()> {
        let vantage = Vantage::new(&from.netns.netns).within(PING_LIMIT);
        while !self.stop.load(Ordering::Relaxed) {
            let answers = vantage.ping(&[to])?;
            let counter = if answers[0].is_some() {
                &self.answered
            } else {
                &self.lost
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn pods_do_not_notice(bench: &Bench) -> Result<()> {
    let mut world = World::start(bench, vpc_of(2, SMALL), &[LOOKING], &[])?;
    let mut here = world.add(NODE, "here", 4)?;
    let there = world.add_one(OTHER, "there")?;
    world.wait_for_quiet()?;
    // The next change of the state writes down that the look for half-made ENIs was made.
    here.push(world.add_one(NODE, "late")?);
    let pinger = here
        .iter()
        .find(|pod| pod.device > 0)
        .context("no pod is on a secondary ENI")?;
    world.wait_for_quiet()?;
    world.wait_for_carrier(&here)?;
    let pings = Pings {
        stop: AtomicBool::new(false),
        answered: AtomicU64::new(0),
        lost: AtomicU64::new(0),
    };
    let worked = std::thread::scope(|scope| {
        let thread = scope.spawn(|| pings.run(pinger, there.address));
        let worked = restarts(&mut world, &pings);
        pings.stop.store(true, Ordering::Relaxed);
        let pinged = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        worked.and(pinged)
    });
    worked?;
    let lost = pings.lost.load(Ordering::Relaxed);
    ensure!(lost == 0, "{lost} pings were lost, {:?} answered", pings.answered);
    let leases = world.leases(NODE)?;
    ensure!(leases.len() == here.len(), "{} pods have leases {leases:?}", here.len());
    world.finish()
}

fn restarts(world: &mut World, pings: &Pings) -> Result<()> {
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let before = pings.answered.load(Ordering::Relaxed);
        wait::until("pings are answered", SOON, || {
            Ok((pings.answered.load(Ordering::Relaxed) > before).then_some(()))
        })?;
        world.reset_calls();
        world.cluster.daemon(NODE)?.stop(signal)?;
        world.cluster.start_daemon(NODE)?;
        wait::until("the daemon looked at EC2", SOON, || {
            Ok((world.calls() >= 1).then_some(()))
        })?;
        wait::pause(IDLE / 2);
        let counts = world.cluster.ec2_calls();
        ensure!(world.calls() == 1, "the restart after {signal} made {counts:?}");
    }
    Ok(())
}

fn sigterm(bench: &Bench) -> Result<()> {
    let mut world = World::start(bench, vpc_of(1, SMALL), &[], &[])?;
    world.add(NODE, "pod", 2)?;
    let (status, took) = world.cluster.daemon(NODE)?.stop(Signal::SIGTERM)?;
    ensure!(status.success(), "it ended with {status}");
    ensure!(took <= STOP_LIMIT, "it took {took:?}");
    let socket = world.node(NODE)?.outside("/var/run/aws-node/ipamd.sock".as_ref());
    ensure!(!socket.exists(), "the socket is left");
    world.cluster.start_daemon(NODE)?;
    ensure!(world.leases(NODE)?.len() == 2, "leases were lost");
    world.finish()
}

fn a_corrupt_checkpoint(bench: &Bench) -> Result<()> {
    let mut world = World::start(bench, vpc_of(1, SMALL), RESTING, &[])?;
    let pods = world.add(NODE, "pod", 4)?;
    world.wait_for_quiet()?;
    world.cluster.daemon(NODE)?.stop(Signal::SIGKILL)?;
    let file = world.node(NODE)?.outside(IPAM_JSON.as_ref());
    std::fs::write(&file, br#"{"version":"vpc-cni-ipam/1","allocations":[{"netw"#)?;
    world.cluster.start_daemon(NODE)?;
    let aside = file.with_file_name("ipam.json.bad");
    ensure!(aside.exists(), "{} is not there", aside.display());
    check_that_none_is_granted_again(&world, &pods)?;
    world.finish()
}

fn lost_files(bench: &Bench) -> Result<()> {
    let mut world = World::start(bench, vpc_of(1, SMALL), RESTING, &[])?;
    let pods = world.add(NODE, "pod", 4)?;
    world.wait_for_quiet()?;
    world.cluster.daemon(NODE)?.stop(Signal::SIGKILL)?;
    for name in ["ipam.json", "vpc-cni-state.json"] {
        let file = world.node(NODE)?.outside(IPAM_JSON.as_ref()).with_file_name(name);
        std::fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    world.cluster.start_daemon(NODE)?;
    check_that_none_is_granted_again(&world, &pods)?;
    world.finish()
}

/// New pods until none is left of the node's nine slots; old ones still have their network.
fn check_that_none_is_granted_again(world: &World, pods: &[Pod]) -> Result<()> {
    let new = world.add(NODE, "new", 9 - pods.len())?;
    let all = [pods, &new].concat();
    let distinct: BTreeSet<Ipv4Addr> = all.iter().map(|pod| pod.address).collect();
    ensure!(distinct.len() == all.len(), "a live pod's address was granted again");
    world.check_mesh(&all)?;
    // The runtime's DELs come as always, whatever the daemon forgot.
    world.remove(&all)?;
    world.wait_for_pool(NODE, "all addresses are back", |pool| {
        pool["free"] == pool["total"] && pool["assigned"] == 0
    })
}
