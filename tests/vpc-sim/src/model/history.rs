//! One ENI over time: the truth, and what describes and IMDS still believe.
//!
//! Each change makes a version with two moments: when describes see it and when IMDS does. A view shows the newest
//! version whose moment has come, so a later change also reveals an earlier one that was to stay hidden longer.
//! Invariant: the last version is the truth; a deleted ENI is a version without record.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use vpc_types::InstanceId;

use super::record::Eni;

/// Who is looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Viewer {
    Api,
    Imds,
}

#[derive(Debug, Clone)]
pub(super) struct Version {
    pub(super) eni: Option<Arc<Eni>>,
    pub(super) api_at: Duration,
    pub(super) imds_at: Duration,
}

#[derive(Debug, Clone)]
pub(super) struct History(Vec<Version>);

impl History {
    pub(super) fn new(first: Version) -> Self {
        Self(vec![first])
    }

    /// The truth.
    pub(super) fn current(&self) -> Option<&Arc<Eni>> {
        self.0.last().and_then(|version| version.eni.as_ref())
    }

    pub(super) fn push(&mut self, version: Version) {
        self.0.push(version);
    }

    /// Shows the truth to everybody from `now` on.
    pub(super) fn reveal(&mut self, now: Duration) {
        if let Some(last) = self.0.last_mut() {
            (last.api_at, last.imds_at) = (now, now);
        }
    }

    pub(super) fn view(&self, viewer: Viewer, now: Duration) -> Option<&Arc<Eni>> {
        let seen = |version: &&Version| match viewer {
            Viewer::Api => version.api_at <= now,
            Viewer::Imds => version.imds_at <= now,
        };
        self.0.iter().rev().find(seen).and_then(|version| version.eni.as_ref())
    }

    /// Instances that any version has it attached to.
    pub(super) fn instances(&self) -> BTreeSet<InstanceId> {
        let ties = self
            .0
            .iter()
            .filter_map(|version| version.eni.as_ref()?.attachment.as_ref());
        ties.map(|tie| tie.instance.clone()).collect()
    }

    /// Drops versions nobody can see any more.
    pub(super) fn prune(&mut self, now: Duration) {
        let seen_by_all = |version: &Version| version.api_at.max(version.imds_at) <= now;
        if let Some(newest) = self.0.iter().rposition(seen_by_all) {
            self.0.drain(..newest);
        }
    }

    /// Whether all viewers see the truth.
    pub(super) fn is_settled(&self) -> bool {
        self.0.len() == 1
    }

    /// Whether it is deleted and everybody knows.
    pub(super) fn is_forgotten(&self, now: Duration) -> bool {
        matches!(self.0.as_slice(), [last] if last.eni.is_none() && last.api_at.max(last.imds_at) <= now)
    }
}
