//! What a run really exercised. A simulation that never meets a fault proves nothing about it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::fault::Fault;

/// Counts by group and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<(&'static str, &'static str), u64>);

/// Names of one group, and how often a set of seeds must have met each.
struct Group {
    name: &'static str,
    least: u64,
    members: &'static [&'static str],
}

/// Hits of each fault that a set of seeds must have.
const FAULTS_LEAST: u64 = 10;

const GROUPS: &[Group] = &[
    // Only where a device goes between a dump and its set-up.
    Group {
        name: "refusal",
        least: 0,
        members: &["LinkMissing", "Other"],
    },
    Group {
        name: "source",
        least: 20,
        members: &["EC2", "IMDS"],
    },
    Group {
        name: "want",
        least: 20,
        members: &["addresses", "prefixes"],
    },
    Group {
        name: "phase",
        least: 20,
        members: &["available", "attached", "ready", "retiring", "torn-down", "detached"],
    },
    Group {
        name: "role",
        least: 20,
        members: &["primary", "managed", "efa", "trunk", "unmanaged"],
    },
    Group {
        name: "address",
        least: 20,
        members: &["free", "leased", "cooling", "releasing", "missing", "blocked"],
    },
    Group {
        name: "cause",
        least: 20,
        members: &[
            "POOL_EMPTY_GROWING",
            "SUBNET_FULL",
            "ENI_LIMIT",
            "THROTTLED",
            "EC2_UNAVAILABLE",
            "IAM_DENIED",
            "COOLING",
            "DAEMON_STARTING",
            "CHECKPOINT_FAILING",
            "QUEUE_FULL",
            "SANDBOX_BUSY",
        ],
    },
    Group {
        name: "view",
        least: 20,
        members: &["ImdsViewed", "Demand"],
    },
    Group {
        name: "imds-lie",
        least: 20,
        members: &["short", "shorter", "less", "more", "reordered", "empty"],
    },
    Group {
        name: "condition",
        least: 20,
        members: &["cordoned", "leaving"],
    },
    Group {
        name: "placement",
        least: 20,
        members: &["given", "missing"],
    },
    Group {
        name: "edit",
        least: 20,
        members: &[
            "takes-address",
            "takes-prefix",
            "assigns",
            "groups",
            "detaches",
            "deletes",
            "attaches",
            "attaches-trunk",
            "attaches-efa",
        ],
    },
    Group {
        name: "damage",
        least: 20,
        members: &[
            "empty",
            "truncated",
            "future",
            "duplicate",
            "repeated",
            "case",
            "side-empty",
            "side-truncated",
            "side-future",
            "reference",
        ],
    },
    Group {
        name: "action",
        least: 20,
        members: &["Persist", "Reply", "Describe", "ViewKernel", "WakeAt", "Run", "Note"],
    },
    Group {
        name: "work",
        least: 20,
        members: &[
            "CreateEni",
            "Attach",
            "DeleteOnTermination",
            "AllocateAddresses",
            "SetGroups",
            "ReleaseAddresses",
            "Detach",
            "DeleteEni",
            "SetupEni",
            "TeardownEni",
            "ClearPodState",
        ],
    },
    Group {
        name: "repeat",
        least: 20,
        members: &["CreateEni"],
    },
    Group {
        name: "unknown",
        least: 4,
        members: &[
            "CreateEni",
            "Attach",
            "AllocateAddresses",
            "ReleaseAddresses",
            "Detach",
            "DeleteEni",
            "DeleteOnTermination",
            "SetGroups",
        ],
    },
    Group {
        name: "outcome",
        least: 20,
        members: &["Granted", "Refused", "Deleted", "UnknownPod", "NotCleared"],
    },
    Group {
        name: "lease",
        least: 20,
        members: &["granted", "wired", "draining", "orphan", "ended"],
    },
    Group {
        name: "note",
        least: 20,
        members: &[
            "Refused",
            "OpRefused",
            "OpUnknown",
            "Eni",
            "UnexplainedLife",
            "CheckpointFailing",
        ],
    },
    Group {
        name: "refusal",
        least: 20,
        members: &[
            "Throttled",
            "Unavailable",
            "SubnetFull",
            "LimitReached",
            "Gone",
            "Conflict",
            "Denied",
            "Kernel",
            "SubnetFragmented",
        ],
    },
    Group {
        name: "restore",
        least: 20,
        members: &["nothing", "leases", "everything", "damaged"],
    },
    Group {
        name: "scope",
        least: 20,
        members: &["Attached", "OwnAvailable", "Leaked", "Subnets"],
    },
    Group {
        name: "write",
        least: 20,
        members: &["failed-before-ipam", "failed-between-files"],
    },
    Group {
        name: "users",
        least: 20,
        members: &[
            "add",
            "repeat-add",
            "del",
            "del-again",
            "del-unknown",
            "recreate",
            "burst",
            "drain",
        ],
    },
    Group {
        name: "plugin",
        least: 20,
        members: &[
            "cleared-itself",
            "expired-before-wiring",
            "reconnected",
            "touched-nothing",
        ],
    },
    Group {
        name: "end",
        least: 20,
        members: &["probe-served", "idle-day"],
    },
];

impl Coverage {
    pub(crate) fn hit(&mut self, group: &'static str, name: &'static str) {
        *self.0.entry((group, name)).or_default() += 1;
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        self.hit("fault", fault.as_str());
    }

    /// Adds another run's counts.
    pub fn merge(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            *self.0.entry(*name).or_default() += count;
        }
    }

    fn count(&self, group: &'static str, name: &'static str) -> u64 {
        self.0.get(&(group, name)).copied().unwrap_or_default()
    }

    /// What a set of seeds must have exercised more often.
    pub fn missing(&self) -> Vec<String> {
        let faults = Fault::ALL.iter().map(|fault| ("fault", fault.as_str(), FAULTS_LEAST));
        let wanted = |group: &'static Group| group.members.iter().map(|name| (group.name, *name, group.least));
        let all = GROUPS.iter().flat_map(wanted).chain(faults);
        all.filter(|(group, name, least)| self.count(group, name) < *least)
            .map(|(group, name, least)| format!("{group}/{name} {} of {least}", self.count(group, name)))
            .collect()
    }

    /// Counted names that no group has: a word was misspelt.
    #[cfg(test)]
    pub(crate) fn unlisted(&self) -> Vec<String> {
        let listed = |(group, name): &(&str, &str)| {
            let member = |one: &Group| one.name == *group && one.members.contains(name);
            GROUPS.iter().any(member) || *group == "fault"
        };
        self.0
            .keys()
            .filter(|key| !listed(key))
            .map(|(group, name)| format!("{group}/{name}"))
            .collect()
    }

    /// All counts, three to a line.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for (index, ((group, name), count)) in self.0.iter().enumerate() {
            let end = if index % 3 == 2 { '\n' } else { ' ' };
            let _ = write!(text, "  {:<32}{count:>9}{end}", format!("{group}/{name}"));
        }
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }
}
