//! The `iptables-legacy` kind: read a table, leave the reference's entries out, put the rest back with its counters.
//!
//! Merely asking for a table that the kernel has not loaded would load it, so `/proc` is asked first. Other xtables programs
//! are kept out by the lock file that they all use; who does not use it is noticed, because the kernel refuses a replacement
//! that does not know the number of entries it replaces.

mod sockopt;
mod table;
#[cfg(test)]
mod tests;
mod without;

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use netlink::Errno;

use self::sockopt::TableSocket;
use super::Leftovers;
use super::traces::TABLES;

pub use table::{Malformed, TableInfo};
pub use without::{Replacement, without_leftovers};

/// Tables that are loaded, in this thread's namespace.
const NAMES: &str = "/proc/thread-self/net/ip_tables_names";
/// kube-proxy holds the lock for seconds when it writes thousands of rules.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);
const LOCK_POLL: Duration = Duration::from_millis(50);
/// Somebody without the lock changed the table between our reading and our writing.
const TRIES: usize = 5;

/// A table that is as it was, except after [`LegacyError::Counters`].
#[derive(Debug, thiserror::Error)]
pub enum LegacyError {
    /// Which tables there are cannot be read.
    #[error("read {NAMES}")]
    Names(#[source] io::Error),
    /// The lock file cannot be made or locked.
    #[error("lock {}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another program held the lock all the time.
    #[error("another program has held {} for {} s", path.display(), LOCK_TIMEOUT.as_secs())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// No socket.
    #[error("open a socket")]
    Open(#[source] io::Error),
    /// The table cannot be read.
    #[error("read table {table}")]
    Read {
        /// Which.
        table: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The table makes no sense to us, so that it is not touched.
    #[error("understand table {table}")]
    Malformed {
        /// Which.
        table: &'static str,
        /// What is wrong.
        #[source]
        source: Malformed,
    },
    /// The new table was refused.
    #[error("replace table {table}")]
    Replace {
        /// Which.
        table: &'static str,
        /// What the kernel said; EAGAIN if others changed the table each time.
        #[source]
        source: io::Error,
    },
    /// The reference's rules are gone, and the counters of all other rules begin at 0.
    #[error("restore the counters of table {table}")]
    Counters {
        /// Which.
        table: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

pub(super) fn find() -> Result<Leftovers, LegacyError> {
    let mut all = Leftovers::default();
    for table in loaded()? {
        let socket = TableSocket::open().map_err(LegacyError::Open)?;
        let found = look(&socket, table)?;
        all = all.plus(found.map(|(_, without)| without.removed).unwrap_or_default());
    }
    Ok(all)
}

pub(super) fn remove(lock: &Path) -> Result<Leftovers, LegacyError> {
    if find()?.is_empty() {
        return Ok(Leftovers::default());
    }
    let _held = wait_for_lock(lock)?;
    let socket = TableSocket::open().map_err(LegacyError::Open)?;
    let mut all = Leftovers::default();
    for table in loaded()? {
        all = all.plus(remove_from(&socket, table)?);
    }
    Ok(all)
}

/// Those of the reference's tables that the kernel has. Without the module there is no file.
fn loaded() -> Result<Vec<&'static str>, LegacyError> {
    let names = match fs::read_to_string(NAMES) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(LegacyError::Names(error)),
    };
    let tables = TABLES.iter().map(|(table, _)| *table);
    Ok(tables
        .filter(|table| names.lines().any(|name| name == *table))
        .collect())
}

fn look(socket: &TableSocket, table: &'static str) -> Result<Option<(TableInfo, Replacement)>, LegacyError> {
    let read = |source| LegacyError::Read { table, source };
    let malformed = |source| LegacyError::Malformed { table, source };
    let info = TableInfo::parse(&socket.info(table).map_err(read)?).map_err(malformed)?;
    let entries = socket.entries(table, info.size).map_err(read)?;
    let without = without_leftovers(table, &info, &entries).map_err(malformed)?;
    Ok(without.map(|without| (info, without)))
}

fn remove_from(socket: &TableSocket, table: &'static str) -> Result<Leftovers, LegacyError> {
    let mut last = io::Error::from(Errno::EAGAIN);
    for _ in 0..TRIES {
        let (info, without) = match look(socket, table) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(Leftovers::default()),
            Err(LegacyError::Read { source, .. }) if is_changed(&source) => continue,
            Err(error) => return Err(error),
        };
        let old = match socket.replace(&without.message(&info), info.entries) {
            Ok(counters) => counters,
            Err(error) if is_changed(&error) => {
                last = error;
                continue;
            }
            Err(source) => return Err(LegacyError::Replace { table, source }),
        };
        let counters = without.counters(&old);
        socket
            .add_counters(table, &counters)
            .map_err(|source| LegacyError::Counters { table, source })?;
        return Ok(without.removed);
    }
    Err(LegacyError::Replace { table, source: last })
}

/// The kernel's word for a table that is not the one that was read before.
fn is_changed(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EAGAIN as i32)
}

fn wait_for_lock(path: &Path) -> Result<File, LegacyError> {
    let failed = |source| LegacyError::Lock {
        path: path.to_owned(),
        source,
    };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    // A lock on a file tells nobody when it is given back.
    let (_keep, never) = mpsc::channel::<()>();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(LegacyError::Locked { path: path.to_owned() });
            }
            Err(TryLockError::WouldBlock) => {
                let _ = never.recv_timeout(LOCK_POLL);
            }
        }
    }
}
