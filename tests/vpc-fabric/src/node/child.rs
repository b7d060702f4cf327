//! Programs in a node: how they are started, talked to with a deadline, and ended.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::NodeError;
use crate::os::pidfd_open;
use crate::place::NetnsRef;

/// Times to look for processes of a node that is going away; each round also catches those forked during the last.
const KILL_ROUNDS: usize = 20;

/// Where one standard stream goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Stream {
    /// /dev/null. The default: a daemon that inherits a stream keeps its reader waiting for ever.
    #[default]
    Null,
    /// That of the calling process.
    Inherit,
    /// Appended to this file, opened in the *caller's* mount namespace.
    AppendTo(PathBuf),
    /// A pipe, see [`NodeChild::communicate`].
    Pipe,
}

/// A program to run: absolute path (as the node sees it), arguments, environment, streams.
#[derive(Debug, Clone)]
pub struct CommandSpec {
    program: PathBuf,
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    directory: PathBuf,
    stdin: Stream,
    stdout: Stream,
    stderr: Stream,
}

impl CommandSpec {
    /// No arguments, an environment that holds only a usual PATH, working directory `/`, all streams /dev/null.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let path = OsString::from("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        Self {
            program: program.into(),
            args: Vec::new(),
            env: BTreeMap::from([("PATH".into(), path)]),
            directory: "/".into(),
            stdin: Stream::Null,
            stdout: Stream::Null,
            stderr: Stream::Null,
        }
    }

    /// Appends an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Appends arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Sets variables.
    #[must_use]
    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(mut self, vars: impl IntoIterator<Item = (N, V)>) -> Self {
        let vars = vars
            .into_iter()
            .map(|(name, value)| (name.as_ref().to_owned(), value.as_ref().to_owned()));
        self.env.extend(vars);
        self
    }

    /// Working directory, as the node sees it.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = directory.into();
        self
    }

    /// Where stdin comes from.
    #[must_use]
    pub fn stdin(mut self, stream: Stream) -> Self {
        self.stdin = stream;
        self
    }

    /// Where stdout goes.
    #[must_use]
    pub fn stdout(mut self, stream: Stream) -> Self {
        self.stdout = stream;
        self
    }

    /// Where stderr goes.
    #[must_use]
    pub fn stderr(mut self, stream: Stream) -> Self {
        self.stderr = stream;
        self
    }

    /// Stdout and stderr appended to one file.
    #[must_use]
    pub fn log_to(self, file: impl Into<PathBuf>) -> Self {
        let file = file.into();
        self.stdout(Stream::AppendTo(file.clone()))
            .stderr(Stream::AppendTo(file))
    }

    /// The program's path.
    pub fn program(&self) -> &Path {
        &self.program
    }

    pub(super) fn prepare(&self) -> Result<PreparedCommand, NodeError> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .envs(&self.env)
            .current_dir(&self.directory);
        command
            .stdin(stdio(&self.stdin)?)
            .stdout(stdio(&self.stdout)?)
            .stderr(stdio(&self.stderr)?);
        Ok(PreparedCommand {
            program: self.program.display().to_string(),
            command,
        })
    }
}

fn stdio(stream: &Stream) -> Result<Stdio, NodeError> {
    Ok(match stream {
        Stream::Null => Stdio::null(),
        Stream::Inherit => Stdio::inherit(),
        Stream::Pipe => Stdio::piped(),
        Stream::AppendTo(path) => {
            let file = File::options().create(true).append(true).open(path);
            file.map_err(|source| NodeError::Write {
                path: path.display().to_string(),
                source,
            })?
            .into()
        }
    })
}

/// A command whose files are open, so that it can be started in another mount namespace.
pub(super) struct PreparedCommand {
    program: String,
    command: Command,
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

/// Kills every process whose main thread is in `netns`, except this one.
pub(super) fn kill_all_in(netns: &NetnsRef) {
    let Ok(wanted) = netns.inode() else { return };
    for _ in 0..KILL_ROUNDS {
        let found: Vec<Pid> = processes_in(wanted);
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

fn processes_in(wanted: u64) -> Vec<Pid> {
    let own = std::process::id();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != own)
        .filter(|pid| netns_of(*pid) == Some(wanted))
        .filter_map(|pid| i32::try_from(pid).ok().map(Pid::from_raw))
        .collect()
}

/// Zombies have no namespaces any more, so they are not found.
fn netns_of(pid: u32) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(format!("/proc/{pid}/ns/net"))
        .ok()
        .map(|metadata| metadata.ino())
}
