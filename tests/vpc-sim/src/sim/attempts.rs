//! HTTP requests per action, retries of an SDK counted apart.

use std::collections::BTreeMap;

use crate::model::Action;

/// Requests of one action.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttemptCount {
    /// First attempts: calls as the caller of the SDK sees them.
    pub calls: u64,
    /// All attempts.
    pub attempts: u64,
}

/// Requests of all actions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attempts(BTreeMap<Action, AttemptCount>);

impl Attempts {
    /// Of one action.
    pub fn of(&self, action: Action) -> AttemptCount {
        self.0.get(&action).copied().unwrap_or_default()
    }

    /// Of all actions that were called.
    pub fn iter(&self) -> impl Iterator<Item = (Action, AttemptCount)> {
        self.0.iter().map(|(action, count)| (*action, *count))
    }

    pub(super) fn count(&mut self, action: Action, is_retry: bool) {
        let count = self.0.entry(action).or_default();
        count.attempts += 1;
        count.calls += u64::from(!is_retry);
    }
}
