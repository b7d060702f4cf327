//! CHECK, STATUS and GC, as a runtime calls them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ipnet::Ipv4Net;
use netlink::RouteSocket;
use netlink::message::{LinkRef, Rule, set_link};
use netlink::packet::RouteNetlinkMessage;
use netlink::packet::link::{LinkAttribute, LinkMessage};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vpc_types::MacAddress;

use super::world::{NODE, SMALL, World, change, pings, vpc_of};
use super::{Bench, Scenario};
use crate::kernel::KernelState;
use crate::runtime::{CallResult, Identity, Pod, Runtime, netns_name, pod_of};
use crate::wait;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "GC ends the leases of its network that the runtime no longer names, but no young ones and none of other networks",
        garbage,
    )
    .also_unprivileged(),
    Scenario::new("CHECK passes for running pods and names what somebody removed", checks),
    Scenario::new(
        "STATUS and GC without the daemon fail and change nothing, and STATUS is well again with it",
        without_daemon,
    ),
    Scenario::new(
        "STATUS is 51 while the node's rules cannot be put in line, and well again after",
        status_without_rules,
    ),
    Scenario::new(
        "STATUS names the cause on a node that never had an address, and is silent on a full one",
        status_by_state,
    ),
];

/// Seconds that an ADD may wait in the daemon; leases twice as old are no longer young.
const ADD_DEADLINE: &str = "4";
/// For GC to find leases old enough, with room for a busy machine.
const GROWN_UP: Duration = Duration::from_secs(30);
/// The network of most pods.
const NETWORK: &str = "aws-cni";
/// One ENI alone.
const ONE_ENI: (&str, &str) = ("MAX_ENI", "1");
const FROM_POD: u32 = 1536;
const LIST: &str = "cni.dev/valid-attachments";

/// A configuration of a version that has all verbs.
fn config(network: &str, previous: Option<&Value>) -> Value {
    let mut config = Runtime::config(previous);
    config["cniVersion"] = json!("1.1.0");
    config["name"] = json!(network);
    config
}

fn call(world: &World, verb: &str, identity: &Identity, netns: &Path, config: &Value) -> Result<CallResult> {
    let environment = Runtime::call_environment(verb, identity, netns);
    let node = world.node(NODE)?;
    world
        .cluster
        .runtime
        .call(node, &environment, config.to_string().as_bytes())
}

/// A verb about the network, with the variables that it is given.
fn call_for_network(world: &World, verb: &str, config: &Value) -> Result<CallResult> {
    let mut environment = Runtime::call_environment(verb, &Identity::container(), Path::new(""));
    environment.retain(|name, _| name == "CNI_COMMAND" || name == "CNI_PATH");
    let node = world.node(NODE)?;
    world
        .cluster
        .runtime
        .call(node, &environment, config.to_string().as_bytes())
}

fn is_silent(result: &CallResult) -> Result<()> {
    ensure!(result.code == Some(0) && result.stdout.is_empty(), "{result:?}");
    Ok(())
}

fn add_to(world: &World, network: &str, name: &str) -> Result<Pod> {
    let (identity, node) = (Identity::pod(name), world.node(NODE)?);
    let netns = node.add_pod_netns(&netns_name(&identity))?;
    let added = call(world, "ADD", &identity, &netns.path, &config(network, None))?;
    pod_of(&identity, node, netns, &added)
}

fn collect(world: &World, network: &str, valid: &[&Pod]) -> Result<CallResult> {
    let valid: Vec<Value> = valid
        .iter()
        .map(|pod| json!({"containerID": pod.identity.container_id, "ifname": "eth0"}))
        .collect();
    let mut config = config(network, None);
    config[LIST] = Value::Array(valid);
    call_for_network(world, "GC", &config)
}

/// Addresses that containers have, in order of the pods' names.
fn leased(world: &World) -> Result<Vec<String>> {
    let mut leases = world.leases(NODE)?;
    leases.retain(|lease| lease["state"] != "cooling");
    leases.sort_by_key(|lease| lease["pod"].as_str().unwrap_or_default().to_owned());
    let address = |lease: &Value| lease["address"].as_str().unwrap_or_default().to_owned();
    Ok(leases.iter().map(address).collect())
}

fn garbage(bench: &Bench) -> Result<()> {
    let timers = [("add_deadline", ADD_DEADLINE)];
    let mut world = World::start(bench, vpc_of(1, SMALL), &timers, &[ONE_ENI])?;
    let kept = add_to(&world, NETWORK, "a-kept")?;
    let lost = add_to(&world, NETWORK, "b-lost")?;
    let other = add_to(&world, "other-network", "c-other")?;
    let all = [&kept, &lost, &other].map(|pod| pod.address.to_string());
    // Their ADDs may not have ended, as far as the daemon knows.
    is_silent(&collect(&world, NETWORK, &[])?)?;
    ensure!(leased(&world)? == all, "young leases were taken for garbage");
    wait::until("the lost pod's lease is garbage", GROWN_UP, || {
        is_silent(&collect(&world, NETWORK, &[&kept])?)?;
        Ok((leased(&world)?.len() < all.len()).then_some(()))
    })?;
    let left = leased(&world)?;
    ensure!(left == [all[0].clone(), all[2].clone()], "{left:?} of {all:?} are left");
    let kernel = KernelState::of(world.node(NODE)?)?;
    let of_lost = |line: &&String| line.contains(&format!("{}/32", lost.address));
    let traces: Vec<&String> = kernel.rules.iter().chain(&kernel.routes).filter(of_lost).collect();
    ensure!(traces.is_empty(), "{traces:?}");
    for (pod, network) in [(&kept, NETWORK), (&other, "other-network")] {
        is_silent(&call(
            &world,
            "CHECK",
            &pod.identity,
            &pod.netns.path,
            &config_of(pod, network),
        )?)?;
        ensure!(pings(pod, world.primary(NODE)?)?, "{} is cut off", pod.address);
    }
    let no_list = call_for_network(&world, "GC", &config(NETWORK, None))?.error()?;
    ensure!(no_list.0 == 7 && no_list.1.contains(LIST), "{no_list:?}");
    // The file says the same, and a late DEL of the lost pod is no error.
    world.cluster.daemon(NODE)?.stop(Signal::SIGKILL)?;
    world.cluster.start_daemon(NODE)?;
    ensure!(leased(&world)? == left, "after a restart");
    world.remove(&[lost, kept])?;
    let netns = netns_name(&other.identity);
    is_silent(&call(
        &world,
        "DEL",
        &other.identity,
        &other.netns.path,
        &config_of(&other, "other-network"),
    )?)?;
    world.node(NODE)?.delete_pod_netns(&netns)?;
    world.finish()
}

fn config_of(pod: &Pod, network: &str) -> Value {
    config(network, Some(&pod.result))
}

fn check(world: &World, pod: &Pod) -> Result<CallResult> {
    call(
        world,
        "CHECK",
        &pod.identity,
        &pod.netns.path,
        &Runtime::config(Some(&pod.result)),
    )
}

fn checks(bench: &Bench) -> Result<()> {
    let mut world = World::start(bench, vpc_of(1, SMALL), &[], &[])?;
    // More than the primary ENI has room for.
    let pods = world.add(NODE, "pod", 4)?;
    for pod in &pods {
        is_silent(&check(&world, pod)?)?;
    }
    let pod = pods
        .iter()
        .find(|pod| pod.device > 0)
        .context("a second ENI has pods")?;
    // A daemon that watches could put the rule back at once.
    world.cluster.daemon(NODE)?.stop(Signal::SIGKILL)?;
    is_silent(&check(&world, pod)?).context("without the daemon")?;
    let rule = Rule {
        priority: FROM_POD,
        from: Some(pod.address),
        ..Rule::default()
    };
    change(world.node(NODE)?, 0, RouteNetlinkMessage::DelRule(rule.message()))?;
    let (code, msg) = check(&world, pod)?.error()?;
    let expected = format!("rule {FROM_POD} from {} lookup {} is missing", pod.address, pod.table);
    ensure!(code == 999 && msg.contains(&expected), "{code} {msg}");
    world.cluster.start_daemon(NODE)?;
    world.cluster.runtime.del(world.node(NODE)?, pod)?;
    let (code, msg) = check(&world, pod)?.error()?;
    ensure!(code == 999 && msg.contains("lease of aws-cni/"), "{code} {msg}");
    ensure!(msg.contains(&format!("route to {}", pod.address)), "{msg}");
    world.finish()
}

fn without_daemon(bench: &Bench) -> Result<()> {
    let mut world = World::start(bench, vpc_of(1, SMALL), &[], &[ONE_ENI])?;
    let status = |world: &World| call_for_network(world, "STATUS", &config(NETWORK, None));
    is_silent(&status(&world)?)?;
    let pod = world.add_one(NODE, "pod")?;
    world.cluster.daemon(NODE)?.stop(Signal::SIGTERM)?;
    let before = KernelState::of(world.node(NODE)?)?;
    let (code, msg) = status(&world)?.error()?;
    ensure!(code == 50 && msg.contains("ipamd.sock"), "{code} {msg}");
    let (code, msg) = collect(&world, NETWORK, &[])?.error()?;
    ensure!(code == 999 && msg.contains("ipamd.sock"), "{code} {msg}");
    let after = KernelState::of(world.node(NODE)?)?;
    ensure!(before == after, "GC without the daemon: {}", after.difference(&before));
    world.cluster.start_daemon(NODE)?;
    ensure!(leased(&world)? == [pod.address.to_string()], "the lease is gone");
    wait::until("the node is well again", GROWN_UP, || {
        Ok(is_silent(&status(&world)?).ok())
    })?;
    world.finish()
}

/// A primary device under another link-layer address is none that the daemon knows, so its rules cannot be put in line.
fn status_without_rules(bench: &Bench) -> Result<()> {
    let world = World::start(bench, vpc_of(1, SMALL), &[("imds_notices", "0.3")], &[ONE_ENI])?;
    let status = |world: &World| call_for_network(world, "STATUS", &config(NETWORK, None));
    is_silent(&status(&world)?)?;
    let pod = world.add_one(NODE, "pod")?;
    let answer = world.cluster.ask(NODE, "status")?;
    let mac = answer["enis"][0]["mac"].as_str().context("the primary ENI has a MAC")?;
    let mac = mac.parse::<MacAddress>()?.0;
    let mut other = mac;
    other[5] ^= 0xff;
    rename_device(&world, mac, other)?;
    wait::until("STATUS tells of the rules", GROWN_UP, || {
        let error = status(&world)?.error();
        Ok(error
            .is_ok_and(|(code, msg)| code == 51 && msg.contains("rules"))
            .then_some(()))
    })?;
    rename_device(&world, other, mac)?;
    wait::until("the node is well", GROWN_UP, || Ok(is_silent(&status(&world)?).ok()))?;
    world.remove(&[pod])?;
    world.finish()
}

/// Gives the device with one link-layer address another one.
fn rename_device(world: &World, from: [u8; 6], to: [u8; 6]) -> Result<()> {
    let has_it = move |attribute: &LinkAttribute| *attribute == LinkAttribute::Address(from.to_vec());
    let index = world.node(NODE)?.run(move || -> Result<Option<u32>> {
        let all = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let links = RouteSocket::open()?.dump("list devices", &all)?;
        Ok(links.into_iter().find_map(|message| {
            let RouteNetlinkMessage::NewLink(link) = message else {
                return None;
            };
            link.attributes.iter().any(has_it).then_some(link.header.index)
        }))
    })??;
    let index = index.context("no device has this link-layer address")?;
    let address = LinkAttribute::Address(to.to_vec());
    change(world.node(NODE)?, 0, set_link(LinkRef::Index(index), address))
}

fn status_by_state(bench: &Bench) -> Result<()> {
    let mut vpc = vpc_of(1, SMALL);
    // Eleven usable addresses, one of them the node's own; others have the rest.
    vpc.subnets[0].cidr = Ipv4Net::new(vpc.subnets[0].cidr.network(), 28)?;
    let retry = [("subnet_retry_starving", "1"), ("subnet_retry_refill", "1")];
    let mut world = World::prepare(bench, vpc, &retry, &[ONE_ENI])?;
    world.take_from_subnet(10)?;
    world.cluster.start_daemons()?;
    let status = |world: &World| call_for_network(world, "STATUS", &config(NETWORK, None));
    wait::until("STATUS names the full subnet", GROWN_UP, || {
        let error = status(&world)?.error();
        let is_named = error.is_ok_and(|(code, msg)| code == 50 && msg.contains("SUBNET_FULL"));
        Ok(is_named.then_some(()))
    })?;
    world.give_back_to_subnet()?;
    wait::until("the node is well", GROWN_UP, || Ok(is_silent(&status(&world)?).ok()))?;
    let pods = world.add(NODE, "pod", 3)?;
    let full = world.cluster.ask(NODE, "status")?;
    ensure!(full["ready"] == false, "the node is not full: {full:#}");
    is_silent(&status(&world)?)?;
    world.remove(&pods)?;
    world.finish()
}
