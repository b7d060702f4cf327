//! `vpc-storm`: storms of ADDs and DELs, killed programs, namespaces that vanish; and whether all agrees afterwards.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use e2e::binaries::Binaries;
use e2e::scenarios::runner::say;
use e2e::storms::runner::{self, Selection};
use e2e::storms::{Lane, Orders};

/// Storms over the real binaries in a simulated VPC.
#[derive(Debug, Parser)]
#[command(name = "vpc-storm", version)]
struct Arguments {
    #[command(flatten)]
    binaries: Binaries,
    /// Run only storms whose name contains one of these
    words: Vec<String>,
    /// Show names and end
    #[arg(long)]
    list: bool,
    /// Repeat a run; drawn and printed otherwise
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Go on with further seeds for at least so long
    #[arg(long, value_name = "N", default_value_t = 0)]
    minutes: u64,
    /// Every storm at full length, with all variants
    #[arg(long)]
    slow: bool,
    /// Run this one here, instead of all in processes of their own
    #[arg(long, value_name = "NAME")]
    storm: Option<String>,
}

fn main() -> ExitCode {
    run(Arguments::parse()).unwrap_or_else(|error| {
        complain(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}

/// The sandbox of a storm is entered before any thread exists.
fn run(arguments: Arguments) -> Result<ExitCode> {
    let orders = Orders {
        // Short enough to be typed.
        seed: arguments.seed.unwrap_or_else(|| fastrand::u64(..1_000_000)),
        lane: if arguments.slow { Lane::Slow } else { Lane::Usual },
    };
    if let Some(name) = &arguments.storm {
        return runner::run_here(name, orders, arguments.binaries);
    }
    let selection = Selection {
        words: arguments.words,
        orders,
        at_least: Duration::from_secs(60 * arguments.minutes),
    };
    if arguments.list {
        selection.storms().iter().for_each(|storm| say(storm.name));
        return Ok(ExitCode::SUCCESS);
    }
    let tally = runner::run(&selection, &arguments.binaries)?;
    say(&format!("{} passed, {} failed", tally.passed, tally.failed));
    Ok(ExitCode::from(u8::from(tally.failed > 0 || tally.passed == 0)))
}

#[expect(clippy::print_stderr, reason = "the command line's messages")]
fn complain(text: &str) {
    eprintln!("{text}");
}
