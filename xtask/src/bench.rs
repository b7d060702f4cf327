//! The figures: builds everything as it is shipped, then runs `vpc-bench`.

use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::builds::{self, Product};
use crate::context::Context;
use crate::run::{self, Deadline};
use crate::setup;
use crate::steps::Step;

/// A cold build of the EC2 SDK in release on a slow, busy machine, and the figures; only a hang takes longer.
const ALL: Duration = Duration::from_secs(90 * 60);
/// Ratios that must not become worse.
const BASELINE: &str = "tests/bench/baseline.json";

/// `cargo xtask bench`; the arguments are `vpc-bench`'s.
pub(crate) fn by_hand(context: &Context, arguments: &[String]) -> Result<ExitCode> {
    setup::programs(context)?;
    let deadline = Deadline::after(ALL);
    let mut command = command(context, deadline)?;
    command.args(arguments);
    let status = run::status(&mut command, deadline)?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A step of the tests: few samples, and nothing that depends on how fast the machine is.
pub(crate) fn step() -> Step {
    Step::as_root("bench", 30, |context, deadline| {
        run::check(command(context, deadline)?.arg("--quick"), deadline)
    })
}

fn command(context: &Context, deadline: Deadline) -> Result<Command> {
    let product = Product::release(context, deadline)?;
    let target = Context::static_target();
    let selection = [
        "-p",
        "bench-floor",
        "--bins",
        "--profile",
        "plugin",
        "--target",
        &target,
    ];
    let floor = builds::build(context, &selection, deadline)?;
    let summary = product
        .daemon
        .ancestors()
        .nth(2)
        .context("a target directory")?
        .join("bench/summary.json");
    let mut command = context.program(product.executable("vpc-bench")?);
    command
        .arg("--plugin")
        .arg(&product.plugin)
        .arg("--daemon")
        .arg(&product.daemon);
    for (option, name) in [
        ("--floor", "vpc-floor"),
        ("--launcher", "vpc-launch"),
        ("--nothing", "vpc-nothing"),
    ] {
        command.arg(option).arg(builds::find(&floor, name)?);
    }
    command
        .arg("--summary")
        .arg(summary)
        .arg("--baseline")
        .arg(context.root.join(BASELINE));
    Ok(command)
}
