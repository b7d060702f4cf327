//! `vpc-bench`: measures, prints a table, writes `summary.json`. Started by `cargo xtask bench`, which builds everything first.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use bench::baseline::Baseline;
use bench::budgets::Against;
use bench::figures::{Figures, Who};
use bench::groups::{self, Group, Scale, Setup};
use bench::machine::{self, Programs};
use bench::report;
use bench::rows::{self, Row};
use clap::Parser;
use e2e::binaries::Binaries;
use vpc_fabric::sandbox::enter;
use vpc_fabric::{Entry, SandboxConfig};

/// What our binaries cost: figures in a simulated VPC, next to the least that is possible and to a plugin in Go.
#[derive(Debug, Parser)]
#[command(name = "vpc-bench", version)]
struct Arguments {
    #[command(flatten)]
    programs: Programs,
    /// Fewer samples and a shorter idle time
    #[arg(long)]
    quick: bool,
    /// Print the tables for docs/performance.md instead
    #[arg(long)]
    markdown: bool,
    /// Where summary.json goes
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    /// Ratios that must not become worse
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Write the ratios of this run there
    #[arg(long, value_name = "FILE")]
    write_baseline: Option<PathBuf>,
    /// Measure these groups only
    #[arg(long = "only", value_name = "GROUP")]
    groups: Vec<Group>,
    /// Measure this group here and print its figures as JSON
    #[arg(long, value_name = "GROUP", hide = true)]
    group: Option<Group>,
}

fn main() -> ExitCode {
    run(Arguments::parse()).unwrap_or_else(|error| {
        say(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

fn run(mut arguments: Arguments) -> Result<ExitCode> {
    arguments.programs.resolve()?;
    match arguments.group {
        Some(group) => measure(group, &arguments),
        None => all(&arguments),
    }
}

/// One group, in a sandbox, which is entered before any thread exists.
fn measure(group: Group, arguments: &Arguments) -> Result<ExitCode> {
    let sandbox = match enter(&SandboxConfig::default()).context("cannot make a sandbox")? {
        Entry::Ended(status) => return Ok(ExitCode::from(status)),
        Entry::Inside(sandbox) => sandbox,
    };
    let programs = arguments.programs.clone();
    let setup = Setup {
        sandbox,
        binaries: Binaries::new(&programs.plugin, &programs.daemon),
        programs,
        scale: scale(arguments),
    };
    let figures = groups::run(group, &setup)?;
    say(&serde_json::to_string(&figures)?);
    Ok(ExitCode::SUCCESS)
}

fn scale(arguments: &Arguments) -> Scale {
    if arguments.quick { Scale::Quick } else { Scale::Full }
}

fn all(arguments: &Arguments) -> Result<ExitCode> {
    let first = bench_floor::launch::go_first();
    let machine = machine::line();
    let mut figures = Figures::default();
    machine::sizes(&arguments.programs, &mut figures)?;
    if !groups::has_go_plugins() {
        say("not compared with ptp + host-local: install containernetworking-plugins");
    }
    for group in Group::ALL {
        let asked = if arguments.groups.is_empty() {
            &Group::USUAL[..]
        } else {
            &arguments.groups
        };
        if asked.contains(&group) {
            figures.append(in_own_process(group, arguments)?);
        }
    }
    let rows = rows::judge(&figures);
    if let Some(path) = &arguments.summary {
        std::fs::create_dir_all(path.parent().context("a file has a directory")?)?;
        std::fs::write(path, serde_json::to_string_pretty(&rows)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    say(&if arguments.markdown {
        report::markdown(&rows)
    } else {
        report::table(&rows)
    });
    say(&format!("\n{machine}"));
    say(&how(arguments, first.is_ok(), &figures));
    if let Some(path) = &arguments.write_baseline {
        std::fs::write(path, serde_json::to_string_pretty(&Baseline::of(&rows))? + "\n")?;
    }
    judge(arguments, &figures, &rows)
}

/// The circumstances that bear on the figures.
fn how(arguments: &Arguments, goes_first: bool, figures: &Figures) -> String {
    let samples = if arguments.quick {
        "few samples (--quick)"
    } else {
        "all samples"
    };
    let realtime = figures.get("realtime", Who::Ours).map(|spread| spread.p50);
    let class = match realtime {
        Some(1.0) => "calls one at a time in the real-time class",
        Some(_) => "calls one at a time in the usual class: the real-time one is not permitted",
        None => "no calls one at a time",
    };
    let niceness = if goes_first {
        "bursts at niceness -20"
    } else {
        "bursts at the usual niceness"
    };
    let idle = figures.get("idle.seconds", Who::Ours);
    let idle = idle
        .map(|spread| format!("; idle for {:.0} s, given per minute", spread.p50))
        .unwrap_or_default();
    format!("{samples}; {class}; {niceness}{idle}")
}

/// Wall times of single calls are judged only if they were not at the mercy of the machine's other processes.
fn judge(arguments: &Arguments, figures: &Figures, rows: &[Row]) -> Result<ExitCode> {
    let missed = rows.iter().filter(|row| row.met == Some(false)).count();
    let goals = rows.iter().filter(|row| row.met.is_some()).count();
    let mut failures = unmeasured(arguments, rows);
    let undisturbed = figures
        .get("realtime", Who::Ours)
        .is_some_and(|spread| spread.p50 > 0.0);
    let judged: Vec<Row> = rows
        .iter()
        .filter(|row| undisturbed || !row.is_wall_time())
        .cloned()
        .collect();
    failures.extend(report::violations(&judged));
    if let Some(path) = &arguments.baseline {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let baseline: Baseline = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        failures.extend(baseline.regressions(&judged));
        if arguments.groups.is_empty() && groups::has_go_plugins() {
            failures.extend(baseline.uncompared(rows));
        }
    }
    for failure in &failures {
        say(&format!("FAILED {failure}"));
    }
    say(&format!(
        "{} of {goals} budgets met, {} hard limits or baselines broken",
        goals - missed,
        failures.len()
    ));
    Ok(ExitCode::from(u8::from(!failures.is_empty())))
}

/// Hard limits whose figure is missing in a run of all groups.
fn unmeasured(arguments: &Arguments, rows: &[Row]) -> Vec<String> {
    let go = groups::has_go_plugins();
    rows::unjudged(rows, |rule| {
        arguments.groups.is_empty() && (go || rule.against != Against::Other(Who::Go))
    })
}

fn in_own_process(group: Group, arguments: &Arguments) -> Result<Figures> {
    let name = clap::ValueEnum::to_possible_value(&group).context("every group has a name")?;
    let mut command = Command::new(std::env::current_exe().context("this program has no path")?);
    command
        .args(arguments.programs.options())
        .args(["--group", name.get_name()]);
    command.args(arguments.quick.then_some("--quick"));
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start a group")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "group {}: {text}", name.get_name());
    serde_json::from_str(&text).with_context(|| format!("group {} printed no figures: {text}", name.get_name()))
}

fn say(text: &str) {
    // Whoever closed our output does not want to read it.
    let _ = writeln!(std::io::stdout(), "{text}");
}
