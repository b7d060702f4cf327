//! `vpc-runtimes`: real callers of the plugin and the daemon, in a simulated VPC. Needs root and installed programs.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Parser;
use e2e::binaries::{Binaries, Tools};
use e2e::runtimes::cgroups;
use e2e::scenarios::runner::{self, Selection, Suite};
use e2e::scenarios::{Lane, single};

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
    if let Some(name) = &arguments.scenario {
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

#[expect(clippy::print_stderr, reason = "the command line's messages")]
fn complain(text: &str) {
    eprintln!("{text}");
}
