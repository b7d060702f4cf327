//! `vpc-demo`: the main job on one machine. Started by `cargo demo`, which builds everything first.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use e2e::binaries::Binaries;
use e2e::demo::{self, Afterwards, Settings};
use vpc_fabric::sandbox::enter;
use vpc_fabric::{Entry, Privilege, SandboxConfig};
use vpc_sim::ctl;

/// A VPC on this machine: two nodes, pods with VPC addresses, and back. Nothing outside is touched.
#[derive(Debug, Parser)]
#[command(name = "vpc-demo", version)]
struct Arguments {
    #[command(flatten)]
    binaries: Binaries,
    /// Leave it up until Ctrl-C, to look around
    #[arg(long)]
    keep: bool,
    /// Names the simulator for `vpc-sim exec`
    #[arg(long, default_value = "/tmp/vpc-cni-demo")]
    state_dir: PathBuf,
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        complain(&format!("  ✘ {error:#}"));
        ExitCode::FAILURE
    })
}

/// The sandbox is entered before any thread exists.
fn run() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let state_dir = arguments.state_dir.clone();
    let ctl = ctl::bind(&state_dir).with_context(|| {
        format!(
            "a demo runs for {} already; choose another --state-dir",
            state_dir.display()
        )
    })?;
    let settings = Settings {
        binaries: arguments.binaries,
        afterwards: if arguments.keep {
            Afterwards::Keep
        } else {
            Afterwards::CleanUp
        },
        state_dir,
    };
    let config = SandboxConfig {
        privilege: Privilege::Detect,
        ..SandboxConfig::default()
    };
    match enter(&config).context("cannot make a sandbox")? {
        Entry::Ended(status) => Ok(ExitCode::from(status)),
        Entry::Inside(sandbox) => {
            demo::run(&sandbox, &settings, ctl)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

#[expect(clippy::print_stderr, reason = "the command line's messages")]
fn complain(text: &str) {
    eprintln!("{text}");
}
