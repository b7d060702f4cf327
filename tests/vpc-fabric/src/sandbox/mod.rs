//! A sandbox: user (when not root), network, mount and pid namespaces of its own, entered by the calling process.
//!
//! Three processes, made by two forks without exec:
//!
//! ```text
//! supervisor (outside the pid namespace; what the user started)   passes signals on, kills after a deadline
//!   └ init (pid 1: reaps orphans, passes signals on; its end ends everything)
//!       └ main (returns from `enter` as `Entry::Inside`; may use threads from here on)
//! ```
//!
//! Invariant: whichever of the three ends, by whatever signal, the kernel ends all processes of the sandbox, and with
//! them every namespace and mount. There is no clean-up code that could be skipped. The network namespace of `main` is
//! new and empty except for `lo`; `/proc`, `/sys` and `/run` are private, everything else of the file system is the
//! machine's: what is to be seen from outside (a state file, logs to keep) must lie there, for instance in /tmp.
//!
//! Called first thing in `main` of the simulator, the demo and the tests: a user namespace cannot be entered, and a
//! fork is not sound, once a second thread exists.

mod init;
pub(crate) mod mounts;
mod supervise;

use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{ForkResult, Pid, getegid, geteuid, pipe2};

use crate::os::{SingleThreaded, fork_single_threaded};

/// How the namespaces are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Privilege {
    /// Root without a user namespace if that is permitted, otherwise a user namespace.
    #[default]
    Detect,
    /// Always a user namespace in which the caller is uid 0, also for root.
    UserNamespace,
}

/// What a caller decides about its sandbox.
#[derive(Debug, Clone)]
pub struct SandboxConfig {
    /// See [`Privilege`].
    pub privilege: Privilege,
    /// Time between the first TERM, INT or HUP and the SIGKILL that ends whatever is left.
    pub grace: Duration,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            privilege: Privilege::Detect,
            grace: Duration::from_secs(10),
        }
    }
}

/// On which side of the fork the caller finds itself after [`enter`].
#[derive(Debug)]
pub enum Entry {
    /// Inside: go on with the work. Threads may be started now.
    Inside(Sandbox),
    /// The work has ended in another process: end with this exit status (128 + n if signal n ended it). Supervisor
    /// and init both return this.
    Ended(u8),
}

/// A process inside its sandbox.
#[derive(Debug)]
pub struct Sandbox {
    host_init_pid: Pid,
}

impl Sandbox {
    /// The pid of the sandbox's init as processes outside see it: what `exec` from outside needs.
    pub fn host_init_pid(&self) -> Pid {
        self.host_init_pid
    }
}

/// A sandbox that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Entered too late.
    #[error("a sandbox must be entered before any thread is started")]
    Threads,
    /// The kernel refused the namespaces; rootless use needs unprivileged user namespaces.
    #[error("cannot make {kind} namespaces (is user.max_user_namespaces 0, or are they restricted by policy?)")]
    Namespaces {
        /// Which kinds.
        kind: &'static str,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The maps of the user namespace could not be written.
    #[error("cannot write {path}")]
    IdMap {
        /// The file under /proc/self.
        path: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Namespaces could be made, but not used.
    #[error(
        "user namespaces have no rights on this machine (Ubuntu: sysctl kernel.apparmor_restrict_unprivileged_userns=0, \
         or run as root)"
    )]
    Restricted {
        /// Why.
        #[source]
        source: Errno,
    },
    /// A mount failed.
    #[error("cannot mount {what} on {target}")]
    Mount {
        /// File system or bind source.
        what: String,
        /// Mount point.
        target: String,
        /// Why.
        #[source]
        source: Errno,
    },
    /// A directory or file could not be made.
    #[error("cannot create {path}")]
    Create {
        /// What.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A process, pipe or signal call failed.
    #[error("{operation} failed")]
    Process {
        /// The system call.
        operation: &'static str,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The supervisor ended while the sandbox was being set up.
    #[error("the supervisor ended during set-up")]
    SupervisorGone,
}

/// Names the system call that failed.
fn process(operation: &'static str) -> impl FnOnce(Errno) -> SandboxError {
    move |source| SandboxError::Process { operation, source }
}

/// The signals that supervisor and init wait for instead of being ended by them.
fn watched_signals() -> SigSet {
    [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGCHLD,
    ]
    .into_iter()
    .collect()
}

/// Enters a new sandbox. Returns three times, once in each process of the module's figure; only one of them is
/// [`Entry::Inside`]. An error is returned in exactly one process; the others return [`Entry::Ended`] with its status.
pub fn enter(config: &SandboxConfig) -> Result<Entry, SandboxError> {
    let proof = SingleThreaded::check().ok_or(SandboxError::Threads)?;
    unshare_namespaces(config.privilege)?;
    let mut old_mask = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&watched_signals()), Some(&mut old_mask))
        .map_err(process("sigprocmask"))?;
    let (lifeline, held_by_supervisor) = pipe2(OFlag::O_CLOEXEC).map_err(process("pipe2"))?;
    match fork_single_threaded(&proof).map_err(process("fork"))? {
        ForkResult::Parent { child } => {
            drop(lifeline);
            let status = supervise::supervise(child, config.grace)?;
            drop(held_by_supervisor);
            Ok(Entry::Ended(status))
        }
        ForkResult::Child => {
            drop(held_by_supervisor);
            become_init(&proof, lifeline, &old_mask)
        }
    }
}

/// The life of pid 1, from the fork to its end, and the birth of main.
fn become_init(proof: &SingleThreaded, lifeline: OwnedFd, old_mask: &SigSet) -> Result<Entry, SandboxError> {
    init::bind_to_supervisor(&lifeline)?;
    let host_init_pid = init::pid_seen_from_outside()?;
    mounts::make_private()?;
    match fork_single_threaded(proof).map_err(process("fork"))? {
        ForkResult::Parent { child } => Ok(Entry::Ended(init::run(child, &lifeline)?)),
        ForkResult::Child => {
            drop(lifeline);
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(old_mask), None).map_err(process("sigprocmask"))?;
            Ok(Entry::Inside(Sandbox { host_init_pid }))
        }
    }
}

fn unshare_namespaces(privilege: Privilege) -> Result<(), SandboxError> {
    let plain = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    if privilege == Privilege::Detect && geteuid().is_root() {
        match unshare(plain) {
            Ok(()) => return Ok(()),
            // Root without CAP_SYS_ADMIN, as in an ordinary container: same way as any other user.
            Err(Errno::EPERM) => {}
            Err(source) => {
                return Err(SandboxError::Namespaces {
                    kind: "network, mount and pid",
                    source,
                });
            }
        }
    }
    let (uid, gid) = (geteuid(), getegid());
    unshare(plain | CloneFlags::CLONE_NEWUSER).map_err(|source| SandboxError::Namespaces {
        kind: "user, network, mount and pid",
        source,
    })?;
    // A gid map may be written by an unprivileged process only after setgroups is given up.
    write_map("/proc/self/setgroups", "deny")?;
    write_map("/proc/self/uid_map", &format!("0 {uid} 1"))?;
    write_map("/proc/self/gid_map", &format!("0 {gid} 1"))
}

fn write_map(path: &'static str, text: &str) -> Result<(), SandboxError> {
    std::fs::write(path, text).map_err(|source| SandboxError::IdMap { path, source })
}
