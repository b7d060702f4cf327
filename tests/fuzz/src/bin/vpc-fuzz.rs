//! `vpc-fuzz`: feeds every target, or those named, for a while. The last line says how many inputs there were.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use fuzz::run::{self, Limit, Target};
use fuzz::{corpus, record, targets};

/// Bytes that nobody should send, for everything of ours that reads bytes of others.
#[derive(Debug, Parser)]
#[command(name = "vpc-fuzz", version)]
struct Arguments {
    /// For all targets together
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Equal seeds give equal inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where findings, and the input of the moment, are written
    #[arg(long, value_name = "DIR", default_value = "target/fuzz")]
    findings: PathBuf,
    /// Only feed the targets named this file, and say what becomes of it
    #[arg(long, value_name = "FILE")]
    reproduce: Option<PathBuf>,
    /// Write what this network namespace's kernel answers into the corpus instead
    #[arg(long)]
    record: bool,
    /// Names of targets; none for all
    targets: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.record {
        record::record(&corpus::directory())?;
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = chosen(&arguments.targets)?;
    if let Some(file) = &arguments.reproduce {
        return reproduce(&chosen, file);
    }
    fs::create_dir_all(&arguments.findings)?;
    let time = Duration::from_secs(arguments.seconds) / u32::try_from(chosen.len())?;
    let (mut inputs, mut findings) = (0, 0);
    for target in &chosen {
        match feed(target, arguments.seed, time, &arguments.findings)? {
            Some(count) => inputs += count,
            None => findings += 1,
        }
    }
    say(&format!(
        "{} targets, {inputs} inputs, {findings} findings",
        chosen.len()
    ));
    Ok(ExitCode::from(u8::from(findings > 0)))
}

fn chosen(names: &[String]) -> Result<Vec<&'static Target>> {
    for name in names {
        ensure!(
            targets::ALL.iter().any(|target| target.name == name),
            "there is no target {name}"
        );
    }
    let is_chosen = |target: &&Target| names.is_empty() || names.iter().any(|name| name == target.name);
    Ok(targets::ALL.iter().filter(is_chosen).collect())
}

/// The number of inputs, or `None` after a finding.
fn feed(target: &Target, seed: u64, time: Duration, findings: &Path) -> Result<Option<u64>> {
    let seeds = corpus::of(target.name).with_context(|| format!("{} has no corpus", target.name))?;
    let seeds: Vec<Vec<u8>> = seeds.into_iter().map(|(_, input)| input).collect();
    // What ends the process, or never ends, is still there afterwards.
    let path = findings.join(format!("{}.current", target.name));
    let current = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let note = |input: &[u8]| {
        let noted = current
            .set_len(input.len() as u64)
            .and_then(|()| current.write_all_at(input, 0));
        noted.expect("the file of the current input can be written");
    };
    match run::run(target, &seeds, seed, Limit::Time(time), note) {
        Ok(tally) => {
            fs::remove_file(&path)?;
            let rate = tally.inputs as f64 / tally.took.as_secs_f64();
            let line = format!(
                "ok      {:>14}  {:>9} inputs  {rate:>9.0}/s  {:>5} shapes  {:>3} seeds",
                target.name,
                tally.inputs,
                tally.shapes,
                seeds.len()
            );
            say(&line);
            Ok(Some(tally.inputs))
        }
        Err(crash) => {
            let path = findings.join(format!("{}-{seed}-{}", target.name, crash.number));
            fs::write(&path, &crash.input)?;
            say(&format!(
                "FAILED  {:>14}  seed {seed}, {crash}\n  written to {}; as corpus/{}/<name> it is tested for ever",
                target.name,
                path.display(),
                target.name
            ));
            Ok(None)
        }
    }
}

fn reproduce(chosen: &[&Target], file: &Path) -> Result<ExitCode> {
    let input = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut status = ExitCode::SUCCESS;
    for target in chosen {
        match run::read_one(target, &input) {
            Ok(_) => say(&format!("ok      {}", target.name)),
            Err(reason) => {
                say(&format!("FAILED  {}: {reason}", target.name));
                status = ExitCode::FAILURE;
            }
        }
    }
    Ok(status)
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn say(text: &str) {
    println!("{text}");
}
