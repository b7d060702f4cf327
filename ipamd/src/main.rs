//! `ipamd`: the daemon, and the commands that ask it.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ipamd::cli::{self, Ec2Wish, Force, Mode, Output};
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
    /// Pool, ENIs, EC2 calls, and whether a pod would get an address now.
    Status,
    /// All leases.
    Leases,
    /// Compare daemon, kernel and EC2. Status 0: they agree; 1: they do not; 2: something could not be looked at.
    Audit {
        /// Leave EC2 out
        #[arg(long)]
        no_ec2: bool,
    },
    /// For a node that goes back to amazon-vpc-cni-k8s: remove what only we use. Status 1: something was kept.
    Cleanup {
        /// Say what would be removed
        #[arg(long)]
        dry_run: bool,
        /// Even while a daemon runs, or before the other one has taken over
        #[arg(long)]
        force: bool,
    },
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
                Some(Command::Status) => cli::status(&config.paths.socket, arguments.output).await?.into(),
                Some(Command::Leases) => cli::leases(&config.paths.socket, arguments.output).await?.into(),
                Some(Command::Audit { no_ec2 }) => {
                    let ec2 = if no_ec2 { Ec2Wish::LeftOut } else { Ec2Wish::Looked };
                    cli::audit(&config, ec2, arguments.output).await
                }
                Some(Command::Cleanup { dry_run, force }) => {
                    let mode = if dry_run { Mode::DryRun } else { Mode::Act };
                    let force = if force { Force::Yes } else { Force::No };
                    cli::cleanup(&config, mode, force, arguments.output).await
                }
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
