//! Runs programs with a deadline. A program that misses it ends with everything it started.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Between a polite and a firm end.
const GRACE: Duration = Duration::from_secs(10);

/// When a step must be over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// A deadline that far away.
    pub(crate) fn after(duration: Duration) -> Self {
        Self(Instant::now() + duration)
    }

    /// This one, or that far away if that is sooner.
    pub(crate) fn sooner(self, duration: Duration) -> Self {
        Self(self.0.min(Instant::now() + duration))
    }

    /// Time left, zero when over.
    pub(crate) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// Runs a command with our own output; it must succeed within the deadline. Standard input is empty.
pub(crate) fn check(command: &mut Command, deadline: Deadline) -> Result<()> {
    let name = describe(command);
    let status = status(command, deadline)?;
    if !status.success() {
        bail!("{name}: {status}");
    }
    Ok(())
}

/// Runs a command with our own output and waits for its status.
pub(crate) fn status(command: &mut Command, deadline: Deadline) -> Result<ExitStatus> {
    let name = describe(command);
    let child = command
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    wait(child, &name, deadline)
}

/// What a successful command wrote to its standard output; its errors go where ours go.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = describe(command);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        bail!("{name}: {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{name} wrote no text"))
}

/// Waits for a child; at the deadline it and all its descendants are ended.
pub(crate) fn wait(mut child: Child, name: &str, deadline: Deadline) -> Result<ExitStatus> {
    let pid = child.id();
    let (done, ended) = mpsc::channel();
    thread::spawn(move || done.send(child.wait()));
    match ended.recv_timeout(deadline.left()) {
        Ok(status) => status.with_context(|| format!("cannot wait for {name}")),
        Err(RecvTimeoutError::Timeout) => {
            end(pid, &ended);
            bail!("{name}: not done within its time")
        }
        Err(RecvTimeoutError::Disconnected) => bail!("nobody waits for {name} any more"),
    }
}

fn end<T>(pid: u32, ended: &Receiver<T>) {
    signal("TERM", &family(pid));
    let firm = Deadline::after(GRACE);
    let gone = ended.recv_timeout(firm.left()).is_ok();
    let rest = family(pid);
    signal("KILL", &rest);
    if !gone {
        ended.recv_timeout(GRACE).ok();
    }
}

/// A process and all its descendants, as the process table shows them at this moment.
fn family(pid: u32) -> BTreeSet<u32> {
    let pairs: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| Some((pid, parent(pid)?)))
        .collect();
    let mut family = BTreeSet::new();
    if pairs.iter().any(|(known, _)| *known == pid) {
        family.insert(pid);
    }
    loop {
        let before = family.len();
        let children = pairs
            .iter()
            .filter(|(_, parent)| family.contains(parent))
            .map(|(pid, _)| *pid);
        let children: Vec<u32> = children.collect();
        family.extend(children);
        if family.len() == before {
            return family;
        }
    }
}

/// Parent of a process: the fourth field of its `stat`, counted behind the name, which may hold anything but `)`.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// Sends a signal by the shell's own `kill`: a call of ours would need `unsafe` or one more crate.
fn signal(name: &str, pids: &BTreeSet<u32>) {
    let mut script = String::new();
    for pid in pids {
        writeln!(script, "kill -{name} {pid} 2>/dev/null").expect("a String takes everything");
    }
    Command::new("sh").args(["-c", &script]).status().ok();
}

/// Name of the program, without its directory, and its arguments.
fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut text = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_misses_its_deadline_ends_with_its_children() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 4321 & wait"]);
        let child = command.spawn().unwrap();
        let pid = child.id();
        let deadline = Deadline::after(Duration::from_secs(20));
        while family(pid).len() < 2 {
            assert!(!deadline.left().is_zero(), "the shell starts its child");
            thread::yield_now();
        }
        let members = family(pid);
        let error = wait(child, "sh", Deadline::after(Duration::ZERO)).unwrap_err();
        assert!(error.to_string().contains("not done within its time"), "{error}");
        for pid in members {
            assert!(parent(pid).is_none_or(|_| is_zombie(pid)), "{pid} still runs");
        }
    }

    fn is_zombie(pid: u32) -> bool {
        fs::read_to_string(format!("/proc/{pid}/stat"))
            .ok()
            .and_then(|stat| {
                stat.rsplit_once(')')
                    .map(|(_, rest)| rest.trim_start().starts_with('Z'))
            })
            .unwrap_or(true)
    }

    #[test]
    fn the_status_of_a_program_is_judged() {
        let soon = Deadline::after(Duration::from_secs(20));
        assert!(check(&mut Command::new("true"), soon).is_ok());
        assert!(check(&mut Command::new("false"), soon).is_err());
        assert!(check(&mut Command::new("no-such-program-anywhere"), soon).is_err());
    }
}
