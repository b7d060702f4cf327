//! Subnets that are full or in pieces, and what else there is.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vpc_sim::model::{Action, Occupancy};
use vpc_types::SubnetId;

use super::world::{NODE, SMALL, SOON, World, vpc_of};
use super::{Bench, Scenario};
use crate::runtime::{Identity, Pod};
use crate::wait;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("a second subnet with the tag serves when the first one is full", tagged),
    Scenario::new("a second subnet without the tag is left alone", untagged),
    Scenario::new(
        "where no prefix is left a pod gets a single address on the same ENI",
        fragmented,
    ),
];

/// Full subnets are asked again soon.
pub(super) const EAGER: &[(&str, &str)] = &[
    ("add_deadline", "2"),
    ("subnet_retry_starving", "0.3"),
    ("subnet_retry_refill", "0.5"),
];
/// The tag of subnets for pods.
const TAG: &str = "kubernetes.io/role/cni";

/// The subnet of the node.
fn first_subnet(world: &World) -> Result<SubnetId> {
    let simulator = world.cluster.vpc.simulator();
    simulator.with_model(|model, _| {
        let eni = model.enis().find(|eni| eni.attachment.is_some());
        eni.map(|eni| eni.subnet.clone()).context("the node has an ENI")
    })
}

/// Somebody else takes all that is left.
pub(super) fn fill(world: &World) -> Result<SubnetId> {
    let id = first_subnet(world)?;
    let simulator = world.cluster.vpc.simulator();
    simulator.with_model(|model, now| {
        let left = model.subnet(&id).context("it is there")?.available();
        model.occupy(now, &id, Occupancy::Addresses(left)).context("taken")
    })?;
    Ok(id)
}

/// An ADD that is refused; the complaint.
fn refused(world: &World, name: &str) -> Result<String> {
    let identity = Identity::pod(name);
    let added = world.cluster.runtime.add(world.node(NODE)?, &identity);
    let complaint = added.err().context("an ADD was granted")?.to_string();
    world.cluster.runtime.forget(world.node(NODE)?, &identity)?;
    Ok(complaint)
}

/// An ADD that is granted in the end, as a kubelet tries it.
fn granted_in_the_end(world: &World, name: &str) -> Result<Pod> {
    wait::until("an ADD is granted", SOON, || {
        let identity = Identity::pod(name);
        let added = world.cluster.runtime.add(world.node(NODE)?, &identity);
        if added.is_err() {
            world.cluster.runtime.forget(world.node(NODE)?, &identity)?;
        }
        Ok(added.ok())
    })
}

fn tagged(bench: &Bench) -> Result<()> {
    let mut config = vpc_of(1, SMALL);
    config.subnets[1].tags.insert(TAG.to_owned(), "1".to_owned());
    let world = World::start(bench, config, EAGER, &[])?;
    world.wait_for_quiet()?;
    fill(&world)?;
    let mut pods = world.add(NODE, "pod", 3)?;
    pods.push(granted_in_the_end(&world, "elsewhere")?);
    world.check_mesh(&pods)?;
    let second = world.config.subnets[1].cidr;
    ensure!(
        pods.iter().any(|pod| second.contains(&pod.address)),
        "no pod is in {second}"
    );
    let status = world.cluster.ask(NODE, "status")?;
    let enis = status["enis"].as_array().context("a list")?;
    let subnets: BTreeSet<&str> = enis.iter().filter_map(|eni| eni["subnet"].as_str()).collect();
    ensure!(subnets.len() == 2, "{status:#}");
    let known = status["subnets"].as_array().context("a list")?;
    ensure!(known.iter().all(|subnet| subnet["access"] == "for-pods"), "{status:#}");
    world.finish()
}

fn untagged(bench: &Bench) -> Result<()> {
    let world = World::start(bench, vpc_of(1, SMALL), EAGER, &[])?;
    world.wait_for_quiet()?;
    fill(&world)?;
    let pods = world.add(NODE, "pod", 3)?;
    let complaint = refused(&world, "refused")?;
    ensure!(complaint.contains("SUBNET_FULL"), "{complaint}");
    let ours = world.config.subnets[0].cidr;
    ensure!(pods.iter().all(|pod| ours.contains(&pod.address)), "a pod is elsewhere");
    world.finish()
}

fn fragmented(bench: &Bench) -> Result<()> {
    let mut config = vpc_of(1, "t3.medium");
    config.subnets[0].fragmented = true;
    let environment = [("ENABLE_PREFIX_DELEGATION", "true"), ("WARM_PREFIX_TARGET", "1")];
    let mut world = World::prepare(bench, config, EAGER, &environment)?;
    world.cluster.start_daemons()?;
    let mut pods = vec![granted_in_the_end(&world, "first")?];
    pods.extend(world.add(NODE, "pod", 3)?);
    world.check_mesh(&pods)?;
    let status = world.cluster.ask(NODE, "status")?;
    ensure!(
        status["mode"] == "prefixes" && status["pool"]["prefixes"] == 0,
        "{status:#}"
    );
    ensure!(
        pods.iter().all(|pod| pod.device == 0),
        "an ENI was made while the first one had room"
    );
    // Prefixes are tried again, rarely: nobody hammers the subnet.
    let before = world.calls_of(Action::AssignPrivateIpAddresses);
    wait::pause(Duration::from_secs(2));
    let more = world.calls_of(Action::AssignPrivateIpAddresses) - before;
    ensure!(more <= 5, "{more} calls in two quiet seconds");
    world.finish()
}
