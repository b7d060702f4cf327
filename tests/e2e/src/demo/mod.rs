//! The demo: a VPC with two nodes and the internet, pods on primary and secondary ENIs, every pair pinged, and back.
//!
//! Every line with a tick is a check; the demo ends with status 0 only if all of them held.

mod report;
mod steps;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use vpc_fabric::Sandbox;
use vpc_sim::config::Config;

use crate::binaries::Binaries;
use crate::cluster::Cluster;
use crate::kernel::KernelState;
use crate::runtime::Pod;

pub use report::Screen;

/// Pods on each node: more than one `m5.large` ENI carries (9), so that a second one is needed.
const PODS_PER_NODE: usize = 12;

/// Durations shortened for the demo, each with its usual value for the reader.
const TIMERS: &[(&str, &str, &str)] = &[
    ("minimum_hold", "2", "12 s"),
    ("refill_delay", "0.2", "5 s"),
    ("release_window", "1", "300 s"),
    ("start_grace", "0", "300 s"),
    ("eni_idle", "1", "600 s"),
    ("eni_minimum_life", "1", "60 s"),
];

/// `IP_COOLDOWN_PERIOD`, in seconds; 30 by default.
const COOLDOWN: &str = "2";

/// What to do after the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// Delete the pods and end.
    CleanUp,
    /// Leave everything up until Ctrl-C.
    Keep,
}

/// What the demo needs beside the sandbox.
#[derive(Debug)]
pub struct Settings {
    /// The programs.
    pub binaries: Binaries,
    /// What to do at the end.
    pub afterwards: Afterwards,
    /// Names the simulator for `vpc-sim exec`.
    pub state_dir: PathBuf,
}

/// Everything that later steps need from earlier ones.
struct Demo {
    cluster: Cluster,
    config: Config,
    baseline: BTreeMap<String, KernelState>,
    pods: Vec<Pod>,
}

/// Runs the demo; the error says which check did not hold.
pub fn run(sandbox: &Sandbox, settings: &Settings, ctl: std::os::unix::net::UnixListener) -> Result<()> {
    let mut screen = Screen::new();
    let mut demo = steps::start_vpc(&mut screen, sandbox, settings)?;
    steps::start_daemons(&mut screen, &mut demo)?;
    steps::add_pods(&mut screen, &mut demo)?;
    steps::ping_everything(&mut screen, &demo)?;
    steps::reach_the_internet(&mut screen, &demo)?;
    steps::count_drops(&mut screen, &demo)?;
    if settings.afterwards == Afterwards::Keep {
        return keep(&mut screen, &demo, settings, ctl);
    }
    steps::delete_pods(&mut screen, &mut demo)?;
    steps::watch_the_pool_shrink(&mut screen, &demo)?;
    steps::stop_daemons(&mut screen, &mut demo)?;
    screen.plain(&report::calls("EC2 calls in all", &demo.cluster.ec2_calls()));
    Ok(())
}

fn keep(screen: &mut Screen, demo: &Demo, settings: &Settings, ctl: std::os::unix::net::UnixListener) -> Result<()> {
    let simulator = settings.binaries.simulator()?;
    let state = settings.state_dir.display();
    screen.plain(&report::calls("EC2 calls so far", &demo.cluster.ec2_calls()));
    screen.plain("");
    screen.plain("It stays up until Ctrl-C. From another terminal:");
    screen.plain(&format!(
        "  export VPC_SIM_STATE={state} PATH={}:$PATH",
        simulator.parent().context("a file has a directory")?.display()
    ));
    screen.plain("  vpc-sim exec node-1 -- ip rule");
    screen.plain("  vpc-sim exec node-1 -- ipamd status");
    screen.plain("  vpc-sim exec node-1 -- ipamd leases");
    screen.plain("  vpc-sim ctl state");
    let target = vpc_sim::ctl::Target {
        simulator: demo.cluster.vpc.simulator().clone(),
        vpc: Some(demo.cluster.vpc.handle().clone()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            ended = tokio::signal::ctrl_c() => ended.context("cannot wait for Ctrl-C"),
            ended = vpc_sim::ctl::serve(ctl, target) => ended.context("the ctl server ended"),
        }
    })
}

/// How long something took.
fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let started = Instant::now();
    let value = work()?;
    Ok((value, started.elapsed()))
}
