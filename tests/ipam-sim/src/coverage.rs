//! What a run really exercised. A simulation that never meets a fault proves nothing about it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::scenario::Fault;

/// Counts by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<String, u64>);

const KINDS: &[&str] = &[
    "action/Persist",
    "action/Reply",
    "action/Describe",
    "action/ViewKernel",
    "action/WakeAt",
    "action/Run",
    "action/Note",
    "work/CreateEni",
    "work/Attach",
    "work/DeleteOnTermination",
    "work/AllocateAddresses",
    "work/ReleaseAddresses",
    "work/Detach",
    "work/DeleteEni",
    "work/SetupEni",
    "work/TeardownEni",
    "work/ClearPodState",
    "repeat/CreateEni",
    "unknown/CreateEni",
    "unknown/Attach",
    "unknown/AllocateAddresses",
    "unknown/ReleaseAddresses",
    "unknown/Detach",
    "unknown/DeleteEni",
    "unknown/DeleteOnTermination",
    "outcome/Granted",
    "outcome/Refused",
    "outcome/Deleted",
    "outcome/UnknownPod",
    "outcome/NotCleared",
    "lease/granted",
    "lease/wired",
    "lease/draining",
    "lease/orphan",
    "lease/ended",
    "note/Refused",
    "note/OpRefused",
    "note/OpUnknown",
    "note/Eni",
    "note/UnexplainedLife",
    "note/CheckpointFailing",
    "refusal/Throttled",
    "refusal/Unavailable",
    "refusal/SubnetFull",
    "refusal/LimitReached",
    "refusal/Gone",
    "refusal/Conflict",
    "refusal/Denied",
    "refusal/Kernel",
    "restore/nothing",
    "restore/leases",
    "restore/everything",
    "restore/damaged",
    "scope/Attached",
    "scope/OwnAvailable",
    "write/failed-before-ipam",
    "write/failed-between-files",
    "users/add",
    "users/repeat-add",
    "users/del",
    "users/del-again",
    "users/del-unknown",
    "users/recreate",
    "users/burst",
    "plugin/cleared-itself",
    "plugin/expired-before-wiring",
    "plugin/reconnected",
    "plugin/touched-nothing",
    "end/probe-served",
    "end/idle-hour",
];

impl Coverage {
    pub(crate) fn hit(&mut self, group: &str, name: &str) {
        *self.0.entry(format!("{group}/{name}")).or_default() += 1;
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        self.hit("fault", fault.as_str());
    }

    /// Adds another run's counts.
    pub fn merge(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            *self.0.entry(name.clone()).or_default() += count;
        }
    }

    /// What a long run must have exercised and did not.
    pub fn missing(&self) -> Vec<String> {
        let faults = Fault::ALL.iter().map(|fault| format!("fault/{}", fault.as_str()));
        let all = KINDS.iter().map(|kind| (*kind).to_owned()).chain(faults);
        all.filter(|name| !self.0.contains_key(name)).collect()
    }

    /// All counts, three to a line.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for (index, (name, count)) in self.0.iter().enumerate() {
            let end = if index % 3 == 2 { '\n' } else { ' ' };
            let _ = write!(text, "  {name:<32}{count:>9}{end}");
        }
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }
}
