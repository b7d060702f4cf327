//! The two programs that run the real binaries in a simulated VPC: the demo and the end-to-end suite.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::ArgMatches;

use crate::builds::Product;
use crate::context::Context;
use crate::run::{self, Deadline};

/// A cold build on a slow, busy machine; only a hang takes longer.
const BUILD: Duration = Duration::from_secs(90 * 60);
/// The executable of the end-to-end suite.
const SUITE: &str = "vpc-e2e";
/// The executable of the demo.
const DEMO: &str = "vpc-demo";

/// Binaries to use instead of ours.
#[derive(Debug, Default)]
pub(crate) struct Replacements {
    plugin: Option<PathBuf>,
    daemon: Option<PathBuf>,
}

impl From<&ArgMatches> for Replacements {
    fn from(arguments: &ArgMatches) -> Self {
        let path = |name: &str| arguments.get_one::<String>(name).map(PathBuf::from);
        Self {
            plugin: path("plugin"),
            daemon: path("daemon"),
        }
    }
}

/// `cargo demo`. Replaces this process by the demo, so that Ctrl-C reaches it and nobody else.
pub(crate) fn demo(context: &Context, arguments: &[String]) -> Result<ExitCode> {
    println!("vpc-cni demo: a VPC on this machine, no AWS account, nothing outside it is touched");
    let started = Instant::now();
    let product = Product::build(context, Deadline::after(BUILD))?;
    println!("  ✔ built{:>69.1} s", started.elapsed().as_secs_f64());
    let mut command = demo_command(context, &product)?;
    command.args(arguments);
    Err(command.exec()).context("cannot start the demo")
}

/// The demo as a suite of the tests.
pub(crate) fn demo_step(context: &Context, deadline: Deadline) -> Result<()> {
    let product = Product::build(context, deadline)?;
    run::check(&mut demo_command(context, &product)?, deadline)
}

/// `cargo xtask e2e`.
pub(crate) fn e2e(context: &Context, replacements: &Replacements) -> Result<ExitCode> {
    e2e_step(context, replacements, Deadline::after(BUILD))?;
    Ok(ExitCode::SUCCESS)
}

/// The end-to-end suite, within a deadline.
pub(crate) fn e2e_step(context: &Context, replacements: &Replacements, deadline: Deadline) -> Result<()> {
    let product = Product::build(context, deadline)?;
    let plugin = replacements.plugin.as_deref().unwrap_or(&product.plugin);
    let daemon = replacements.daemon.as_deref().unwrap_or(&product.daemon);
    let suite = product.executable(SUITE)?;
    let mut command = with_binaries(context, &suite, [plugin, daemon, &product.simulator])?;
    run::check(&mut command, deadline)
}

fn demo_command(context: &Context, product: &Product) -> Result<Command> {
    let demo = product.executable(DEMO)?;
    with_binaries(context, &demo, [&product.plugin, &product.daemon, &product.simulator])
}

fn with_binaries(context: &Context, program: &Path, [plugin, daemon, simulator]: [&Path; 3]) -> Result<Command> {
    let mut command = context.program(program);
    for (option, path) in [("--plugin", plugin), ("--daemon", daemon), ("--simulator", simulator)] {
        let path = path
            .canonicalize()
            .with_context(|| format!("{option} {}", path.display()))?;
        command.arg(option).arg(path);
    }
    Ok(command)
}
