//! The end of the reference's iptables rules: once per start, when our own are in, on a thread of its own.
//!
//! Nothing waits for it: the rules do no harm for now, and another program may hold the lock of xtables for long. What cannot
//! be removed stays until the next start, and the audit names it.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use datapath::takeover::{Variant, remove_leftovers};

use crate::observe::Chain;

/// Removes the leftovers of both kinds. `lock` is the file by which xtables programs exclude each other.
pub fn start(lock: PathBuf) -> io::Result<()> {
    thread::Builder::new().name("takeover".to_owned()).spawn(move || {
        for variant in [Variant::Nft, Variant::Legacy] {
            remove(variant, &lock);
        }
    })?;
    Ok(())
}

fn remove(variant: Variant, lock: &Path) {
    let started = Instant::now();
    let program = variant.program();
    match remove_leftovers(variant, lock) {
        Ok(removed) if removed.is_empty() => {
            tracing::debug!(program, took = ?started.elapsed(), "no rules of a predecessor");
        }
        Ok(removed) => tracing::info!(
            program,
            rules = removed.rules,
            chains = removed.chains,
            took = ?started.elapsed(),
            "removed a predecessor's rules"
        ),
        Err(error) => {
            tracing::error!(program, error = %Chain(&error), "a predecessor's rules stay until the next start");
        }
    }
}
