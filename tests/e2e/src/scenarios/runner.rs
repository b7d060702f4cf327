//! Runs scenarios as processes of their own, two at a time, each with a hard time limit, and says how they ended.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use super::{Lane, Rights, Scenario, all, runtimes};
use crate::binaries::{Binaries, Tools};

/// Scenarios wait more than they work.
const PARALLEL: usize = 2;
/// "nobody": owns nothing that a scenario could need.
pub const UNPRIVILEGED: u32 = 65_534;
/// A scenario that watches its own time ends by itself; only a stuck one needs this.
const GRACE: Duration = Duration::from_secs(5);

/// Which scenarios there are to choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// The harness calls the plugin.
    EndToEnd,
    /// Container runtimes and other programs do.
    Runtimes,
    /// Every combination of the variables that decide where packets leave.
    Matrix,
}

impl Suite {
    /// All of them, in the order in which they start.
    pub fn scenarios(self) -> Vec<Scenario> {
        match self {
            Self::EndToEnd => all(),
            Self::Runtimes => runtimes::all(),
            Self::Matrix => crate::matrix::SCENARIOS.to_vec(),
        }
    }
}

/// What to run.
#[derive(Debug)]
pub struct Selection {
    /// Of this suite.
    pub suite: Suite,
    /// Parts of names; none for all.
    pub words: Vec<String>,
    /// Whether slow ones run too.
    pub lane: Lane,
    /// Run everything as this user, and nothing as root.
    pub uid: Option<u32>,
}

/// One run of one scenario.
#[derive(Debug, Clone, Copy)]
struct Run {
    scenario: Scenario,
    uid: Option<u32>,
}

impl Run {
    fn label(&self) -> String {
        let who = if self.uid.is_some() { " (unprivileged)" } else { "" };
        format!("{}{who}", self.scenario.name)
    }
}

/// How many ended how.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// As they should.
    pub passed: usize,
    /// Not so.
    pub failed: usize,
}

/// Names of the selected scenarios.
pub fn names(selection: &Selection) -> Vec<String> {
    runs(selection).iter().map(Run::label).collect()
}

fn runs(selection: &Selection) -> VecDeque<Run> {
    let words = &selection.words;
    let wanted = |scenario: &Scenario| {
        let is_named = words.iter().any(|word| scenario.name.contains(word.as_str()));
        let in_lane = scenario.lane == Lane::Usual || selection.lane == Lane::Slow;
        is_named || (words.is_empty() && in_lane)
    };
    let can_drop = geteuid().is_root();
    let mut runs = VecDeque::new();
    for scenario in selection.suite.scenarios().into_iter().filter(wanted) {
        let uid = selection.uid;
        runs.push_back(Run { scenario, uid });
        if uid.is_none() && can_drop && scenario.rights == Rights::AlsoUnprivileged {
            let uid = Some(UNPRIVILEGED);
            runs.push_back(Run { scenario, uid });
        }
    }
    runs
}

/// Runs the selected scenarios and prints a line for each.
pub fn run(selection: &Selection, binaries: &Binaries, tools: &Tools) -> Result<Tally> {
    let runs = runs(selection);
    ensure!(
        !runs.is_empty(),
        "no scenario has a name with any of {:?}",
        selection.words
    );
    let copies = Copies::of(binaries)?;
    let queue = Mutex::new(runs);
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                while let Some(run) = take(&queue) {
                    let passed = run_one(&run, &copies, tools).unwrap_or_else(|error| {
                        say(&format!("FAILED {}: {error:#}", run.label()));
                        false
                    });
                    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                    tally.passed += usize::from(passed);
                    tally.failed += usize::from(!passed);
                }
            });
        }
    });
    Ok(tally.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn take(queue: &Mutex<VecDeque<Run>>) -> Option<Run> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

/// Programs where every user can reach them: a build directory may lie in somebody's home.
#[derive(Debug)]
pub(crate) struct Copies {
    /// Holds `aws-cni` and `ipamd`.
    pub(crate) directory: PathBuf,
}

impl Copies {
    pub(crate) fn of(binaries: &Binaries) -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("vpc-e2e-{:016x}", fastrand::u64(..)));
        std::fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let copies = Self { directory };
        std::fs::set_permissions(&copies.directory, std::fs::Permissions::from_mode(0o755))?;
        for (name, from) in [("aws-cni", binaries.plugin()?), ("ipamd", binaries.daemon()?)] {
            let to = copies.directory.join(name);
            std::fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
            std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(copies)
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        // What is left is one directory in /tmp.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn run_one(run: &Run, copies: &Copies, tools: &Tools) -> Result<bool> {
    let started = Instant::now();
    let mut command = Command::new(std::env::current_exe().context("this program has no path")?);
    command.args(["--scenario", run.scenario.name]);
    command.arg("--plugin").arg(copies.directory.join("aws-cni"));
    command.arg("--daemon").arg(copies.directory.join("ipamd"));
    command.args(tools.arguments());
    command.args(run.uid.map(|uid| format!("--as-uid={uid}")));
    let (status, output) = run_with_limit(&mut command, run.scenario.limit + GRACE)?;
    let passed = status.is_some_and(|status| status.success());
    let verdict = if passed { "ok    " } else { "FAILED" };
    let mut text = format!("{verdict} {:>6.1} s  {}", started.elapsed().as_secs_f64(), run.label());
    if !passed {
        let how = status.map_or_else(|| "killed at its limit".to_owned(), |status| status.to_string());
        text.push_str(&format!("\n=== {how}\n{output}\n==="));
    } else {
        // What it counted.
        output
            .lines()
            .for_each(|line| text.push_str(&format!("\n         {line}")));
    }
    say(&text);
    Ok(passed)
}

/// Runs this program again. No status if the limit passed. All output, both streams.
pub(crate) fn run_with_limit(command: &mut Command, limit: Duration) -> Result<(Option<ExitStatus>, String)> {
    // A backtrace of an expected error is noise, and costs a second.
    command.env_remove("RUST_BACKTRACE");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start this program again")?;
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let (done, ended) = channel();
    std::thread::scope(|scope| {
        let out = scope.spawn(|| read_all(stdout.as_mut()));
        let err = scope.spawn(|| read_all(stderr.as_mut()));
        let guard = scope.spawn(move || {
            let in_time = ended.recv_timeout(limit).is_ok();
            if !in_time {
                // The end of the supervisor ends its sandbox.
                let _ = kill(pid, Signal::SIGKILL);
            }
            in_time
        });
        let status = child.wait().context("cannot wait for a scenario");
        let _ = done.send(());
        let in_time = guard.join().unwrap_or(false);
        let text = out.join().unwrap_or_default() + &err.join().unwrap_or_default();
        Ok((in_time.then_some(status?), text))
    })
}

fn read_all(stream: Option<&mut impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        let _ = stream.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One write: lines of two workers do not mix. A reader that has gone is not the suite's problem.
pub fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(format!("{text}\n").as_bytes());
    let _ = out.flush();
}
