//! Network namespaces: opening them by path, telling them apart, and running code inside one.
//!
//! Invariant: a thread that enters a namespace through `run` is back in its own when `run` returns or unwinds. If the kernel
//! will not let it back, the process aborts: a daemon that goes on in a pod's namespace would change the wrong machine.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use crate::sys;

/// The namespace of the calling thread; `/proc/self` would be that of the main thread.
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// A path that does not lead to a usable network namespace.
#[derive(Debug, thiserror::Error)]
pub enum NetNsError {
    /// Nothing is there: the sandbox is gone.
    #[error("network namespace {path} does not exist")]
    Missing {
        /// The path as given.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{path} is no network namespace")]
    NotANamespace {
        /// The path as given.
        path: PathBuf,
    },
    /// It cannot be opened or inspected.
    #[error("open network namespace {path}")]
    Open {
        /// The path as given.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It cannot be entered.
    #[error("enter network namespace {path}")]
    Enter {
        /// The path as given.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// An open network namespace; it lives at least as long as this.
#[derive(Debug)]
pub struct NetNs {
    file: File,
    path: PathBuf,
}

impl NetNs {
    /// Opens a namespace file such as `/var/run/netns/x` or `/proc/1/ns/net`.
    pub fn open(path: &Path) -> Result<Self, NetNsError> {
        let named = || path.to_owned();
        // Looked at before it is opened: opening a FIFO would block, and the path comes from outside.
        let metadata = std::fs::metadata(path).map_err(|source| {
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
                NetNsError::Missing { path: named() }
            } else {
                NetNsError::Open { path: named(), source }
            }
        })?;
        if !metadata.is_file() {
            return Err(NetNsError::NotANamespace { path: named() });
        }
        let file = File::open(path).map_err(|source| NetNsError::Open { path: named(), source })?;
        let kind = fstatfs(&file).map_err(|errno| NetNsError::Open {
            path: named(),
            source: errno.into(),
        })?;
        if kind.filesystem_type() != NSFS_MAGIC {
            return Err(NetNsError::NotANamespace { path: named() });
        }
        match sys::namespace_kind(file.as_fd()) {
            Ok(libc::CLONE_NEWNET) => Ok(Self { file, path: named() }),
            Ok(_) => Err(NetNsError::NotANamespace { path: named() }),
            Err(source) => Err(NetNsError::Open { path: named(), source }),
        }
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, NetNsError> {
        Self::open(Path::new(OWN_NAMESPACE))
    }

    /// Another handle of the same namespace.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
            path: self.path.clone(),
        })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Both are the same namespace, by whatever paths they were opened.
    pub fn is_same(&self, other: &Self) -> io::Result<bool> {
        let (ours, theirs) = (self.file.metadata()?, other.file.metadata()?);
        Ok((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()))
    }

    /// Runs `inside` in this namespace, on this thread. Other threads are not affected.
    pub fn run<T>(&self, inside: impl FnOnce() -> T) -> Result<T, NetNsError> {
        let home = Self::current()?;
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|errno| NetNsError::Enter {
            path: self.path.clone(),
            source: errno.into(),
        })?;
        let _return = Return(home);
        Ok(inside())
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

struct Return(NetNs);

impl Drop for Return {
    fn drop(&mut self) {
        if setns(&self.0.file, CloneFlags::CLONE_NEWNET).is_err() {
            std::process::abort();
        }
    }
}
