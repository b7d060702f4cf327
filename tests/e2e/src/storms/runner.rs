//! Runs storms as processes of their own, one after the other, each with a hard time limit.

use std::process::{Command, ExitCode};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use vpc_fabric::sandbox::enter;
use vpc_fabric::{Entry, SandboxConfig};

use super::{Lane, Orders, Storm, all};
use crate::binaries::{Binaries, Tools};
use crate::scenarios::runner::{Copies, Tally, run_with_limit, say};
use crate::scenarios::{Bench, logs};

/// A storm that watches its own time ends by itself; only a stuck one needs this.
const GRACE: Duration = Duration::from_secs(5);

/// What to run.
#[derive(Debug)]
pub struct Selection {
    /// Parts of names; none for all.
    pub words: Vec<String>,
    /// Seed and lane of the first round.
    pub orders: Orders,
    /// Further rounds with other seeds begin until then.
    pub at_least: Duration,
}

impl Selection {
    /// Storms that are selected.
    pub fn storms(&self) -> Vec<Storm> {
        let wanted = |storm: &Storm| self.words.is_empty() || self.words.iter().any(|word| storm.name.contains(word));
        all().into_iter().filter(wanted).collect()
    }
}

/// Runs the selected storms, round after round, and prints a line for each. Ends after a round with a failure.
pub fn run(selection: &Selection, binaries: &Binaries) -> Result<Tally> {
    let copies = Copies::of(binaries)?;
    let started = Instant::now();
    let mut tally = Tally::default();
    for round in 0.. {
        let orders = Orders {
            seed: selection.orders.seed.wrapping_add(round),
            ..selection.orders
        };
        say(&format!("seed {}", orders.seed));
        for storm in selection.storms() {
            let passed = run_one(storm, orders, &copies)?;
            tally.passed += usize::from(passed);
            tally.failed += usize::from(!passed);
        }
        if tally.failed > 0 || started.elapsed() >= selection.at_least {
            break;
        }
    }
    Ok(tally)
}

fn run_one(storm: Storm, orders: Orders, copies: &Copies) -> Result<bool> {
    let started = Instant::now();
    let mut command = Command::new(std::env::current_exe().context("this program has no path")?);
    command.args(["--storm", storm.name, "--seed", &orders.seed.to_string()]);
    command.args((orders.lane == Lane::Slow).then_some("--slow"));
    command.arg("--plugin").arg(copies.directory.join("aws-cni"));
    command.arg("--daemon").arg(copies.directory.join("ipamd"));
    let (status, output) = run_with_limit(&mut command, storm.limit(orders.lane) + GRACE)?;
    let passed = status.is_some_and(|status| status.success());
    let verdict = if passed { "ok    " } else { "FAILED" };
    say(&format!(
        "{verdict} {:>6.1} s  {}",
        started.elapsed().as_secs_f64(),
        storm.name
    ));
    if !passed {
        let how = status.map_or_else(|| "killed at its limit".to_owned(), |status| status.to_string());
        say(&format!("=== {how}, seed {}\n{output}\n===", orders.seed));
    } else {
        output.lines().for_each(|line| say(&format!("         {line}")));
    }
    Ok(passed)
}

/// Runs the storm of this name here. No thread may exist yet.
pub fn run_here(name: &str, orders: Orders, binaries: Binaries) -> Result<ExitCode> {
    let storm = all().into_iter().find(|storm| storm.name == name);
    let storm = storm.with_context(|| format!("there is no storm {name:?}"))?;
    match enter(&SandboxConfig::default()).context("cannot make a sandbox")? {
        Entry::Ended(status) => Ok(ExitCode::from(status)),
        Entry::Inside(sandbox) => {
            let bench = Bench {
                sandbox,
                binaries,
                tools: Tools::default(),
            };
            watched(storm, orders, bench)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A storm that hangs shows its logs before it ends: they are gone with the sandbox.
fn watched(storm: Storm, orders: Orders, bench: Bench) -> Result<()> {
    let (done, ended) = channel();
    std::thread::spawn(move || {
        let _ = done.send((storm.run)(&bench, orders));
    });
    match ended.recv_timeout(storm.limit(orders.lane)) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => {
            logs::show();
            bail!("no end within {:?}", storm.limit(orders.lane))
        }
        Err(RecvTimeoutError::Disconnected) => bail!("it panicked"),
    }
}
