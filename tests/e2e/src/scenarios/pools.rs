//! Targets and prefixes: what the pool holds, and that pods live on it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use vpc_sim::model::Action;

use super::world::{NODE, SHRINKING, SMALL, World, vpc_of};
use super::{Bench, Scenario};
use crate::runtime::Pod;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "fifty pods live on prefixes of one node, and prefixes go back when they have gone",
        fifty_pods,
    ),
    Scenario::new("WARM_ENI_TARGET keeps a whole ENI's worth of free addresses", warm_enis),
    Scenario::new("WARM_IP_TARGET keeps so many free addresses", warm_addresses),
    Scenario::new("MINIMUM_IP_TARGET holds so many addresses in all", minimum),
    Scenario::new("WARM_PREFIX_TARGET keeps so many free prefixes", warm_prefixes),
    Scenario::new("without a target the pool follows the pods", no_target),
    Scenario::new(
        "an instance type without prefixes gets single addresses instead",
        no_nitro,
    ),
    Scenario::new(
        "prefixes can be switched on and off while pods run on what was there before",
        switched_on_and_off,
    ),
];

/// Prefixes are wanted.
const PREFIXES: (&str, &str) = ("ENABLE_PREFIX_DELEGATION", "true");
/// No ENI target, as on a host without the chart.
const UNSET: (&str, &str) = ("WARM_ENI_TARGET", "");
/// Five slots for pods on each of at most three ENIs.
const MEDIUM: &str = "t3.medium";

fn number(pool: &Value, field: &str) -> u64 {
    pool[field].as_u64().unwrap_or(0)
}

/// No address twice, and every pod has one on the node's ENIs.
fn check_distinct(pods: &[Pod]) -> Result<()> {
    let distinct: BTreeSet<Ipv4Addr> = pods.iter().map(|pod| pod.address).collect();
    ensure!(distinct.len() == pods.len(), "an address was granted twice");
    Ok(())
}

fn fifty_pods(bench: &Bench) -> Result<()> {
    let environment = [PREFIXES, ("WARM_PREFIX_TARGET", "1")];
    let world = World::start(bench, vpc_of(1, MEDIUM), SHRINKING, &environment)?;
    let pods = world.add(NODE, "pod", 50)?;
    check_distinct(&pods)?;
    world.check_mesh(&pods[40..])?;
    world.check_mesh(&[&pods[..3], &pods[25..28]].concat())?;
    let status = world.cluster.ask(NODE, "status")?;
    ensure!(status["mode"] == "prefixes", "{status:#}");
    ensure!(
        number(&status["pool"], "total").is_multiple_of(16),
        "single addresses: {status:#}"
    );
    ensure!(
        number(&status["pool"], "prefixes") <= 5,
        "50 pods and a spare: {status:#}"
    );
    ensure!(world.eni_count() == 1, "five slots of one ENI are enough");
    let grown = world.cluster.ec2_calls();
    ensure!(world.calls_of(Action::AssignPrivateIpAddresses) <= 5, "{grown:?}");
    world.remove(&pods)?;
    world.wait_for_pool(NODE, "prefixes go back", |pool| {
        number(pool, "prefixes") <= 2 && pool["assigned"] == 0
    })?;
    world.finish()
}

fn warm_enis(bench: &Bench) -> Result<()> {
    let world = World::start(bench, vpc_of(1, SMALL), &[], &[("WARM_ENI_TARGET", "1")])?;
    let is_warm = |pool: &Value| number(pool, "free") >= 3;
    world.wait_for_pool(NODE, "an ENI's worth is free", is_warm)?;
    let pods = world.add(NODE, "pod", 2)?;
    world.wait_for_pool(NODE, "an ENI's worth is free again", is_warm)?;
    ensure!(world.eni_count() == 2, "{} ENIs", world.eni_count());
    world.check_mesh(&pods)?;
    world.finish()
}

fn warm_addresses(bench: &Bench) -> Result<()> {
    let environment = [("WARM_IP_TARGET", "2"), ("WARM_ENI_TARGET", "5")];
    let world = World::start(bench, vpc_of(1, MEDIUM), &[], &environment)?;
    let is_warm = |pool: &Value| number(pool, "free") == 2;
    world.wait_for_pool(NODE, "two are free", is_warm)?;
    let pods = world.add(NODE, "pod", 3)?;
    world.wait_for_pool(NODE, "two are free again", |pool| number(pool, "free") >= 2)?;
    world.check_mesh(&pods)?;
    let status = world.cluster.ask(NODE, "status")?;
    let warned = status["warnings"].as_array().context("a list")?;
    ensure!(
        warned
            .iter()
            .any(|line| line.as_str().unwrap_or_default().contains("WARM_ENI_TARGET")),
        "the contradiction is not named: {status:#}"
    );
    world.finish()
}

fn minimum(bench: &Bench) -> Result<()> {
    let environment = [("WARM_IP_TARGET", "1"), ("MINIMUM_IP_TARGET", "7")];
    let world = World::start(bench, vpc_of(1, MEDIUM), &[], &environment)?;
    world.wait_for_pool(NODE, "seven are there", |pool| number(pool, "total") == 7)?;
    world.wait_for_quiet()?;
    world.reset_calls();
    let pods = world.add(NODE, "pod", 6)?;
    world.check_mesh(&pods)?;
    world.wait_for_quiet()?;
    ensure!(world.calls() == 0, "six of seven made {:?}", world.cluster.ec2_calls());
    world.finish()
}

fn warm_prefixes(bench: &Bench) -> Result<()> {
    let environment = [PREFIXES, ("WARM_PREFIX_TARGET", "2")];
    let world = World::start(bench, vpc_of(1, MEDIUM), &[], &environment)?;
    world.wait_for_pool(NODE, "two prefixes are there", |pool| number(pool, "prefixes") == 2)?;
    let pods = world.add(NODE, "pod", 2)?;
    world.wait_for_pool(NODE, "two are free again", |pool| number(pool, "prefixes") == 3)?;
    world.check_mesh(&pods)?;
    ensure!(world.eni_count() == 1, "{} ENIs", world.eni_count());
    world.finish()
}

fn no_target(bench: &Bench) -> Result<()> {
    let world = World::start(bench, vpc_of(1, MEDIUM), &[], &[UNSET])?;
    let status = world.cluster.ask(NODE, "status")?;
    ensure!(status["target"] == "adaptive", "{status:#}");
    let pods = world.add(NODE, "pod", 12)?;
    check_distinct(&pods)?;
    world.check_mesh(&pods[8..])?;
    world.wait_for_pool(NODE, "something is free", |pool| number(pool, "free") > 0)?;
    world.finish()
}

fn no_nitro(bench: &Bench) -> Result<()> {
    let world = World::start(bench, vpc_of(1, "m4.large"), &[], &[PREFIXES])?;
    let status = world.cluster.ask(NODE, "status")?;
    ensure!(
        status["mode"] == "addresses" && status["pool"]["prefixes"] == 0,
        "{status:#}"
    );
    let pods = world.add(NODE, "pod", 2)?;
    world.check_mesh(&pods)?;
    world.finish()
}

/// Ends the daemon and starts it with another setting.
fn restart_with(world: &mut World, name: &str, value: &str) -> Result<()> {
    let daemon = world.cluster.daemon(NODE)?;
    daemon.stop(Signal::SIGTERM)?;
    daemon.set(name, value);
    world.cluster.start_daemon(NODE)?;
    Ok(())
}

fn switched_on_and_off(bench: &Bench) -> Result<()> {
    let environment = [("WARM_IP_TARGET", "1")];
    let mut world = World::start(bench, vpc_of(1, MEDIUM), SHRINKING, &environment)?;
    let mut pods = world.add(NODE, "single", 3)?;
    restart_with(&mut world, PREFIXES.0, "true")?;
    pods.extend(world.add(NODE, "mixed", 6)?);
    check_distinct(&pods)?;
    world.check_mesh(&pods)?;
    let status = world.cluster.ask(NODE, "status")?;
    ensure!(number(&status["pool"], "prefixes") > 0, "no prefix came: {status:#}");
    // Those on single addresses go: their addresses are not kept.
    world.remove(&pods[..3])?;
    restart_with(&mut world, PREFIXES.0, "false")?;
    let kept = pods.split_off(3);
    let new = world.add(NODE, "again", 3)?;
    let all = [kept, new].concat();
    check_distinct(&all)?;
    world.check_mesh(&all)?;
    world.remove(&all)?;
    world.wait_for_pool(NODE, "no prefix is left", |pool| pool["prefixes"] == 0)?;
    world.finish()
}
