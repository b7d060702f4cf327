//! The grid of targets: every combination converges, then is silent, serves who waits, and holds what the reference's
//! formulas hold, but for named deviations.

mod pairwise;

use std::collections::BTreeMap;
use std::time::Duration;

use ipam_core::WarmTarget;
use vpc_types::InstanceLimits;

use super::node::PodState;
use super::plan::{Mode, Plan, Policy, Targets, Workload};
use super::queue::{NodeId, PodId};
use super::world::Fleet;

const VALUES: [Option<u32>; 7] = [None, Some(0), Some(1), Some(2), Some(5), Some(16), Some(40)];
const TYPES: [&str; 5] = ["t3.medium", "m5.large", "c5.4xlarge", "p5.48xlarge", "t2.micro"];
const AXES: [usize; 6] = [7, 7, 7, 7, 2, 5];
/// A pool comes to rest within this after pods came.
const GROWN: Duration = Duration::from_secs(20 * 60);
/// The same after they went: windows, and one ENI after the other.
const SHRUNK: Duration = Duration::from_secs(4 * 3_600);
/// Nothing happens: nothing may be asked.
const SILENCE: Duration = Duration::from_secs(24 * 3_600);
/// Pods wait no longer for an address that can be had.
const SERVED: f64 = 30.0;
/// Most pods of a point.
const PODS: u32 = 30;

/// Known differences from the reference's formulas; each has its row in `docs/compat.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deviation {
    /// Nothing set: recent arrivals decide, not `WARM_ENI_TARGET=1`.
    OwnDefault,
    /// Fewer than four addresses are not worth a call to give them back.
    ReleaseLots,
    /// With `MINIMUM_IP_TARGET` alone the reference never grows above it, and pods wait for ever.
    MinimumAlone,
    /// The pool holds no more than the pods that the kubelet admits could use.
    MaxPods,
    /// Pods are packed, so fewer prefixes give as many free addresses; the reference spreads them at random.
    PackedPrefixes,
}

impl Deviation {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::OwnDefault,
        Self::ReleaseLots,
        Self::MinimumAlone,
        Self::MaxPods,
        Self::PackedPrefixes,
    ];

    /// The word by which `docs/compat.md` names it.
    pub fn id(self) -> &'static str {
        match self {
            Self::OwnDefault => "own-default",
            Self::ReleaseLots => "release-lots",
            Self::MinimumAlone => "minimum-alone",
            Self::MaxPods => "max-pods",
            Self::PackedPrefixes => "packed-prefixes",
        }
    }
}

/// One combination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    targets: Targets,
    mode: Mode,
    instance_type: &'static str,
}

/// Which combinations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Every pair of values of any two variables.
    Pairwise,
    /// All.
    Exhaustive,
}

/// What became of them.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Combinations tried.
    pub points: usize,
    /// How often each deviation explained a difference.
    pub deviations: BTreeMap<&'static str, u64>,
    /// What is wrong, with its combination.
    pub faults: Vec<String>,
}

impl Verdict {
    fn merge(&mut self, other: Self) {
        self.points += other.points;
        self.faults.extend(other.faults);
        for (id, count) in other.deviations {
            *self.deviations.entry(id).or_default() += count;
        }
    }
}

/// Addresses for pods when a node is at rest: empty, with pods, empty again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Levels {
    fresh: u32,
    loaded: u32,
    emptied: u32,
}

/// Tries the combinations, two at a time.
pub fn check(extent: Extent) -> Verdict {
    let points = match extent {
        Extent::Pairwise => pairwise::cover(&AXES),
        Extent::Exhaustive => pairwise::product(&AXES),
    };
    let points: Vec<Point> = points.iter().map(|indices| Point::new(indices)).collect();
    let (left, right) = points.split_at(points.len() / 2);
    let all = |points: &[Point]| {
        let mut verdict = Verdict::default();
        points.iter().for_each(|point| verdict.merge(point.check()));
        verdict
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| all(right));
        let mut verdict = all(left);
        match other.join() {
            Ok(other) => verdict.merge(other),
            Err(panic) => std::panic::resume_unwind(panic),
        }
        verdict
    })
}

impl Point {
    fn new(indices: &[usize]) -> Self {
        Self {
            targets: Targets {
                warm_eni: VALUES[indices[0]],
                warm_ip: VALUES[indices[1]],
                minimum_ip: VALUES[indices[2]],
                warm_prefix: VALUES[indices[3]],
            },
            mode: [Mode::Addresses, Mode::Prefixes][indices[4]],
            instance_type: TYPES[indices[5]],
        }
    }

    fn limits(&self) -> InstanceLimits {
        InstanceLimits::of(self.instance_type).expect("the types above are in the table")
    }

    /// Addresses that the node could hold.
    fn capacity(&self) -> u32 {
        let limits = self.limits();
        let slots = u32::from(limits.enis_on_default_card()) * u32::from(limits.ipv4_per_eni - 1);
        match super::targets::mode(self.mode, &limits) {
            ipam_core::AllocationMode::Addresses => slots,
            ipam_core::AllocationMode::Prefixes => slots * 16,
        }
    }

    /// What EKS recommends: by addresses without prefixes, else 110.
    fn max_pods(&self) -> u32 {
        match self.mode {
            Mode::Addresses => self.capacity() + 2,
            Mode::Prefixes => (self.capacity() + 2).min(110),
        }
    }

    /// Two thirds of what there is room for.
    fn pods(&self) -> u32 {
        (self.capacity().min(self.max_pods()) * 2 / 3).clamp(1, PODS)
    }

    fn plan(&self, policy: Policy) -> Plan {
        Plan {
            instance_type: self.instance_type,
            max_pods: self.max_pods(),
            ..Plan::one_node(policy, Workload::None)
        }
    }

    fn check(&self) -> Verdict {
        let mut verdict = Verdict {
            points: 1,
            ..Verdict::default()
        };
        let mut reference = Run::new(
            &self.plan(Policy::reference(self.targets, self.reference_mode())),
            self.pods(),
        );
        let theirs = reference.levels();
        let mut run = Run::new(&self.plan(Policy::ours(self.targets, self.mode)), self.pods());
        let ours = run.levels();
        let served = run.served();
        if served < self.pods() {
            verdict
                .faults
                .push(format!("{self:?}: {served} of {} pods were served", self.pods()));
        } else if run.longest_wait() > SERVED {
            verdict
                .faults
                .push(format!("{self:?}: a pod waited {:.1} s", run.longest_wait()));
        }
        let calls = run.calls_in_silence();
        if calls > 0 {
            verdict
                .faults
                .push(format!("{self:?}: {calls} calls while nothing happened"));
        }
        let pairs = [
            ("fresh", ours.fresh, theirs.fresh),
            ("with pods", ours.loaded, theirs.loaded),
            ("emptied", ours.emptied, theirs.emptied),
        ];
        for (when, ours, theirs) in pairs {
            match self.explain(ours, theirs) {
                Ok(None) => {}
                Ok(Some(deviation)) => *verdict.deviations.entry(deviation.id()).or_default() += 1,
                Err(()) => verdict.faults.push(format!(
                    "{self:?}: {when} {ours} addresses, {theirs} by the reference's formulas"
                )),
            }
        }
        verdict
    }

    /// The reference falls back by itself on types without prefixes.
    fn reference_mode(&self) -> Mode {
        match super::targets::mode(self.mode, &self.limits()) {
            ipam_core::AllocationMode::Addresses => Mode::Addresses,
            ipam_core::AllocationMode::Prefixes => Mode::Prefixes,
        }
    }

    /// Whether recent arrivals decide.
    fn is_own_default(&self) -> bool {
        let mode = super::targets::mode(self.mode, &self.limits());
        super::targets::warm_target(self.targets, mode) == WarmTarget::Adaptive
    }

    /// How many more prefixes the reference's formula asks for on a node with all its pods and so many addresses; `None` where
    /// another target applies.
    fn prefixes_asked_for(&self, addresses: u32) -> Option<u32> {
        let mode = super::targets::mode(self.mode, &self.limits());
        let WarmTarget::Prefixes(warm) = super::targets::warm_target(self.targets, mode) else {
            return None;
        };
        let free = addresses.saturating_sub(self.pods());
        Some((u32::from(warm) * 16).saturating_sub(free).div_ceil(16))
    }

    fn explain(&self, ours: u32, theirs: u32) -> Result<Option<Deviation>, ()> {
        let is_set = |value: Option<u32>| value.is_some_and(|value| value > 0);
        let alone = is_set(self.targets.minimum_ip) && !is_set(self.targets.warm_ip);
        if ours == theirs {
            Ok(None)
        } else if self.is_own_default() {
            Ok(Some(Deviation::OwnDefault))
        } else if alone && ours > theirs && ours >= self.pods() {
            Ok(Some(Deviation::MinimumAlone))
        } else if ours < theirs && ours >= self.max_pods() {
            Ok(Some(Deviation::MaxPods))
        } else if ours < theirs && self.prefixes_asked_for(ours) == Some(0) {
            Ok(Some(Deviation::PackedPrefixes))
        } else if ours > theirs && ours - theirs < 4 {
            Ok(Some(Deviation::ReleaseLots))
        } else {
            Err(())
        }
    }
}

/// One node under one program.
struct Run {
    fleet: Fleet,
    wanted: u32,
    pods: Vec<PodId>,
}

impl Run {
    fn new(plan: &Plan, wanted: u32) -> Self {
        let mut fleet = Fleet::new(plan);
        super::workload::begin(&mut fleet);
        Self {
            fleet,
            wanted,
            pods: Vec::new(),
        }
    }

    fn go_on(&mut self, span: Duration) {
        let until = self.fleet.now + span;
        self.fleet.run_until(until);
    }

    fn level(&self) -> u32 {
        let (held, enis) = self.fleet.account.held(&self.fleet.nodes[0].instance);
        u32::try_from(held - enis).expect("a node has at most thousands of addresses")
    }

    fn levels(&mut self) -> Levels {
        self.go_on(GROWN);
        let fresh = self.level();
        self.pods = (0..self.wanted).map(|_| self.fleet.bind(NodeId(0), None)).collect();
        self.go_on(GROWN);
        let loaded = self.level();
        for pod in self.pods.clone() {
            self.fleet.end(pod);
        }
        self.go_on(SHRUNK);
        Levels {
            fresh,
            loaded,
            emptied: self.level(),
        }
    }

    fn served(&self) -> u32 {
        let served = self
            .pods
            .iter()
            .filter(|pod| self.fleet.pods[pod.0].served_at.is_some());
        u32::try_from(served.count()).expect("a point has few pods")
    }

    fn longest_wait(&self) -> f64 {
        let waits = self.pods.iter().filter_map(|pod| {
            let pod = &self.fleet.pods[pod.0];
            Some((pod.served_at? - pod.first_add?).as_secs_f64())
        });
        waits.fold(0.0, f64::max)
    }

    fn calls_in_silence(&mut self) -> u64 {
        let all = |fleet: &Fleet| {
            let calls = fleet.account.calls();
            calls.all_accepted() + calls.all_throttled() + calls.refused
        };
        let before = all(&self.fleet);
        self.go_on(SILENCE);
        debug_assert!(
            self.pods
                .iter()
                .all(|pod| self.fleet.pods[pod.0].state == PodState::Ended)
        );
        all(&self.fleet) - before
    }
}
