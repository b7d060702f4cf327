//! The two clocks, sampled together once per event.

use std::time::{Duration, SystemTime};

use ipam_core::{BootTime, Now, WallTime};
use nix::time::{ClockId, clock_gettime};

/// Reads `CLOCK_BOOTTIME` and the wall clock.
pub fn now() -> Now {
    let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has CLOCK_BOOTTIME since 2.6.39");
    let wall = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Now {
        boot: BootTime(Duration::from(boot)),
        wall: WallTime(wall),
    }
}
