//! What a run showed.

use std::time::Duration;

use super::account::Calls;
use super::plan::Plan;

/// A wait below this is none.
const NOTICED: Duration = Duration::from_millis(20);
/// A pod that waits so long at the end of a run counts as never served.
const NEVER: Duration = Duration::from_secs(60);

/// The figures of one run, from the end of its warm-up.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Pods that got an address.
    pub served: u64,
    /// Of these, how many waited noticeably.
    pub waited: u64,
    /// Half of the pods waited less, in seconds.
    pub wait_p50: f64,
    /// One in a hundred waited longer.
    pub wait_p99: f64,
    /// Longest.
    pub wait_max: f64,
    /// When the last pod got its address, counted from the end of the warm-up.
    pub last_served: f64,
    /// Pods that asked and had no address after a minute, at the end.
    pub never_served: u64,
    /// Calls until the last pod was served.
    pub calls_until_served: u64,
    /// Calls.
    pub calls: Calls,
    /// Nodes.
    pub nodes: u32,
    /// Hours measured.
    pub hours: f64,
    /// Mean of all addresses held per node: primaries and whole prefixes included.
    pub held: f64,
    /// Mean of the addresses that pods had, per node.
    pub used: f64,
    /// Mean number of ENIs per node.
    pub enis: f64,
}

impl Figures {
    /// Accepted calls per pod served.
    pub fn calls_per_pod(&self) -> f64 {
        self.calls.all_accepted() as f64 / (self.served.max(1)) as f64
    }

    /// Accepted calls per node and hour.
    pub fn calls_per_node_hour(&self) -> f64 {
        self.calls.all_accepted() as f64 / f64::from(self.nodes) / self.hours.max(1e-9)
    }

    /// Accepted calls per node.
    pub fn calls_per_node(&self) -> f64 {
        self.calls.all_accepted() as f64 / f64::from(self.nodes)
    }

    /// Throttled attempts per accepted call.
    pub fn throttled_per_accepted(&self) -> f64 {
        self.calls.all_throttled() as f64 / (self.calls.all_accepted().max(1)) as f64
    }

    /// Addresses held per address used.
    pub fn held_per_used(&self) -> f64 {
        self.held / self.used.max(1e-9)
    }
}

/// Collects while a run goes on.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    since: Duration,
    earlier: Calls,
    waits: Vec<Duration>,
    last_served: Duration,
    /// Readings, addresses held, addresses used, ENIs.
    samples: (u64, u64, u64, u64),
    /// Calls accepted by the time the last pod was served.
    calls_at_last: u64,
}

impl Recorder {
    pub(crate) fn begin(&mut self, now: Duration, calls: Calls) {
        *self = Self {
            since: now,
            earlier: calls,
            ..Self::default()
        };
    }

    pub(crate) fn served(&mut self, first_add: Duration, wait: Duration, now: Duration, calls: u64) {
        if first_add >= self.since {
            self.waits.push(wait);
            self.last_served = now;
            self.calls_at_last = calls;
        }
    }

    pub(crate) fn sample(&mut self, held: usize, used: usize, enis: usize) {
        self.samples.0 += 1;
        self.samples.1 += held as u64;
        self.samples.2 += used as u64;
        self.samples.3 += enis as u64;
    }

    /// How many pods were served.
    pub(crate) fn count(&self) -> usize {
        self.waits.len()
    }

    pub(crate) fn figures(&self, plan: &Plan, now: Duration, calls: &Calls, waiting: &[Duration]) -> Figures {
        let mut waits = self.waits.clone();
        waits.sort_unstable();
        let at = |share: f64| {
            let index = ((waits.len().saturating_sub(1)) as f64 * share).round();
            // An index below the length of a vector.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to the length")]
            waits.get(index as usize).map_or(0.0, Duration::as_secs_f64)
        };
        let (count, held, used, enis) = self.samples;
        let mean = |sum: u64| sum as f64 / (count.max(1)) as f64;
        Figures {
            served: waits.len() as u64,
            waited: waits.iter().filter(|wait| **wait > NOTICED).count() as u64,
            wait_p50: at(0.5),
            wait_p99: at(0.99),
            wait_max: at(1.0),
            last_served: self.last_served.saturating_sub(self.since).as_secs_f64(),
            never_served: waiting.iter().filter(|since| now - **since > NEVER).count() as u64,
            calls_until_served: self.calls_at_last.saturating_sub(self.earlier.all_accepted()),
            calls: calls.since(&self.earlier),
            nodes: plan.nodes,
            hours: (now - self.since).as_secs_f64() / 3_600.0,
            held: mean(held),
            used: mean(used),
            enis: mean(enis),
        }
    }
}
