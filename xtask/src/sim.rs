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

/// `cargo xtask sim`. With `--goals`, `--grid` or `--table` first, the fleet instead of the seeds.
pub(crate) fn seeds(context: &Context, arguments: &[String]) -> Result<ExitCode> {
    let Some((word, rest)) = arguments.split_first() else {
        return by_hand(context, Core::Shipped, arguments);
    };
    let Some(task) = Fleet::ALL.into_iter().find(|task| task.option() == word) else {
        return by_hand(context, Core::Shipped, arguments);
    };
    let deadline = Deadline::after(BY_HAND);
    let status = run::status(fleet(context, task, deadline)?.args(rest), deadline)?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What the fleet is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fleet {
    /// The goals of the pool's policy beside the reference's formulas.
    Goals,
    /// Every combination of targets.
    Grid,
    /// The table of `docs/pool.md`.
    Table,
}

impl Fleet {
    const ALL: [Self; 3] = [Self::Goals, Self::Grid, Self::Table];

    fn option(self) -> &'static str {
        match self {
            Self::Goals => "--goals",
            Self::Grid => "--grid",
            Self::Table => "--table",
        }
    }
}

/// The fleet as a suite of the tests.
pub(crate) fn fleet_step(context: &Context, task: Fleet, deadline: Deadline) -> Result<()> {
    run::check(&mut fleet(context, task, deadline)?, deadline)
}

/// `ipam-fleet` with its first word; the goals are also written to `target/…/fleet/goals.json`.
fn fleet(context: &Context, task: Fleet, deadline: Deadline) -> Result<std::process::Command> {
    let built = builds::build(context, &["-p", "ipam-sim", "--bins", "--profile", "sim"], deadline)?;
    let program = built
        .get("ipam-fleet")
        .context("the build made no executable ipam-fleet")?;
    let mut command = context.program(program);
    command.arg(task.option().trim_start_matches('-'));
    match task {
        Fleet::Goals => {
            let target = program.ancestors().nth(2).context("a target directory")?;
            command.arg("--json").arg(target.join("fleet/goals.json"));
        }
        Fleet::Table => {
            command.arg("--page").arg(context.root.join("docs/pool.md"));
        }
        Fleet::Grid => {}
    }
    Ok(command)
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
