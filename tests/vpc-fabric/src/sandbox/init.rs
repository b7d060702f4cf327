//! Pid 1 of the sandbox: bound to the supervisor's life, reaps orphans, passes signals on to main.
//!
//! A pid namespace's first process ignores signals it has no handler for, therefore it reads them from a signalfd.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, setsid};

use super::supervise::{next_signal, status_of};
use super::{SandboxError, process, watched_signals};

/// Exit status of a process that SIGKILL ended, as shells show it.
const KILLED: u8 = 128 + 9;

/// Makes the kernel kill this process when the supervisor ends, and checks that it has not ended already.
///
/// The pipe closes the gap between fork and prctl: `getppid` cannot, because the parent is outside the pid namespace
/// and reads as 0 dead or alive.
pub(super) fn bind_to_supervisor(lifeline: &OwnedFd) -> Result<(), SandboxError> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(process("prctl PR_SET_PDEATHSIG"))?;
    prctl::set_name(c"sandbox-init").map_err(process("prctl PR_SET_NAME"))?;
    // A session of its own: Ctrl-C in a terminal reaches the supervisor alone, which passes it on in order.
    setsid().map_err(process("setsid"))?;
    let mut fds = [PollFd::new(lifeline.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).map_err(process("poll"))?;
    if is_closed(&fds[0]) {
        Err(SandboxError::SupervisorGone)
    } else {
        Ok(())
    }
}

/// This process's pid in the pid namespace that the current /proc was mounted in.
pub(super) fn pid_seen_from_outside() -> Result<Pid, SandboxError> {
    let create = |source| SandboxError::Create {
        path: "/proc/self".into(),
        source,
    };
    let link = std::fs::read_link("/proc/self").map_err(create)?;
    let pid = link.to_str().and_then(|text| text.parse().ok());
    pid.map(Pid::from_raw).ok_or(SandboxError::Process {
        operation: "readlink /proc/self",
        source: Errno::EINVAL,
    })
}

/// Waits for `main`, reaping whatever else ends, and returns its exit status.
pub(super) fn run(main: Pid, lifeline: &OwnedFd) -> Result<u8, SandboxError> {
    let signals = SignalFd::with_flags(&watched_signals(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(process("signalfd"))?;
    loop {
        let mut fds = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(lifeline.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(source) => {
                return Err(SandboxError::Process {
                    operation: "poll",
                    source,
                });
            }
        }
        if is_closed(&fds[1]) {
            // The supervisor was killed; so is this process, unless it ends first.
            return Ok(KILLED);
        }
        while let Some(signal) = next_signal(&signals)? {
            if signal != Signal::SIGCHLD {
                // Main may be a zombie by now; its status is collected below.
                let _ = kill(main, signal);
            }
        }
        if let Some(status) = reap(main)? {
            return Ok(status);
        }
    }
}

fn is_closed(fd: &PollFd<'_>) -> bool {
    fd.revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
}

/// Collects all ended children; the exit status if `main` was among them.
fn reap(main: Pid) -> Result<Option<u8>, SandboxError> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return Ok(None),
            Ok(status) if status.pid() == Some(main) => {
                if let Some(code) = status_of(status) {
                    return Ok(Some(code));
                }
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(source) => {
                return Err(SandboxError::Process {
                    operation: "waitpid",
                    source,
                });
            }
        }
    }
}
