//! What a predecessor left, once per start: its iptables rules, and the rules that an older release made for its pods.
//!
//! The iptables rules go when our own are in, on a thread of its own: they do no harm for now, and another program may hold the
//! lock of xtables for long. What cannot be removed stays until the next start, and the audit names it. Pods' rules are settled by
//! the kernel thread, as soon as a pod from the files counts as wired and its ENI is ready.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use datapath::takeover::{Variant, remove_leftovers};
use ipam_core::{EniPhase, Lease, LeaseState, Pool};
use vpc_types::{IpamKey, RouteTableId};

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

/// Pods that were there before us, and whose rules were not looked at yet. Those that come later are wired by our plugin, which
/// leaves no other rule.
#[derive(Debug)]
pub(crate) struct Unsettled(BTreeSet<IpamKey>);

impl Unsettled {
    /// The pods that the files name.
    pub(crate) fn of(pool: &Pool) -> Self {
        Self(pool.leases().map(|lease| lease.key.clone()).collect())
    }

    /// Those that can be settled now, with the tables of their ENIs; each once. For the caller to order it in the same queue as the
    /// clearing of addresses, so that none is settled after its end.
    pub(crate) fn take(&mut self, pool: &Pool) -> BTreeMap<Ipv4Addr, RouteTableId> {
        let mut ready = BTreeMap::new();
        self.0.retain(|key| match pool.lease(key) {
            None => false,
            Some(lease) if lease.state == LeaseState::Wired && is_home_ready(pool, lease) => {
                ready.insert(lease.address, lease.table);
                false
            }
            Some(_) => true,
        });
        ready
    }
}

fn is_home_ready(pool: &Pool, lease: &Lease) -> bool {
    let home = pool.enis().find(|eni| eni.address(lease.address).is_some());
    home.is_some_and(|eni| eni.phase == EniPhase::Ready && eni.table() == lease.table)
}
