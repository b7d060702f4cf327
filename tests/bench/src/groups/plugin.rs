//! ADD, DEL and VERSION of the plugin, next to the floor and to the plugin in Go.
//!
//! A round has four stages: an empty node, one with 4,000 routes and rules of others, 50 pods on it (the primary ENI is full, so
//! ADDs go to secondary ones), 180 pods on it. In each stage pods come and go in small chunks: all ADDs of a chunk alternate between the contestants, then all DELs,
//! then the namespaces go, so that never more than a chunk of dead devices is around.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use bench_floor::launch::{Job, Run};

use super::{Scale, Setup, has_go_plugins};
use crate::daemons;
use crate::figures::{Figures, Who};
use crate::foreign;
use crate::launcher::{Launched, cpus, memories, millis, walls};
use crate::pods::{self, GO_PLUGINS, Subject};
use crate::world::{self, BIG, NODE, World};

/// All addresses that the instance can have. Freed ones rest for a moment only, so that the next stage finds all of them.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("VPC_CNI_TIMERS", "cooldown=0.2,minimum_hold=0.2"),
    ("MINIMUM_IP_TARGET", "735"),
    ("WARM_IP_TARGET", "0"),
];
/// Addresses for pods: 15 ENIs with 49 each.
const TOTAL: usize = 735;
/// Pods of a burst.
const BURST: usize = 100;
/// Parallel calls of a burst.
const PARALLEL: usize = 16;
/// Pods on the node when the primary ENI, which has 49 addresses for pods, is full.
const FULL_PRIMARY: usize = 50;
/// Pods on the node at the upper end.
const MANY: usize = 180;

/// Runs by what was done and by whom.
type Runs = BTreeMap<(&'static str, Who), Vec<Run>>;

pub(super) fn measure(setup: &Setup) -> Result<Figures> {
    let config = world::config(BIG, 2);
    let mut world = World::prepare(&setup.sandbox, &setup.binaries, &setup.programs, &config, ENVIRONMENT)?;
    world.cluster.start_daemon(NODE)?;
    wait_for_rest(&world, 0)?;
    let realtime = daemons::go_first(&mut world, NODE)?;
    let mut figures = Figures::default();
    figures.value("realtime", f64::from(u8::from(realtime)));
    versions(&world, setup.scale, &mut figures)?;
    let mut runs = Runs::new();
    for _ in 0..setup.scale.pick(5, 2) {
        round(&world, setup.scale.pick(20, 12), &mut runs)?;
    }
    for ((name, who), runs) in &runs {
        figures.series(&format!("{name}.wall"), *who, &walls(runs));
        figures.series(&format!("{name}.cpu"), *who, &cpus(runs));
        figures.series(&format!("{name}.memory"), *who, &memories(runs));
    }
    bursts(&world, setup.scale, &mut figures)?;
    Ok(figures)
}

/// Waits until every address is free that no standing pod has.
fn wait_for_rest(world: &World, standing: usize) -> Result<()> {
    world.wait_for_free(u64::try_from(TOTAL - standing)?)
}

fn contestants() -> Vec<Who> {
    let go = has_go_plugins().then_some(Who::Go);
    [Who::Ours, Who::Floor].into_iter().chain(go).collect()
}

fn versions(world: &World, scale: Scale, figures: &mut Figures) -> Result<()> {
    let version = |program: String| Job {
        program,
        env: vec!["CNI_COMMAND=VERSION".to_owned()],
        stdin: "/dev/null".to_owned(),
        ..Job::default()
    };
    let programs = &world.programs;
    let mut jobs = vec![
        (Who::Ours, version(programs.plugin.display().to_string())),
        (Who::Floor, version(programs.nothing.display().to_string())),
    ];
    if has_go_plugins() {
        jobs.push((Who::Go, version(format!("{GO_PLUGINS}/ptp"))));
    }
    let mut runs = Runs::new();
    for turn in 0..scale.pick(200, 60) {
        for (who, job) in rotated(&jobs, turn) {
            let run = world.launcher.one(world.node()?, job)?;
            ensure!(run.status == 0, "VERSION of {who:?} ended with {}", run.status);
            runs.entry(("version", *who)).or_default().push(run);
        }
    }
    for ((name, who), runs) in &runs {
        figures.series(&format!("{name}.wall"), *who, &walls(runs));
        figures.series(&format!("{name}.cpu"), *who, &cpus(runs));
        figures.series(&format!("{name}.memory"), *who, &memories(runs));
    }
    Ok(())
}

/// The list, begun at another place each turn: nobody always follows the same.
fn rotated<T>(list: &[T], turn: usize) -> impl Iterator<Item = &T> {
    let at = turn % list.len().max(1);
    list[at..].iter().chain(&list[..at])
}

fn round(world: &World, size: usize, runs: &mut Runs) -> Result<()> {
    let all = contestants();
    wait_for_rest(world, 0)?;
    chunk(world, size, &all, Stage::Empty, runs)?;
    wait_for_rest(world, 0)?;
    foreign::add(world.node()?)?;
    chunk(world, size, &[Who::Ours, Who::Floor], Stage::Foreign, runs)?;
    foreign::remove(world.node()?)?;
    wait_for_rest(world, 0)?;
    let mut standing = pods::make(world, Who::Ours, FULL_PRIMARY)?;
    burst(world, "ADD", &standing)?;
    chunk(world, size, &all, Stage::FullPrimary, runs)?;
    wait_for_rest(world, FULL_PRIMARY)?;
    let more = pods::make(world, Who::Ours, MANY - FULL_PRIMARY)?;
    burst(world, "ADD", &more)?;
    standing.extend(more);
    chunk(world, size, &[Who::Ours, Who::Floor], Stage::Many, runs)?;
    burst(world, "DEL", &standing)?;
    pods::forget(world, standing)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Empty,
    Foreign,
    FullPrimary,
    Many,
}

impl Stage {
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Empty => ("add.primary", "del.primary"),
            Self::Foreign => ("add.foreign", "del.foreign"),
            Self::FullPrimary => ("add.secondary", "del.secondary"),
            Self::Many => ("add.many", "del.many"),
        }
    }
}

fn chunk(world: &World, size: usize, who: &[Who], stage: Stage, runs: &mut Runs) -> Result<()> {
    let mut lists = Vec::new();
    for who in who {
        lists.push(pods::make(world, *who, size)?);
    }
    let (add, del) = stage.names();
    for (verb, name) in [("ADD", add), ("DEL", del)] {
        for turn in 0..size {
            for list in rotated(&lists, turn) {
                let subject = list.get(turn).context("each list has a pod per turn")?;
                let run = call(world, verb, subject)?;
                runs.entry((name, subject.who)).or_default().push(run);
            }
        }
        if verb == "ADD" {
            check_pods(world, stage, &lists)?;
        }
    }
    pods::forget(world, lists.into_iter().flatten().collect())
}

/// The stage is what its name says, and the pods are wired, those of the floor too.
fn check_pods(world: &World, stage: Stage, lists: &[Vec<Subject>]) -> Result<()> {
    for subject in lists.iter().flatten().filter(|subject| subject.who != Who::Go) {
        let primary = subject.is_on_primary(world)?;
        ensure!(
            primary == matches!(stage, Stage::Empty | Stage::Foreign),
            "{stage:?}: a pod is on another ENI than meant: {}",
            world.cluster.ask(NODE, "status")?
        );
    }
    let mut last = lists
        .iter()
        .filter_map(|list| list.last())
        .filter(|subject| subject.who != Who::Go);
    last.try_for_each(Subject::check_wired)
}

fn job(world: &World, verb: &str, subject: &Subject) -> Result<Job> {
    if verb == "ADD" {
        subject.add(world)
    } else {
        subject.del(world)
    }
}

fn call(world: &World, verb: &str, subject: &Subject) -> Result<Run> {
    let job = job(world, verb, subject)?;
    let run = world.launcher.one(pods::node_of(world, subject.who)?, &job)?;
    subject.judge(world, verb, run)
}

/// All calls of a list at once, [`PARALLEL`] at a time.
fn burst(world: &World, verb: &str, subjects: &[Subject]) -> Result<Launched> {
    let who = subjects.first().context("a burst has pods")?.who;
    let jobs: Vec<Job> = subjects
        .iter()
        .map(|subject| job(world, verb, subject))
        .collect::<Result<_>>()?;
    let launched = world.launcher.run(pods::node_of(world, who)?, &jobs, PARALLEL)?;
    for (subject, run) in subjects.iter().zip(&launched.runs) {
        subject.judge(world, verb, *run)?;
    }
    Ok(launched)
}

fn bursts(world: &World, scale: Scale, figures: &mut Figures) -> Result<()> {
    for (size, add, del, rounds) in [
        (BURST, "burst.add.100", "burst.del.100", scale.pick(7, 3)),
        (PARALLEL, "burst.add.16", "burst.del.16", scale.pick(15, 7)),
    ] {
        let all = contestants();
        let mut totals: BTreeMap<(&str, Who), Vec<f64>> = BTreeMap::new();
        let mut cpu: BTreeMap<(&str, Who), Vec<f64>> = BTreeMap::new();
        for turn in 0..rounds {
            for who in rotated(&all, turn) {
                wait_for_rest(world, 0)?;
                let subjects = pods::make(world, *who, size)?;
                for (verb, name) in [("ADD", add), ("DEL", del)] {
                    let launched = burst(world, verb, &subjects)?;
                    totals.entry((name, *who)).or_default().push(millis(launched.total));
                    cpu.entry((name, *who)).or_default().extend(cpus(&launched.runs));
                }
                pods::forget(world, subjects)?;
            }
        }
        for ((name, who), values) in &totals {
            figures.series(&format!("{name}.total"), *who, values);
        }
        for ((name, who), values) in &cpu {
            figures.series(&format!("{name}.cpu"), *who, values);
        }
    }
    Ok(())
}
