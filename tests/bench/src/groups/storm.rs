//! 50 pods at once on a node whose pool is small, with EC2's latencies. The latencies are assumptions, not measurements of AWS.

use std::time::Duration;

use anyhow::Result;
use bench_floor::launch::Job;
use vpc_sim::config::Config;
use vpc_sim::model::Delay;

use super::Setup;
use crate::figures::{Figures, Who};
use crate::launcher::{millis, walls};
use crate::pods;
use crate::world::{self, NODE, World};

const PODS: usize = 50;
/// Four ENIs with 14 addresses for pods each.
const TYPE: &str = "m5.xlarge";
const ENVIRONMENT: &[(&str, &str)] = &[("WARM_IP_TARGET", "5"), ("MINIMUM_IP_TARGET", "10")];
/// Longer than the longest call.
const QUIET: Duration = Duration::from_secs(5);
/// Milliseconds that calls take.
const LATENCIES: &[(&str, u64)] = &[
    ("CreateNetworkInterface", 600),
    ("AttachNetworkInterface", 1500),
    ("AssignPrivateIpAddresses", 500),
    ("UnassignPrivateIpAddresses", 300),
    ("ModifyNetworkInterfaceAttribute", 200),
    ("CreateTags", 200),
    ("DetachNetworkInterface", 500),
    ("DeleteNetworkInterface", 300),
    ("DescribeNetworkInterfaces", 100),
    ("DescribeInstances", 100),
    ("DescribeSubnets", 100),
];
/// Milliseconds from the call that attaches until the device is there, and until IMDS shows it.
const ATTACH: u64 = 1500;

#[expect(clippy::cast_precision_loss, reason = "there are less than 2^52 calls")]
pub(super) fn measure(setup: &Setup) -> Result<Figures> {
    let config = slow(world::config(TYPE, 1));
    let mut world = World::prepare(&setup.sandbox, &setup.binaries, &setup.programs, &config, ENVIRONMENT)?;
    // The instance has been up for a while: metadata shows its first ENI, and lags behind from now on.
    let simulator = world.cluster.vpc.simulator();
    simulator.with_model(|model, _| model.settings_mut().imds_lag = Delay::millis(ATTACH));
    world.cluster.start_daemon(NODE)?;
    world.wait_for_free(10)?;
    world.wait_for_quiet(QUIET)?;
    let before = world.ec2_calls();
    let subjects = pods::make(&world, Who::Ours, PODS)?;
    let jobs: Vec<Job> = subjects
        .iter()
        .map(|subject| subject.add(&world))
        .collect::<Result<_>>()?;
    let launched = world.launcher.run(world.node()?, &jobs, PODS)?;
    let served = world.ec2_calls();
    let failed = launched.runs.iter().filter(|run| run.status != 0).count();
    world.wait_for_quiet(QUIET)?;
    let mut figures = Figures::default();
    figures.value("storm.total", millis(launched.total) / 1e3);
    figures.series("storm.add", Who::Ours, &walls(&launched.runs));
    figures.value("storm.failed", failed as f64);
    figures.value("storm.calls", (served - before) as f64);
    figures.value("storm.calls.settled", (world.ec2_calls() - before) as f64);
    Ok(figures)
}

fn slow(mut config: Config) -> Config {
    config.latency_ms = LATENCIES
        .iter()
        .map(|(action, millis)| ((*action).to_owned(), *millis))
        .collect();
    config.timing_ms.attach = Some(ATTACH);
    config
}
