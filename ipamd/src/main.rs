//! `ipamd`: the daemon, and the commands that ask it.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ipamd::cli::{Output, Question};
use ipamd::config::Config;
use ipamd::{log, run};

/// Exit status for a configuration that cannot be used, as sysexits has it.
const EX_CONFIG: u8 = 78;

/// Gives VPC addresses to the pods of this node.
#[derive(Debug, Parser)]
#[command(name = "ipamd", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// How answers are printed.
    #[arg(short, long, global = true, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon (also without a command).
    Run,
    #[command(flatten)]
    Ask(Question),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    let config = match Config::from_environment(&environment) {
        Ok(config) => config,
        Err(errors) => {
            complain(&errors.to_string());
            return ExitCode::from(EX_CONFIG);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let ended = runtime.block_on(async {
            let answer = match arguments.command {
                None | Some(Command::Run) => {
                    log::start(&config)?;
                    for warning in &config.warnings {
                        tracing::warn!("{warning}");
                    }
                    return run::run(config).await.map(|()| ExitCode::SUCCESS);
                }
                Some(Command::Ask(question)) => question.answer(&config, arguments.output).await?,
            };
            print(&answer.text);
            Ok(ExitCode::from(answer.status))
        });
        // Name look-ups of the SDK run on threads that may hang as long as DNS does.
        runtime.shutdown_background();
        ended
    });
    match result {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "ended");
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn print(text: &str) {
    println!("{text}");
}

#[expect(
    clippy::print_stderr,
    reason = "logging may not have started, and `kubectl logs` shows this stream"
)]
fn complain(text: &str) {
    for line in text.lines() {
        eprintln!("ipamd: {line}");
    }
}
