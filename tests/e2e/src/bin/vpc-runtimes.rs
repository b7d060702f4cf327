//! `vpc-runtimes`: real callers of the plugin and the daemon, in a simulated VPC. Needs root and installed programs.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use e2e::binaries::{Binaries, Tools};
use e2e::runtimes::cgroups;
use e2e::scenarios::runner::{self, Selection, Suite};
use e2e::scenarios::{Lane, single};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};

/// containerd, podman, libcni's cnitool and grpcurl call the real binaries in a simulated VPC.
#[derive(Debug, Parser)]
#[command(name = "vpc-runtimes", version)]
struct Arguments {
    #[command(flatten)]
    binaries: Binaries,
    #[command(flatten)]
    tools: Tools,
    /// Run only scenarios whose name contains one of these
    words: Vec<String>,
    /// Show names and end
    #[arg(long)]
    list: bool,
    /// Run this one here, instead of all in processes of their own
    #[arg(long, value_name = "NAME")]
    scenario: Option<String>,
    /// This process is the scenario's, and another one cleans up after it
    #[arg(long, hide = true, requires = "scenario")]
    inside: bool,
}

fn main() -> ExitCode {
    run(Arguments::parse()).unwrap_or_else(|error| {
        complain(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}

/// The cgroups and the sandbox of a scenario are entered before any thread exists.
fn run(arguments: Arguments) -> Result<ExitCode> {
    ensure!(nix::unistd::geteuid().is_root(), "container runtimes need root");
    if arguments.scenario.is_some() && !arguments.inside {
        return outlive_scenario();
    }
    if let Some(name) = &arguments.scenario {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        SigSet::all().thread_unblock()?;
        cgroups::enter()?;
        return single::run(Suite::Runtimes, name, arguments.binaries, arguments.tools, None);
    }
    let selection = Selection {
        suite: Suite::Runtimes,
        words: arguments.words,
        lane: Lane::Usual,
        uid: None,
    };
    if arguments.list {
        runner::names(&selection).iter().for_each(|name| runner::say(name));
        return Ok(ExitCode::SUCCESS);
    }
    // What a run left that was killed.
    cgroups::sweep()?;
    let tally = runner::run(&selection, &arguments.binaries, &arguments.tools);
    cgroups::sweep()?;
    let tally = tally?;
    runner::say(&format!("{} passed, {} failed", tally.passed, tally.failed));
    Ok(ExitCode::from(u8::from(tally.failed > 0)))
}

/// Runs the scenario in a child and removes its cgroups, also after Ctrl-C, which ends the child and not this process.
fn outlive_scenario() -> Result<ExitCode> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block()?;
    let mut child = Command::new(std::env::current_exe().context("this program has no path")?);
    child.args(std::env::args_os().skip(1)).arg("--inside");
    let status = child.status().context("cannot start this program again")?;
    cgroups::sweep()?;
    Ok(ExitCode::from(u8::from(!status.success())))
}

#[expect(clippy::print_stderr, reason = "the command line's messages")]
fn complain(text: &str) {
    eprintln!("{text}");
}
