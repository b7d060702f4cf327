//! The reference's daemon goes and ours comes, with pods running; and back.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use netlink::message::{LinkRef, set_link};
use netlink::packet::link::LinkAttribute;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::world::{IPAM_JSON, NODE, SMALL, World, change, vpc_of};
use super::{Bench, Scenario};
use crate::runtime::Pod;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "a checkpoint in the reference's form is adopted with its pods, and can be given back",
        adopted_and_given_back,
    ),
    Scenario::new(
        "a reference that ran in between is believed: its pods stay, ours that went are gone",
        ran_in_between,
    ),
];

/// Named by the reference on every start; anything else ends it.
const VERSION: &str = "vpc-cni-ipam/1";
/// Unleased addresses rest once: nobody knows what the other daemon did.
const RESTING: &[(&str, &str)] = &[("sweep_grace", "2")];

fn text<'a>(pod: &'a Pod, pointer: &str) -> &'a str {
    pod.result.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// What the reference would have written for these pods.
fn reference_form(pods: &[Pod]) -> String {
    let allocation = |pod: &Pod| {
        let (namespace, name) = pod.identity.pod.clone().unwrap_or_default();
        json!({
            "networkName": "aws-cni", "containerID": pod.identity.container_id, "ifName": "eth0",
            "ipv4": pod.address, "allocationTimestamp": 1_795_337_371_468_852_418_u64,
            "metadata": {"k8sPodNamespace": namespace, "k8sPodName": name, "interfacesCount": 1},
        })
    };
    let allocations: Vec<Value> = pods.iter().map(allocation).collect();
    format!("{}\n", json!({"version": VERSION, "allocations": allocations}))
}

/// Leaves what the reference leaves: its file, no file of ours, and veths without the container's id.
pub(crate) fn turn_into_the_references(world: &World, node: &str, pods: &[Pod]) -> Result<()> {
    let file = world.node(node)?.outside(IPAM_JSON.as_ref());
    std::fs::write(&file, reference_form(pods))?;
    let ours = file.with_file_name("vpc-cni-state.json");
    if ours.exists() {
        std::fs::remove_file(ours)?;
    }
    for pod in pods {
        let veth = text(pod, "/interfaces/0/name").to_owned();
        let nameless = set_link(LinkRef::Name(&veth), LinkAttribute::IfAlias(String::new()));
        change(world.node(node)?, 0, nameless).with_context(|| format!("alias of {veth:?}"))?;
    }
    Ok(())
}

/// Reads the file as the reference does at its start, and complains where it would end, or forget a pod.
fn check_for_the_reference(world: &World, pods: &[Pod]) -> Result<()> {
    let path = world.node(NODE)?.outside(IPAM_JSON.as_ref());
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    ensure!(file["version"] == VERSION, "it would not start: {file}");
    let (mut keys, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for allocation in file["allocations"].as_array().context("allocations")? {
        let field = |name: &str| allocation[name].as_str().map(str::to_owned);
        let key = (field("networkName"), field("containerID"), field("ifName"));
        ensure!(keys.insert(key), "a key twice: {file}");
        let address: Ipv4Addr = field("ipv4").context("ipv4")?.parse()?;
        ensure!(addresses.insert(address), "it would not start, {address} twice: {file}");
        ensure!(allocation["allocationTimestamp"].is_u64(), "{file}");
        ensure!(allocation.get("ipv6").is_none(), "{file}");
    }
    let expected: BTreeSet<Ipv4Addr> = pods.iter().map(|pod| pod.address).collect();
    ensure!(addresses == expected, "pods have {expected:?}: {file}");
    Ok(())
}

fn adopted_and_given_back(bench: &Bench) -> Result<()> {
    let mut world = World::start(bench, vpc_of(1, SMALL), RESTING, &[])?;
    let mut pods = world.add(NODE, "pod", 4)?;
    world.wait_for_quiet()?;
    world.cluster.daemon(NODE)?.stop(Signal::SIGKILL)?;
    turn_into_the_references(&world, NODE, &pods)?;
    world.reset_calls();
    world.cluster.start_daemon(NODE)?;
    let leases = world.leases(NODE)?;
    ensure!(leases.len() == pods.len(), "{leases:?}");
    world.check_mesh(&pods)?;
    world.wait_for_quiet()?;
    let counts = world.cluster.ec2_calls();
    let changes = counts
        .iter()
        .filter(|(name, calls)| !name.starts_with("Describe") && **calls > 0);
    ensure!(changes.count() == 0, "adopting changed something at EC2: {counts:?}");
    // Pods of either plugin, side by side, then DELs of the other one's pods.
    pods.extend(world.add(NODE, "ours", 2)?);
    world.check_mesh(&pods)?;
    world.remove(&pods[..2])?;
    let left = pods.split_off(2);
    world.wait_for_pool(NODE, "two addresses are back", |pool| pool["assigned"] == 4)?;
    world.cluster.daemon(NODE)?.stop(Signal::SIGTERM)?;
    check_for_the_reference(&world, &left)?;
    world.check_mesh(&left)?;
    world.cluster.start_daemon(NODE)?;
    world.remove(&left)?;
    world.finish()
}

fn ran_in_between(bench: &Bench) -> Result<()> {
    let mut world = World::start(bench, vpc_of(1, SMALL), RESTING, &[])?;
    let pods = world.add(NODE, "pod", 4)?;
    world.wait_for_quiet()?;
    world.cluster.daemon(NODE)?.stop(Signal::SIGTERM)?;
    // The other daemon ended one pod's lease; our own file still tells of it.
    let file = world.node(NODE)?.outside(IPAM_JSON.as_ref());
    let state = file.with_file_name("vpc-cni-state.json");
    let ours = std::fs::read(&state)?;
    world.cluster.runtime.remove(world.node(NODE)?, &pods[0])?;
    turn_into_the_references(&world, NODE, &pods[1..])?;
    std::fs::write(&state, ours)?;
    world.cluster.start_daemon(NODE)?;
    let leases = world.leases(NODE)?;
    ensure!(leases.len() == 3, "{leases:?}");
    let new = world.add(NODE, "new", 3)?;
    let all = [&pods[1..], &new].concat();
    let distinct: BTreeSet<Ipv4Addr> = all.iter().map(|pod| pod.address).collect();
    ensure!(distinct.len() == all.len(), "a live pod's address was granted again");
    world.check_mesh(&all)?;
    world.remove(&all)?;
    world.finish()
}
