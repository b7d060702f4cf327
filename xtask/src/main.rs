//! `cargo xtask`: every command a contributor or a CI machine needs, with nothing to install first.
//!
//! Owns how the parts are built, in which order suites run and what `tidy` checks; owns no test itself. Each command is one
//! module; [`cli`] names them, [`context`] is the only reader of the environment.

#![expect(clippy::print_stdout, reason = "the output of these commands is their product")]

mod bench;
mod builds;
mod cli;
mod context;
mod demo;
mod foreign;
mod fuzz;
mod generate;
mod lint;
mod matrix;
mod run;
mod runtimes;
mod setup;
mod sim;
mod steps;
mod storm;
mod suites;
mod tidy;
mod upgrade;

use std::process::ExitCode;

use anyhow::Result;

use context::Context;

fn main() -> ExitCode {
    match dispatch() {
        Ok(code) => code,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch() -> Result<ExitCode> {
    let matches = cli::command().get_matches();
    let context = Context::from_environment()?;
    let Some((name, arguments)) = matches.subcommand() else {
        cli::command().print_help()?;
        return Ok(ExitCode::SUCCESS);
    };
    match name {
        "demo" => demo::demo(&context, &cli::texts(arguments, "args")),
        "e2e" => demo::e2e(&context, &demo::Replacements::from(arguments)),
        "foreign" => steps::report(&context, foreign::steps(cli::lanes(arguments))),
        "test" => steps::report(&context, suites::steps(&context, cli::lanes(arguments))?),
        "runtimes" => runtimes::by_hand(&context, &cli::texts(arguments, "args")),
        "bench" => bench::by_hand(&context, &cli::texts(arguments, "args")),
        "sim" => sim::seeds(&context, &cli::texts(arguments, "args")),
        "mutants" => sim::mutants(&context, &cli::texts(arguments, "args")),
        "upgrade" => upgrade::by_hand(&context),
        "matrix" => matrix::by_hand(&context, &cli::texts(arguments, "args")),
        "storm" => storm::storm(&context, &cli::texts(arguments, "args")),
        "fuzz" => fuzz::by_hand(&context, &cli::texts(arguments, "args")),
        "lint" => steps::report(&context, lint::steps(cli::extras(arguments))),
        "docs" => steps::report(&context, vec![lint::docs()]),
        "tidy" => steps::report(&context, vec![tidy::step()]),
        "gen-limits" => generate::limits::write(&context),
        "gen-docs" => generate::docs::write(&context),
        "ci" => {
            let mut all = lint::steps(cli::extras(arguments));
            all.extend(suites::steps(&context, cli::lanes(arguments))?);
            steps::report(&context, all)
        }
        other => anyhow::bail!("no command {other}"),
    }
}
