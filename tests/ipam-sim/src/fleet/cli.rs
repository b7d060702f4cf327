//! The command line of `ipam-fleet`: goals, the target grid, the table of `docs/pool.md`, single runs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use super::goals::{Pace, Row, Standing, judge};
use super::grid::{Extent, check};
use super::page::{self, Purpose};
use super::plan::{Mode, Plan, Policy, Subnets, Targets, Workload};
use super::world::run;

/// What policies of the address pool cost, in virtual time.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The goals of the policy, ours beside the reference's formulas.
    Goals {
        /// Also the ones that take minutes: 5,000 nodes.
        #[arg(long)]
        slow: bool,
        /// Writes the rows there, as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Parts of the names of goals; all when absent.
        names: Vec<String>,
    },
    /// Combinations of targets, modes and instance types: each converges to what the formulas say, then is silent.
    Grid {
        /// All 24,010 instead of enough for every pair of values.
        #[arg(long)]
        exhaustive: bool,
    },
    /// The table of addresses, ENIs and calls by number of pods.
    Table {
        /// The page that has it between marks.
        #[arg(long)]
        page: Option<PathBuf>,
        /// Puts the table there instead of comparing.
        #[arg(long, requires = "page")]
        write: bool,
    },
    /// One run: a workload and a policy.
    Run {
        /// burst, churn, day, rolling, cron, batch, or a number of nodes that join.
        workload: String,
        /// Whose: `ours`, `knowing` (ours, told of bound pods), `reference`.
        program: String,
        /// `own` (nothing set), `eni1`, `wip5-10`, `wip1-1`, `prefix1`.
        targets: String,
        /// Prefixes instead of addresses.
        #[arg(long)]
        prefixes: bool,
        /// Fragmented subnets instead of ample ones.
        #[arg(long)]
        scarce: bool,
        /// First of the random choices.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

#[expect(clippy::print_stdout, reason = "the report is the product of this program")]
fn say(text: &str) {
    println!("{text}");
}

/// Runs what the arguments of the process ask for.
pub fn main() -> anyhow::Result<ExitCode> {
    match Args::parse().command {
        Command::Goals { slow, json, names } => {
            let rows = judge(if slow { Pace::Slow } else { Pace::Quick }, &names);
            report(&rows, json)
        }
        Command::Grid { exhaustive } => Ok(grid(if exhaustive {
            Extent::Exhaustive
        } else {
            Extent::Pairwise
        })),
        Command::Table { page: None, .. } => {
            say(&page::table());
            Ok(ExitCode::SUCCESS)
        }
        Command::Table {
            page: Some(path),
            write,
        } => {
            page::update(&path, if write { Purpose::Write } else { Purpose::Compare })?;
            say(&format!("{}: as the pool does", path.display()));
            Ok(ExitCode::SUCCESS)
        }
        Command::Run {
            workload,
            program,
            targets,
            prefixes,
            scarce,
            seed,
        } => {
            let mode = if prefixes { Mode::Prefixes } else { Mode::Addresses };
            let policy = policy(&program, &targets, mode)?;
            let subnets = if scarce { Subnets::SCARCE } else { Subnets::AMPLE };
            let plan = Plan {
                seed,
                subnets,
                ..plan(&workload, policy)?
            };
            say(&format!("{:#?}", run(&plan)));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn grid(extent: Extent) -> ExitCode {
    let verdict = check(extent);
    for fault in verdict.faults.iter().take(40) {
        say(fault);
    }
    for (id, count) in &verdict.deviations {
        say(&format!("{id}: {count} times"));
    }
    say(&format!(
        "{} combinations, {} faults",
        verdict.points,
        verdict.faults.len()
    ));
    if verdict.faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn policy(program: &str, targets: &str, mode: Mode) -> anyhow::Result<Policy> {
    let targets = match targets {
        "own" => Targets::UNSET,
        "eni1" => Targets::enis(1),
        "wip5-10" => Targets::addresses(5, 10),
        "wip1-1" => Targets::addresses(1, 1),
        "prefix1" => Targets::prefixes(1),
        other => anyhow::bail!("there are no targets {other:?}"),
    };
    match program {
        "ours" => Ok(Policy::ours(targets, mode)),
        "knowing" => Ok(Policy::ours(targets, mode).knowing()),
        "reference" => Ok(Policy::reference(targets, mode)),
        other => anyhow::bail!("there is no program {other:?}"),
    }
}

fn plan(workload: &str, policy: Policy) -> anyhow::Result<Plan> {
    let seconds = Duration::from_secs;
    let hundred = |workload| Plan::hundred_nodes(policy, workload);
    Ok(match workload {
        "burst" => Plan::one_node(policy, Workload::Burst { pods: 50 }),
        "churn" => hundred(Workload::CHURN),
        "day" => Plan {
            span: seconds(7_200),
            ..hundred(Workload::DAY)
        },
        "rolling" => hundred(Workload::Rolling { pods: 20 }),
        "cron" => hundred(Workload::Cron { pods: 20, jobs: 30 }),
        "batch" => hundred(Workload::Batch {
            rate: 0.6,
            life: seconds(30),
        }),
        nodes => {
            let nodes = nodes
                .parse()
                .with_context(|| format!("there is no workload {nodes:?}"))?;
            Plan::join(policy, nodes)
        }
    })
}

fn number(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.3}")
    }
}

fn report(rows: &[Row], json: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    say("| scenario | goal | ours | reference | ratio | met |\n|---|---|---|---|---|---|");
    let mut lost = 0;
    for row in rows {
        let verdict = match (row.met, row.standing) {
            (true, Standing::Held) => "yes".to_owned(),
            (true, Standing::Missed(_)) => "yes, though listed as missed".to_owned(),
            (false, Standing::Missed(cause)) => format!("no: {cause}"),
            (false, Standing::Held) => {
                lost += 1;
                "NO, and it has to be".to_owned()
            }
        };
        let or_none = |value: Option<f64>| value.map_or_else(String::new, number);
        say(&format!(
            "| {} | ≤ {} | {} | {} | {} | {verdict} |",
            row.title,
            number(row.budget),
            number(row.ours),
            or_none(row.peer),
            or_none(row.ratio),
        ));
    }
    if let Some(path) = json {
        let values: Vec<_> = rows.iter().map(Row::json).collect();
        let text = serde_json::to_string_pretty(&values).context("rows as JSON")?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        std::fs::write(&path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    let met = rows.iter().filter(|row| row.met).count();
    say(&format!("{met} of {} goals met, {lost} lost", rows.len()));
    Ok(if lost == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
