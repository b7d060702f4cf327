//! What users do: pods that come and go by the plan's workload.

use std::time::Duration;

use super::node::PodState;
use super::plan::Workload;
use super::queue::{Happening, NodeId, PodId};
use super::world::Fleet;

/// From binding to ADD where all pods come at once.
pub(crate) const LEAD: Duration = Duration::from_millis(1_500);
/// Between two steps of a workload that goes on by itself.
const STEP: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);
const ROLL_EVERY: Duration = Duration::from_secs(600);
const JOBS_EVERY: Duration = Duration::from_secs(300);
/// Life of a job's pod.
const JOB_LIFE: Duration = MINUTE;
/// Pods of a node that use its own network and need no address.
const HOST_PODS: u32 = 2;
/// From a node's start to its first pods: the kubelet waits until the node is ready.
const NODE_READY: Duration = Duration::from_secs(1);

/// Nodes and the pods that are there from the start.
pub(crate) fn begin(fleet: &mut Fleet) {
    let spread = match fleet.plan.workload {
        Workload::Join { spread, .. } => spread,
        Workload::Burst { .. }
        | Workload::Churn { .. }
        | Workload::Rolling { .. }
        | Workload::Cron { .. }
        | Workload::Batch { .. }
        | Workload::Day { .. }
        | Workload::Steady { .. }
        | Workload::None => Duration::from_secs(10),
    };
    let pods = match fleet.plan.workload {
        Workload::Burst { .. } => 1,
        Workload::Churn { pods, .. }
        | Workload::Rolling { pods }
        | Workload::Cron { pods, .. }
        | Workload::Join { pods, .. }
        | Workload::Steady { pods } => pods,
        Workload::Batch { .. } | Workload::None => 0,
        Workload::Day { low, .. } => low,
    };
    for number in 0..fleet.nodes.len() {
        let node = NodeId(number);
        let start = spread.mul_f64(fleet.rng.f64());
        fleet.after(start, Happening::NodeStarts(node));
        for _ in 0..pods {
            let (life, pause) = match fleet.plan.workload {
                Workload::Churn { life, .. } => (Some(exponential(fleet, life)), MINUTE.mul_f64(fleet.rng.f64())),
                Workload::Join { .. } | Workload::Burst { .. } => (None, Duration::ZERO),
                Workload::Day { life, .. } => (Some(exponential(fleet, life)), MINUTE.mul_f64(fleet.rng.f64())),
                Workload::Rolling { .. }
                | Workload::Cron { .. }
                | Workload::Batch { .. }
                | Workload::Steady { .. }
                | Workload::None => (None, MINUTE.mul_f64(fleet.rng.f64())),
            };
            fleet.after(start + NODE_READY + pause, Happening::PodBound { node, life });
        }
    }
    if fleet.plan.workload != Workload::None {
        fleet.after(STEP, Happening::Users);
        fleet.after(STEP, Happening::Sample);
    }
}

/// The warm-up is over.
pub(crate) fn measured(fleet: &mut Fleet) {
    if let Workload::Burst { pods } = fleet.plan.workload {
        for _ in 0..pods {
            fleet.bind(NodeId(0), None);
        }
    }
}

/// Whether nothing more is to be seen.
pub(crate) fn is_over(fleet: &Fleet) -> bool {
    let expected = match fleet.plan.workload {
        Workload::Burst { pods } => pods,
        Workload::Join { pods, .. } => pods * fleet.plan.nodes,
        Workload::Churn { .. }
        | Workload::Rolling { .. }
        | Workload::Cron { .. }
        | Workload::Batch { .. }
        | Workload::Day { .. }
        | Workload::Steady { .. }
        | Workload::None => return false,
    };
    fleet.recorder.count() >= expected as usize
}

/// Ten seconds more.
pub(crate) fn go_on(fleet: &mut Fleet) {
    let now = fleet.now;
    match fleet.plan.workload {
        Workload::Rolling { .. } if is_multiple(now, ROLL_EVERY) => roll(fleet),
        Workload::Cron { jobs, .. } if is_multiple(now, JOBS_EVERY) => {
            for node in 0..fleet.nodes.len() {
                for _ in 0..jobs {
                    fleet.bind(NodeId(node), Some(JOB_LIFE));
                }
            }
        }
        Workload::Batch { rate, life } if (now.as_secs() / 300).is_multiple_of(2) => {
            for node in 0..fleet.nodes.len() {
                let pods = poisson(fleet, rate * STEP.as_secs_f64());
                for _ in 0..pods {
                    let pause = STEP.mul_f64(fleet.rng.f64());
                    fleet.after(
                        pause,
                        Happening::PodBound {
                            node: NodeId(node),
                            life: Some(life),
                        },
                    );
                }
            }
        }
        Workload::Day {
            low,
            high,
            period,
            life,
        } => follow_day(fleet, (low, high), period, life),
        Workload::Burst { .. }
        | Workload::Churn { .. }
        | Workload::Rolling { .. }
        | Workload::Cron { .. }
        | Workload::Batch { .. }
        | Workload::Join { .. }
        | Workload::Steady { .. }
        | Workload::None => {}
    }
    fleet.after(STEP, Happening::Users);
}

/// In churn each pod that ends is replaced at once, on any node with room.
pub(crate) fn pod_ended(fleet: &mut Fleet, _: NodeId) {
    if let Workload::Churn { life, .. } = fleet.plan.workload {
        let life = exponential(fleet, life);
        if let Some(node) = any_node(fleet) {
            fleet.bind(node, Some(life));
        }
    }
}

/// The emptier of two.
fn emptier_node(fleet: &mut Fleet) -> Option<NodeId> {
    let (one, other) = (any_node(fleet)?, any_node(fleet)?);
    let emptier = fleet.nodes[one.0].count() <= fleet.nodes[other.0].count();
    Some(if emptier { one } else { other })
}

fn any_node(fleet: &mut Fleet) -> Option<NodeId> {
    let count = fleet.nodes.len();
    let draws = (0..count * 2).map(|_| NodeId(fleet.rng.usize(..count)));
    let draws: Vec<NodeId> = draws.collect();
    let max = fleet.plan.max_pods - HOST_PODS;
    draws.into_iter().find(|node| fleet.nodes[node.0].count() < max)
}

fn roll(fleet: &mut Fleet) {
    let running = running(fleet);
    for pod in running {
        if fleet.rng.f64() < 0.3 {
            let at = MINUTE.mul_f64(fleet.rng.f64());
            if let Some(node) = any_node(fleet) {
                fleet.after(at, Happening::PodBound { node, life: None });
            }
            fleet.after(at + STEP, Happening::PodEnds(pod));
        }
    }
}

fn follow_day(fleet: &mut Fleet, (low, high): (u32, u32), period: Duration, life: Duration) {
    let since = fleet.now.saturating_sub(fleet.plan.warm_up);
    let phase = since.as_secs_f64() / period.as_secs_f64() * std::f64::consts::TAU;
    let half = f64::from(high - low) / 2.0;
    let wanted = (f64::from(low) + half - half * phase.cos()) * fleet.nodes.len() as f64;
    let there: u32 = fleet.nodes.iter().map(super::node::Node::count).sum();
    let missing = wanted - f64::from(there);
    let mut steps = missing.abs().floor();
    let ending = if missing < 0.0 { running(fleet) } else { Vec::new() };
    while steps >= 1.0 {
        steps -= 1.0;
        let pause = STEP.mul_f64(fleet.rng.f64());
        if missing > 0.0 {
            if let Some(node) = emptier_node(fleet) {
                let life = Some(exponential(fleet, life));
                fleet.after(pause, Happening::PodBound { node, life });
            }
        } else if !ending.is_empty() {
            let pod = ending[fleet.rng.usize(..ending.len())];
            fleet.after(pause, Happening::PodEnds(pod));
        }
    }
}

fn running(fleet: &Fleet) -> Vec<PodId> {
    let pods = fleet.nodes.iter().flat_map(|node| &node.pods).copied();
    let runs = |pod: &PodId| matches!(fleet.pods[pod.0].state, PodState::Running(_));
    pods.filter(runs).collect()
}

fn is_multiple(now: Duration, of: Duration) -> bool {
    now.as_secs().is_multiple_of(of.as_secs())
}

fn exponential(fleet: &mut Fleet, mean: Duration) -> Duration {
    mean.mul_f64(-(1.0 - fleet.rng.f64()).ln())
}

fn poisson(fleet: &mut Fleet, mean: f64) -> u32 {
    let (limit, mut product, mut count) = ((-mean).exp(), fleet.rng.f64(), 0);
    while product > limit {
        product *= fleet.rng.f64();
        count += 1;
    }
    count
}
