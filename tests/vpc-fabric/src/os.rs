//! The two system calls without a safe form: fork without exec, and pidfd_open. All unsafe code of the crate is here.

use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::{ForkResult, Pid, fork};

/// Proof that this process had exactly one thread when it was asked.
#[derive(Debug)]
pub(crate) struct SingleThreaded(());

impl SingleThreaded {
    /// `None` if other threads exist, or if /proc cannot tell.
    pub(crate) fn check() -> Option<Self> {
        let threads = std::fs::read_dir("/proc/self/task").ok()?.count();
        (threads == 1).then_some(Self(()))
    }
}

/// Forks without exec.
#[expect(
    unsafe_code,
    reason = "fork(2) has no safe form; the argument proves the condition under which it is sound"
)]
pub(crate) fn fork_single_threaded(_proof: &SingleThreaded) -> nix::Result<ForkResult> {
    // SAFETY: the process has one thread (`SingleThreaded` is only made after counting), so no lock can be held by a
    // thread that does not exist in the child, and the child may run any code.
    unsafe { fork() }
}

/// A descriptor that becomes readable when the process ends.
#[expect(unsafe_code, reason = "neither std nor nix offers pidfd_open(2)")]
pub(crate) fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: the call takes two integers and reads no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = i32::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just returned this descriptor (close-on-exec), and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
