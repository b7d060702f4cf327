//! The end-to-end scenarios, by name. Each runs in a process and a sandbox of its own.
//!
//! Owns what must hold of the real binaries together; how they are started and looked at is the harness's. A scenario's
//! name is the sentence that it proves. Called by `vpc-e2e` and
//! `vpc-runtimes`.

pub(crate) mod adoption;
mod bad_input;
mod churn;
mod daemons;
mod datapath;
mod faults;
mod garbage;
mod kills;
mod lifecycle;
pub(crate) mod logs;
mod monitoring;
mod policy;
mod pools;
mod provisioning;
mod repair;
mod restart;
pub mod runner;
mod runtimes;
pub mod single;
mod subnets;
mod verbs;
pub(crate) mod world;

use std::time::Duration;

use anyhow::Result;
use vpc_fabric::Sandbox;

use crate::binaries::{Binaries, Tools};

/// What a scenario works with.
#[derive(Debug)]
pub struct Bench {
    /// The entered sandbox.
    pub sandbox: Sandbox,
    /// The programs under test.
    pub binaries: Binaries,
    /// Programs that call them.
    pub tools: Tools,
}

/// Whether a scenario runs without being asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Always.
    Usual,
    /// With `--slow` only: it waits for long constants of the daemon.
    Slow,
}

/// As whom root runs a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// As root only: being root makes no difference to what it shows.
    Own,
    /// As root, and again as an unprivileged user.
    AlsoUnprivileged,
}

/// One scenario.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// What it proves, as a sentence.
    pub name: &'static str,
    /// It is ended after this.
    pub limit: Duration,
    /// When it runs.
    pub lane: Lane,
    /// As whom it runs.
    pub rights: Rights,
    run: fn(&Bench) -> Result<()>,
}

/// Limit of a scenario that names none.
const LIMIT: Duration = Duration::from_secs(60);

impl Scenario {
    pub(crate) const fn new(name: &'static str, run: fn(&Bench) -> Result<()>) -> Self {
        Self {
            name,
            limit: LIMIT,
            lane: Lane::Usual,
            rights: Rights::Own,
            run,
        }
    }

    pub(crate) const fn within(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    const fn slow(mut self) -> Self {
        self.lane = Lane::Slow;
        self
    }

    pub(crate) const fn also_unprivileged(mut self) -> Self {
        self.rights = Rights::AlsoUnprivileged;
        self
    }
}

/// Those of `vpc-e2e`; the longest first, so that nothing waits for it at the end.
pub fn all() -> Vec<Scenario> {
    [
        churn::SCENARIOS,
        bad_input::SCENARIOS,
        garbage::SCENARIOS,
        faults::SCENARIOS,
        kills::SCENARIOS,
        verbs::SCENARIOS,
        policy::SCENARIOS,
        pools::SCENARIOS,
        subnets::SCENARIOS,
        provisioning::SCENARIOS,
        adoption::SCENARIOS,
        restart::SCENARIOS,
        lifecycle::SCENARIOS,
        datapath::SCENARIOS,
        daemons::SCENARIOS,
        monitoring::SCENARIOS,
        repair::SCENARIOS,
    ]
    .concat()
}
