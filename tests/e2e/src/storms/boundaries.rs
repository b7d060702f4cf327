//! The plugin is killed before every system call of an ADD and of a DEL, and the kubelet does one of the things it does.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use vpc_fabric::Node;

use super::kubelet::{AfterAdd, AfterDel, after_add, after_del};
use super::strace::{self, Boundary, End, Trace};
use super::{Lane, Orders, Storm, agreement};
use crate::kernel::KernelState;
use crate::runtime::{Identity, Pod, Runtime, netns_name};
use crate::scenarios::Bench;
use crate::scenarios::runner::say;
use crate::scenarios::world::{NODE, OTHER, World, vpc_of};
use crate::wait;

pub(super) const STORM: Storm = Storm {
    name: "a plugin killed at any system call of ADD or DEL leaves nothing that the next DEL does not take away",
    limit: Duration::from_secs(110),
    run: storm,
};

/// 29 slots for pods on each ENI.
const INSTANCE_TYPE: &str = "m5.4xlarge";
const SLOTS: usize = 29;
/// Two ENIs, no more and no less: the first is full of pods that stay, the sweep happens on the second.
const MAX_ENI: (&str, &str) = ("MAX_ENI", "2");
/// Longer than the plugin's deadline below: an ADD whose request outran its DEL leaves a lease to the sweep.
const SWEEPING: &[(&str, &str)] = &[("sweep_grace", "7"), ("sweep_gap", "0.5"), ("add_deadline", "5")];
const ADD_DEADLINE: &str = "6";
/// What the usual lane gives the sweep; the rest of its boundaries is left to other seeds.
const BOX: Duration = Duration::from_secs(60);
/// Share of the boundaries that must be hit, in percent. Calls that wait or allocate vary from run to run, and a boundary
/// whose call does not happen cannot be hit.
const HIT: usize = 90;

/// Share of the runs that may leave a lease to the daemon's sweep, in percent: a request that was sent before the kill and is
/// read after the DEL, which is on another connection.
const OUTRAN: usize = 2;
/// So few may on any machine, which stalls now and then.
const OUTRAN_FEW: usize = 3;

/// How soon the kernel must be clean: devices go a moment after their namespace, and the daemon's sweep comes later.
const CLEAN: Duration = Duration::from_secs(5);

/// What is swept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Add,
    Del,
}

/// How a sweep went.
#[derive(Debug, Default)]
struct Sweep {
    calls: usize,
    boundaries: usize,
    tried: usize,
    hit: usize,
    runs: usize,
    /// Leases that no DEL ended.
    outran: usize,
    missed: Vec<String>,
}

fn storm(bench: &Bench, orders: Orders) -> Result<()> {
    strace::ensure_installed()?;
    let mut world = World::start(bench, vpc_of(2, INSTANCE_TYPE), SWEEPING, &[MAX_ENI])?;
    world.cluster.runtime.set("VPC_CNI_ADD_DEADLINE", ADD_DEADLINE);
    let mut live = Vec::new();
    for node in world.node_names() {
        live.extend(world.add(&node, "stays", SLOTS)?);
        world.wait_for_pool(&node, "the second ENI is ready", |pool| {
            pool["free"].as_u64() == Some(SLOTS as u64)
        })?;
    }
    world.wait_for_quiet()?;
    let (adds, dels) = std::thread::scope(|scope| {
        let adds = scope.spawn(|| sweep(&world, NODE, Verb::Add, orders));
        let dels = scope.spawn(|| sweep(&world, OTHER, Verb::Del, orders));
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Sweep>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        (join(adds), join(dels))
    });
    for (verb, sweep) in [("ADD", adds?), ("DEL", dels?)] {
        say(&format!(
            "{verb}: {} system calls, {} boundaries, {} tried, {} killed there, {} runs; not reached {:?}; {} requests outran \
             their DEL",
            sweep.calls, sweep.boundaries, sweep.tried, sweep.hit, sweep.runs, sweep.missed, sweep.outran
        ));
        let all = sweep.tried == sweep.boundaries;
        ensure!(
            all || (orders.lane == Lane::Usual && sweep.tried * 2 >= sweep.boundaries),
            "the sweep over {verb} did not get far enough"
        );
        ensure!(
            sweep.hit * 100 >= sweep.tried * HIT,
            "too few boundaries of {verb} were hit"
        );
        ensure!(
            sweep.outran <= OUTRAN_FEW.max(sweep.runs * OUTRAN / 100),
            "{} of {} leases were left to the daemon's sweep",
            sweep.outran,
            sweep.runs
        );
    }
    agreement::check(&world, &live)?;
    world.remove(&live)?;
    live.clear();
    agreement::check(&world, &live)?;
    world.finish()
}

fn sweep(world: &World, name: &str, verb: Verb, orders: Orders) -> Result<Sweep> {
    let (node, runtime) = (world.node(name)?, &world.cluster.runtime);
    let baseline = KernelState::of(node)?;
    let trace = record(node, runtime, verb)?;
    check_clean(node, &baseline)?;
    let mut done = Sweep {
        calls: trace.calls,
        boundaries: trace.boundaries.len(),
        ..Sweep::default()
    };
    let mut order: Vec<(usize, &Boundary)> = trace.boundaries.iter().enumerate().collect();
    fastrand::Rng::with_seed(orders.seed).shuffle(&mut order);
    let started = Instant::now();
    for (number, boundary) in order {
        if orders.lane == Lane::Usual && started.elapsed() >= BOX {
            break;
        }
        let variants = match verb {
            Verb::Add => AfterAdd::ALL.len(),
            Verb::Del => AfterDel::ALL.len(),
        };
        // Over enough seeds each boundary meets each variant.
        let first = number + usize::try_from(orders.seed % 60).unwrap_or(0);
        let count = if orders.lane == Lane::Slow { variants } else { 1 };
        let mut was_hit = false;
        for variant in (first..first + count).map(|variant| variant % variants) {
            done.runs += 1;
            let killed = match verb {
                Verb::Add => killed_add(node, runtime, boundary, AfterAdd::ALL[variant]),
                Verb::Del => killed_del(node, runtime, boundary, AfterDel::ALL[variant]),
            };
            let killed = killed.with_context(|| format!("{verb:?} killed before {boundary}, variant {variant}"))?;
            was_hit |= killed;
            done.outran += usize::from(!agreement::leases_end(world, name, SLOTS + done.outran)?);
            check_clean(node, &baseline)
                .with_context(|| format!("after {verb:?} killed before {boundary}, variant {variant}"))?;
        }
        done.tried += 1;
        done.hit += usize::from(was_hit);
        done.missed.extend((!was_hit).then(|| boundary.to_string()));
    }
    Ok(done)
}

/// The calls of an undisturbed run.
fn record(node: &Node, runtime: &Runtime, verb: Verb) -> Result<Trace> {
    let recorded = strace::recorded(runtime);
    let identity = Identity::pod("recorded");
    let trace = match verb {
        Verb::Add => {
            let pod = recorded.add(node, &identity)?;
            let trace = strace::read(node)?;
            runtime.remove(node, &pod)?;
            trace
        }
        Verb::Del => {
            let pod = runtime.add(node, &identity)?;
            recorded.remove(node, &pod)?;
            strace::read(node)?
        }
    };
    ensure!(trace.end == End::Exit, "the undisturbed run was killed");
    ensure!(trace.calls > 50, "strace saw only {} calls", trace.calls);
    Ok(trace)
}

/// Whether the plugin was killed where it should; it may not have come there.
fn was_killed(node: &Node, code: Option<i32>, boundary: &Boundary) -> Result<bool> {
    let trace = strace::read(node)?;
    match (code, trace.end) {
        (None, End::Killed(last)) => {
            ensure!(last.contains(boundary), "killed at {last:?}");
            Ok(true)
        }
        (Some(0), End::Exit) => Ok(false),
        (code, end) => anyhow::bail!("the plugin ended with {code:?}, strace says {end:?}"),
    }
}

fn killed_add(node: &Node, runtime: &Runtime, boundary: &Boundary, what: AfterAdd) -> Result<bool> {
    let identity = Identity::pod("swept");
    let netns = node.add_pod_netns(&netns_name(&identity))?;
    let call = strace::killed_at(runtime, boundary).add_in(node, &identity, &netns)?;
    let killed = was_killed(node, call.code, boundary)?;
    after_add(runtime, node, identity, netns, what).with_context(|| format!("{what:?}"))?;
    Ok(killed)
}

fn killed_del(node: &Node, runtime: &Runtime, boundary: &Boundary, what: AfterDel) -> Result<bool> {
    let pod: Pod = runtime.add(node, &Identity::pod("swept"))?;
    let environment = Runtime::call_environment("DEL", &pod.identity, &pod.netns.path);
    let config = Runtime::config(Some(&pod.result)).to_string();
    let call = strace::killed_at(runtime, boundary).call(node, &environment, config.as_bytes())?;
    let killed = was_killed(node, call.code, boundary)?;
    after_del(runtime, node, pod, what).with_context(|| format!("{what:?}"))?;
    Ok(killed)
}

/// Rules, routes and devices are what they were. The kernel takes devices away a moment after their namespace.
fn check_clean(node: &Node, baseline: &KernelState) -> Result<()> {
    let mut found = KernelState::default();
    wait::until("nothing of the pod is left", CLEAN, || {
        found = KernelState::of(node)?;
        Ok((found == *baseline).then_some(()))
    })
    .with_context(|| found.difference(baseline))
}
