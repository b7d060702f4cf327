//! The command line of `ipam-sim`: runs seeds, prints what was exercised and what broke.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use crate::load::Hour;
use crate::shrink::kind;
use crate::{Allowed, Coverage, Failure, Fault, Logging, Plan, Stroke, quiet_panics, run, shrink};

/// Seeds from which on the counters must show everything often enough.
const ENOUGH_SEEDS: u64 = 1_000;
/// Kinds of failures that are shrunk and shown; other seeds are named.
const SHOWN: usize = 3;

/// Deterministic simulation of the address pool.
#[derive(Debug, Parser)]
struct Args {
    /// Number of seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// Happenings per seed before the weather turns fair.
    #[arg(long, default_value_t = 3_000)]
    steps: u64,
    /// First seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs seeds from a random one on, for so long, instead of a number of them.
    #[arg(long)]
    seconds: Option<u64>,
    /// Faults to leave out, by name.
    #[arg(long, value_delimiter = ',')]
    off: Vec<String>,
    /// Strokes and acts to have, as a shrunk failure prints them; without it all that are drawn.
    #[arg(long, value_delimiter = ',')]
    only: Option<Vec<Stroke>>,
    /// Happenings to show of a failed run.
    #[arg(long, default_value_t = 40)]
    lines: usize,
    /// Of these only those that contain this text, for instance an address.
    #[arg(long)]
    about: Option<String>,
    /// Builds one defect after the other into the core and runs until each is noticed.
    #[arg(long)]
    mutants: bool,
    /// Builds this defect into the core of every run.
    #[arg(long, conflicts_with = "mutants")]
    mutant: Option<String>,
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

impl Args {
    fn plan(&self, seed: u64) -> anyhow::Result<Plan> {
        let fault = |name: &String| {
            let known = Fault::ALL.iter().find(|fault| fault.as_str() == name);
            known
                .copied()
                .ok_or_else(|| anyhow::anyhow!("there is no fault {name:?}"))
        };
        let off = self.off.iter().map(fault).collect::<anyhow::Result<BTreeSet<_>>>()?;
        let only = self.only.as_ref().map(|these| these.iter().copied().collect());
        Ok(Plan {
            defect: self.mutant.as_deref().map(defect).transpose()?,
            off,
            only: only.map_or(Allowed::All, Allowed::Only),
            ..Plan::of_seed(seed, self.steps)
        })
    }

    /// The first seed, and when to stop.
    fn bounds(&self) -> (u64, Option<Duration>) {
        match self.seconds {
            // Eight digits are enough for chance and short enough to be copied.
            Some(seconds) => (
                fastrand::u64(10_000_000..100_000_000),
                Some(Duration::from_secs(seconds)),
            ),
            None => (self.seed, None),
        }
    }
}

/// Sums over the runs.
#[derive(Default)]
struct Totals {
    seeds: u64,
    steps: u64,
    peak: Hour,
    violations: u64,
    /// Seeds by kind of failure.
    kinds: BTreeMap<String, Vec<u64>>,
    coverage: Coverage,
}

fn run_seeds(args: &Args) -> anyhow::Result<ExitCode> {
    let plan = args.plan(args.seed)?;
    let ((first, limit), start) = (args.bounds(), Instant::now());
    if limit.is_some() {
        say(&format!("first seed {first}"));
    }
    let goes_on = |seeds: u64| limit.map_or(seeds < args.seeds, |limit| start.elapsed() < limit);
    let mut totals = Totals::default();
    while goes_on(totals.seeds) {
        let plan = Plan {
            seed: first.saturating_add(totals.seeds),
            ..plan.clone()
        };
        let report = run(&plan, Logging::Off);
        totals.seeds += 1;
        totals.steps += report.steps;
        totals.peak = totals.peak.max(report.peak);
        totals.coverage.merge(&report.coverage);
        if let Some(failure) = report.failure {
            totals.violations += 1;
            say(&format!("seed {} step {}: {}", plan.seed, failure.step, failure.text));
            let alike = totals.kinds.entry(kind(&failure.text)).or_default();
            alike.push(plan.seed);
            if alike.len() == 1 && totals.kinds.len() <= SHOWN {
                report_failure(&plan, &failure, args);
            }
        }
    }
    Ok(sum_up(&totals, &plan, start.elapsed()))
}

/// The last lines of the output, and its status.
fn sum_up(totals: &Totals, plan: &Plan, took: Duration) -> ExitCode {
    let everything =
        totals.seeds >= ENOUGH_SEEDS && plan.defect.is_none() && plan.off.is_empty() && plan.only == Allowed::All;
    let missing = if everything {
        totals.coverage.missing()
    } else {
        Vec::new()
    };
    if totals.violations == 0 {
        say(&format!("exercised:\n{}", totals.coverage.table()));
    }
    for (kind, seeds) in &totals.kinds {
        let some: Vec<String> = seeds.iter().take(8).map(u64::to_string).collect();
        say(&format!("{} × {kind}: seeds {}", seeds.len(), some.join(" ")));
    }
    if !missing.is_empty() {
        say(&format!("too rarely exercised: {}", missing.join(", ")));
    }
    say(&format!(
        "busiest hour of any node: {} EC2 calls, {} throttled",
        totals.peak.calls, totals.peak.throttled
    ));
    let per_second = u128::from(totals.steps) * 1_000 / took.as_millis().max(1);
    say(&format!(
        "{} seeds, {} steps each in foul weather, {per_second} steps per second, {:.1} s, {} violations",
        totals.seeds,
        plan.steps,
        took.as_secs_f64(),
        totals.violations
    ));
    if totals.violations > 0 || !missing.is_empty() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Shrinks a failure and shows its strokes and its last happenings.
fn report_failure(plan: &Plan, failure: &Failure, args: &Args) {
    let (small, shown) = shrink(plan, failure);
    say(&format!(
        "  shrunk from {} strokes and acts to {}:",
        failure.fallen.len(),
        shown.fallen.len()
    ));
    for fallen in &shown.fallen {
        say(&format!(
            "    {:>10.3} s  {} {}",
            fallen.at.as_secs_f64(),
            fallen.stroke,
            fallen.what
        ));
    }
    say(&format!("  {}", shown.node));
    say(&format!("  the last of its happenings, then {}", shown.text));
    let about = |line: &&String| args.about.as_ref().is_none_or(|text| line.contains(text.as_str()));
    let last: Vec<&String> = shown.log.iter().rev().filter(about).take(args.lines).collect();
    for line in last.into_iter().rev() {
        say(&format!("    {line}"));
    }
    let strokes: Vec<String> = shown.fallen.iter().map(|one| one.stroke.to_string()).collect();
    say(&format!(
        "  again: ipam-sim --seeds 1 --seed {} --steps {} --only {}",
        small.seed,
        small.steps,
        strokes.join(",")
    ));
    say(&format!(
        "  as a regression test: check_holds({}, {}, \"{}\");",
        small.seed,
        small.steps,
        strokes.join(" ")
    ));
}

#[cfg(feature = "mutants")]
fn defect(name: &str) -> anyhow::Result<ipam_core::Mutant> {
    let known = ipam_core::Mutant::ALL
        .iter()
        .find(|mutant| format!("{mutant:?}") == name);
    known
        .copied()
        .ok_or_else(|| anyhow::anyhow!("there is no mutant {name:?}"))
}

#[cfg(not(feature = "mutants"))]
fn defect(_: &str) -> anyhow::Result<crate::NoMutant> {
    anyhow::bail!("built without the feature `mutants`: defects cannot be built into the core")
}

#[cfg(not(feature = "mutants"))]
fn run_mutants(_: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("built without the feature `mutants`: defects cannot be built into the core")
}

#[cfg(feature = "mutants")]
fn run_mutants(args: &Args) -> anyhow::Result<ExitCode> {
    let (mut caught, start) = (0, Instant::now());
    for mutant in ipam_core::Mutant::ALL {
        let found = (args.seed..args.seed.saturating_add(args.seeds)).find_map(|seed| {
            let plan = Plan {
                defect: Some(*mutant),
                ..Plan::of_seed(seed, args.steps)
            };
            let failure = run(&plan, Logging::Off).failure?;
            // A seed that fails without the defect shows nothing.
            let sound = Plan::of_seed(seed, args.steps);
            let shows = run(&sound, Logging::Off).failure.is_none();
            shows.then_some((seed, failure))
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
    say(&format!(
        "caught {caught} of {all} in {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    Ok(if caught == all {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
