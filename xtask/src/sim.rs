//! The deterministic simulation of the address pool. Its graph has no SDK, so it has its own profile and selection.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::builds;
use crate::context::Context;
use crate::run::{self, Deadline};

/// Longest run by hand; a hang is the only reason to miss it.
const BY_HAND: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether defects can be built into the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Core {
    /// As shipped.
    Shipped,
    /// With the switches for deliberate defects.
    Mutable,
}

/// `cargo xtask sim`.
pub(crate) fn seeds(context: &Context, arguments: &[String]) -> Result<ExitCode> {
    by_hand(context, Core::Shipped, arguments)
}

/// `cargo xtask mutants`.
pub(crate) fn mutants(context: &Context, arguments: &[String]) -> Result<ExitCode> {
    let mut all = vec!["--mutants".to_owned()];
    all.extend_from_slice(arguments);
    by_hand(context, Core::Mutable, &all)
}

/// The simulation as a suite of the tests.
pub(crate) fn step(context: &Context, core: Core, arguments: &[&str], deadline: Deadline) -> Result<()> {
    run::check(command(context, core, deadline)?.args(arguments), deadline)
}

/// The program's last line stays the last line of the output, and its status is ours.
fn by_hand(context: &Context, core: Core, arguments: &[String]) -> Result<ExitCode> {
    let deadline = Deadline::after(BY_HAND);
    let status = run::status(command(context, core, deadline)?.args(arguments), deadline)?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn command(context: &Context, core: Core, deadline: Deadline) -> Result<std::process::Command> {
    let mut selection = vec!["-p", "ipam-sim", "--bins", "--profile", "sim"];
    if core == Core::Mutable {
        selection.extend(["--features", "mutants"]);
    }
    let built = builds::build(context, &selection, deadline)?;
    let program = built.get("ipam-sim").context("the build made no executable ipam-sim")?;
    Ok(context.program(program))
}
