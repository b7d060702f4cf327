//! Many pods come and go from several threads while the daemons are killed.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use vpc_fabric::Node;
use vpc_fabric::probe::Vantage;

use super::world::{NODE, OTHER, PROBE, SHRINKING, SOON, World, vpc_of};
use super::{Bench, Scenario};
use crate::kernel::KernelState;
use crate::runtime::{Identity, Pod, Runtime};
use crate::wait;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario::new(
    "200 ADDs and DELs over 50 pods, with the daemons killed in the middle, lose and leak nothing",
    churn,
)
.within(120)
.also_unprivileged()];

/// Fourteen slots for pods on each of four ENIs: 112 on two nodes.
const INSTANCE_TYPE: &str = "m5.xlarge";
/// Slots for pods on one ENI of it.
const SLOTS: u64 = 14;
const THREADS: usize = 4;
/// Pods that each thread keeps running.
const PODS: usize = 13;
/// ADDs, each with its DEL, of each thread.
const CYCLES: usize = 50;
/// The daemons are killed after so many ADDs of all threads.
const KILLS: [usize; 2] = [70, 140];
/// Times an ADD is tried again, each with a DEL before, as the kubelet does.
const TRIES: usize = 5;
/// Longer than any plugin of this scenario runs, see [`ADD_DEADLINE`].
const SWEEPING: &[(&str, &str)] = &[("sweep_grace", "7"), ("sweep_gap", "0.5")];
/// Seconds that a plugin has for an ADD.
const ADD_DEADLINE: &str = "6";
/// How long a killed daemon stays away: some plugins find no socket, some lose their connection.
const AWAY: Duration = Duration::from_millis(300);

/// Who holds which address, as the runtime knows it.
#[derive(Debug, Default)]
struct Book(Mutex<BTreeMap<Ipv4Addr, String>>);

impl Book {
    /// From the plugin's answer on.
    fn take(&self, pod: &Pod) -> Result<()> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match held.insert(pod.address, pod.identity.label()) {
            Some(other) => bail!("{} is held by {other} and by {}", pod.address, pod.identity.label()),
            None => Ok(()),
        }
    }

    /// Until the DEL begins.
    fn give(&self, pod: &Pod) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&pod.address);
    }
}

/// What the threads share.
#[derive(Debug, Default)]
struct Shared {
    book: Book,
    added: AtomicUsize,
    /// Whether the daemons are killed at the moment.
    away: AtomicBool,
    /// ADDs that began while they were.
    disturbed: AtomicUsize,
    failed: AtomicBool,
}

/// One thread's work.
struct Worker<'a> {
    number: usize,
    nodes: [&'a Node; 2],
    routers: [Ipv4Addr; 2],
    runtime: &'a Runtime,
    shared: &'a Shared,
    pods: Vec<Pod>,
}

impl Worker<'_> {
    fn run(mut self) -> Result<()> {
        let worked = self.work();
        if worked.is_err() {
            self.shared.failed.store(true, Ordering::Relaxed);
        }
        worked.with_context(|| format!("thread {}", self.number))
    }

    fn work(&mut self) -> Result<()> {
        for cycle in 0..CYCLES {
            if self.shared.failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            if self.pods.len() >= PODS {
                self.remove_any()?;
            }
            self.add(cycle)?;
        }
        while !self.pods.is_empty() {
            self.remove_any()?;
        }
        Ok(())
    }

    fn add(&mut self, cycle: usize) -> Result<()> {
        let side = (cycle + self.number) % 2;
        let name = format!("pod-{}-{cycle}", self.number);
        let node = self.nodes[side];
        for attempt in 1.. {
            let identity = Identity::pod(&name);
            let met = usize::from(self.shared.away.load(Ordering::SeqCst));
            self.shared.disturbed.fetch_add(met, Ordering::SeqCst);
            match self.runtime.add(node, &identity) {
                Ok(pod) => {
                    self.shared.book.take(&pod)?;
                    self.check(&pod, self.routers[side])?;
                    self.pods.push(pod);
                    break;
                }
                Err(error) if attempt >= TRIES => return Err(error),
                Err(_) => self.runtime.forget(node, &identity).map(drop)?,
            }
        }
        self.shared.added.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The subnet's router hears only packets with an address of the ENI that they come from. A new ENI needs a moment, see
    /// [`World::wait_for_carrier`].
    fn check(&self, pod: &Pod, router: Ipv4Addr) -> Result<()> {
        let vantage = Vantage::new(&pod.netns.netns).within(PROBE / 30);
        wait::until("a pod has a network", PROBE, || {
            Ok(vantage.ping(&[router])?[0].map(drop))
        })
        .with_context(|| pod.address.to_string())
    }

    fn remove_any(&mut self) -> Result<()> {
        let pod = self.pods.swap_remove(fastrand::usize(..self.pods.len()));
        let node = self.nodes.iter().find(|node| node.name() == pod.node);
        self.shared.book.give(&pod);
        self.runtime.remove(node.context("pods run on nodes")?, &pod)?;
        Ok(())
    }
}

fn churn(bench: &Bench) -> Result<()> {
    let timers = [SWEEPING, SHRINKING].concat();
    let mut world = World::start(bench, vpc_of(2, INSTANCE_TYPE), &timers, &[])?;
    world.cluster.runtime.set("VPC_CNI_ADD_DEADLINE", ADD_DEADLINE);
    let mut baselines = BTreeMap::new();
    for node in world.node_names() {
        world.wait_for_pool(&node, "the first fill is in", |pool| {
            pool["free"].as_u64() == Some(SLOTS)
        })?;
        baselines.insert(node.clone(), KernelState::of(world.node(&node)?)?);
    }
    let shared = Shared::default();
    run_threads(&mut world, &shared)?;
    let added = shared.added.load(Ordering::Relaxed);
    ensure!(added == THREADS * CYCLES, "{added} pods were added");
    ensure!(world.cluster.wrong_source_drops()? == 0, "packets were dropped");
    for (node, baseline) in &baselines {
        world.wait_for_pool(node, "all addresses are back", |pool| {
            pool["assigned"] == 0
                && pool["cooling"] == 0
                && pool["orphans"] == 0
                && pool["total"].as_u64() == Some(SLOTS)
        })?;
        world.wait_for_kernel(node, baseline)?;
        let (leases, file) = (world.leases(node)?, world.checkpointed(node)?);
        ensure!(leases.is_empty() && file.is_empty(), "left: {leases:?} {file:?}");
    }
    wait::until("one ENI is left on each node", SOON, || {
        Ok((world.eni_count() == 2).then_some(()))
    })?;
    world.finish()
}

fn run_threads(world: &mut World, shared: &Shared) -> Result<()> {
    let routers = world.routers();
    let cluster = &mut world.cluster;
    let node = |name: &str| cluster.vpc.node(name).context("there are two nodes");
    let nodes = [node(NODE)?, node(OTHER)?];
    let (runtime, daemons) = (&cluster.runtime, &mut cluster.daemons);
    std::thread::scope(|scope| {
        let start = |number| {
            let worker = Worker {
                number,
                nodes,
                routers,
                runtime,
                shared,
                pods: Vec::new(),
            };
            scope.spawn(move || worker.run())
        };
        let threads: Vec<_> = (0..THREADS).map(start).collect();
        let killed = KILLS.iter().try_for_each(|threshold| -> Result<()> {
            wait::until("enough pods were added", Duration::from_secs(60), || {
                let enough = shared.added.load(Ordering::Relaxed) >= *threshold;
                Ok((enough || shared.failed.load(Ordering::Relaxed)).then_some(()))
            })?;
            for daemon in daemons.values_mut() {
                daemon.stop(Signal::SIGKILL)?;
            }
            let before = shared.disturbed.load(Ordering::SeqCst);
            shared.away.store(true, Ordering::SeqCst);
            wait::until("an ADD has met a killed daemon", Duration::from_secs(60), || {
                let met = shared.disturbed.load(Ordering::SeqCst) > before;
                Ok((met || shared.failed.load(Ordering::Relaxed)).then_some(()))
            })?;
            wait::pause(AWAY);
            shared.away.store(false, Ordering::SeqCst);
            for node in nodes {
                daemons
                    .get_mut(node.name())
                    .context("nodes have daemons")?
                    .start(node)?;
            }
            Ok(())
        });
        for thread in threads {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        killed
    })
}
