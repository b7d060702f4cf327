//! What one run of the fleet is: how many nodes of which kind, which policy, which load, which account.

use std::time::Duration;

use ipam_core::LeakSweep;

/// The targets as their variables are set; `None` is unset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Targets {
    /// `WARM_ENI_TARGET`.
    pub warm_eni: Option<u32>,
    /// `WARM_IP_TARGET`.
    pub warm_ip: Option<u32>,
    /// `MINIMUM_IP_TARGET`.
    pub minimum_ip: Option<u32>,
    /// `WARM_PREFIX_TARGET`.
    pub warm_prefix: Option<u32>,
}

impl Targets {
    /// No variable set.
    pub const UNSET: Self = Self {
        warm_eni: None,
        warm_ip: None,
        minimum_ip: None,
        warm_prefix: None,
    };

    /// `WARM_ENI_TARGET` alone.
    pub const fn enis(warm: u32) -> Self {
        Self {
            warm_eni: Some(warm),
            ..Self::UNSET
        }
    }

    /// `WARM_IP_TARGET` and `MINIMUM_IP_TARGET`.
    pub const fn addresses(warm: u32, minimum: u32) -> Self {
        Self {
            warm_ip: Some(warm),
            minimum_ip: Some(minimum),
            ..Self::UNSET
        }
    }

    /// `WARM_PREFIX_TARGET` alone.
    pub const fn prefixes(warm: u32) -> Self {
        Self {
            warm_prefix: Some(warm),
            ..Self::UNSET
        }
    }
}

/// `ENABLE_PREFIX_DELEGATION`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Single addresses.
    Addresses,
    /// Blocks of sixteen.
    Prefixes,
}

/// How a node learns that a pod wants an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knowledge {
    /// By its ADD.
    Adds,
    /// When the scheduler binds it, a second or two before its ADD.
    Binding,
}

/// How long a kubelet waits before it makes the next sandbox after a failed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// One second, as in the measurements of the reference.
    Second,
    /// Ten to fifteen seconds.
    Slow,
}

/// Which program manages the addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The real core.
    Ours(Knowledge),
    /// The reference's formulas.
    Reference,
}

/// A program with its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The program.
    pub program: Program,
    /// Its targets.
    pub targets: Targets,
    /// Addresses or prefixes.
    pub mode: Mode,
}

impl Policy {
    /// Ours, without knowledge of pods before their ADD.
    pub const fn ours(targets: Targets, mode: Mode) -> Self {
        Self {
            program: Program::Ours(Knowledge::Adds),
            targets,
            mode,
        }
    }

    /// The reference.
    pub const fn reference(targets: Targets, mode: Mode) -> Self {
        Self {
            program: Program::Reference,
            targets,
            mode,
        }
    }

    /// The same with knowledge of bound pods.
    pub const fn knowing(self) -> Self {
        Self {
            program: Program::Ours(Knowledge::Binding),
            ..self
        }
    }
}

/// What users do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Workload {
    /// Nothing.
    None,
    /// One pod for the warm-up, then this many at once.
    Burst {
        /// How many.
        pods: u32,
    },
    /// A steady number of pods; each lives exponentially long and is replaced on any node.
    Churn {
        /// Per node.
        pods: u32,
        /// Mean.
        life: Duration,
    },
    /// Every ten minutes three tenths of the pods are replaced within a minute, the new one first.
    Rolling {
        /// Per node.
        pods: u32,
    },
    /// A steady number, and every five minutes more that live a minute.
    Cron {
        /// Per node, steady.
        pods: u32,
        /// Per node and job.
        jobs: u32,
    },
    /// Short pods for five minutes, none for five.
    Batch {
        /// Per node and second.
        rate: f64,
        /// Of each pod.
        life: Duration,
    },
    /// From `low` to `high` pods per node and back, as a cosine; each pod lives exponentially long.
    Day {
        /// Mean.
        life: Duration,
        /// Lowest.
        low: u32,
        /// Highest.
        high: u32,
        /// Length.
        period: Duration,
    },
    /// Nodes start within `spread`, each with so many pods.
    Join {
        /// Evenly.
        spread: Duration,
        /// Per node.
        pods: u32,
    },
    /// A fixed number of pods that stay.
    Steady {
        /// Per node.
        pods: u32,
    },
}

impl Workload {
    /// Twenty pods per node that live ten minutes.
    pub const CHURN: Self = Self::Churn {
        pods: 20,
        life: Duration::from_secs(600),
    };
    /// From 5 to 45 pods per node and back within two hours; they live half an hour.
    pub const DAY: Self = Self::Day {
        life: Duration::from_secs(1_800),
        low: 5,
        high: 45,
        period: Duration::from_secs(7_200),
    };
}

/// The subnets that the nodes share, one zone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Subnets {
    /// How many.
    pub count: u8,
    /// Length of their prefixes.
    pub prefix: u8,
    /// Share of the addresses that others took, at random.
    pub taken: f64,
}

impl Subnets {
    /// So large that they play no part.
    pub const AMPLE: Self = Self {
        count: 12,
        prefix: 16,
        taken: 0.0,
    };
    /// Hardly enough for a hundred nodes at noon, and few whole blocks.
    pub const SCARCE: Self = Self {
        count: 3,
        prefix: 21,
        taken: 0.15,
    };
}

/// What the launch template gives the primary ENI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launch {
    /// Nothing.
    Plain,
    /// So many prefixes.
    Prefixes(u32),
}

/// One run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// Decides everything random.
    pub seed: u64,
    /// How many nodes share the account.
    pub nodes: u32,
    /// Their type.
    pub instance_type: &'static str,
    /// Pods that a node takes.
    pub max_pods: u32,
    /// What manages their addresses.
    pub policy: Policy,
    /// After a failed sandbox.
    pub retry: Retry,
    /// What users do.
    pub workload: Workload,
    /// Where addresses come from.
    pub subnets: Subnets,
    /// What nodes start with.
    pub launch: Launch,
    /// Whether our nodes look for left-over ENIs.
    pub leak_sweep: LeakSweep,
    /// Not measured.
    pub warm_up: Duration,
    /// Measured.
    pub span: Duration,
}

impl Plan {
    /// A node of the size that the reference was measured on.
    pub const fn one_node(policy: Policy, workload: Workload) -> Self {
        Self {
            seed: 1,
            nodes: 1,
            instance_type: "m5.xlarge",
            max_pods: 58,
            policy,
            retry: Retry::Second,
            workload,
            subnets: Subnets::AMPLE,
            launch: Launch::Plain,
            leak_sweep: LeakSweep::Off,
            warm_up: Duration::from_secs(600),
            span: Duration::from_secs(600),
        }
    }

    /// A hundred such nodes for an hour.
    pub const fn hundred_nodes(policy: Policy, workload: Workload) -> Self {
        Self {
            nodes: 100,
            warm_up: Duration::from_secs(600),
            span: Duration::from_secs(3_600),
            ..Self::one_node(policy, workload)
        }
    }

    /// Nodes that start within half a minute with twenty pods each.
    pub const fn join(policy: Policy, nodes: u32) -> Self {
        let spread = Duration::from_secs(30);
        Self {
            nodes,
            warm_up: Duration::ZERO,
            span: Duration::from_secs(4_200),
            ..Self::one_node(policy, Workload::Join { spread, pods: 20 })
        }
    }
}
