//! The goals of the pool's policy: the real core beside the reference's formulas, in the same world, with the same seeds.
//!
//! A goal that is not reached is listed with its cause; one that is marked as held and is not fails the run.

use std::sync::Mutex;

use super::figures::Figures;
use super::plan::{Launch, Mode, Plan, Policy, Subnets, Targets, Workload};
use super::world::run;

/// Runs of a burst that are averaged: the phase of the reference's loop alone moves one by seconds.
const BURSTS: u64 = 5;
/// The account's bucket for the calls that give addresses: size and refill per second.
const BUCKET: (f64, f64) = (100.0, 5.0);
const CHURN: Workload = Workload::CHURN;
const DAY: Workload = Workload::DAY;
const BURST: Workload = Workload::Burst { pods: 50 };

/// Whether a goal is one that must not be lost again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is reached.
    Held,
    /// It is not, and why.
    Missed(&'static str),
}

/// Whether a row takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pace {
    /// Seconds.
    Quick,
    /// Minutes: 5,000 nodes.
    Slow,
}

/// What a figure is held against.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Against {
    /// The same figure of the reference, in this plan.
    Reference(Plan),
    /// A number that needs no run.
    Number(f64),
    /// Nothing: the goal is for our figure itself.
    Nothing,
}

struct Goal {
    name: &'static str,
    title: &'static str,
    figure: fn(&Figures) -> f64,
    ours: Plan,
    against: Against,
    budget: f64,
    standing: Standing,
    pace: Pace,
}

/// One judged goal.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its name, stable.
    pub name: &'static str,
    /// What it says.
    pub title: &'static str,
    /// Our figure.
    pub ours: f64,
    /// What it is divided by.
    pub peer: Option<f64>,
    /// The quotient.
    pub ratio: Option<f64>,
    /// The goal for the quotient, or for our figure if it stands alone.
    pub budget: f64,
    /// Whether it is reached.
    pub met: bool,
    /// Whether it has to be.
    pub standing: Standing,
}

impl Row {
    /// As a line of the summary.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "name": self.name, "ours": self.ours, "peer": self.peer, "ratio": self.ratio,
            "budget": self.budget, "met": self.met, "title": self.title,
            "cause": match self.standing { Standing::Held => None, Standing::Missed(cause) => Some(cause) },
        })
    }
}

/// The last pod of nodes that start at once cannot be served sooner than this, with one call per node.
fn bound(nodes: f64) -> Against {
    Against::Number((nodes - BUCKET.0) / BUCKET.1)
}

const fn wip() -> Targets {
    Targets::addresses(5, 10)
}

fn burst_goals() -> Vec<Goal> {
    let addresses = |targets| {
        (
            Plan::one_node(Policy::ours(targets, Mode::Addresses), BURST),
            Plan::one_node(Policy::reference(targets, Mode::Addresses), BURST),
        )
    };
    let prefixes = (
        Plan::one_node(Policy::ours(Targets::prefixes(1), Mode::Prefixes), BURST),
        Plan::one_node(Policy::reference(Targets::prefixes(1), Mode::Prefixes), BURST),
    );
    let row = |name, title, figure, (ours, reference): (Plan, Plan), budget| Goal {
        name,
        title,
        figure,
        ours,
        against: Against::Reference(reference),
        budget,
        standing: Standing::Held,
        pace: Pace::Quick,
    };
    let last: fn(&Figures) -> f64 = |figures| figures.last_served;
    let calls: fn(&Figures) -> f64 = |figures| figures.calls_until_served as f64;
    vec![
        row(
            "pool.burst.wip.time",
            "50 pods at once, WARM_IP 5, MINIMUM 10: seconds until the last",
            last,
            addresses(wip()),
            0.1,
        ),
        row(
            "pool.burst.wip.calls",
            "the same: EC2 calls",
            calls,
            addresses(wip()),
            0.5,
        ),
        row(
            "pool.burst.eni.time",
            "50 pods at once, WARM_ENI 1: seconds until the last",
            last,
            addresses(Targets::enis(1)),
            0.4,
        ),
        row(
            "pool.burst.eni.calls",
            "the same: EC2 calls",
            calls,
            addresses(Targets::enis(1)),
            0.5,
        ),
        row(
            "pool.burst.prefix.time",
            "50 pods at once, prefixes: seconds until the last",
            last,
            prefixes,
            0.125,
        ),
        row("pool.burst.prefix.calls", "the same: EC2 calls", calls, prefixes, 0.5),
    ]
}

fn steady(policy: Policy, workload: Workload) -> Plan {
    let plan = Plan::hundred_nodes(policy, workload);
    match workload {
        Workload::Day { period, .. } => Plan { span: period, ..plan },
        Workload::Burst { .. }
        | Workload::Churn { .. }
        | Workload::Rolling { .. }
        | Workload::Cron { .. }
        | Workload::Batch { .. }
        | Workload::Join { .. }
        | Workload::Steady { .. } => plan,
    }
}

fn steady_goals() -> Vec<Goal> {
    let calls: fn(&Figures) -> f64 = Figures::calls_per_pod;
    let held: fn(&Figures) -> f64 = Figures::held_per_used;
    let p99: fn(&Figures) -> f64 = |figures| figures.wait_p99;
    let row = |name, title, figure, ours: (Targets, Mode), peer: (Targets, Mode), load, budget| Goal {
        name,
        title,
        figure,
        ours: steady(Policy::ours(ours.0, ours.1), load),
        against: Against::Reference(steady(Policy::reference(peer.0, peer.1), load)),
        budget,
        standing: Standing::Held,
        pace: Pace::Quick,
    };
    let alone = |goal: Goal| Goal {
        against: Against::Nothing,
        ..goal
    };
    let (own, set) = ((Targets::UNSET, Mode::Addresses), (wip(), Mode::Addresses));
    let (own_prefix, set_prefix) = ((Targets::UNSET, Mode::Prefixes), (Targets::prefixes(1), Mode::Prefixes));
    let least = (Targets::addresses(1, 1), Mode::Addresses);
    vec![
        row(
            "pool.churn.own.calls",
            "churn, own default beside WARM_IP 5, MINIMUM 10: calls per pod",
            calls,
            own,
            set,
            CHURN,
            0.2,
        ),
        row(
            "pool.churn.own.held",
            "the same: addresses held per address used",
            held,
            own,
            set,
            CHURN,
            1.2,
        ),
        alone(row(
            "pool.churn.own.wait",
            "the same: p99 of the wait, s",
            p99,
            own,
            set,
            CHURN,
            0.02,
        )),
        row(
            "pool.day.own.calls",
            "day curve, own default: calls per pod",
            calls,
            own,
            set,
            DAY,
            0.2,
        ),
        row(
            "pool.day.own.held",
            "the same: addresses held per address used",
            held,
            own,
            set,
            DAY,
            1.2,
        ),
        alone(row(
            "pool.day.own.wait",
            "the same: p99 of the wait, s",
            p99,
            own,
            set,
            DAY,
            0.02,
        )),
        row(
            "pool.churn.set.calls",
            "churn, WARM_IP 5, MINIMUM 10 on both sides: calls per pod",
            calls,
            set,
            set,
            CHURN,
            0.5,
        ),
        row(
            "pool.day.set.calls",
            "day curve, the same: calls per pod",
            calls,
            set,
            set,
            DAY,
            0.5,
        ),
        alone(row(
            "pool.churn.least.wait",
            "churn, WARM_IP 1, MINIMUM 1: p99 of the wait, s",
            p99,
            least,
            least,
            CHURN,
            1.0,
        )),
        row(
            "pool.churn.prefix.held",
            "churn, prefixes, own default beside WARM_PREFIX 1: held per used",
            held,
            own_prefix,
            set_prefix,
            CHURN,
            0.8,
        ),
        row(
            "pool.day.prefix.held",
            "day curve, the same: held per used",
            held,
            own_prefix,
            set_prefix,
            DAY,
            0.8,
        ),
    ]
}

fn join_goals() -> Vec<Goal> {
    let last: fn(&Figures) -> f64 = |figures| figures.last_served;
    let throttled: fn(&Figures) -> f64 = Figures::throttled_per_accepted;
    let calls: fn(&Figures) -> f64 = Figures::calls_per_node;
    let prefixes = (Targets::prefixes(1), Mode::Prefixes);
    let ours = |nodes| Plan::join(Policy::ours(prefixes.0, prefixes.1), nodes);
    let launched = |nodes| Plan {
        launch: Launch::Prefixes(2),
        ..ours(nodes)
    };
    let enis = |policy: fn(Targets, Mode) -> Policy| Plan::join(policy(Targets::enis(1), Mode::Addresses), 1_000);
    let reference = Plan::join(Policy::reference(prefixes.0, prefixes.1), 1_000);
    let row = |name, title, figure, ours, against, budget, pace| Goal {
        name,
        title,
        figure,
        ours,
        against,
        budget,
        standing: Standing::Held,
        pace,
    };
    use Against::{Nothing, Reference};
    use Pace::{Quick, Slow};
    vec![
        row(
            "pool.join1000.prefix.last",
            "1,000 nodes join, prefixes: last pod against the bucket's bound",
            last,
            ours(1_000),
            bound(1_000.0),
            1.1,
            Quick,
        ),
        row(
            "pool.join1000.prefix.throttled",
            "the same: throttled per accepted call",
            throttled,
            ours(1_000),
            Nothing,
            3.0,
            Quick,
        ),
        row(
            "pool.join1000.prefix.calls",
            "the same: calls per node",
            calls,
            ours(1_000),
            Reference(reference),
            1.0 / 6.0,
            Quick,
        ),
        row(
            "pool.join1000.eni.calls",
            "1,000 nodes join, WARM_ENI 1: calls per node",
            calls,
            enis(Policy::ours),
            Reference(enis(Policy::reference)),
            1.0 / 3.0,
            Quick,
        ),
        row(
            "pool.join1000.launch.last",
            "1,000 nodes join with prefixes from the launch template: last pod, s",
            last,
            launched(1_000),
            Nothing,
            40.0,
            Quick,
        ),
        row(
            "pool.join5000.prefix.last",
            "5,000 nodes join, prefixes: last pod against the bucket's bound",
            last,
            ours(5_000),
            bound(5_000.0),
            0.7,
            Slow,
        ),
        row(
            "pool.join5000.prefix.throttled",
            "the same: throttled per accepted call",
            throttled,
            ours(5_000),
            Nothing,
            8.0,
            Slow,
        ),
        row(
            "pool.join5000.launch.last",
            "5,000 nodes join with prefixes from the launch template: last pod, s",
            last,
            launched(5_000),
            Nothing,
            40.0,
            Slow,
        ),
        row(
            "pool.join5000.launch.throttled",
            "the same: throttled per accepted call",
            throttled,
            launched(5_000),
            Nothing,
            0.1,
            Slow,
        ),
    ]
}

fn subnet_goals() -> Vec<Goal> {
    let own = Policy::ours(Targets::UNSET, Mode::Prefixes);
    let reference = Policy::reference(Targets::prefixes(1), Mode::Prefixes);
    let plan = |policy| Plan {
        subnets: Subnets::SCARCE,
        ..steady(policy, DAY)
    };
    vec![Goal {
        name: "pool.fragmented.never",
        title: "day curve in fragmented subnets, prefixes: pods never served",
        figure: |figures| figures.never_served as f64,
        ours: plan(own),
        against: Against::Reference(plan(reference)),
        budget: 0.0,
        standing: Standing::Held,
        pace: Pace::Quick,
    }]
}

fn all(pace: Pace) -> Vec<Goal> {
    let goals = [burst_goals(), steady_goals(), join_goals(), subnet_goals()];
    goals.into_iter().flatten().filter(|goal| goal.pace <= pace).collect()
}

/// Each plan is run once, whatever number of goals looks at it; two at a time.
struct Results(Vec<(Plan, Vec<Figures>)>);

fn seeds(plan: &Plan) -> u64 {
    if matches!(plan.workload, Workload::Burst { .. }) {
        BURSTS
    } else {
        1
    }
}

impl Results {
    fn of(goals: &[Goal]) -> Self {
        let mut plans: Vec<Plan> = Vec::new();
        for goal in goals {
            let peer = match goal.against {
                Against::Reference(plan) => Some(plan),
                Against::Number(_) | Against::Nothing => None,
            };
            for plan in std::iter::once(goal.ours).chain(peer) {
                if !plans.contains(&plan) {
                    plans.push(plan);
                }
            }
        }
        let (todo, done) = (Mutex::new(plans), Mutex::new(Vec::new()));
        let work = || {
            loop {
                let next = todo.lock().ok().and_then(|mut plans| plans.pop());
                let Some(plan) = next else { return };
                let figures = (1..=seeds(&plan)).map(|seed| run(&Plan { seed, ..plan })).collect();
                if let Ok(mut done) = done.lock() {
                    done.push((plan, figures));
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(work);
            work();
        });
        Self(done.into_inner().unwrap_or_default())
    }

    fn mean(&self, plan: &Plan, figure: fn(&Figures) -> f64) -> f64 {
        let runs = self.0.iter().find(|(known, _)| known == plan);
        let figures = &runs.expect("every plan of every goal was run").1;
        figures.iter().map(figure).sum::<f64>() / figures.len() as f64
    }
}

/// Runs what the goals need and judges them.
pub fn judge(pace: Pace, names: &[String]) -> Vec<Row> {
    let chosen = |goal: &Goal| names.is_empty() || names.iter().any(|name| goal.name.contains(name.as_str()));
    let goals: Vec<Goal> = all(pace).into_iter().filter(chosen).collect();
    let results = Results::of(&goals);
    goals.iter().map(|goal| row(goal, &results)).collect()
}

fn row(goal: &Goal, results: &Results) -> Row {
    let ours = results.mean(&goal.ours, goal.figure);
    let peer = match goal.against {
        Against::Reference(plan) => Some(results.mean(&plan, goal.figure)),
        Against::Number(number) => Some(number),
        Against::Nothing => None,
    };
    // A goal of none is none, whatever the peer has.
    let ratio = peer.filter(|_| goal.budget > 0.0).map(|peer| ours / peer);
    Row {
        name: goal.name,
        title: goal.title,
        ours,
        peer,
        ratio,
        budget: goal.budget,
        met: ratio.unwrap_or(ours) <= goal.budget,
        standing: goal.standing,
    }
}
