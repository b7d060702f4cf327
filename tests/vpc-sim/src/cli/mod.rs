//! The command line: what is given, which command runs, and what people read.
//!
//! The only place of this crate that reads the environment and prints. Commands that enter a sandbox or a node run
//! before any thread exists.

mod ec2;
mod exec;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use nix::unistd::geteuid;
use vpc_sim::ctl;

#[derive(Debug, Parser)]
#[command(
    name = "vpc-sim",
    version,
    about = "A VPC on this machine: EC2 API, instance metadata, nodes, packets"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a VPC and keep it until Ctrl-C: nodes as network namespaces, EC2 and IMDS reachable from them.
    ///
    /// When everything answers, one line of JSON on stdout says where things are. Needs no root; as root it needs no
    /// user namespace. However it ends, nothing is left behind.
    Up(up::Options),
    /// Run a command in a node or internet host of a running VPC, or in `fabric`, the network between them.
    Exec(exec::Options),
    /// Look into a running VPC, or make things go wrong in it. Prints JSON.
    Ctl {
        #[command(flatten)]
        instance: StateDir,
        #[command(subcommand)]
        request: ctl::Request,
    },
    /// Serve the EC2 API only, without nodes and packets, in this machine's own network.
    Ec2(ec2::Options),
}

/// Which simulator is meant.
#[derive(Debug, Args)]
struct StateDir {
    /// Names the simulator when several run; nothing is written there [default: $XDG_RUNTIME_DIR/vpc-sim, or
    /// /tmp/vpc-sim-UID]
    #[arg(long, env = "VPC_SIM_STATE", value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[arg(long, env = "XDG_RUNTIME_DIR", hide = true)]
    runtime_dir: Option<PathBuf>,
}

impl StateDir {
    fn path(&self) -> PathBuf {
        let runtime = self.runtime_dir.as_ref().map(|dir| dir.join("vpc-sim"));
        let fallback = || PathBuf::from(format!("/tmp/vpc-sim-{}", geteuid()));
        self.state_dir.clone().or(runtime).unwrap_or_else(fallback)
    }
}

/// A configuration file to start from.
#[derive(Debug, Args)]
struct ConfigFile {
    /// JSON file; without one: 10.0.0.0/16, two subnets, two m5.large nodes, one internet host
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigFile {
    fn load(&self) -> anyhow::Result<vpc_sim::config::Config> {
        Ok(match &self.config {
            Some(path) => vpc_sim::config::Config::load(path)?,
            None => vpc_sim::config::Config::default(),
        })
    }
}

pub(crate) fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Up(options) => up::run(&options),
        Command::Exec(options) => exec::run(&options),
        Command::Ctl { instance, request } => ask(&instance, &request),
        Command::Ec2(options) => ec2::run(&options),
    };
    outcome.unwrap_or_else(|error| {
        say(&format!("vpc-sim: {error:#}"));
        ExitCode::FAILURE
    })
}

fn ask(instance: &StateDir, request: &ctl::Request) -> anyhow::Result<ExitCode> {
    let answer = ctl::request(&instance.path(), request)?;
    if !answer.is_null() {
        print_line(&serde_json::to_string_pretty(&answer)?);
    }
    Ok(ExitCode::SUCCESS)
}

/// A line for people.
#[expect(clippy::print_stderr, reason = "the command line's messages")]
fn say(line: &str) {
    eprintln!("{line}");
}

/// A line for programs. A reader that has gone is not this program's problem.
fn print_line(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Completes when the user or a supervisor wants an end.
async fn end_wanted() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}
