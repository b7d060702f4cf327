//! Deadlines on the boot-time clock.
//!
//! That clock goes on while the machine is suspended, and so does ipamd's: a plugin that was stopped for an hour must
//! find its time used up, because its address may have been given to another pod meanwhile.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline {
    since_boot: Duration,
}

impl Deadline {
    /// That much time from now on.
    pub(crate) fn after(time: Duration) -> Self {
        Self {
            since_boot: now() + time,
        }
    }

    /// What is left; zero when it has passed.
    pub(crate) fn remaining(self) -> Duration {
        self.since_boot.saturating_sub(now())
    }

    /// Whether it has passed.
    pub(crate) fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// The earlier one of this and `time` from now on.
    pub(crate) fn within(self, time: Duration) -> Self {
        self.min(Self::after(time))
    }
}

/// Time since boot.
pub(crate) fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .expect("Linux has had this clock since 2.6.39")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_passes() {
        assert!(Deadline::after(Duration::ZERO).has_passed());
        let long = Deadline::after(Duration::from_secs(60));
        assert!(!long.has_passed() && long.remaining() <= Duration::from_secs(60));
        assert!(long.within(Duration::from_secs(1)) < long && long.within(Duration::from_secs(90)) == long);
    }
}
