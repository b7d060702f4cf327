//! The process outside the sandbox: passes signals on to init, and ends it with SIGKILL when it takes too long.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{SandboxError, process, watched_signals};

/// Waits for `init` and returns its exit status.
pub(super) fn supervise(init: Pid, grace: Duration) -> Result<u8, SandboxError> {
    let signals = SignalFd::with_flags(&watched_signals(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(process("signalfd"))?;
    let mut kill_at: Option<Instant> = None;
    loop {
        wait_for_signal(&signals, kill_at)?;
        while let Some(signal) = next_signal(&signals)? {
            if signal != Signal::SIGCHLD {
                // A second request means that the user does not want to wait for the deadline.
                let final_one = kill_at.is_some();
                kill_at = Some(Instant::now() + grace);
                let passed_on = if final_one { Signal::SIGKILL } else { signal };
                kill(init, passed_on).map_err(process("kill"))?;
            }
        }
        if let Some(status) = status_of(waitpid(init, Some(WaitPidFlag::WNOHANG)).map_err(process("waitpid"))?) {
            return Ok(status);
        }
        if kill_at.is_some_and(|at| at <= Instant::now()) {
            kill(init, Signal::SIGKILL).map_err(process("kill"))?;
            return Ok(status_of(waitpid(init, None).map_err(process("waitpid"))?).unwrap_or(1));
        }
    }
}

/// Exit status of a process in the shell's convention, `None` while it lives.
pub(super) fn status_of(status: WaitStatus) -> Option<u8> {
    match status {
        WaitStatus::Exited(_, code) => Some(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
        WaitStatus::Signaled(_, signal, _) => Some(128 + u8::try_from(signal as i32).unwrap_or(0)),
        WaitStatus::Stopped(..)
        | WaitStatus::PtraceEvent(..)
        | WaitStatus::PtraceSyscall(_)
        | WaitStatus::Continued(_)
        | WaitStatus::StillAlive => None,
    }
}

/// The next queued signal, `None` when the queue is empty.
pub(super) fn next_signal(signals: &SignalFd) -> Result<Option<Signal>, SandboxError> {
    let Some(info) = signals.read_signal().map_err(process("read of a signalfd"))? else {
        return Ok(None);
    };
    let number = i32::try_from(info.ssi_signo).unwrap_or(0);
    Signal::try_from(number)
        .map(Some)
        .map_err(process("read of a signalfd"))
}

fn wait_for_signal(signals: &SignalFd, until: Option<Instant>) -> Result<(), SandboxError> {
    let timeout = until.map_or(PollTimeout::NONE, |at| {
        let left = at.saturating_duration_since(Instant::now());
        // One millisecond more than is left: poll's clock rounds down, and an early wake-up would spin.
        PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
    });
    poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], timeout).map_err(process("poll"))?;
    Ok(())
}
