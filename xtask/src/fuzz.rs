//! Bytes that nobody should send, for everything of ours that reads bytes of others.

use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::builds;
use crate::context::Context;
use crate::run::{self, Deadline};

/// Longest run by hand; a hang is the only reason to miss it.
const BY_HAND: Duration = Duration::from_secs(24 * 60 * 60);
/// The executable.
const FUZZ: &str = "vpc-fuzz";

/// `cargo xtask fuzz`. The program's last line stays the last line of the output, and its status is ours.
pub(crate) fn by_hand(context: &Context, arguments: &[String]) -> Result<ExitCode> {
    let deadline = Deadline::after(BY_HAND);
    let status = run::status(command(context, deadline)?.args(arguments), deadline)?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Half a minute of it, as a suite of the tests. The same seed every time: a merge fails by what it changed.
pub(crate) fn step(context: &Context, deadline: Deadline) -> Result<()> {
    run::check(command(context, deadline)?.args(["--seconds", "30"]), deadline)
}

fn command(context: &Context, deadline: Deadline) -> Result<Command> {
    let built = builds::build(context, &["--workspace", "--bins"], deadline)?;
    let program = built.get(FUZZ).context("the build made no executable vpc-fuzz")?;
    let target = program.ancestors().nth(2).context("a target directory")?;
    let mut command = context.program(program);
    command.arg("--findings").arg(target.join("fuzz"));
    Ok(command)
}
