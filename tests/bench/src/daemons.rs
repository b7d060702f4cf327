//! What a running daemon tells about itself through `/proc` and its log.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use bench_floor::launch;
use e2e::node::Daemon;
use e2e::wait;
use serde_json::Value;

use crate::world::{SOCKET, World};

/// A daemon serves within a fraction of a second.
const SERVES: Duration = Duration::from_secs(20);
/// Between two looks at its socket: the resolution of the figure.
const LOOK: Duration = Duration::from_micros(500);
/// Lines of the log that end a phase of the start, with the phase's name.
const PHASES: [(&str, &str); 3] = [
    ("node", "start.phase.metadata"),
    ("state", "start.phase.kernel"),
    ("serving", "start.phase.serve"),
];

/// How a start went.
#[derive(Debug)]
pub(crate) struct Start {
    /// From before the start of the process until its socket answered.
    pub(crate) serving: Duration,
    /// The parts of it that its log shows.
    pub(crate) phases: Vec<(&'static str, Duration)>,
}

/// Starts a node's daemon and waits for its socket.
pub(crate) fn start(world: &mut World, name: &str) -> Result<Start> {
    let (outside, old) = {
        let node = world.cluster.node(name)?;
        (node.outside(Path::new(SOCKET)), Daemon::log(node).len())
    };
    let wall = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let begun = Instant::now();
    let mut daemon = world
        .cluster
        .daemons
        .remove(name)
        .context("daemons are made for nodes")?;
    let spawned = daemon.spawn(world.cluster.node(name)?);
    world.cluster.daemons.insert(name.to_owned(), daemon);
    spawned?;
    while UnixStream::connect(&outside).is_err() {
        ensure!(begun.elapsed() < SERVES, "the daemon of {name} does not serve");
        wait::pause(LOOK);
    }
    let serving = begun.elapsed();
    let log = Daemon::log(world.cluster.node(name)?);
    Ok(Start {
        serving,
        phases: phases(log.get(old..).unwrap_or_default(), wall),
    })
}

fn phases(log: &str, mut from: Duration) -> Vec<(&'static str, Duration)> {
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let mut phases = Vec::new();
    for (message, name) in PHASES {
        let line = lines.iter().find(|line| line["message"] == message);
        let Some(at) = line.and_then(|line| time_of(line["timestamp"].as_str()?)) else {
            continue;
        };
        phases.push((name, at.saturating_sub(from)));
        from = at;
    }
    phases
}

/// Time of day of an RFC 3339 time in UTC, placed on today.
fn time_of(text: &str) -> Option<Duration> {
    let (_, clock) = text.split_once('T')?;
    let mut parts = clock.trim_end_matches('Z').split(':');
    let mut part = || parts.next()?.parse::<f64>().ok();
    let seconds = part()? * 3600.0 + part()? * 60.0 + part()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(Duration::from_secs(now - now % 86_400) + Duration::from_secs_f64(seconds))
}

/// Waits until a pod would get an address.
pub(crate) fn wait_for_address(world: &World, name: &str) -> Result<()> {
    wait::until("the first addresses are there", SERVES, || {
        let status = world.cluster.ask(name, "status")?;
        Ok((status["pool"]["free"].as_u64() > Some(0)).then_some(()))
    })
}

/// Memory of a process, in MiB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Memory {
    /// All pages.
    pub(crate) resident: f64,
    /// Shared pages counted by their share.
    pub(crate) proportional: f64,
    /// Pages of no file.
    pub(crate) anonymous: f64,
}

/// Memory of a node's daemon.
pub(crate) fn memory(world: &mut World, name: &str) -> Result<Memory> {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", pid(world, name)?))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        number
            .map(|kib| kib / 1024.0)
            .with_context(|| format!("smaps_rollup has no {name}"))
    };
    Ok(Memory {
        resident: field("Rss")?,
        proportional: field("Pss")?,
        anonymous: field("Anonymous")?,
    })
}

/// CPU time of a node's daemon, to the nanosecond: that of its threads, of which none ends while it runs.
pub(crate) fn cpu(world: &mut World, name: &str) -> Result<Duration> {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{}/task", pid(world, name)?))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        let first = text.split(' ').next().context("schedstat is empty")?;
        sum += first.parse::<u64>().context("schedstat")?;
    }
    Ok(Duration::from_nanos(sum))
}

/// Lets a node's daemon run before everything else on the machine, as the programs do that call it one at a time; it would
/// otherwise wait for the slices of others. Says whether that is permitted.
pub(crate) fn go_first(world: &mut World, name: &str) -> Result<bool> {
    let mut permitted = true;
    for task in std::fs::read_dir(format!("/proc/{}/task", pid(world, name)?))? {
        let thread = task?
            .file_name()
            .to_string_lossy()
            .parse()
            .context("a task is a number")?;
        permitted &= launch::make_realtime(thread).is_ok();
    }
    Ok(permitted)
}

fn pid(world: &mut World, name: &str) -> Result<i32> {
    let child = world.cluster.daemon(name)?.child().context("the daemon does not run")?;
    Ok(child.pid().as_raw())
}
