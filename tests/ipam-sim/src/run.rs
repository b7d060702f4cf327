//! One run: foul weather for a number of steps, then fair weather until everything must have settled, then the verdict.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::coverage::Coverage;
use crate::fate::{Allowed, Fallen};
use crate::fault::Fault;
use crate::load::Hour;
use crate::queue::Happening;
use crate::scenario::Scenario;
use crate::verdict;
use crate::world::{Logging, Weather, World};

/// A deliberate defect for the core, or none.
#[cfg(feature = "mutants")]
pub type Defect = Option<ipam_core::Mutant>;

/// There are no defects to build in without the feature `mutants`.
#[cfg(not(feature = "mutants"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoMutant {}

/// A deliberate defect for the core: none, without the feature `mutants`.
#[cfg(not(feature = "mutants"))]
pub type Defect = Option<NoMutant>;

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Decides everything.
    pub seed: u64,
    /// Happenings in foul weather.
    pub steps: u64,
    /// Faults that shall not come.
    pub off: BTreeSet<Fault>,
    /// Strokes and acts that shall come.
    pub only: Allowed,
    /// A defect to build in.
    pub defect: Defect,
}

impl Plan {
    /// Everything that the seed brings.
    pub fn of_seed(seed: u64, steps: u64) -> Self {
        Self {
            seed,
            steps,
            off: BTreeSet::new(),
            only: Allowed::All,
            defect: Defect::default(),
        }
    }
}

/// A broken invariant.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Step at which it broke.
    pub step: u64,
    /// Which, and how.
    pub text: String,
    /// The node and its settings at the end.
    pub node: String,
    /// Strokes and acts that fell before.
    pub fallen: Vec<Fallen>,
    /// The last happenings, if they were logged.
    pub log: Vec<String>,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Report {
    /// What it exercised.
    pub coverage: Coverage,
    /// Happenings.
    pub steps: u64,
    /// The busiest hour.
    pub peak: Hour,
    /// The first broken invariant.
    pub failure: Option<Failure>,
}

/// Happenings without progress of time that only a loop can produce.
const STORM: u32 = 5_000;
/// Happenings that settling may take at most.
const SETTLING_STEPS: u64 = 60_000;

/// How long the idle node is watched.
const DAY: Duration = Duration::from_secs(24 * 3_600);

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps the text of a panic for the report, instead of printing it.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        LAST_PANIC.with(|last| *last.borrow_mut() = info.to_string())
    }));
}

pub(crate) fn last_panic() -> String {
    LAST_PANIC.with(|last| last.borrow().clone())
}

struct Runner {
    world: World,
    steps: u64,
    storm: (Duration, u32),
}

/// Runs one plan.
pub fn run(plan: &Plan, logging: Logging) -> Report {
    let scenario = Scenario::new(plan.seed, &plan.off);
    let mut runner = Runner {
        world: World::new(plan, scenario, logging),
        steps: 0,
        storm: (Duration::ZERO, 0),
    };
    runner.foul_weather(plan.steps);
    runner.fair_weather();
    let Runner { mut world, steps, .. } = runner;
    if let Some(text) = world.ec2.audit().into_iter().next() {
        world.violate(format!("the model of EC2: {text}"));
    }
    let failure = world.violation.take().map(|text| Failure {
        step: steps,
        text,
        node: format!(
            "{}, {} ENIs, {} slots, subnet /{}, {:?}",
            world.scenario.instance_type,
            world.scenario.max_enis,
            world.scenario.slots_per_eni,
            world.scenario.subnet_prefix,
            world.settings
        ),
        fallen: std::mem::take(&mut world.fate.fallen),
        log: world.log.into_iter().collect(),
    });
    Report {
        peak: world.load.peak(),
        coverage: world.coverage,
        steps,
        failure,
    }
}

impl Runner {
    /// One step; off when nothing is left to do before `until` or the run has failed.
    fn step(&mut self, until: Duration) -> bool {
        if self.world.violation.is_some() || !self.world.step(until) {
            return false;
        }
        self.steps += 1;
        if self.storm.0 == self.world.now {
            self.storm.1 += 1;
            if self.storm.1 > STORM {
                self.world.violate(format!("{STORM} happenings at one instant"));
            }
        } else {
            self.storm = (self.world.now, 0);
        }
        true
    }

    fn foul_weather(&mut self, steps: u64) {
        let scenario = format!("{:?}", self.world.scenario);
        self.world.note(|| scenario);
        if self.world.scenario.has(Fault::ForeverFragmented) {
            self.world.fragment_subnet("neighbours");
        }
        let unusual = Fault::UNUSUAL.iter().filter(|fault| self.world.scenario.may(**fault));
        unusual.for_each(|fault| self.world.coverage.fault(*fault));
        self.world.after(Duration::ZERO, Happening::Start);
        self.world.after(Duration::from_millis(300), Happening::Users);
        self.world.after(Duration::from_secs(1), Happening::Mishap);
        self.world.after(Duration::from_secs(15), Happening::PollImds);
        while self.steps < steps && self.step(Duration::MAX) {}
    }

    fn fair_weather(&mut self) {
        let world = &mut self.world;
        if world.violation.is_some() {
            return;
        }
        world.note(|| "fair weather".to_owned());
        world.weather = Weather::Fair;
        world.outages.clear();
        world.scenario.throttle = vpc_sim::model::Throttle::Off;
        world.ec2.settings_mut().throttle = vpc_sim::model::Throttle::Off;
        world.free_subnet();
        world.ec2.heal_imds();
        world.open_node();
        world.restore_placement();
        // Safe mode gives nothing back as long as it lasts.
        world.leave_safe_mode();
        // Longer than any outage, restart or attach that the foul weather began.
        self.settle(Duration::from_secs(3_600));
        self.probe();
        self.end_half();
        self.settle(Duration::from_secs(2));
        self.probe();
        // Peaks fall, ENIs idle and go, one after the other.
        self.settle(Duration::from_secs(4 * 3_600));
        self.idle_day();
        if self.world.violation.is_none() {
            verdict::all(&self.world)
                .into_iter()
                .for_each(|text| self.world.violate(text));
        }
    }

    fn settle(&mut self, span: Duration) {
        let (until, start) = (self.world.now + span, self.steps);
        while self.step(until) {
            if self.steps - start > SETTLING_STEPS {
                self.world.violate("I7: the node does not come to rest".to_owned());
            }
        }
        self.world.now = self.world.now.max(until);
    }

    /// New pods in fair weather are served, if the node has room.
    fn probe(&mut self) {
        if self.world.violation.is_some() {
            return;
        }
        // More than are free, so that the pool has to grow while addresses rest.
        let pods = verdict::free(&self.world) + 2;
        let keys: Vec<_> = (0..verdict::room(&self.world).min(pods).min(12))
            .map(|_| self.world.new_sandbox(None))
            .collect();
        self.settle(Duration::from_secs(36));
        for key in keys {
            match verdict::i7_a_pod_is_served_where_there_is_room(&self.world, &key) {
                Ok(()) => self.world.coverage.hit("end", "probe-served"),
                Err(text) => self.world.violate(text),
            }
        }
    }

    /// Half of the sandboxes end, so that the pool has something to give back.
    fn end_half(&mut self) {
        let keys: Vec<_> = self.world.sandboxes.keys().cloned().collect();
        for key in keys {
            if self.world.workload.chance(500) {
                self.world.end_sandbox(&key);
            }
        }
    }

    /// A day without users: no EC2 call but for the named exceptions, hardly an event.
    fn idle_day(&mut self) {
        let (calls, events) = (self.world.calls.clone(), self.world.own_events());
        let unseen = verdict::unseen_edits(&self.world);
        self.settle(DAY);
        if self.world.violation.is_some() {
            return;
        }
        let events = self.world.own_events() - events;
        match verdict::i7_an_idle_node_is_silent(&self.world, &calls, unseen, events) {
            Ok(()) => self.world.coverage.hit("end", "idle-day"),
            Err(text) => self.world.violate(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_histories() {
        let plan = Plan::of_seed(5, 800);
        let (first, second) = (run(&plan, Logging::Off), run(&plan, Logging::Off));
        assert_eq!(first.coverage, second.coverage);
    }

    #[test]
    fn what_is_counted_has_a_least_number() {
        let unlisted: BTreeSet<String> = (1..=20)
            .flat_map(|seed| run(&Plan::of_seed(seed, 1_500), Logging::Off).coverage.unlisted())
            .collect();
        assert!(unlisted.is_empty(), "{unlisted:?}");
    }

    #[test]
    fn a_few_seeds_break_no_invariant() {
        for seed in 1..=8 {
            let plan = Plan::of_seed(seed, 1_500);
            let failure = run(&plan, Logging::Off).failure;
            assert!(failure.is_none(), "seed {seed}: {failure:?}");
        }
    }
}
