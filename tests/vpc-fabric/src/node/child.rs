//! Running programs of a node: how they are started, talked to with a deadline, and ended.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::NodeError;
use crate::os::pidfd_open;

/// Times to look for processes of a node that is going away; each round also catches those forked during the last.
const KILL_ROUNDS: usize = 20;

/// A command whose files are open, so that it can be started in another mount namespace.
pub(super) struct PreparedCommand {
    pub(super) program: String,
    pub(super) command: Command,
}

impl PreparedCommand {
    /// Starts it in the namespaces of the calling thread.
    pub(super) fn spawn(mut self) -> Result<NodeChild, NodeError> {
        let failed = |source| NodeError::Spawn {
            program: self.program.clone(),
            source,
        };
        let child = self.command.spawn().map_err(failed)?;
        let pid = i32::try_from(child.id())
            .map(Pid::from_raw)
            .map_err(|_| failed(Errno::ESRCH.into()))?;
        let pidfd = pidfd_open(pid).map_err(|errno| failed(errno.into()))?;
        Ok(NodeChild {
            program: self.program,
            child,
            pid,
            pidfd,
        })
    }
}

/// What a finished program left.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// All of stdout.
    pub stdout: Vec<u8>,
    /// All of stderr.
    pub stderr: Vec<u8>,
    /// From start of the wait to its end.
    pub elapsed: Duration,
}

/// A program running in a node. Dropping it does not end it; the end of its node or sandbox does.
#[derive(Debug)]
pub struct NodeChild {
    program: String,
    child: Child,
    pid: Pid,
    pidfd: OwnedFd,
}

impl NodeChild {
    /// Its pid in the sandbox.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// How it ended, `None` while it runs.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, NodeError> {
        self.child.try_wait().map_err(|source| NodeError::Wait {
            program: self.program.clone(),
            source,
        })
    }

    /// Waits until it ends, `None` at the deadline.
    pub fn wait(&mut self, deadline: Duration) -> Result<Option<ExitStatus>, NodeError> {
        let until = Instant::now() + deadline;
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            self.poll(&mut [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)], until)?;
        }
    }

    /// Sends a signal; nothing happens if it has ended and been waited for.
    pub fn signal(&mut self, signal: Signal) -> Result<(), NodeError> {
        if self.try_wait()?.is_some() {
            return Ok(());
        }
        kill(self.pid, signal).map_err(|errno| NodeError::Wait {
            program: self.program.clone(),
            source: errno.into(),
        })
    }

    /// SIGKILL, and wait.
    pub fn kill(&mut self) -> Result<ExitStatus, NodeError> {
        self.signal(Signal::SIGKILL)?;
        self.child.wait().map_err(|source| NodeError::Wait {
            program: self.program.clone(),
            source,
        })
    }

    /// Feeds `input` to its stdin and collects its output until it ends. Output of grandchildren that outlive it is
    /// not waited for. At the deadline it is killed.
    pub fn communicate(mut self, input: &[u8], deadline: Duration) -> Result<Output, NodeError> {
        let start = Instant::now();
        let mut pipes = Pipes::take(&mut self.child, input).map_err(|source| self.lost(source))?;
        loop {
            let ended = self.try_wait()?;
            pipes.exchange().map_err(|source| self.lost(source))?;
            if let Some(status) = ended {
                let (stdout, stderr) = (pipes.stdout.bytes, pipes.stderr.bytes);
                return Ok(Output {
                    status,
                    stdout,
                    stderr,
                    elapsed: start.elapsed(),
                });
            }
            if start.elapsed() >= deadline {
                self.kill()?;
                return Err(NodeError::Deadline {
                    program: self.program,
                    deadline,
                });
            }
            let mut fds = pipes.poll_fds();
            fds.push(PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN));
            self.poll(&mut fds, start + deadline)?;
        }
    }

    fn lost(&self, source: std::io::Error) -> NodeError {
        NodeError::Wait {
            program: self.program.clone(),
            source,
        }
    }

    fn poll(&self, fds: &mut [PollFd<'_>], until: Instant) -> Result<(), NodeError> {
        let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        match poll(fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(self.lost(errno.into())),
        }
    }
}

/// The child's three streams, non-blocking.
struct Pipes<'a> {
    stdin: Option<std::process::ChildStdin>,
    input: &'a [u8],
    stdout: Collector<std::process::ChildStdout>,
    stderr: Collector<std::process::ChildStderr>,
}

struct Collector<R> {
    pipe: Option<R>,
    bytes: Vec<u8>,
}

impl<R: Read + AsFd> Collector<R> {
    fn new(pipe: Option<R>) -> std::io::Result<Self> {
        pipe.iter().try_for_each(|pipe| set_nonblocking(pipe.as_fd()))?;
        Ok(Self {
            pipe,
            bytes: Vec::new(),
        })
    }

    fn drain(&mut self) -> std::io::Result<()> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        match pipe.read_to_end(&mut self.bytes) {
            Ok(_) => self.pipe = None,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl<'a> Pipes<'a> {
    fn take(child: &mut Child, input: &'a [u8]) -> std::io::Result<Self> {
        let stdin = child.stdin.take();
        stdin.iter().try_for_each(|pipe| set_nonblocking(pipe.as_fd()))?;
        let (stdout, stderr) = (
            Collector::new(child.stdout.take())?,
            Collector::new(child.stderr.take())?,
        );
        Ok(Self {
            stdin,
            input,
            stdout,
            stderr,
        })
    }

    fn exchange(&mut self) -> std::io::Result<()> {
        self.feed()?;
        self.stdout.drain()?;
        self.stderr.drain()
    }

    fn feed(&mut self) -> std::io::Result<()> {
        while let Some(stdin) = self.stdin.as_mut().filter(|_| !self.input.is_empty()) {
            match stdin.write(self.input) {
                Ok(count) => self.input = &self.input[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The program does not want its input: its own affair.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
                Err(error) => return Err(error),
            }
        }
        self.stdin = None;
        Ok(())
    }

    fn poll_fds(&self) -> Vec<PollFd<'_>> {
        let stdin = self
            .stdin
            .iter()
            .map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLOUT));
        let stdout = self
            .stdout
            .pipe
            .iter()
            .map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
        let stderr = self
            .stderr
            .pipe
            .iter()
            .map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
        stdin.chain(stdout).chain(stderr).collect()
    }
}

fn set_nonblocking(fd: std::os::fd::BorrowedFd<'_>) -> std::io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
        .map(drop)
        .map_err(std::io::Error::from)
}

/// Kills every process whose main thread shares the network or the mounts of `thread`, except this one. A program in a
/// pod has another network but the node's mounts.
pub(super) fn kill_all_around(thread: Pid) {
    let wanted = namespaces_of(thread.as_raw());
    for _ in 0..KILL_ROUNDS {
        let found = processes_in(&wanted);
        if found.is_empty() {
            return;
        }
        for pid in found {
            // It may have ended by itself since it was seen.
            let _ = kill(pid, Signal::SIGKILL);
            if let Ok(pidfd) = pidfd_open(pid) {
                let _ = poll(
                    &mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)],
                    PollTimeout::from(100u8),
                );
            }
        }
    }
}

fn processes_in(wanted: &BTreeSet<u64>) -> Vec<Pid> {
    let own = Pid::this().as_raw();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let here = pids
        .filter(|pid| *pid != own)
        .filter(|pid| !namespaces_of(*pid).is_disjoint(wanted));
    here.map(Pid::from_raw).collect()
}

/// Zombies have no namespaces any more, so they are not found.
fn namespaces_of(pid: i32) -> BTreeSet<u64> {
    use std::os::unix::fs::MetadataExt;
    let files = ["net", "mnt"].map(|kind| std::fs::metadata(format!("/proc/{pid}/ns/{kind}")));
    files.into_iter().flatten().map(|metadata| metadata.ino()).collect()
}
