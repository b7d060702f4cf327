//! The storms: orders that no orderly runtime gives, killed programs, and whether everything agrees afterwards.

use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::builds::Product;
use crate::context::Context;
use crate::run::{self, Deadline};
use crate::setup;

/// Longest run by hand; a hang is the only reason to miss it.
const BY_HAND: Duration = Duration::from_secs(24 * 60 * 60);
/// The executable.
const STORM: &str = "vpc-storm";

/// `cargo xtask storm`. The program's last line stays the last line of the output, and its status is ours.
pub(crate) fn storm(context: &Context, arguments: &[String]) -> Result<ExitCode> {
    setup::programs(context)?;
    let deadline = Deadline::after(BY_HAND);
    let status = run::status(command(context, deadline)?.args(arguments), deadline)?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The storms as a suite of the tests.
pub(crate) fn step(context: &Context, arguments: &[&str], deadline: Deadline) -> Result<()> {
    run::check(command(context, deadline)?.args(arguments), deadline)
}

fn command(context: &Context, deadline: Deadline) -> Result<Command> {
    let product = Product::build(context, deadline)?;
    let mut command = context.program(product.executable(STORM)?);
    for (option, path) in [("--plugin", &product.plugin), ("--daemon", &product.daemon)] {
        let path = path
            .canonicalize()
            .with_context(|| format!("{option} {}", path.display()))?;
        command.arg(option).arg(path);
    }
    Ok(command)
}
