//! What the daemon may not do, what others do instead, and what IMDS tells of it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use vpc_sim::config::Config;
use vpc_sim::model::request::{
    AssignPrivateIpAddresses, EniAttribute, Ipv4Request, ModifyNetworkInterfaceAttribute, UnassignPrivateIpAddresses,
};
use vpc_sim::model::{Action, Notice};
use vpc_types::{EniId, SecurityGroupId};

use super::world::{NODE, SMALL, SOON, World, pings, vpc_of};
use super::{Bench, Scenario};
use crate::node::Daemon;
use crate::runtime::Identity;
use crate::wait;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "with DISABLE_NETWORK_RESOURCE_PROVISIONING pods live on what others provide, and nothing is changed at EC2",
        provisioning_disabled,
    ),
    Scenario::new(
        "with ENABLE_IMDS_ONLY_MODE pods are served without one EC2 call",
        imds_only,
    ),
    Scenario::new(
        "secondary ENIs follow the primary one's security groups, with one call each",
        groups_follow,
    ),
    Scenario::new(
        "addresses taken away are noticed by a look at IMDS, and confirmed by EC2",
        noticed_by_imds,
    ),
    Scenario::new("a spot notice reaches the daemon", spot_notice),
];

/// IMDS is read often.
const WATCHFUL: &[(&str, &str)] = &[
    ("imds_enis", "0.2"),
    ("imds_notices", "0.2"),
    ("imds_lag", "0.5"),
    ("add_deadline", "2"),
];

/// A node whose operator gave its primary ENI addresses.
fn provided() -> Config {
    let mut config = vpc_of(1, SMALL);
    config.nodes[0].secondary_addresses = 2;
    config
}

fn primary_eni(world: &World) -> Result<EniId> {
    let simulator = world.cluster.vpc.simulator();
    simulator.with_model(|model, _| {
        let is_primary = |eni: &&std::sync::Arc<vpc_sim::model::Eni>| {
            eni.attachment
                .as_ref()
                .is_some_and(vpc_sim::model::Attachment::is_primary)
        };
        model
            .enis()
            .find(is_primary)
            .map(|eni| eni.id.clone())
            .context("the node has a primary ENI")
    })
}

/// Two pods, a refused third one, then an address by the operator's hand.
fn live_on_what_is_there(world: &World) -> Result<()> {
    let mut pods = world.add(NODE, "pod", 2)?;
    world.check_mesh(&pods)?;
    let refused = Identity::pod("refused");
    let added = world.cluster.runtime.add(world.node(NODE)?, &refused);
    ensure!(added.is_err(), "an address came from nowhere");
    world.cluster.runtime.forget(world.node(NODE)?, &refused)?;
    let eni = primary_eni(world)?;
    let simulator = world.cluster.vpc.simulator();
    simulator.with_model(|model, now| {
        let call = AssignPrivateIpAddresses::new(eni, Ipv4Request::Count(1));
        model.call_directly(now, &call).context("the operator's hand")
    })?;
    world.wait_for_pool(NODE, "the operator's address is there", |pool| pool["total"] == 3)?;
    pods.push(world.add_one(NODE, "third")?);
    world.check_mesh(&pods)?;
    world.remove(&pods)
}

fn provisioning_disabled(bench: &Bench) -> Result<()> {
    let environment = [("DISABLE_NETWORK_RESOURCE_PROVISIONING", "true")];
    let world = World::start(bench, provided(), WATCHFUL, &environment)?;
    live_on_what_is_there(&world)?;
    let counts = world.cluster.ec2_calls();
    let changes = counts
        .iter()
        .filter(|(name, calls)| !name.starts_with("Describe") && **calls > 0);
    ensure!(changes.count() == 0, "{counts:?}");
    world.finish()
}

fn imds_only(bench: &Bench) -> Result<()> {
    let environment = [
        ("ENABLE_IMDS_ONLY_MODE", "true"),
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
    ];
    let world = World::start(bench, provided(), WATCHFUL, &environment)?;
    live_on_what_is_there(&world)?;
    ensure!(world.calls() == 0, "{:?}", world.cluster.ec2_calls());
    world.finish()
}

fn groups_follow(bench: &Bench) -> Result<()> {
    let world = World::start(bench, vpc_of(1, SMALL), WATCHFUL, &[])?;
    let pods = world.add(NODE, "pod", 4)?;
    world.wait_for_quiet()?;
    let secondaries = world.eni_count() - 1;
    ensure!(secondaries > 0, "one ENI carries all pods");
    let before = world.calls_of(Action::ModifyNetworkInterfaceAttribute);
    let primary = primary_eni(&world)?;
    let simulator = world.cluster.vpc.simulator();
    let group = simulator.with_model(|model, now| -> Result<SecurityGroupId> {
        let vpc = model.vpcs().next().context("there is a VPC")?.id.clone();
        let group = model.add_security_group(&vpc, "stricter")?;
        let call = ModifyNetworkInterfaceAttribute {
            eni: primary,
            attribute: EniAttribute::Groups(vec![group.clone()]),
        };
        model.call_directly(now, &call).context("the operator's hand")?;
        Ok(group)
    })?;
    wait::until("all ENIs have the new group", SOON, || {
        let followed = simulator.with_model(|model, _| {
            let groups: BTreeSet<Vec<_>> = model.enis().map(|eni| eni.groups.to_vec()).collect();
            groups == BTreeSet::from([vec![group.clone()]])
        });
        Ok(followed.then_some(()))
    })?;
    world.wait_for_quiet()?;
    let calls = world.calls_of(Action::ModifyNetworkInterfaceAttribute) - before;
    ensure!(calls == secondaries as u64, "{calls} calls for {secondaries} ENIs");
    world.check_mesh(&pods)?;
    world.finish()
}

fn noticed_by_imds(bench: &Bench) -> Result<()> {
    let world = World::start(bench, vpc_of(1, SMALL), WATCHFUL, &[("MAX_ENI", "1")])?;
    let pods = world.add(NODE, "pod", 2)?;
    world.wait_for_quiet()?;
    let (eni, lost) = (primary_eni(&world)?, pods[0].address);
    world.reset_calls();
    let simulator = world.cluster.vpc.simulator();
    simulator.with_model(|model, now| {
        let call = UnassignPrivateIpAddresses {
            eni,
            addresses: vec![lost],
            prefixes: Vec::new(),
        };
        model.call_directly(now, &call).context("somebody's hand")
    })?;
    world.wait_for_pool(NODE, "the pod is an orphan", |pool| pool["orphans"] == 1)?;
    wait::until("a second look confirms it", SOON, || {
        Ok((world.calls_of(Action::DescribeNetworkInterfaces) >= 2).then_some(()))
    })?;
    world.wait_for_quiet()?;
    let looks = world.calls_of(Action::DescribeNetworkInterfaces);
    ensure!(looks <= 4, "{looks} looks at EC2 for one doubt");
    let next = world.add_one(NODE, "next")?;
    ensure!(next.address != lost, "granted again");
    ensure!(pings(&next, pods[1].address)?, "the new pod has no network");
    world.remove(&pods)?;
    world.finish()
}

fn spot_notice(bench: &Bench) -> Result<()> {
    let world = World::start(bench, vpc_of(1, SMALL), WATCHFUL, &[])?;
    let instance = world
        .cluster
        .vpc
        .handle()
        .instance(NODE)
        .context("nodes are instances")?;
    let simulator = world.cluster.vpc.simulator();
    simulator.with_model(|model, _| model.announce(instance, Some(Notice::Spot)));
    wait::until("the daemon knows", SOON, || {
        Ok(Daemon::log(world.node(NODE)?)
            .contains("\"life\":\"Leaving\"")
            .then_some(()))
    })?;
    // Pods that are there, or still come, have their network to the end.
    let pods = world.add(NODE, "pod", 2)?;
    world.check_mesh(&pods)?;
    world.finish()
}
