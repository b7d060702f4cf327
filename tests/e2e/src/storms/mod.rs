//! Storms: what no orderly caller does, many times, and then a look from every side whether all still agrees.
//!
//! Owns the storms and their agreement check; cluster, runtime and nodes are the harness's. Each storm runs in a process
//! and a sandbox of its own, from a seed that is printed. Invariant: a storm passes only if it did what it is for, and
//! says how often. Called by `vpc-storm` alone.

mod agreement;
mod boundaries;
mod defects;
mod early;
mod kubelet;
pub mod runner;
mod strace;
mod traffic;

use std::time::Duration;

use anyhow::Result;

use crate::scenarios::Bench;

/// How much a storm does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// What every change must pass: some tens of seconds.
    Usual,
    /// Everything with all variants.
    Slow,
}

/// What a storm is told.
#[derive(Debug, Clone, Copy)]
pub struct Orders {
    /// Decides everything that is left to chance, but for the scheduler's share.
    pub seed: u64,
    /// How much to do.
    pub lane: Lane,
}

/// One storm.
#[derive(Debug, Clone, Copy)]
pub struct Storm {
    /// What it proves, as a sentence.
    pub name: &'static str,
    /// It is ended after this, in the usual lane.
    limit: Duration,
    run: fn(&Bench, Orders) -> Result<()>,
}

impl Storm {
    /// It is ended after this.
    pub fn limit(&self, lane: Lane) -> Duration {
        match lane {
            Lane::Usual => self.limit,
            Lane::Slow => self.limit * 10,
        }
    }
}

/// All of them; first the proof that the judge can say no.
pub fn all() -> Vec<Storm> {
    vec![defects::STORM, early::STORM, traffic::STORM, boundaries::STORM]
}
