//! Aborts: what is written down when the daemon breaks its own rules, and what the next start makes of it.
//!
//! A panic on any thread ends the whole process: half a daemon would look alive. The history lies beside the state, on a
//! file system that a reboot empties.

use std::fs;
use std::path::{Path, PathBuf};

use ipam_core::{AbortHistory, StartMode};

use crate::clock;
use crate::paths::Paths;

/// Identifies this boot of the kernel.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The kernel's boot id; empty where there is none.
pub fn boot_id() -> String {
    fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned()
}

/// How to start after what happened before.
pub fn start_mode(paths: &Paths) -> StartMode {
    read(&paths.aborts).start_mode(clock::now().boot)
}

/// From now on a panic is logged, written down, and ends the process.
pub fn end_the_process_on_panic(paths: &Paths) {
    let file = paths.aborts.clone();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!(%panic, "aborting");
        record(&file);
        std::process::abort();
    }));
}

fn read(file: &Path) -> AbortHistory {
    let text = fs::read_to_string(file).unwrap_or_default();
    AbortHistory::parse(&text, &boot_id())
}

/// Nobody is left to tell of a failure.
fn record(file: &PathBuf) {
    let mut history = read(file);
    history.record(clock::now().boot);
    let _ = fs::write(file, history.to_text());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_aborts_in_a_row_are_found_by_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path().to_str().unwrap(), "/ipam.json");
        assert_eq!(start_mode(&paths), StartMode::Normal);
        record(&paths.aborts);
        record(&paths.aborts);
        assert_eq!(start_mode(&paths), StartMode::Normal);
        record(&paths.aborts);
        assert_eq!(start_mode(&paths), StartMode::Safe);
    }
}
