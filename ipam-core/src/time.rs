//! Time as the core sees it: two readings, sampled once per event by the shell.
//!
//! Decisions use [`BootTime`], which no administrator can turn back; [`WallTime`] only reaches files and tags.

use std::time::Duration;

/// Time since boot, suspend included (`CLOCK_BOOTTIME`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct BootTime(pub Duration);

impl BootTime {
    /// The moment `duration` later.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    /// Time that passed since `earlier`; zero if `earlier` lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Time since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct WallTime(pub Duration);

impl WallTime {
    /// Nanoseconds since the epoch, as the checkpoint stores them.
    pub fn as_nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Both readings of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// For decisions.
    pub boot: BootTime,
    /// For files and tags.
    pub wall: WallTime,
}

/// As files hold it: milliseconds since boot.
pub(crate) fn millis(time: BootTime) -> u64 {
    u64::try_from(time.0.as_millis()).unwrap_or(u64::MAX)
}

/// Inverse of [`millis`].
pub(crate) fn boot(millis: u64) -> BootTime {
    BootTime(Duration::from_millis(millis))
}
