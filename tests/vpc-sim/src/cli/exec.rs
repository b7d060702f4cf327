//! `vpc-sim exec`: a command in a node.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use nix::unistd::Pid;
use serde_json::Value;
use vpc_fabric::node::{NodeAddress, exec_in};
use vpc_sim::ctl;

use super::StateDir;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    instance: StateDir,
    /// Name of a node or internet host, or `fabric`
    node: String,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let request = ctl::Request::Address {
        node: options.node.clone(),
    };
    let answer = ctl::request(&options.instance.path(), &request)?;
    let pid = |value: &Value| {
        value
            .as_i64()
            .and_then(|pid| i32::try_from(pid).ok())
            .map(Pid::from_raw)
    };
    let host_init_pid = pid(&answer["host_init_pid"]).context("the simulator's answer names no process")?;
    let address = NodeAddress {
        host_init_pid,
        node_pid: pid(&answer["node_pid"]),
    };
    let (program, args) = options.command.split_first().context("a command is required")?;
    let status = exec_in(address, program, args).with_context(|| format!("cannot run it in {}", options.node))?;
    Ok(ExitCode::from(status))
}
