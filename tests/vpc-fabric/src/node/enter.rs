//! Entering a sandbox's node from outside: `vpc-sim exec NODE -- CMD`.
//!
//! The caller knows two pids: that of the sandbox's init as it sees it, and that of the node's thread as the sandbox
//! sees it. The first leads into the sandbox, where the private /proc shows the second.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, chdir};

use crate::os::{SingleThreaded, fork_single_threaded};

/// Where to go: see [`crate::Sandbox::host_init_pid`] and [`super::Node::pid`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeAddress {
    /// The sandbox's init, as the caller's /proc shows it.
    pub host_init_pid: Pid,
    /// The node's thread, as the sandbox's /proc shows it; `None` enters the sandbox itself (the fabric).
    pub node_pid: Option<Pid>,
}

/// A node that could not be entered, or a program that could not be run there.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// Threads cannot change user or mount namespaces, nor fork.
    #[error("a node must be entered before any thread is started")]
    Threads,
    /// The process is gone, or belongs to another user.
    #[error("cannot open {path} (has the simulator ended, or does it belong to another user?)")]
    Open {
        /// Namespace file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The kernel refused.
    #[error("{operation} failed")]
    Call {
        /// System call and object.
        operation: &'static str,
        /// Why.
        #[source]
        source: Errno,
    },
    /// No such program in the node, or it may not be executed.
    #[error("cannot execute {program}")]
    Execute {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

fn call(operation: &'static str) -> impl FnOnce(Errno) -> EnterError {
    move |source| EnterError::Call { operation, source }
}

/// Runs a program in a node with the caller's streams and environment, and returns its exit status (128 + n for
/// signal n). Must be called while the process has one thread. An error may be returned in the process that was to
/// become the program; then the caller's process gets the status with which that one ends.
pub fn exec_in(address: NodeAddress, program: &OsString, args: &[OsString]) -> Result<u8, EnterError> {
    let proof = SingleThreaded::check().ok_or(EnterError::Threads)?;
    enter_sandbox(address.host_init_pid)?;
    if let Some(node) = address.node_pid {
        enter_node(node)?;
    }
    // The directory that the caller is in belongs to another mount namespace.
    chdir("/").map_err(call("chdir /"))?;
    // Ctrl-C is for the program; this process goes on waiting for it.
    let keyboard: SigSet = [Signal::SIGINT, Signal::SIGQUIT].into_iter().collect();
    let mut old_mask = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&keyboard), Some(&mut old_mask)).map_err(call("sigprocmask"))?;
    // A pid namespace is only entered by children.
    match fork_single_threaded(&proof).map_err(call("fork"))? {
        ForkResult::Parent { child } => wait(child),
        ForkResult::Child => {
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&old_mask), None).map_err(call("sigprocmask"))?;
            let source = Command::new(program).args(args).exec();
            Err(EnterError::Execute {
                program: program.display().to_string(),
                source,
            })
        }
    }
}

fn enter_sandbox(init: Pid) -> Result<(), EnterError> {
    let dir = PathBuf::from(format!("/proc/{init}/ns"));
    // All are opened first: after the mount namespace is entered, /proc shows other pids.
    let (user, net) = (open(&dir, "user")?, open(&dir, "net")?);
    let (mnt, pid) = (open(&dir, "mnt")?, open(&dir, "pid")?);
    if inode(&user) != inode(&open(Path::new("/proc/self/ns"), "user")?) {
        setns(&user, CloneFlags::CLONE_NEWUSER).map_err(call("setns user"))?;
    }
    setns(&pid, CloneFlags::CLONE_NEWPID).map_err(call("setns pid"))?;
    setns(&net, CloneFlags::CLONE_NEWNET).map_err(call("setns net"))?;
    setns(&mnt, CloneFlags::CLONE_NEWNS).map_err(call("setns mnt"))
}

fn enter_node(node: Pid) -> Result<(), EnterError> {
    let dir = PathBuf::from(format!("/proc/{node}/ns"));
    let (net, mnt) = (open(&dir, "net")?, open(&dir, "mnt")?);
    setns(&net, CloneFlags::CLONE_NEWNET).map_err(call("setns net"))?;
    setns(&mnt, CloneFlags::CLONE_NEWNS).map_err(call("setns mnt"))
}

fn open(dir: &Path, kind: &str) -> Result<File, EnterError> {
    let path = dir.join(kind);
    File::open(&path).map_err(|source| EnterError::Open { path, source })
}

fn inode(file: &File) -> Option<u64> {
    file.metadata().ok().map(|metadata| metadata.ino())
}

fn wait(child: Pid) -> Result<u8, EnterError> {
    match waitpid(child, None).map_err(call("waitpid"))? {
        WaitStatus::Signaled(_, signal, _) => Ok(128 + u8::try_from(signal as i32).unwrap_or(0)),
        WaitStatus::Exited(_, code) => Ok(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
        // Not asked for, so it cannot happen.
        WaitStatus::Stopped(..)
        | WaitStatus::PtraceEvent(..)
        | WaitStatus::PtraceSyscall(_)
        | WaitStatus::Continued(_)
        | WaitStatus::StillAlive => Ok(1),
    }
}
