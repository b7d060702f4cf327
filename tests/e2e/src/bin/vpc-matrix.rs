//! `vpc-matrix`: real packets under every combination of the variables that decide where they leave, and from which address.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use e2e::binaries::{Binaries, Tools};
use e2e::scenarios::runner::{self, Selection, Suite};
use e2e::scenarios::{Lane, single};

/// The real binaries in a simulated VPC, between rules of others. Needs nft, ip and iptables.
#[derive(Debug, Parser)]
#[command(name = "vpc-matrix", version)]
struct Arguments {
    #[command(flatten)]
    binaries: Binaries,
    /// Run only scenarios whose name contains one of these
    words: Vec<String>,
    /// Show names and end
    #[arg(long)]
    list: bool,
    /// Give up root for this user first
    #[arg(long, value_name = "UID")]
    as_uid: Option<u32>,
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

/// The sandbox of a scenario is entered before any thread exists.
fn run(arguments: Arguments) -> Result<ExitCode> {
    if let Some(name) = &arguments.scenario {
        return single::run(
            Suite::Matrix,
            name,
            arguments.binaries,
            Tools::default(),
            arguments.as_uid,
        );
    }
    let selection = Selection {
        suite: Suite::Matrix,
        words: arguments.words,
        lane: Lane::Usual,
        uid: arguments.as_uid,
    };
    if arguments.list {
        runner::names(&selection).iter().for_each(|name| runner::say(name));
        return Ok(ExitCode::SUCCESS);
    }
    let tally = runner::run(&selection, &arguments.binaries, &Tools::default())?;
    runner::say(&format!("{} passed, {} failed", tally.passed, tally.failed));
    Ok(ExitCode::from(u8::from(tally.failed > 0)))
}

#[expect(clippy::print_stderr, reason = "the command line's messages")]
fn complain(text: &str) {
    eprintln!("{text}");
}
