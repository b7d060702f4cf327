//! Namespaces and veths that go before, between and during ADD and DEL.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use netlink::message::{LinkRef, link};
use netlink::packet::RouteNetlinkMessage as Message;
use vpc_fabric::Node;

use super::strace::{self, Boundary};
use super::{Lane, Orders, Storm, agreement};
use crate::runtime::{Identity, LateDel, NetnsPath, Pod, Runtime, netns_name, pod_of};
use crate::scenarios::Bench;
use crate::scenarios::runner::say;
use crate::scenarios::world::{NODE, World, change, vpc_of};
use crate::wait;

pub(super) const STORM: Storm = Storm {
    name: "a namespace or a veth that goes before, during or after ADD or DEL leaves nothing behind",
    limit: Duration::from_secs(90),
    run: storm,
};

/// Nine slots for pods on each ENI.
const INSTANCE_TYPE: &str = "m5.large";
const SWEEPING: &[(&str, &str)] = &[("sweep_grace", "7"), ("sweep_gap", "0.5"), ("add_deadline", "5")];
const ADD_DEADLINE: &str = "6";
/// Pods that live through all of it; the others are on the second ENI.
const STAYING: usize = 9;
/// Calls of ADD and DEL at which the namespace goes.
const USUAL: usize = 30;
const SLOW: usize = 400;
/// How long a call is held: the namespace goes meanwhile.
const HELD: Duration = Duration::from_millis(60);
/// Milliseconds in which strace has hardly begun the plugin.
const AT_ONCE: u64 = 8;

fn storm(bench: &Bench, orders: Orders) -> Result<()> {
    strace::ensure_installed()?;
    let mut world = World::start(bench, vpc_of(1, INSTANCE_TYPE), SWEEPING, &[])?;
    world.cluster.runtime.set("VPC_CNI_ADD_DEADLINE", ADD_DEADLINE);
    let live = world.add(NODE, "stays", STAYING)?;
    let (node, runtime) = (world.node(NODE)?, &world.cluster.runtime);
    before(node, runtime)?;
    between(&world, node, runtime)?;
    let times = if orders.lane == Lane::Slow { SLOW } else { USUAL };
    during(&world, node, runtime, &mut Rng::with_seed(orders.seed), times)?;
    // Nobody comes for this one but the daemon's own sweep.
    lose(node, runtime.add(node, &Identity::pod("forgotten"))?)?;
    agreement::check(&world, &live)?;
    world.remove(&live)?;
    drop(live);
    agreement::check(&world, &[])?;
    world.finish()
}

/// No namespace, and a path that is none: a proper error, and the DEL that follows succeeds.
fn before(node: &Node, runtime: &Runtime) -> Result<()> {
    let no_netns = node.outside("/run/no-namespace".as_ref());
    std::fs::write(&no_netns, b"").with_context(|| format!("cannot write {}", no_netns.display()))?;
    for path in ["/run/netns/gone", "/run/no-namespace", ""] {
        let identity = Identity::pod("early");
        let environment = Runtime::call_environment("ADD", &identity, Path::new(path));
        let config = Runtime::config(None).to_string();
        let call = runtime.call(node, &environment, config.as_bytes())?;
        ensure!(call.code == Some(1), "ADD in {path:?} ended with {:?}", call.code);
        call.error().with_context(|| format!("ADD in {path:?}"))?;
        runtime.del_late(node, &identity, &LateDel::default())?;
    }
    Ok(())
}

/// The namespace or the veth goes while the pod runs; then one of the DELs that may come, or none.
fn between(world: &World, node: &Node, runtime: &Runtime) -> Result<()> {
    for result in [true, false] {
        for netns in [NetnsPath::Named, NetnsPath::Empty] {
            let pod = runtime.add(node, &Identity::pod("between"))?;
            let (identity, kept) = lose(node, pod)?;
            let late = LateDel {
                result: result.then_some(&kept),
                netns,
            };
            runtime.del_late(node, &identity, &late)?;
            ensure_lease_ended(world)?;
            runtime.del_late(node, &identity, &late)?;
        }
    }
    for lose_namespace in [true, false] {
        let pod = runtime.add(node, &Identity::pod("without-veth"))?;
        let veth = pod.result["interfaces"][0]["name"]
            .as_str()
            .context("the result names the veth")?;
        change(node, 0, Message::DelLink(link(LinkRef::Name(veth))))?;
        if lose_namespace {
            let (identity, _) = lose(node, pod)?;
            runtime.del_late(node, &identity, &LateDel::default())?;
        } else {
            runtime.remove(node, &pod)?;
        }
        ensure_lease_ended(world)?;
    }
    Ok(())
}

/// Not by the sweep, which comes later.
fn ensure_lease_ended(world: &World) -> Result<()> {
    ensure!(
        agreement::leases_end(world, NODE, STAYING)?,
        "the DEL succeeded, and the lease is still there"
    );
    Ok(())
}

/// The namespace goes: its name, and the last handle.
fn lose(node: &Node, pod: Pod) -> Result<(Identity, serde_json::Value)> {
    node.delete_pod_netns(&netns_name(&pod.identity))?;
    Ok((pod.identity, pod.result))
}

/// ADDs and DELs are held at some system call, and meanwhile the namespace goes.
fn during(world: &World, node: &Node, runtime: &Runtime, rng: &mut Rng, times: usize) -> Result<()> {
    let (adds, dels, usual) = boundaries(node, runtime)?;
    let goes = moments(usual);
    let (mut added, mut refused) = (0, 0);
    for turn in 0..times {
        let at = &adds[rng.usize(..adds.len())];
        let goes = Duration::from_millis(rng.u64(goes[turn % 2].clone()));
        let identity = Identity::pod("during");
        let netns = node.add_pod_netns(&netns_name(&identity))?;
        let path = netns.path.clone();
        drop(netns);
        let held = strace::held_at(runtime, at, HELD);
        let environment = Runtime::call_environment("ADD", &identity, &path);
        let config = Runtime::config(None).to_string();
        let call = meanwhile(node, &identity, goes, || {
            held.call(node, &environment, config.as_bytes())
        });
        let call = call.with_context(|| format!("ADD held at {at}"))?;
        let kept = match call.code {
            Some(0) => {
                added += 1;
                Some(call.json()?)
            }
            Some(_) => {
                refused += 1;
                drop(call.error().with_context(|| format!("ADD held at {at}"))?);
                None
            }
            None => anyhow::bail!("a signal ended the ADD that was held at {at}"),
        };
        let late = LateDel {
            result: kept.as_ref(),
            netns: NetnsPath::Named,
        };
        runtime
            .del_late(node, &identity, &late)
            .with_context(|| format!("after ADD held at {at}"))?;
        ensure_lease_ended(world).with_context(|| format!("after ADD held at {at}"))?;
    }
    for turn in 0..times {
        let at = &dels[rng.usize(..dels.len())];
        let goes = Duration::from_millis(rng.u64(goes[turn % 2].clone()));
        let pod = runtime.add(node, &Identity::pod("during"))?;
        let (identity, result, path) = (pod.identity, pod.result, pod.netns.path);
        let environment = Runtime::call_environment("DEL", &identity, &path);
        let config = Runtime::config(Some(&result)).to_string();
        let held = strace::held_at(runtime, at, HELD);
        let call = meanwhile(node, &identity, goes, || {
            held.call(node, &environment, config.as_bytes())
        });
        let call = call.with_context(|| format!("DEL held at {at}"))?;
        ensure!(
            call.code == Some(0),
            "DEL held at {at}: {} {}",
            call.stdout,
            call.stderr
        );
        ensure_lease_ended(world).with_context(|| format!("after DEL held at {at}"))?;
    }
    say(&format!(
        "the namespace went during {times} ADDs ({added} answered, {refused} refused) and {times} DELs"
    ));
    ensure!(added > 0 && refused > 0, "it went always too early or always too late");
    Ok(())
}

/// When the namespace goes, in milliseconds, by turns: at once, and at any moment of a call that is held. How long that is depends on
/// the machine.
fn moments(usual: Duration) -> [std::ops::Range<u64>; 2] {
    let whole = u64::try_from((usual + HELD).as_millis()).unwrap_or(u64::MAX);
    [0..AT_ONCE, AT_ONCE..whole.max(AT_ONCE + 1)]
}

/// The calls of an undisturbed ADD and DEL, and how long the ADD took.
fn boundaries(node: &Node, runtime: &Runtime) -> Result<(Vec<Boundary>, Vec<Boundary>, Duration)> {
    let recorded = strace::recorded(runtime);
    let identity = Identity::pod("recorded");
    let netns = node.add_pod_netns(&netns_name(&identity))?;
    let begun = Instant::now();
    let call = recorded.add_in(node, &identity, &netns)?;
    let usual = begun.elapsed();
    let adds = strace::read(node)?.boundaries;
    let pod = pod_of(&identity, node, netns, &call)?;
    recorded.remove(node, &pod)?;
    Ok((adds, strace::read(node)?.boundaries, usual))
}

/// Runs a call, and takes the namespace's name away some time after its beginning.
fn meanwhile<T: Send>(
    node: &Node,
    identity: &Identity,
    goes: Duration,
    call: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    std::thread::scope(|scope| {
        let running = scope.spawn(call);
        wait::pause(goes);
        let gone = node.delete_pod_netns(&netns_name(identity));
        let called = running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        gone?;
        called
    })
}
