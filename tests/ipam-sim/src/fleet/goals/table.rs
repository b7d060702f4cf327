//! The list of goals.

use std::time::Duration;

use ipam_core::LeakSweep;

use super::super::plan::{Launch, Mode, Plan, Policy, Subnets, Targets, Workload};
use super::{Against, Goal, Measure, Pace, Standing};

/// The account's bucket for the calls that give addresses: size and refill per second.
const BUCKET: (f64, f64) = (100.0, 5.0);

/// The last pod of nodes that start at once cannot be served sooner than this, with one call per node.
const fn bound(nodes: f64) -> Against {
    Against::Number((nodes - BUCKET.0) / BUCKET.1)
}

const fn burst(policy: Policy) -> Plan {
    Plan::one_node(policy, Workload::Burst { pods: 50 })
}

const fn churn(policy: Policy) -> Plan {
    Plan::hundred_nodes(policy, Workload::CHURN)
}

const fn day(policy: Policy) -> Plan {
    Plan {
        span: Duration::from_secs(7_200),
        ..Plan::hundred_nodes(policy, Workload::DAY)
    }
}

const fn scarce(policy: Policy) -> Plan {
    Plan {
        subnets: Subnets::SCARCE,
        ..day(policy)
    }
}

const fn join(policy: Policy, nodes: u32) -> Plan {
    Plan::join(policy, nodes)
}

/// Nodes whose primary ENI comes with two prefixes.
const fn launched(nodes: u32) -> Plan {
    Plan {
        launch: Launch::Prefixes(2),
        ..join(Policy::ours(Targets::prefixes(1), Mode::Prefixes), nodes)
    }
}

/// A hundred nodes on which nothing happens.
const IDLE: Plan = Plan {
    leak_sweep: LeakSweep::On,
    span: Duration::from_secs(24 * 3_600),
    ..Plan::hundred_nodes(
        Policy::ours(Targets::addresses(5, 10), Mode::Addresses),
        Workload::Steady { pods: 20 },
    )
};

/// All goals, in the order of the report.
pub(super) const GOALS: &[Goal] = &[
    Goal {
        name: "pool.burst.wip.time",
        title: "50 pods at once, WARM_IP 5, MINIMUM 10: seconds until the last",
        measure: Measure::Last,
        ours: burst(Policy::ours(Targets::addresses(5, 10), Mode::Addresses)),
        against: Against::Reference(burst(Policy::reference(Targets::addresses(5, 10), Mode::Addresses))),
        budget: 0.1,
        standing: Standing::Held,
        pace: Pace::Quick,
    },
    Goal {
        name: "pool.burst.wip.calls",
        title: "the same: EC2 calls until then",
        measure: Measure::Calls,
        ours: burst(Policy::ours(Targets::addresses(5, 10), Mode::Addresses)),
        against: Against::Reference(burst(Policy::reference(Targets::addresses(5, 10), Mode::Addresses))),
        budget: 0.5,
        standing: Standing::Held,
        pace: Pace::Quick,
    },
    Goal {
        name: "pool.burst.eni.time",
        title: "50 pods at once, WARM_ENI 1: seconds until the last",
        measure: Measure::Last,
        ours: burst(Policy::ours(Targets::enis(1), Mode::Addresses)),
        against: Against::Reference(burst(Policy::reference(Targets::enis(1), Mode::Addresses))),
        budget: 0.4,
        standing: Standing::Held,
        pace: Pace::Quick,
    },
    Goal {
        name: "pool.burst.eni.calls",
        title: "the same: EC2 calls until then",
        measure: Measure::Calls,
        ours: burst(Policy::ours(Targets::enis(1), Mode::Addresses)),
        against: Against::Reference(burst(Policy::reference(Targets::enis(1), Mode::Addresses))),
        budget: 0.5,
        standing: Standing::Held,
        pace: Pace::Quick,
    },
    Goal {
        name: "pool.burst.prefix.time",
        title: "50 pods at once, prefixes: seconds until the last",
        measure: Measure::Last,
        ours: burst(Policy::ours(Targets::prefixes(1), Mode::Prefixes)),
        against: Against::Reference(burst(Policy::reference(Targets::prefixes(1), Mode::Prefixes))),
        budget: 0.125,
        standing: Standing::Held,
        pace: Pace::Quick,
    },
    Goal {
        name: "pool.burst.prefix.calls",
        title: "the same: EC2 calls until then",
        measure: Measure::Calls,
        ours: burst(Policy::ours(Targets::prefixes(1), Mode::Prefixes)),
        against: Against::Reference(burst(Policy::reference(Targets::prefixes(1), Mode::Prefixes))),
        budget: 0.5,
        standing: Standing::Held,
        pace: Pace::Quick,
    },
    Goal {
        name: "pool.churn.own.calls",
        title: "churn, own default beside WARM_IP 5, MINIMUM 10: calls per pod",
        measure: Measure::PerPod,
        ours: churn(Policy::ours(Targets::UNSET, Mode::Addresses)),
        against: Against::Reference(churn(Policy::reference(Targets::addresses(5, 10), Mode::Addresses))),
        budget: 0.2,
        standing: Standing::Held,
        pace: Pace::Quick,
    },
    Goal {
        name: "pool.churn.own.held",
        title: "the same: addresses held per address used",
        measure: Measure::Held,
        ours: churn(Policy::ours(Targets::UNSET, Mode::Addresses)),
        against: Against::Reference(churn(Policy::reference(Targets::addresses(5, 10), Mode::Addresses))),
        budget: 1.2,
        standing: Standing::Held,
        pace: Pace::Quick,
    },
    Goal {
        name: "pool.churn.own.wait",
        title: "the same, told of pods when they are bound: p99 of the wait, s",
        measure: Measure::Wait,
        ours: churn(Policy::ours(Targets::UNSET, Mode::Addresses).knowing()),
        against: Against::Nothing,
        budget: 0.02,
        standing: Standing::Held,
        pace: Pace::Quick,
    },
    Goal {
        name: "pool.day.own.calls",
        title: "day curve, own default beside WARM_IP 5, MINIMUM 10: calls per pod",
        measure: Measure::PerPod,
        ours: day(Policy::ours(Targets::UNSET, Mode::Addresses)),
        against: Against::Reference(day(Policy::reference(Targets::addresses(5, 10), Mode::Addresses))),
        budget: 0.2,
        standing: Standing::Held,
        pace: Pace::Quick,
    },
    Goal {
        name: "pool.day.own.held",
        title: "the same: addresses held per address used",
        measure: Measure::Held,
        ours: day(Policy::ours(Targets::UNSET, Mode::Addresses)),
        against: Against::Reference(day(Policy::reference(Targets::addresses(5, 10), Mode::Addresses))),
        budget: 1.2,
        standing: Standing::Held,
        pace: Pace::Quick,
    },
    Goal {
        name: "pool.day.own.wait",
        title: "the same, told of pods when they are bound: p99 of the wait, s",
        measure: Measure::Wait,
        ours: day(Policy::ours(Targets::UNSET, Mode::Addresses).knowing()),
        against: Against::Nothing,
        budget: 0.02,
        standing: Standing::Held,
        pace: Pace::Quick,
    },
    Goal {
        name: "pool.day.own.waited.adds",
        title: "day curve, own default, told by ADDs only: share of pods that wait",
        measure: Measure::Waited,
        ours: day(Policy::ours(Targets::UNSET, Mode::Addresses)),
        against: Against::Nothing,
        budget: 0.02,
        standing: Standing::Held,
        pace: Pace::Quick,
    },
    Goal {
        name: "pool.churn.set.calls",
        title: "churn, WARM_IP 5, MINIMUM 10 on both sides: calls per pod",
        measure: Measure::PerPod,
        ours: churn(Policy::ours(Targets::addresses(5, 10), Mode::Addresses)),
        against: Against::Reference(churn(Policy::reference(Targets::addresses(5, 10), Mode::Addresses))),
        budget: 0.5,
        standing: Standing::Held,
        pace: Pace::Quick,
    },
    Goal {
        name: "pool.day.set.calls",
        title: "day curve, WARM_IP 5, MINIMUM 10 on both sides: calls per pod",
        measure: Measure::PerPod,
        ours: day(Policy::ours(Targets::addresses(5, 10), Mode::Addresses)),
        against: Against::Reference(day(Policy::reference(Targets::addresses(5, 10), Mode::Addresses))),
        budget: 0.5,
        standing: Standing::Held,
        pace: Pace::Quick,
    },
    Goal {
        name: "pool.churn.least.wait",
        title: "churn, WARM_IP 1, MINIMUM 1: p99 of the wait, s",
        measure: Measure::Wait,
        ours: churn(Policy::ours(Targets::addresses(1, 1), Mode::Addresses)),
        against: Against::Nothing,
        budget: 1.0,
        standing: Standing::Held,
        pace: Pace::Quick,
    },
    Goal {
        name: "pool.churn.prefix.held",
        title: "churn, prefixes, own default beside WARM_PREFIX 1: held per used",
        measure: Measure::Held,
        ours: churn(Policy::ours(Targets::UNSET, Mode::Prefixes)),
        against: Against::Reference(churn(Policy::reference(Targets::prefixes(1), Mode::Prefixes))),
        budget: 0.8,
        standing: Standing::Held,
        pace: Pace::Quick,
    },
    Goal {
        name: "pool.day.prefix.held",
        title: "day curve, prefixes, own default beside WARM_PREFIX 1: held per used",
        measure: Measure::Held,
        ours: day(Policy::ours(Targets::UNSET, Mode::Prefixes)),
        against: Against::Reference(day(Policy::reference(Targets::prefixes(1), Mode::Prefixes))),
        budget: 0.8,
        standing: Standing::Held,
        pace: Pace::Quick,
    },
    Goal {
        name: "pool.join1000.prefix.last",
        title: "1,000 nodes join, prefixes: last pod against the bucket's bound",
        measure: Measure::Last,
        ours: join(Policy::ours(Targets::prefixes(1), Mode::Prefixes), 1_000),
        against: bound(1_000.0),
        budget: 1.1,
        standing: Standing::Held,
        pace: Pace::Quick,
    },
    Goal {
        name: "pool.join1000.prefix.throttled",
        title: "the same: throttled per accepted call",
        measure: Measure::Throttled,
        ours: join(Policy::ours(Targets::prefixes(1), Mode::Prefixes), 1_000),
        against: Against::Nothing,
        budget: 3.0,
        standing: Standing::Held,
        pace: Pace::Quick,
    },
    Goal {
        name: "pool.join1000.prefix.calls",
        title: "the same: calls per node",
        measure: Measure::PerNode,
        ours: join(Policy::ours(Targets::prefixes(1), Mode::Prefixes), 1_000),
        against: Against::Reference(join(Policy::reference(Targets::prefixes(1), Mode::Prefixes), 1_000)),
        budget: 1.0 / 6.0,
        standing: Standing::Missed(
            "a look at EC2, a look at the subnets, and an ENI on every second node for the second path: they save waiting, not calls; 1/6 needs 2.0 calls per node",
        ),
        pace: Pace::Quick,
    },
    Goal {
        name: "pool.join1000.eni.calls",
        title: "1,000 nodes join, WARM_ENI 1: calls per node",
        measure: Measure::PerNode,
        ours: join(Policy::ours(Targets::enis(1), Mode::Addresses), 1_000),
        against: Against::Reference(join(Policy::reference(Targets::enis(1), Mode::Addresses), 1_000)),
        budget: 1.0 / 3.0,
        standing: Standing::Held,
        pace: Pace::Quick,
    },
    Goal {
        name: "pool.join1000.launch.last",
        title: "1,000 nodes join with prefixes from the launch template: last pod, s",
        measure: Measure::Last,
        ours: launched(1_000),
        against: Against::Nothing,
        budget: 40.0,
        standing: Standing::Missed(
            "nothing is leased before EC2 has been asked once: 1,000 such calls take 45 s at best; leasing what IMDS shows at the launch boot is not there yet",
        ),
        pace: Pace::Quick,
    },
    Goal {
        name: "pool.join5000.prefix.last",
        title: "5,000 nodes join, prefixes: last pod against the bucket's bound",
        measure: Measure::Last,
        ours: join(Policy::ours(Targets::prefixes(1), Mode::Prefixes), 5_000),
        against: bound(5_000.0),
        budget: 0.7,
        standing: Standing::Held,
        pace: Pace::Slow,
    },
    Goal {
        name: "pool.join5000.prefix.throttled",
        title: "the same: throttled per accepted call",
        measure: Measure::Throttled,
        ours: join(Policy::ours(Targets::prefixes(1), Mode::Prefixes), 5_000),
        against: Against::Nothing,
        budget: 8.0,
        standing: Standing::Held,
        pace: Pace::Slow,
    },
    Goal {
        name: "pool.join5000.launch.last",
        title: "5,000 nodes join with prefixes from the launch template: last pod, s",
        measure: Measure::Last,
        ours: launched(5_000),
        against: Against::Nothing,
        budget: 40.0,
        standing: Standing::Missed(
            "nothing is leased before EC2 has been asked once: 5,000 such calls take 245 s at best; leasing what IMDS shows at the launch boot is not there yet",
        ),
        pace: Pace::Slow,
    },
    Goal {
        name: "pool.join5000.launch.throttled",
        title: "the same: throttled per accepted call",
        measure: Measure::Throttled,
        ours: launched(5_000),
        against: Against::Nothing,
        budget: 0.1,
        standing: Standing::Missed("the first look at EC2 is throttled on most nodes"),
        pace: Pace::Slow,
    },
    Goal {
        name: "pool.fragmented.never",
        title: "day curve in fragmented subnets, prefixes: pods never served",
        measure: Measure::Never,
        ours: scarce(Policy::ours(Targets::UNSET, Mode::Prefixes)),
        against: Against::Reference(scarce(Policy::reference(Targets::prefixes(1), Mode::Prefixes))),
        budget: 0.0,
        standing: Standing::Held,
        pace: Pace::Quick,
    },
    Goal {
        name: "pool.idle.calls",
        title: "idle nodes with subnet discovery and leak sweep: calls per node and day",
        measure: Measure::PerNodeDay,
        ours: IDLE,
        against: Against::Nothing,
        budget: 24.0,
        standing: Standing::Held,
        pace: Pace::Quick,
    },
];
