//! The daemon: start, memory, idle time, end, and the EC2 calls of each. One fresh node per first start.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bench_floor::launch::Job;
use e2e::wait;
use nix::sys::signal::Signal;
use vpc_sim::Launch;
use vpc_sim::model::Action;

use super::{Scale, Setup};
use crate::daemons;
use crate::figures::{Figures, Who};
use crate::launcher::millis;
use crate::pods;
use crate::world::{self, BIG, NODE, SOCKET, World};

/// Nobody has called EC2 for so long: longer than the pool waits before it grows without need (5 s).
const QUIET: Duration = Duration::from_secs(7);
/// After a restart nothing is waited for: the pool is as it was.
const SHORT_QUIET: Duration = Duration::from_secs(1);
/// A node that starts without files, and not on the boot of its launch, looks once, after a minute, for ENIs that were left half
/// made. Should ours do that, it would be at once, so that the call counts as one of the start and not of the idle time.
const ENVIRONMENT: &[(&str, &str)] = &[("VPC_CNI_TIMERS", "half_made_after=0.5")];
/// Pods that come at once while the node fills.
const PARALLEL: usize = 16;

pub(super) fn measure(setup: &Setup) -> Result<Figures> {
    let scale = setup.scale;
    let fresh: u8 = scale.pick(5, 3);
    let mut config = world::config(BIG, fresh);
    config.imds.launch = Launch::BeforeBoot;
    let mut world = World::prepare(&setup.sandbox, &setup.binaries, &setup.programs, &config, ENVIRONMENT)?;
    let mut figures = Figures::default();
    first_starts(&mut world, fresh, &mut figures)?;
    memory(&mut world, &mut figures, "memory.start")?;
    let before = world.cluster.ec2_calls();
    fill(&world, 50)?;
    calls_per_eni(&before, &world.cluster.ec2_calls(), &mut figures)?;
    memory(&mut world, &mut figures, "memory.50")?;
    idle(&mut world, scale, &mut figures)?;
    fill(&world, 200)?;
    memory(&mut world, &mut figures, "memory.250")?;
    restarts(&mut world, scale.pick(8, 4), &mut figures)?;
    Ok(figures)
}

/// Starts the daemon of every node, one after the other: none of them has been started before. Only that of our node goes on.
fn first_starts(world: &mut World, nodes: u8, figures: &mut Figures) -> Result<()> {
    let mut starts = Vec::new();
    let mut phases: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for number in 1..=nodes {
        let name = format!("node-{number}");
        let start = daemons::start(world, &name)?;
        starts.push(millis(start.serving));
        for (phase, took) in start.phases {
            phases.entry(phase).or_default().push(millis(took));
        }
        daemons::wait_for_address(world, &name)?;
    }
    world.wait_for_quiet(QUIET)?;
    let calls = more(&BTreeMap::new(), &world.cluster.ec2_calls(), |_| true);
    for number in 2..=nodes {
        world.cluster.daemon(&format!("node-{number}"))?.stop(Signal::SIGTERM)?;
    }
    figures.series("start.first", Who::Ours, &starts);
    for (phase, values) in phases {
        figures.series(phase, Who::Ours, &values);
    }
    figures.value("calls.first", calls / f64::from(nodes));
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "there are less than 2^52 calls")]
fn more(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>, counts: impl Fn(&str) -> bool) -> f64 {
    let of = |calls: &BTreeMap<String, u64>| -> u64 {
        calls
            .iter()
            .filter(|(action, _)| counts(action))
            .map(|(_, count)| count)
            .sum()
    };
    (of(after) - of(before)) as f64
}

/// The calls in which the pool grew by whole ENIs, by the number of those.
fn calls_per_eni(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>, figures: &mut Figures) -> Result<()> {
    let made = more(before, after, |action| action == Action::CreateNetworkInterface.name());
    ensure!(made > 0.0, "50 pods need more than the primary ENI");
    figures.value("calls.eni", more(before, after, |_| true) / made);
    Ok(())
}

/// So many more pods, wired by the plugin.
fn fill(world: &World, count: usize) -> Result<()> {
    let subjects = pods::make(world, Who::Ours, count)?;
    let jobs: Vec<Job> = subjects
        .iter()
        .map(|subject| subject.add(world))
        .collect::<Result<_>>()?;
    let launched = world.launcher.run(world.node()?, &jobs, PARALLEL)?;
    for (subject, run) in subjects.iter().zip(launched.runs) {
        subject.judge(world, "ADD", run)?;
    }
    world.wait_for_quiet(QUIET)
}

fn memory(world: &mut World, figures: &mut Figures, name: &str) -> Result<()> {
    let memory = daemons::memory(world, NODE)?;
    figures.value(&format!("{name}.rss"), memory.resident);
    figures.value(&format!("{name}.pss"), memory.proportional);
    figures.value(&format!("{name}.anonymous"), memory.anonymous);
    Ok(())
}

/// With 50 pods, and with the kubelet's health probes: 12 in a minute, as an exec of a small static program.
fn idle(world: &mut World, scale: Scale, figures: &mut Figures) -> Result<()> {
    let probes: u32 = scale.pick(12, 3);
    let pause = Duration::from_secs(5);
    let probe = Job {
        program: world.programs.floor.display().to_string(),
        args: vec!["check".to_owned(), SOCKET.to_owned()],
        ..Job::default()
    };
    world.wait_for_quiet(QUIET)?;
    let (calls, sent, before) = (
        world.ec2_calls(),
        World::sent(world.node()?)?,
        daemons::cpu(world, NODE)?,
    );
    let mut probing = Duration::ZERO;
    for _ in 0..probes {
        wait::pause(pause);
        let run = world.launcher.one(world.node()?, &probe)?;
        ensure!(run.status == 0, "a health probe failed");
        probing += run.cpu;
    }
    let used = daemons::cpu(world, NODE)?.saturating_sub(before);
    let window = pause * probes;
    let per_minute = 60.0 / window.as_secs_f64();
    figures.value("idle.seconds", window.as_secs_f64());
    figures.value("idle.daemon", millis(used) * per_minute);
    figures.value("idle.probes", millis(probing) * per_minute);
    figures.value("idle.cpu", millis(used + probing) * per_minute);
    #[expect(clippy::cast_precision_loss, reason = "there are less than 2^52 calls")]
    let count = |after: u64, before: u64| (after - before) as f64;
    figures.value("idle.calls", count(world.ec2_calls(), calls));
    figures.value("idle.sent", count(World::sent(world.node()?)?, sent));
    Ok(())
}

/// SIGTERM and a new start with the files of the old one, with 250 pods.
fn restarts(world: &mut World, count: usize, figures: &mut Figures) -> Result<()> {
    let (mut stops, mut starts, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        let (status, took) = world.cluster.daemon(NODE)?.stop(Signal::SIGTERM)?;
        ensure!(status.success(), "the daemon ended with {status}");
        stops.push(millis(took));
        let before = world.cluster.ec2_calls();
        let start = daemons::start(world, NODE)?;
        starts.push(millis(start.serving));
        world.wait_for_quiet(SHORT_QUIET)?;
        calls.push(more(&before, &world.cluster.ec2_calls(), |_| true));
    }
    figures.series("stop", Who::Ours, &stops);
    figures.series("start.again", Who::Ours, &starts);
    figures.series("calls.restart", Who::Ours, &calls);
    let leases = world.cluster.ask(NODE, "leases")?;
    let leases = leases["leases"].as_array().context("the daemon lists leases")?.len();
    ensure!(leases == 250, "250 pods have {leases} leases after restarts");
    Ok(())
}
