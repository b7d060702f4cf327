//! Logs and counters, all derived here from the core's notes and from call reports.
//!
//! INFO says what an operator cares about, WARN what would wake one; single addresses of an ordinary day are DEBUG.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use cloud::{CallObserver, CallReport};
use ipam_core::{LeaseState, Note};

/// An error with its causes, for one log line.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// EC2 calls since start, by action.
#[derive(Debug, Clone, Default)]
pub struct Calls(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Calls {
    /// A copy of the counts.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl CallObserver for Calls {
    fn called(&self, report: &CallReport<'_>) {
        *self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(report.action.as_str())
            .or_default() += 1;
        tracing::debug!(action = report.action.as_str(), took = ?report.took, ok = report.outcome.is_ok(), "EC2 call");
    }
}

/// Turns notes into log lines.
#[derive(Debug, Default)]
pub struct Observer;

impl Observer {
    /// One note of the core.
    pub fn note(&self, note: &Note) {
        match note {
            Note::Lease {
                key,
                address,
                state,
                why,
            } => lease(key, *address, *state, why),
            Note::Refused { key, cause } => tracing::warn!(%key, %cause, "ADD refused"),
            Note::OpRefused { op, kind, refusal } => tracing::info!(op = op.0, kind, ?refusal, "refused"),
            Note::OpUnknown { op, kind } => tracing::warn!(op = op.0, kind, "outcome unknown"),
            Note::Eni { eni, phase } => tracing::info!(%eni, phase, "ENI"),
            Note::UnexplainedLife { address } => {
                tracing::warn!(%address, "the kernel shows a pod that no lease explains: not granted");
            }
            Note::CheckpointFailing => tracing::error!("ADDs are refused until the state file can be written"),
            Note::MassDisappearance { gone, leases } => {
                tracing::error!(
                    gone,
                    leases,
                    "the kernel shows no sandbox of most leases: none of them ends yet"
                );
            }
            Note::SafeMode => tracing::error!("safe mode after several aborts: pods are served, nothing is given back"),
            Note::ImdsDiffers => tracing::warn!("IMDS shows other addresses or ENIs than expected: asking EC2"),
        }
    }
}

fn lease(key: &vpc_types::IpamKey, address: std::net::Ipv4Addr, state: Option<LeaseState>, why: &str) {
    match state {
        Some(LeaseState::Orphan) => tracing::warn!(%key, %address, why, "lease is an orphan"),
        Some(state) => tracing::debug!(%key, %address, state = state.as_str(), why, "lease"),
        None => tracing::debug!(%key, %address, why, "lease ended"),
    }
}
