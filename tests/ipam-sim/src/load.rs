//! I9: what a node costs the account. Counts per hour of a run, judged against named ceilings.

use std::collections::BTreeMap;
use std::time::Duration;

/// EC2 calls that a node may make in an hour, whatever happens to it: a restart every few minutes, edits by hand, a subnet
/// that is full half of the time, targets that change.
pub(crate) const CALLS_PER_HOUR: u64 = 800;
/// Refused attempts per successful call in an hour, in the worst weather that throttling makes.
pub(crate) const THROTTLED_PER_SUCCESS: u64 = 3;
/// Refused attempts in an hour that need no success beside them: a storm may let nothing through.
pub(crate) const THROTTLED_ALONE: u64 = 120;

/// One hour of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hour {
    /// EC2 calls.
    pub calls: u64,
    /// Of these refused for the account's request limit.
    pub throttled: u64,
    /// Of these successful.
    pub done: u64,
}

/// Hours of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Load(BTreeMap<u64, Hour>);

impl Load {
    pub(crate) fn at(&mut self, now: Duration) -> &mut Hour {
        self.0.entry(now.as_secs() / 3_600).or_default()
    }

    /// The largest number of each kind in any hour.
    pub(crate) fn peak(&self) -> Hour {
        self.0.values().fold(Hour::default(), |peak, hour| peak.max(*hour))
    }

    pub(crate) fn i9_calls_stay_below_their_ceilings(&self) -> Result<(), String> {
        for (number, hour) in &self.0 {
            if hour.calls > CALLS_PER_HOUR {
                return Err(format!("I9: {} EC2 calls in hour {number}", hour.calls));
            }
            if hour.throttled > THROTTLED_ALONE + THROTTLED_PER_SUCCESS * hour.done {
                return Err(format!(
                    "I9: {} throttled attempts in hour {number} beside {} successful calls",
                    hour.throttled, hour.done
                ));
            }
        }
        Ok(())
    }
}

impl Hour {
    /// The larger one of each number.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            calls: self.calls.max(other.calls),
            throttled: self.throttled.max(other.throttled),
            done: self.done.max(other.done),
        }
    }
}
