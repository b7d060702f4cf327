//! Counts of calls per action, by what became of them.

use std::collections::BTreeMap;

use super::{Action, ErrorCode};

/// What became of the calls of one action.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActionCount {
    /// Succeeded and answered.
    pub accepted: u64,
    /// Refused, by code; throttling is `RequestLimitExceeded`.
    pub refused: BTreeMap<ErrorCode, u64>,
    /// Never answered.
    pub lost: u64,
}

impl ActionCount {
    /// All calls that reached EC2.
    pub fn total(&self) -> u64 {
        self.accepted + self.lost + self.refused.values().sum::<u64>()
    }
}

/// Counts since start, or since the last reset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<Action, ActionCount>);

impl Counters {
    /// Of one action.
    pub fn of(&self, action: Action) -> ActionCount {
        self.0.get(&action).cloned().unwrap_or_default()
    }

    /// Of all actions that were called.
    pub fn iter(&self) -> impl Iterator<Item = (Action, &ActionCount)> {
        self.0.iter().map(|(action, count)| (*action, count))
    }

    /// All calls of all actions.
    pub fn total(&self) -> u64 {
        self.0.values().map(ActionCount::total).sum()
    }

    /// Calls that change something.
    pub fn mutations(&self) -> u64 {
        self.0
            .iter()
            .filter(|(action, _)| !action.is_describe())
            .map(|(_, count)| count.total())
            .sum()
    }

    /// Starts over.
    pub fn reset(&mut self) {
        self.0.clear();
    }

    pub(super) fn entry(&mut self, action: Action) -> &mut ActionCount {
        self.0.entry(action).or_default()
    }
}
