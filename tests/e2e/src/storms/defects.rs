//! The judge can say no: each defect made by hand is found by `ipamd audit`, as what it is.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use netlink::message::{LinkRef, Rule, link};
use netlink::packet::RouteNetlinkMessage as Message;
use nix::sys::signal::Signal;
use serde_json::Value;
use vpc_sim::model::request::{AssignPrivateIpAddresses, Ipv4Request, UnassignPrivateIpAddresses};
use vpc_types::EniId;

use super::{Orders, Storm, agreement};
use crate::runtime::Pod;
use crate::scenarios::Bench;
use crate::scenarios::world::{NODE, SOON, World, change, vpc_of};
use crate::wait;

pub(super) const STORM: Storm = Storm {
    name: "the audit finds what was broken by hand, and says when it could not look",
    limit: Duration::from_secs(90),
    run: storm,
};

/// Three slots for pods on each ENI: the fourth pod is on the second one.
const INSTANCE_TYPE: &str = "t3.small";
/// `NLM_F_CREATE | NLM_F_EXCL`.
const ADD: u16 = 0x600;
/// A repair without a pause takes some hundredths of a second.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Longer than the first pauses of the daemon.
const LATE: Duration = Duration::from_secs(20);
/// More than the daemon repairs without a pause.
const MOST_REMOVALS: usize = 40;

fn storm(bench: &Bench, _orders: Orders) -> Result<()> {
    let mut world = World::start(bench, vpc_of(1, INSTANCE_TYPE), &[], &[])?;
    let pods = world.add(NODE, "pod", 4)?;
    agreement::check(&world, &pods)?;
    let second = pods
        .iter()
        .find(|pod| pod.device > 0)
        .context("no pod is on a second ENI")?;
    rules(&world, &pods, second)?;
    veth(&world, &pods, &pods[0])?;
    world.remove(&pods)?;
    drop(pods);
    agreement::check(&world, &[])?;
    blind(&mut world)?;
    ec2(&world)?;
    agreement::check(&world, &[])?;
    world.finish()
}

/// The audit finds these kinds, about that address, and ends accordingly; the independent look sees that something is wrong
/// exactly when the audit does.
fn expect(world: &World, pods: &[Pod], kinds: &[&str], about: Option<Ipv4Addr>) -> Result<()> {
    let independent = agreement::disagreement(world, NODE, &pods.iter().collect::<Vec<_>>())?;
    ensure!(
        independent.is_some() != kinds.is_empty(),
        "{kinds:?}, but the independent look says {independent:?}"
    );
    let (status, answer) = agreement::audit(world, NODE)?;
    let findings = answer["findings"].as_array().context("the audit lists findings")?;
    let found: Vec<&str> = findings.iter().filter_map(|finding| finding["kind"].as_str()).collect();
    ensure!(found == kinds, "expected {kinds:?}: {answer:#}");
    ensure!(
        status == Some(i32::from(!kinds.is_empty())),
        "the audit ends with {status:?}"
    );
    let about = about.map(|address| Value::String(address.to_string()));
    for finding in findings {
        ensure!(
            about.as_ref().is_none_or(|about| finding["address"] == *about),
            "{finding:#}"
        );
        ensure!(!finding["text"].as_str().unwrap_or_default().is_empty(), "{finding:#}");
    }
    Ok(())
}

/// A rule is changed, added, or taken away for longer than the daemon cares to put it back.
fn rules(world: &World, pods: &[Pod], pod: &Pod) -> Result<()> {
    let node = world.node(NODE)?;
    let from = |table, from| Rule {
        priority: 1536,
        from: Some(from),
        table: Some(table),
        ..Rule::default()
    };
    let own = from(pod.table, pod.address);
    let wrong = from(77, pod.address);
    change(node, ADD, Message::NewRule(wrong.message()))?;
    change(node, 0, Message::DelRule(own.message()))?;
    expect(world, pods, &["WrongTable"], Some(pod.address)).context("a rule that looks elsewhere")?;
    change(node, 0, Message::DelRule(wrong.message()))?;
    wait::until("the daemon puts the rule back", SOON, || returned(world, pods))?;
    let stranger = from(77, Ipv4Addr::new(10, 99, 0, 1));
    change(node, ADD, Message::NewRule(stranger.message()))?;
    expect(world, pods, &["RuleWithoutLease"], stranger.from).context("a foreign rule for an address")?;
    change(node, 0, Message::DelRule(stranger.message()))?;
    let marked = Rule {
        priority: 512,
        mark: Some((1, 1)),
        table: Some(77),
        ..Rule::default()
    };
    change(node, ADD, Message::NewRule(marked.message()))?;
    expect(world, pods, &["ForeignRule"], None).context("a foreign rule for a mark")?;
    change(node, 0, Message::DelRule(marked.message()))?;
    expect(world, pods, &[], None).context("all rules are back")?;
    remove_without_end(world, pods, &own)?;
    expect(world, pods, &["LeaseWithoutRule"], Some(pod.address)).context("a rule removed by hand")?;
    wait::until("the daemon puts the rule back all the same", LATE, || {
        returned(world, pods)
    })?;
    expect(world, pods, &[], None).context("the rule is back")
}

/// Whether nothing is missing of what pods have in the kernel.
fn returned(world: &World, pods: &[Pod]) -> Result<Option<()>> {
    let wrong = agreement::disagreement(world, NODE, &pods.iter().collect::<Vec<_>>())?;
    Ok(wrong.is_none().then_some(()))
}

/// Deletes the rule again and again, until the daemon's pause between two repairs is its second, of ten seconds: long enough for
/// an audit.
fn remove_without_end(world: &World, pods: &[Pod], own: &Rule) -> Result<()> {
    let mut pauses = 0;
    for _ in 0..MOST_REMOVALS {
        change(world.node(NODE)?, 0, Message::DelRule(own.message()))?;
        if wait::until("the rule is back", AT_ONCE, || returned(world, pods)).is_ok() {
            continue;
        }
        pauses += 1;
        if pauses == 2 {
            return Ok(());
        }
        wait::until("the daemon puts the rule back", LATE, || returned(world, pods))?;
    }
    bail!("the daemon never tires")
}

/// The lease stays until the daemon believes that the sandbox is gone, which takes a minute.
fn veth(world: &World, pods: &[Pod], pod: &Pod) -> Result<()> {
    let name = pod.result["interfaces"][0]["name"]
        .as_str()
        .context("the result names the veth")?;
    change(world.node(NODE)?, 0, Message::DelLink(link(LinkRef::Name(name))))?;
    expect(world, pods, &["LeaseWithoutVeth"], Some(pod.address)).context("a veth deleted by hand")
}

/// One address is taken away and another one given, without the daemon; and then the other way round.
fn ec2(world: &World) -> Result<()> {
    let instance = world
        .cluster
        .vpc
        .handle()
        .instance(NODE)
        .context("nodes are instances")?;
    let simulator = world.cluster.vpc.simulator();
    let (eni, taken) = simulator.with_model(|model, _| -> Result<_> {
        let eni = model.enis_of(instance).next().context("the node has an ENI")?;
        Ok((
            eni.id.clone(),
            eni.secondary.first().copied().context("it has addresses")?,
        ))
    })?;
    unassign(world, &eni, taken)?;
    let given = assign(world, &eni, Ipv4Request::Count(1))?;
    let (status, answer) = agreement::audit(world, NODE)?;
    let findings = answer["findings"].as_array().context("the audit lists findings")?;
    let is = |kind: &str, address: Ipv4Addr| {
        let same = |finding: &&Value| finding["kind"] == kind && finding["address"] == address.to_string();
        findings
            .iter()
            .filter(same)
            .any(|finding| finding["eni"] == eni.to_string())
    };
    let both = is("AddressNotAtEc2", taken) && is("AddressAtEc2UnknownToPool", given);
    ensure!(
        status == Some(1) && findings.len() == 2 && both,
        "{taken} was unassigned and {given} assigned: {answer:#}"
    );
    unassign(world, &eni, given)?;
    assign(world, &eni, Ipv4Request::Addresses(vec![taken]))?;
    Ok(())
}

fn unassign(world: &World, eni: &EniId, address: Ipv4Addr) -> Result<()> {
    let call = UnassignPrivateIpAddresses {
        eni: eni.clone(),
        addresses: vec![address],
        prefixes: Vec::new(),
    };
    let simulator = world.cluster.vpc.simulator();
    simulator
        .with_model(|model, now| model.call_directly(now, &call).map(drop))
        .context("unassign")
}

/// The address that the ENI gained.
fn assign(world: &World, eni: &EniId, wanted: Ipv4Request) -> Result<Ipv4Addr> {
    let call = AssignPrivateIpAddresses::new(eni.clone(), wanted);
    world.cluster.vpc.simulator().with_model(|model, now| {
        let before: Vec<Ipv4Addr> = model.eni(eni).context("the ENI")?.secondary.clone();
        model.call_directly(now, &call).context("assign")?;
        let after = &model.eni(eni).context("the ENI")?.secondary;
        after
            .iter()
            .copied()
            .find(|address| !before.contains(address))
            .context("an address")
    })
}

/// Without EC2, and without the daemon, the audit does not say that all agrees.
fn blind(world: &mut World) -> Result<()> {
    let daemon = world.cluster.daemons.get(NODE).context("the node has a daemon")?;
    let (status, answer) = daemon.ask_for_status(world.node(NODE)?, &["audit", "--no-ec2"])?;
    ensure!(
        status == Some(0) && answer["leftOut"][0] == "EC2",
        "without EC2: {status:?} {answer:#}"
    );
    world
        .cluster
        .daemon(NODE)?
        .set("AWS_ENDPOINT_URL_EC2", "http://127.0.0.1:9");
    let (status, answer) = agreement::audit(world, NODE)?;
    ensure!(
        status == Some(2) && answer["result"] == "incomplete" && answer["notLookedAt"][0]["what"] == "EC2",
        "EC2 cannot be reached: {status:?} {answer:#}"
    );
    let url = world.cluster.vpc.ec2_url();
    world.cluster.daemon(NODE)?.set("AWS_ENDPOINT_URL_EC2", &url);
    world.cluster.daemon(NODE)?.stop(Signal::SIGTERM)?;
    let (status, answer) = agreement::audit(world, NODE)?;
    ensure!(
        status == Some(2) && answer["notLookedAt"][0]["what"] == "daemon",
        "no daemon: {status:?} {answer:#}"
    );
    world.cluster.start_daemon(NODE)?;
    agreement::check(world, &[])
}
