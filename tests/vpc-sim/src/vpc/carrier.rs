//! Waiting until the two ends of a new link really pass packets.
//!
//! The kernel brings a link into operation some time after its second end is set up; packets of the moment between,
//! the first ARP answer for instance, are lost without a trace, and ARP asks again only after a second.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};

/// The kernel defers the change by up to a second; after that something else is wrong, and packets will tell.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE_MS: u8 = 1;

const DEVICES: &str = "/sys/class/net";

/// Waits for all devices of the calling thread's namespace, as its `/sys` shows them.
pub(super) fn wait_for_devices() {
    let entries = std::fs::read_dir(DEVICES).into_iter().flatten();
    // The loopback device has no such state.
    let devices = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|device| !device.ends_with("lo"));
    devices.for_each(|device| wait_for(&device));
}

fn wait_for(device: &Path) {
    let started = Instant::now();
    let state = device.join("operstate");
    while !reads(&state, "up") && started.elapsed() < PATIENCE {
        // Interrupted or not: the loop looks at the clock.
        let _ = poll(&mut [], PollTimeout::from(PAUSE_MS));
    }
}

fn reads(file: &Path, expected: &str) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.trim_end() == expected)
}
