//! `vpc-upgrade`: from the reference to us and back under a thousand connections.

use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use e2e::binaries::{Binaries, Tools};
use e2e::scenarios::Bench;
use e2e::upgrade;
use vpc_fabric::sandbox::enter;
use vpc_fabric::{Entry, SandboxConfig};

/// It takes a third of this on two idle cores.
const LIMIT: Duration = Duration::from_secs(150);

/// A node changes hands under load, both ways.
#[derive(Debug, Parser)]
#[command(name = "vpc-upgrade", version)]
struct Arguments {
    #[command(flatten)]
    binaries: Binaries,
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        complain(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}

/// The sandbox is entered before any thread exists.
fn run() -> Result<ExitCode> {
    let binaries = Arguments::parse().binaries;
    match enter(&SandboxConfig::default()).context("cannot make a sandbox")? {
        Entry::Ended(status) => Ok(ExitCode::from(status)),
        Entry::Inside(sandbox) => {
            let tools = Tools::default();
            let bench = Bench {
                sandbox,
                binaries,
                tools,
            };
            let (done, ended) = channel();
            std::thread::spawn(move || {
                let _ = done.send(upgrade::run(&bench));
            });
            match ended.recv_timeout(LIMIT) {
                Ok(result) => result.map(|()| ExitCode::SUCCESS),
                Err(RecvTimeoutError::Timeout) => bail!("no end within {LIMIT:?}"),
                Err(RecvTimeoutError::Disconnected) => bail!("it panicked"),
            }
        }
    }
}

#[expect(clippy::print_stderr, reason = "the command line's messages")]
fn complain(text: &str) {
    eprintln!("{text}");
}
