//! The command line of `ipam-sim`: runs seeds, prints what was exercised and what broke.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Parser;

use crate::{Coverage, Defect, Failure, Fault, Logging, Plan, quiet_panics, run, shrink};

/// Seeds from which on the counters must show everything at least once.
const ENOUGH_SEEDS: u64 = 200;

/// Deterministic simulation of the address pool.
#[derive(Debug, Parser)]
struct Args {
    /// Number of seeds.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// Happenings per seed before the weather turns fair.
    #[arg(long, default_value_t = 3_000)]
    steps: u64,
    /// First seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Faults to leave out, by name.
    #[arg(long, value_delimiter = ',')]
    off: Vec<String>,
    /// Happenings to show of a failed run.
    #[arg(long, default_value_t = 40)]
    lines: usize,
    /// Builds one defect after the other into the core and runs until each is noticed.
    #[arg(long)]
    mutants: bool,
}

#[expect(clippy::print_stdout, reason = "the report is the product of this program")]
fn say(text: &str) {
    println!("{text}");
}

/// Runs what the arguments of the process ask for.
pub fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    quiet_panics();
    if args.mutants {
        run_mutants(&args)
    } else {
        run_seeds(&args)
    }
}

fn faults_off(args: &Args) -> anyhow::Result<BTreeSet<Fault>> {
    let parse = |name: &String| {
        let known = Fault::ALL.iter().find(|fault| fault.as_str() == name);
        known
            .copied()
            .ok_or_else(|| anyhow::anyhow!("there is no fault {name:?}"))
    };
    args.off.iter().map(parse).collect()
}

fn run_seeds(args: &Args) -> anyhow::Result<ExitCode> {
    let off = faults_off(args)?;
    let mut coverage = Coverage::default();
    let mut violations = 0;
    for seed in args.seed..args.seed.saturating_add(args.seeds) {
        let plan = Plan {
            seed,
            steps: args.steps,
            off: off.clone(),
            defect: Defect::default(),
        };
        let report = run(&plan, Logging::Off);
        coverage.merge(&report.coverage);
        if let Some(failure) = report.failure {
            violations += 1;
            report_failure(&plan, &failure, violations, args.lines);
        }
    }
    say(&format!("exercised:\n{}", coverage.table()));
    let missing = coverage.missing();
    let blind = args.seeds >= ENOUGH_SEEDS && off.is_empty() && !missing.is_empty();
    if !missing.is_empty() {
        say(&format!("never exercised: {}", missing.join(", ")));
    }
    say(&format!(
        "{} seeds, {} steps each, {violations} violations",
        args.seeds, args.steps
    ));
    Ok(if violations > 0 || blind {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The first failures are shrunk and shown with their last happenings, the others named.
fn report_failure(plan: &Plan, failure: &Failure, count: u32, lines: usize) {
    say(&format!("seed {} step {}: {}", plan.seed, failure.step, failure.text));
    if count > 2 {
        return;
    }
    let (small, shown) = shrink(plan, failure);
    let off: Vec<&str> = small.off.iter().map(|fault| fault.as_str()).collect();
    for line in shown.log.iter().rev().take(lines).rev() {
        say(&format!("    {line}"));
    }
    say(&format!(
        "  again: ipam-sim --seeds 1 --seed {} --steps {} --off {}",
        small.seed,
        small.steps,
        off.join(",")
    ));
}

#[cfg(not(feature = "mutants"))]
fn run_mutants(_: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("built without the feature `mutants`: defects cannot be built into the core")
}

#[cfg(feature = "mutants")]
fn run_mutants(args: &Args) -> anyhow::Result<ExitCode> {
    let mut caught = 0;
    for mutant in ipam_core::Mutant::ALL {
        let found = (args.seed..args.seed.saturating_add(args.seeds)).find_map(|seed| {
            let plan = Plan {
                seed,
                steps: args.steps,
                off: BTreeSet::new(),
                defect: Some(*mutant),
            };
            run(&plan, Logging::Off).failure.map(|failure| (seed, failure))
        });
        match found {
            Some((seed, failure)) => {
                caught += 1;
                say(&format!(
                    "{mutant:?}: seed {seed} step {}: {}",
                    failure.step, failure.text
                ));
            }
            None => say(&format!("{mutant:?}: not noticed in {} seeds", args.seeds)),
        }
    }
    let all = ipam_core::Mutant::ALL.len();
    say(&format!("caught {caught} of {all}"));
    Ok(if caught == all {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
