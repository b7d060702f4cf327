//! Sixteen threads add and delete pods as no orderly runtime does, while the daemons are killed at random.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use nix::sys::signal::Signal;
use vpc_fabric::Node;
use vpc_fabric::probe::Vantage;

use super::{Lane, Orders, Storm, agreement};
use crate::kernel::KernelState;
use crate::node::Daemon;
use crate::runtime::{Identity, LateDel, NetnsPath, Pod, Runtime, netns_name, pod_of};
use crate::scenarios::Bench;
use crate::scenarios::runner::say;
use crate::scenarios::world::{NODE, OTHER, PROBE, SHRINKING, World, vpc_of};
use crate::wait;

pub(super) const STORM: Storm = Storm {
    name: "ADDs and DELs from sixteen threads, repeated, late and of recreated pods, with daemons killed, lose and leak nothing",
    limit: Duration::from_secs(110),
    run: storm,
};

/// Fourteen slots for pods on each of four ENIs: 112 on two nodes.
const INSTANCE_TYPE: &str = "m5.xlarge";
const THREADS: u64 = 16;
/// Names of pods of each thread, on each node; most are there at any time.
const NAMES: usize = 2;
/// Old sandboxes that a thread remembers, for DELs that come late.
const MEMORY: usize = 8;
/// Times an ADD is tried again, each with a DEL before, as the kubelet does.
const TRIES: usize = 6;
const SWEEPING: &[(&str, &str)] = &[("sweep_grace", "7"), ("sweep_gap", "0.5"), ("add_deadline", "5")];
const ADD_DEADLINE: &str = "6";
/// How long the storm blows.
const USUAL: Duration = Duration::from_secs(15);
const SLOW: Duration = Duration::from_secs(180);
/// How long it blows before a daemon is killed.
const CALM: Duration = Duration::from_secs(5);
/// Milliseconds between two kills, and how long a daemon stays away.
const BETWEEN_KILLS: std::ops::Range<u64> = 200..2_500;
const AWAY: std::ops::Range<u64> = 0..400;

/// What the threads share.
#[derive(Debug, Default)]
struct Shared {
    /// Who holds which address, as the runtime knows it.
    held: Mutex<BTreeMap<Ipv4Addr, String>>,
    over: AtomicBool,
    adds: AtomicUsize,
    repeats: AtomicUsize,
    dels: AtomicUsize,
    late: AtomicUsize,
    recreated: AtomicUsize,
    retried: AtomicUsize,
}

impl Shared {
    /// From the plugin's answer on.
    fn take(&self, pod: &Pod) -> Result<()> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.insert(pod.address, pod.identity.container_id.clone()) {
            Some(other) => bail!(
                "{} is held by {other} and by {}",
                pod.address,
                pod.identity.container_id
            ),
            None => Ok(()),
        }
    }

    /// Until the DEL begins.
    fn give(&self, pod: &Pod) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.remove(&pod.address);
    }

    fn count(counter: &AtomicUsize) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// An old sandbox: enough for another DEL.
struct Old {
    identity: Identity,
    node: usize,
    result: serde_json::Value,
}

/// One thread's work.
struct Worker<'a> {
    number: u64,
    rng: Rng,
    nodes: [&'a Node; 2],
    routers: [Ipv4Addr; 2],
    runtime: &'a Runtime,
    shared: &'a Shared,
    /// By node and name.
    pods: BTreeMap<(usize, usize), Pod>,
    old: Vec<Old>,
}

impl Worker<'_> {
    fn run(mut self) -> Result<Vec<Pod>> {
        let worked = self.work().with_context(|| format!("thread {}", self.number));
        if worked.is_err() {
            self.shared.over.store(true, Ordering::Relaxed);
        }
        worked.map(|()| self.pods.into_values().collect())
    }

    fn work(&mut self) -> Result<()> {
        while !self.shared.over.load(Ordering::Relaxed) {
            let slot = (self.rng.usize(..2), self.rng.usize(..NAMES));
            match (self.pods.remove(&slot), self.rng.u8(..10)) {
                (None, 0) => self.late_del()?,
                (None, _) => self.add(slot)?,
                (Some(pod), 0..=1) => self.repeat(slot, pod)?,
                (Some(pod), 2..=3) => self.recreate(slot, pod)?,
                (Some(pod), choice) => self.remove(slot.0, pod, choice)?,
            }
        }
        Ok(())
    }

    fn add(&mut self, slot: (usize, usize)) -> Result<()> {
        let node = self.nodes[slot.0];
        for attempt in 1.. {
            let identity = Identity::pod(&format!("pod-{}-{}", self.number, slot.1));
            let netns = node.add_pod_netns(&netns_name(&identity))?;
            let call = self.runtime.add_in(node, &identity, &netns)?;
            if call.code == Some(0) {
                let pod = pod_of(&identity, node, netns, &call)?;
                self.shared.take(&pod)?;
                self.check(&pod, slot.0)?;
                self.pods.insert(slot, pod);
                break;
            }
            let why = call
                .error()
                .with_context(|| format!("ADD ended with {:?}", call.code))?;
            ensure!(attempt < TRIES, "ADD fails again and again: {why:?}");
            Shared::count(&self.shared.retried);
            drop(netns);
            self.del(node, &identity, &LateDel::default())?;
            node.delete_pod_netns(&netns_name(&identity))?;
        }
        Shared::count(&self.shared.adds);
        Ok(())
    }

    /// The subnet's router hears only packets with an address of the ENI that they come from.
    fn check(&self, pod: &Pod, side: usize) -> Result<()> {
        let vantage = Vantage::new(&pod.netns.netns).within(PROBE / 30);
        wait::until("a pod has a network", PROBE, || {
            Ok(vantage.ping(&[self.routers[side]])?[0].map(drop))
        })
        .with_context(|| evidence(self.nodes[side], pod))
    }

    /// The same ADD for a pod that lives: an error, or the same address; never the end of the pod.
    fn repeat(&mut self, slot: (usize, usize), pod: Pod) -> Result<()> {
        let call = self.runtime.add_in(self.nodes[slot.0], &pod.identity, &pod.netns)?;
        match call.code {
            Some(0) => {
                let again = pod_of(&pod.identity, self.nodes[slot.0], pod.netns.clone(), &call)?;
                ensure!(again.address == pod.address, "{} became {}", pod.address, again.address);
            }
            Some(_) => drop(call.error()?),
            None => bail!("a signal ended the repeated ADD"),
        }
        self.check(&pod, slot.0).context("after a repeated ADD")?;
        Shared::count(&self.shared.repeats);
        self.pods.insert(slot, pod);
        Ok(())
    }

    /// The new sandbox comes before the old one's DEL, as after a node's restart.
    fn recreate(&mut self, slot: (usize, usize), old: Pod) -> Result<()> {
        self.add(slot)?;
        self.remove(slot.0, old, 9)?;
        let new = self.pods.get(&slot).context("the new sandbox was added a line ago")?;
        self.check(new, slot.0).context("after the old sandbox's DEL")?;
        Shared::count(&self.shared.recreated);
        Ok(())
    }

    fn remove(&mut self, side: usize, pod: Pod, choice: u8) -> Result<()> {
        self.shared.give(&pod);
        let node = self.nodes[side];
        let Pod {
            identity,
            netns,
            result,
            ..
        } = pod;
        let late = match choice {
            4 | 5 => LateDel {
                result: None,
                netns: NetnsPath::Empty,
            },
            _ => LateDel {
                result: Some(&result),
                netns: NetnsPath::Named,
            },
        };
        // A namespace is gone when its name is and our handle.
        let mut handle = Some(netns);
        if matches!(choice, 4 | 6) {
            node.delete_pod_netns(&netns_name(&identity))?;
            handle = None;
        }
        self.del(node, &identity, &late)?;
        if choice == 7 {
            self.del(node, &identity, &late)?;
        }
        drop(handle);
        node.delete_pod_netns(&netns_name(&identity))?;
        if self.old.len() >= MEMORY {
            self.old.swap_remove(self.rng.usize(..MEMORY));
        }
        self.old.push(Old {
            identity,
            node: side,
            result,
        });
        Shared::count(&self.shared.dels);
        Ok(())
    }

    /// A DEL may fail while its daemon dies; the kubelet then repeats it.
    fn del(&self, node: &Node, identity: &Identity, late: &LateDel<'_>) -> Result<()> {
        for attempt in 1.. {
            match self.runtime.del_late(node, identity, late) {
                Ok(_) => break,
                Err(error) if attempt >= TRIES => return Err(error),
                Err(_) => Shared::count(&self.shared.retried),
            }
        }
        Ok(())
    }

    /// Once more for a sandbox that is long gone: its address may have a new owner.
    fn late_del(&mut self) -> Result<()> {
        if self.old.is_empty() {
            return Ok(());
        }
        let old = &self.old[self.rng.usize(..self.old.len())];
        let late = LateDel {
            result: Some(&old.result),
            netns: NetnsPath::Named,
        };
        self.del(self.nodes[old.node], &old.identity, &late)?;
        Shared::count(&self.shared.late);
        Ok(())
    }
}

/// What the node's kernel and logs say about a pod, before other pods' lines bury it.
fn evidence(node: &Node, pod: &Pod) -> String {
    let address = pod.address.to_string();
    let state = KernelState::of(node).unwrap_or_default();
    let of_pod = |line: &&String| line.contains(&address) || line.contains(&format!("table {}:", pod.table));
    let mut lines: Vec<String> = state
        .rules
        .iter()
        .chain(&state.routes)
        .filter(of_pod)
        .cloned()
        .collect();
    let about = |line: &&str| line.contains(&address) || line.contains(&pod.identity.container_id);
    for log in ["ipamd.log", "plugin.log"] {
        let path = node.outside(format!("/var/log/aws-routed-eni/{log}").as_ref());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        lines.extend(text.lines().filter(about).map(str::to_owned));
    }
    format!("{} {}\n{}", pod.identity.container_id, pod.result, lines.join("\n"))
}

fn storm(bench: &Bench, orders: Orders) -> Result<()> {
    let timers = [SWEEPING, SHRINKING].concat();
    let mut world = World::start(bench, vpc_of(2, INSTANCE_TYPE), &timers, &[])?;
    world.cluster.runtime.set("VPC_CNI_ADD_DEADLINE", ADD_DEADLINE);
    let shared = Shared::default();
    let time = if orders.lane == Lane::Slow { SLOW } else { USUAL };
    let (live, kills) = blow(&mut world, &shared, orders.seed, time)?;
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    say(&format!(
        "{} ADDs ({} repeated, {} of recreated pods), {} DELs ({} late), {} tries again, {kills} daemons killed, {} pods live",
        count(&shared.adds),
        count(&shared.repeats),
        count(&shared.recreated),
        count(&shared.dels),
        count(&shared.late),
        count(&shared.retried),
        live.len()
    ));
    for counter in [&shared.repeats, &shared.recreated, &shared.dels, &shared.late] {
        ensure!(count(counter) > 0, "it was no storm");
    }
    ensure!(kills > 1, "too few daemons were killed");
    agreement::check(&world, &live).context("with live pods")?;
    world.remove(&live)?;
    drop(live);
    agreement::check(&world, &[]).context("without pods")?;
    world.finish()
}

/// Threads and killer; the pods that are left, and how often a daemon was killed.
fn blow(world: &mut World, shared: &Shared, seed: u64, time: Duration) -> Result<(Vec<Pod>, usize)> {
    let routers = world.routers();
    let cluster = &mut world.cluster;
    let node = |name: &str| cluster.vpc.node(name).context("there are two nodes");
    let nodes = [node(NODE)?, node(OTHER)?];
    let (runtime, daemons) = (&cluster.runtime, &mut cluster.daemons);
    std::thread::scope(|scope| {
        let start = |number| {
            let worker = Worker {
                number,
                rng: Rng::with_seed(seed.wrapping_mul(THREADS).wrapping_add(number)),
                nodes,
                routers,
                runtime,
                shared,
                pods: BTreeMap::new(),
                old: Vec::new(),
            };
            scope.spawn(move || worker.run())
        };
        let threads: Vec<_> = (0..THREADS).map(start).collect();
        let audited = audit_meanwhile(daemons, nodes, shared);
        let killed = kill_now_and_then(daemons, nodes, shared, &mut Rng::with_seed(!seed), time);
        shared.over.store(true, Ordering::Relaxed);
        let mut live = Vec::new();
        for thread in threads {
            live.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        audited?;
        Ok((live, killed?))
    })
}

/// What is in motion is no finding: while nobody kills a daemon, its audit agrees at any moment.
fn audit_meanwhile(daemons: &BTreeMap<String, Daemon>, nodes: [&Node; 2], shared: &Shared) -> Result<()> {
    let end = Instant::now() + CALM;
    let (mut audits, mut in_motion) = (0, 0);
    let mut seen_once = BTreeMap::new();
    while Instant::now() < end && !shared.over.load(Ordering::Relaxed) {
        for node in nodes {
            let daemon = daemons.get(node.name()).context("nodes have daemons")?;
            let (status, answer) = daemon.ask_for_status(node, &["audit"])?;
            if status != Some(0) {
                shared.over.store(true, Ordering::Relaxed);
                bail!("an audit amid the storm: {answer:#}");
            }
            audits += 1;
            let once = answer["unconfirmed"].as_array().context("what was seen once")?;
            for kind in once.iter().filter_map(|finding| finding["kind"].as_str()) {
                *seen_once.entry(kind.to_owned()).or_insert(0_u32) += 1;
            }
            in_motion += answer["inMotion"].as_u64().unwrap_or(0);
        }
    }
    say(&format!(
        "{audits} audits amid the storm, {in_motion} things in motion, seen once {seen_once:?}"
    ));
    ensure!(
        shared.over.load(Ordering::Relaxed) || (audits > 1 && in_motion > 0),
        "there was no storm to audit in"
    );
    Ok(())
}

fn kill_now_and_then(
    daemons: &mut BTreeMap<String, Daemon>,
    nodes: [&Node; 2],
    shared: &Shared,
    rng: &mut Rng,
    time: Duration,
) -> Result<usize> {
    let end = Instant::now() + time;
    let mut kills = 0;
    while Instant::now() < end && !shared.over.load(Ordering::Relaxed) {
        wait::pause(Duration::from_millis(rng.u64(BETWEEN_KILLS)));
        let node = nodes[rng.usize(..2)];
        let daemon = daemons.get_mut(node.name()).context("nodes have daemons")?;
        daemon.stop(Signal::SIGKILL)?;
        wait::pause(Duration::from_millis(rng.u64(AWAY)));
        daemon.start(node)?;
        kills += 1;
    }
    Ok(kills)
}
