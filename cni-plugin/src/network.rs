//! What one STATUS or GC is about: the network, the deadline, the log.

use cni_spec::{CniError, NetConf};
use vpc_types::VethPrefix;

use crate::clock::Deadline;
use crate::log::Log;
use crate::paths::Paths;

/// The network on this node.
#[derive(Debug)]
pub(crate) struct Network {
    /// Part of every lease's key.
    pub(crate) name: String,
    /// How names of pods' links begin.
    pub(crate) veth_prefix: VethPrefix,
    /// Where things are on this node.
    pub(crate) paths: Paths,
    /// For the whole call.
    pub(crate) deadline: Deadline,
    /// This call's log.
    pub(crate) log: Log,
}

impl Network {
    /// Opens the log.
    pub(crate) fn new(verb: &'static str, conf: NetConf, paths: &Paths, deadline: Deadline) -> Self {
        let context: [(&str, &dyn std::fmt::Display); 2] = [("verb", &verb), ("network", &conf.name)];
        Self {
            log: Log::open(&conf.log_target, conf.log_level, paths, &context),
            name: conf.name,
            veth_prefix: conf.veth_prefix,
            paths: paths.clone(),
            deadline,
        }
    }

    /// Every failure is in the log, too: the runtime's events are gone after an hour.
    pub(crate) fn logged<T>(&self, outcome: Result<T, CniError>) -> Result<T, CniError> {
        outcome.inspect_err(|error| self.log.error("failed", &[("error", error)]))
    }
}
