//! Packets: between pods by their own addresses, out of the VPC by the node's, and what the VPC drops.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netlink::message::Rule;
use netlink::packet::RouteNetlinkMessage;
use nix::sys::signal::Signal;
use vpc_fabric::fabric::DropReason;
use vpc_fabric::node::CommandSpec;
use vpc_fabric::probe::{EchoServer, Vantage};

use super::world::{NODE, OTHER, PROBE, SMALL, SOON, World, change, pings, vpc_of};
use super::{Bench, Scenario};
use crate::node::Daemon;
use crate::runtime::Pod;
use crate::wait;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "pods on primary and secondary ENIs of two nodes reach each other by their own addresses, and nothing is dropped",
        pods_reach_each_other,
    )
    .also_unprivileged(),
    Scenario::new(
        "without its from-rule a pod's packets leave by the wrong ENI and the VPC drops them",
        a_missing_rule_shows,
    ),
    Scenario::new(
        "outside the VPC a pod is seen as its node's primary address, inside as itself",
        leaving_the_vpc,
    )
    .also_unprivileged(),
    Scenario::new(
        "with external SNAT the node leaves source addresses alone",
        external_snat,
    ),
    Scenario::new(
        "a range that the VPC gains while the kernel refuses our rules is known as soon as it no longer does",
        range_in_spite_of_refusals,
    ),
];

/// Priority of rules from a pod on a secondary ENI.
const FROM_POD: u32 = 1536;
const ECHO_PORT: u16 = 7;
/// How long to wait for what is not to come.
const SILENCE: Duration = Duration::from_millis(400);

/// How often the daemon reads the VPC's ranges; 30 s where nobody shortens it.
const RANGES: (&str, &str) = ("imds_notices", "0.3");
/// Who owns a table keeps all others from changing it for as long as the process lives. The pipe has a writer for ever, so that
/// it never ends.
const OWN_OUR_TABLE: &str = "mkfifo /var/log/orders && exec 3<>/var/log/orders && \
    echo 'delete table ip aws-cni; add table ip aws-cni { flags owner; }' >&3 && exec /usr/sbin/nft -i <&3 >/var/log/owner.log 2>&1";

/// A pod on a secondary ENI.
fn on_secondary(pods: &[Pod]) -> Result<&Pod> {
    pods.iter()
        .find(|pod| pod.device > 0)
        .context("no pod is on a secondary ENI")
}

fn pods_reach_each_other(bench: &Bench) -> Result<()> {
    let world = World::start(bench, vpc_of(2, SMALL), &[], &[])?;
    let mut pods = world.add(NODE, "here", 4)?;
    pods.extend(world.add(OTHER, "there", 4)?);
    for node in [NODE, OTHER] {
        let devices: BTreeSet<u32> = pods
            .iter()
            .filter(|pod| pod.node == node)
            .map(|pod| pod.device)
            .collect();
        ensure!(
            devices.len() > 1 && devices.contains(&0),
            "{node} has pods on {devices:?} only"
        );
    }
    world.check_mesh(&pods)?;
    ensure!(world.cluster.wrong_source_drops()? == 0, "packets were dropped");
    world.remove(&pods)?;
    ensure!(world.cluster.wrong_source_drops()? == 0, "packets were dropped");
    world.finish()
}

fn a_missing_rule_shows(bench: &Bench) -> Result<()> {
    let mut world = World::start(bench, vpc_of(2, SMALL), &[], &[])?;
    let here = world.add(NODE, "here", 4)?;
    let there = world.add(OTHER, "there", 1)?;
    let (pod, target) = (on_secondary(&here)?.clone(), there[0].address);
    world.wait_for_carrier(std::slice::from_ref(&pod))?;
    ensure!(pings(&pod, target)?, "the pod does not reach the other node");
    ensure!(world.cluster.wrong_source_drops()? == 0, "packets were dropped");
    // A daemon that watches could put the rule back at once.
    world.cluster.daemon(NODE)?.stop(Signal::SIGKILL)?;
    let rule = Rule {
        priority: FROM_POD,
        from: Some(pod.address),
        ..Rule::default()
    };
    let message = RouteNetlinkMessage::DelRule(rule.message());
    change(world.node(NODE)?, 0, message).context("the pod has no from-rule")?;
    ensure!(!pings(&pod, target)?, "the pod is answered without its rule");
    let drops = world.cluster.wrong_source_drops()?;
    ensure!(drops > 0, "nothing was dropped");
    world.cluster.start_daemon(NODE)?;
    // DEL of a pod whose rule is gone already, and a new pod in its place.
    world.remove(std::slice::from_ref(&pod))?;
    let again = world.add_one(NODE, "again")?;
    let before = world.cluster.wrong_source_drops()?;
    ensure!(pings(&again, target)?, "the new pod does not reach the other node");
    let after = world.cluster.wrong_source_drops()?;
    ensure!(before == after, "{} packets were dropped", after - before);
    world.finish()
}

/// Addresses that an echo server sees pods come from, by UDP and TCP.
fn seen_from(pods: &[Pod], server: SocketAddrV4, patience: Duration) -> Result<Vec<Option<Ipv4Addr>>> {
    let mut seen = Vec::new();
    for pod in pods {
        let vantage = Vantage::new(&pod.netns.netns).within(patience);
        let answers = [vantage.ask_tcp(&[server])?, vantage.ask_udp(&[server])?].concat();
        seen.extend(answers.into_iter().map(|answer| answer.map(|address| *address.ip())));
    }
    Ok(seen)
}

/// An echo server on the internet.
fn internet(world: &World) -> Result<EchoServer> {
    let host = world.config.internet.first().context("there is an internet host")?;
    let netns = world.cluster.vpc.handle().internet_host(&host.name);
    let address = SocketAddrV4::new(host.addresses[0], ECHO_PORT);
    Ok(EchoServer::start(&netns.context("the internet host is up")?, address)?)
}

fn leaving_the_vpc(bench: &Bench) -> Result<()> {
    let world = World::start(bench, vpc_of(2, SMALL), &[], &[])?;
    let pods = world.add(NODE, "here", 5)?;
    let primary = world.primary(NODE)?;
    world.wait_for_carrier(&pods)?;
    let outside = internet(&world)?;
    let seen = seen_from(&pods, outside.address(), PROBE)?;
    ensure!(
        seen.iter().all(|address| *address == Some(primary)),
        "the internet saw {seen:?}, not {primary}"
    );
    let there = world.add_one(OTHER, "there")?;
    let inside = EchoServer::start(&there.netns.netns, SocketAddrV4::new(there.address, ECHO_PORT))?;
    for pod in &pods {
        let seen = seen_from(std::slice::from_ref(pod), inside.address(), PROBE)?;
        ensure!(
            seen.iter().all(|address| *address == Some(pod.address)),
            "a pod saw {} as {seen:?}",
            pod.address
        );
    }
    // Programs of the other node itself reach pods, and are seen as the node.
    let node_of = Vantage::new(world.node(NODE)?.netns()).within(PROBE);
    let seen = node_of.ask_tcp(&[inside.address()])?;
    ensure!(
        seen.iter()
            .all(|address| address.is_some_and(|address| *address.ip() == primary)),
        "a pod saw the other node as {seen:?}"
    );
    ensure!(world.cluster.wrong_source_drops()? == 0, "packets were dropped");
    world.finish()
}

fn external_snat(bench: &Bench) -> Result<()> {
    let world = World::start(
        bench,
        vpc_of(1, SMALL),
        &[],
        &[("AWS_VPC_K8S_CNI_EXTERNALSNAT", "true")],
    )?;
    let pods = world.add(NODE, "here", 4)?;
    let outside = internet(&world)?;
    let seen = seen_from(&pods, outside.address(), SILENCE)?;
    ensure!(seen.iter().all(Option::is_none), "the internet saw {seen:?}");
    // Without a NAT gateway such packets end at the VPC's edge, which tells their source.
    let drops = world.cluster.vpc.handle().drops()?;
    let sources: BTreeSet<Ipv4Addr> = drops.iter().map(|drop| drop.source).collect();
    let expected: BTreeSet<Ipv4Addr> = pods.iter().map(|pod| pod.address).collect();
    ensure!(sources == expected, "the VPC's edge saw {sources:?}, not {expected:?}");
    ensure!(
        drops.iter().all(|drop| drop.reason == DropReason::NoPublicAddress),
        "dropped for another reason: {drops:?}"
    );
    world.finish()
}

fn range_in_spite_of_refusals(bench: &Bench) -> Result<()> {
    let world = World::start(bench, vpc_of(1, SMALL), &[RANGES], &[])?;
    let node = world.node(NODE)?;
    let list = || -> Result<String> {
        let command = CommandSpec::new("/usr/sbin/nft").args(["list", "ruleset"]);
        let output = node.output(&command, b"", SOON)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let before = list()?;
    let mut owner = node.spawn(&CommandSpec::new("/bin/sh").args(["-c", OWN_OUR_TABLE]))?;
    wait::until("somebody else owns the table", SOON, || {
        Ok(list()?.contains("flags owner").then_some(()))
    })?;
    let gained: ipnet::Ipv4Net = "100.64.0.0/16".parse()?;
    let simulator = world.cluster.vpc.simulator();
    simulator.with_model(|model, _| model.widen_vpcs(gained));
    wait::until("the new range was read and the rules were refused", SOON, || {
        let log = Daemon::log(node);
        let read = log.find("ranges of the VPC").map(|at| &log[at..]);
        Ok(read.filter(|rest| rest.contains("not in line")).map(|_| ()))
    })?;
    ensure!(!list()?.contains("100.64.0.0"), "the kernel refused nothing");
    owner.kill()?;
    let after = wait::until("the new range is in the table", SOON, || {
        Ok(Some(list()?).filter(|text| text.contains("100.64.0.0/16")))
    })?;
    ensure!(
        before.lines().count() <= after.lines().count(),
        "before:\n{before}\nafter:\n{after}"
    );
    world.finish()
}
