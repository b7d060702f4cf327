//! Drives the entrypoint's sequence: the daemon's process, signals, time. All decisions are the sequence's.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal;
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal as subscribe};
use tokio::time::Instant;

use crate::sequence::{Action, Done, Event, Health, Limits, Sequence, Signal, killed_by};

/// File name under which the daemon is executed: monitoring agents look for a process of this name.
pub const DAEMON: &str = "aws-k8s-agent";

/// What the entrypoint does besides supervising. Errors are texts for the log; nobody decides by them.
#[expect(async_fn_in_trait, reason = "the sequence runs on one thread and nobody spawns it")]
pub trait Effects {
    /// Copies the plugins to the host.
    fn install(&mut self) -> Result<(), String>;
    /// Asks the daemon, within a second or so, whether it serves.
    async fn ask_health(&mut self) -> Health;
    /// Renders the list and puts it in place.
    fn put_list(&mut self) -> Result<(), String>;
    /// A line for the log.
    fn say(&mut self, text: &str);
}

/// The daemon's command line.
#[derive(Debug, Clone)]
pub struct Daemon {
    /// The file; its name is the process's name.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl Daemon {
    /// The daemon in a directory, under its name.
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            program: directory.join(DAEMON),
            arguments: Vec::new(),
        }
    }
}

/// Signals that are forwarded: HUP, INT, QUIT, USR1, USR2, TERM.
const FORWARDED: [i32; 6] = [1, 2, 3, 10, 12, 15];

/// Runs the entrypoint to its end. The answer is the status to exit with.
///
/// Signals count from the first poll on, before anything is done, so none is lost while the plugins are copied.
pub async fn run(daemon: &Daemon, limits: Limits, effects: &mut impl Effects) -> io::Result<u8> {
    let mut signals = Signals::subscribe()?;
    let (mut sequence, mut action) = Sequence::begin(limits);
    let mut process: Option<Process> = None;
    loop {
        let event = match action {
            Action::Exit(status) => return Ok(status),
            Action::Install => {
                let done = outcome(effects, "copy the plugins", Effects::install);
                if let Some(signal) = signals.received().await {
                    sequence.next(Event::Received(signal));
                }
                Event::Installed(done)
            }
            Action::Start => match Process::start(daemon) {
                Ok(started) => {
                    process = Some(started);
                    Event::Started(Done::Well)
                }
                Err(error) => {
                    effects.say(&format!("cannot start {}: {error}", daemon.program.display()));
                    Event::Started(Done::Failed)
                }
            },
            Action::AskHealth => {
                tokio::select! {
                    biased;
                    event = next_event(&mut process, &mut signals, None) => event,
                    health = effects.ask_health() => Event::Asked(health),
                }
            }
            Action::PutList => Event::Listed(outcome(effects, "put the list of plugins in place", Effects::put_list)),
            Action::Wait(limit) => next_event(&mut process, &mut signals, limit).await,
            Action::Forward(signal) | Action::GiveUp(signal) => {
                if matches!(action, Action::GiveUp(_)) {
                    effects.say("the daemon is ended: the node cannot serve");
                }
                if let Some(process) = &mut process {
                    process.send(signal);
                }
                action = sequence.wait();
                continue;
            }
        };
        action = sequence.next(event);
    }
}

fn outcome<E: Effects>(effects: &mut E, what: &str, step: impl FnOnce(&mut E) -> Result<(), String>) -> Done {
    match step(effects) {
        Ok(()) => Done::Well,
        Err(error) => {
            effects.say(&format!("cannot {what}: {error}"));
            Done::Failed
        }
    }
}

async fn next_event(process: &mut Option<Process>, signals: &mut Signals, limit: Option<Duration>) -> Event {
    let pause = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let since = process.as_ref().map(|process| process.since);
    tokio::select! {
        biased;
        status = ended(process) => Event::DaemonEnded(status),
        signal = signals.next() => Event::Received(signal),
        () = pause => Event::Waited(since.map(|since| since.elapsed()).unwrap_or_default()),
    }
}

async fn ended(process: &mut Option<Process>) -> u8 {
    match process {
        // Only a process that was waited for already cannot be waited for.
        Some(process) => process.child.wait().await.map_or(1, status_of),
        None => std::future::pending().await,
    }
}

fn status_of(status: ExitStatus) -> u8 {
    let by_itself = status.code().and_then(|code| u8::try_from(code).ok());
    by_itself
        .or_else(|| status.signal().map(|number| killed_by(Signal(number))))
        .unwrap_or(1)
}

struct Process {
    child: Child,
    since: Instant,
}

impl Process {
    /// Its output is ours. It ends with us, whatever becomes of us.
    fn start(daemon: &Daemon) -> io::Result<Self> {
        let mut command = Command::new(&daemon.program);
        command.args(&daemon.arguments).kill_on_drop(true);
        Ok(Self {
            child: command.spawn()?,
            since: Instant::now(),
        })
    }

    /// A process that has ended and was not waited for still has its id, so no other can be hit.
    fn send(&mut self, number: Signal) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let (Some(id), Ok(number)) = (id, signal::Signal::try_from(number.0)) {
            // It may just have ended, which is what its status says next.
            let _ = signal::kill(Pid::from_raw(id), number);
        }
    }
}

struct Signals(Vec<(i32, Stream)>);

impl Signals {
    fn subscribe() -> io::Result<Self> {
        let streams = FORWARDED.map(|number| Ok((number, subscribe(SignalKind::from_raw(number))?)));
        streams.into_iter().collect::<io::Result<_>>().map(Self)
    }

    async fn next(&mut self) -> Signal {
        std::future::poll_fn(|context| {
            for (number, stream) in &mut self.0 {
                if stream.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(Signal(*number));
                }
            }
            std::task::Poll::Pending
        })
        .await
    }

    /// One that is already there.
    async fn received(&mut self) -> Option<Signal> {
        tokio::time::timeout(Duration::ZERO, self.next()).await.ok()
    }
}
