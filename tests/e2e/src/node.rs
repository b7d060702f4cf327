//! One node of the VPC with its daemon.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use vpc_fabric::Node;
use vpc_fabric::node::{CommandSpec, NodeChild, Stream};

use crate::wait;

/// The daemon's socket, as programs on the node see it.
const SOCKET: &str = "/run/aws-node/ipamd.sock";
/// The daemon's log, as programs on the node see it.
const LOG: &str = "/var/log/aws-routed-eni/ipamd.log";
/// A daemon serves within a fraction of a second; the machine may be busy.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// The daemon's commands answer from memory.
const COMMAND_DEADLINE: Duration = Duration::from_secs(10);

/// A node's daemon: started and ended as the kubelet would.
#[derive(Debug)]
pub struct Daemon {
    program: PathBuf,
    environment: BTreeMap<String, String>,
    child: Option<NodeChild>,
}

impl Daemon {
    /// A daemon with this environment, not started.
    pub fn new(program: PathBuf, environment: BTreeMap<String, String>) -> Self {
        Self {
            program,
            environment,
            child: None,
        }
    }

    /// Another one like it, not started.
    pub fn twin(&self) -> Self {
        Self::new(self.program.clone(), self.environment.clone())
    }

    /// The next start executes this file: its name is the process's name.
    pub fn execute(&mut self, program: PathBuf) {
        self.program = program;
    }

    /// Changes the environment of the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    /// Starts it and waits until it serves; the time that took.
    pub fn start(&mut self, node: &Node) -> Result<Duration> {
        let started = Instant::now();
        self.spawn(node)?;
        let socket = node.outside(Path::new(SOCKET));
        wait::until("the daemon serves", START_DEADLINE, || {
            let child = self.child.as_mut().context("the daemon was started a line ago")?;
            if let Some(status) = child.try_wait()? {
                let log = std::fs::read_to_string(node.outside(Path::new(LOG))).unwrap_or_default();
                anyhow::bail!("the daemon of {} ended with {status}\n{log}", node.name());
            }
            Ok(UnixStream::connect(&socket).ok())
        })?;
        Ok(started.elapsed())
    }

    /// Starts it without waiting.
    pub fn spawn(&mut self, node: &Node) -> Result<()> {
        let command = CommandSpec::new(&self.program)
            .envs(self.environment.iter())
            .stdout(Stream::AppendTo(node.outside(Path::new("/var/log/ipamd.out"))))
            .stderr(Stream::AppendTo(node.outside(Path::new("/var/log/ipamd.out"))));
        self.child = Some(node.spawn(&command)?);
        Ok(())
    }

    /// Ends it with a signal and waits; how it ended and how long that took.
    pub fn stop(&mut self, signal: Signal) -> Result<(ExitStatus, Duration)> {
        let mut child = self.child.take().context("the daemon does not run")?;
        let started = Instant::now();
        child.signal(signal)?;
        let status = child.wait(COMMAND_DEADLINE)?.context("the daemon does not end")?;
        Ok((status, started.elapsed()))
    }

    /// Its process, while it runs.
    pub fn child(&mut self) -> Option<&mut NodeChild> {
        self.child.as_mut()
    }

    /// One of its commands, with JSON output.
    pub fn ask(&self, node: &Node, command: &str) -> Result<Value> {
        let (status, answer) = self.ask_for_status(node, &[command])?;
        ensure!(
            status == Some(0),
            "`ipamd {command}` on {} ends with {status:?}: {answer:#}",
            node.name()
        );
        Ok(answer)
    }

    /// One of its commands, with JSON output, and its exit status.
    pub fn ask_for_status(&self, node: &Node, arguments: &[&str]) -> Result<(Option<i32>, Value)> {
        let spec = CommandSpec::new(&self.program)
            .args(arguments)
            .args(["-o", "json"])
            .envs(self.environment.iter());
        let output = node.output(&spec, b"", COMMAND_DEADLINE)?;
        let answer = serde_json::from_slice(&output.stdout).with_context(|| {
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            format!("`ipamd {}` on {}: {complaint}", arguments.join(" "), node.name())
        });
        Ok((output.status.code(), answer?))
    }

    /// Its log.
    pub fn log(node: &Node) -> String {
        std::fs::read_to_string(node.outside(Path::new(LOG))).unwrap_or_default()
    }
}

/// The environment of a daemon in the simulated VPC.
pub fn environment(ec2_url: &str) -> BTreeMap<String, String> {
    let pairs = [
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL_EC2", ec2_url),
        ("AWS_ACCESS_KEY_ID", "AKIDSIMULATED"),
        ("AWS_SECRET_ACCESS_KEY", "simulated"),
        ("AWS_VPC_K8S_CNI_LOG_FILE", LOG),
        ("AWS_VPC_K8S_CNI_LOGLEVEL", "debug"),
        // As the chart sets it.
        ("WARM_ENI_TARGET", "1"),
    ];
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
