//! Builds the binaries, shows how far it is, tells where they are.
//!
//! Invariant: whatever contains the EC2 SDK is built by one selection (`--workspace`), in one profile. Cargo unifies features over
//! the selection: another one could change a feature below the SDK, and then its four minutes are spent twice.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::context::Context;
use crate::run::{self, Deadline};

/// How often a build tells where it is when no terminal shows cargo's own bar.
const TICK: Duration = Duration::from_secs(10);

/// Executables by the name of their target.
pub(crate) type Binaries = BTreeMap<String, PathBuf>;

/// What the demo and the end-to-end suite run.
#[derive(Debug)]
pub(crate) struct Product {
    /// `aws-cni`, static, as shipped.
    pub(crate) plugin: PathBuf,
    /// `ipamd`.
    pub(crate) daemon: PathBuf,
    /// `vpc-sim`.
    pub(crate) simulator: PathBuf,
    /// Everything that was built, those three included.
    pub(crate) all: Binaries,
}

impl Product {
    /// Builds it.
    pub(crate) fn build(context: &Context, deadline: Deadline) -> Result<Self> {
        Self::of(context, &["--workspace", "--bins"], deadline)
    }

    /// Builds it as it is shipped, for figures.
    pub(crate) fn release(context: &Context, deadline: Deadline) -> Result<Self> {
        Self::of(context, &["--workspace", "--bins", "--release"], deadline)
    }

    fn of(context: &Context, selection: &[&str], deadline: Deadline) -> Result<Self> {
        let all = build(context, selection, deadline)?;
        Ok(Self {
            plugin: plugin(context, deadline)?,
            daemon: find(&all, "ipamd")?,
            simulator: find(&all, "vpc-sim")?,
            all,
        })
    }

    /// One of the executables.
    pub(crate) fn executable(&self, name: &str) -> Result<PathBuf> {
        find(&self.all, name)
    }
}

/// The plugin as it is shipped: static and small. Its graph has no SDK, so another selection costs little.
fn plugin(context: &Context, deadline: Deadline) -> Result<PathBuf> {
    let target = Context::static_target();
    add_target(context, &target, deadline)?;
    let built = build(
        context,
        &["-p", "cni-plugin", "--bins", "--profile", "plugin", "--target", &target],
        deadline,
    )?;
    find(&built, "aws-cni")
}

/// Installs a target's standard library where rustup manages the toolchain and has not done it by itself.
fn add_target(context: &Context, target: &str, deadline: Deadline) -> Result<()> {
    let sysroot = run::output(context.program("rustc").args(["--print", "sysroot"]))?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(target).is_dir() {
        return Ok(());
    }
    run::check(context.program("rustup").args(["target", "add", target]), deadline)
        .with_context(|| format!("the standard library for {target} is missing and could not be installed"))
}

/// One of the executables that a build made.
pub(crate) fn find(binaries: &Binaries, name: &str) -> Result<PathBuf> {
    binaries
        .get(name)
        .cloned()
        .with_context(|| format!("the build made no executable {name}"))
}

/// `cargo build` of a selection, with progress; returns the executables of the selection.
pub(crate) fn build(context: &Context, selection: &[&str], deadline: Deadline) -> Result<Binaries> {
    let terminal = std::io::stderr().is_terminal();
    let mut command = context.cargo(["build", "--message-format=json"]);
    command.args(selection).stdin(Stdio::null()).stdout(Stdio::piped());
    if !terminal {
        command.arg("--quiet");
    }
    let mut child = command.spawn().context("cannot start cargo build")?;
    let output = child.stdout.take().context("cargo build has no output")?;
    let (messages, arrived) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if messages.send(line).is_err() {
                return;
            }
        }
    });
    let binaries = follow(
        &arrived,
        deadline,
        if terminal { Ticks::Silent } else { Ticks::Printed },
    );
    let status = run::wait(child, "cargo build", deadline)?;
    if !status.success() {
        bail!("cargo build {}: {status}", selection.join(" "));
    }
    Ok(binaries)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ticks {
    Silent,
    Printed,
}

/// Reads cargo's messages to their end or to the deadline.
fn follow(arrived: &Receiver<String>, deadline: Deadline, ticks: Ticks) -> Binaries {
    let started = Instant::now();
    let mut next_tick = started + TICK;
    let mut compiled = 0_u32;
    let mut binaries = Binaries::new();
    while !deadline.left().is_zero() {
        match arrived.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                let message: Value = serde_json::from_str(&line).unwrap_or(Value::Null);
                compiled += u32::from(message["reason"] == "compiler-artifact" && message["fresh"] == false);
                binaries.extend(executable(&message));
                if let Some(error) = error(&message) {
                    println!("{error}");
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                if ticks == Ticks::Printed {
                    println!("building… {compiled} crates, {} s", started.elapsed().as_secs());
                }
                next_tick += TICK;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    binaries
}

/// What a compiler has against the build. Warnings are clippy's subject, not of who wants to see a demo.
fn error(message: &Value) -> Option<&str> {
    let diagnostic = &message["message"];
    (diagnostic["level"] == "error").then(|| diagnostic["rendered"].as_str())?
}

fn executable(message: &Value) -> Option<(String, PathBuf)> {
    let name = message["target"]["name"].as_str()?;
    let path = message["executable"].as_str()?;
    Some((name.to_owned(), path.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_shown_and_warnings_are_not() {
        let message = |level| serde_json::json!({"message": {"level": level, "rendered": "text"}});
        assert_eq!(error(&message("error")), Some("text"));
        assert_eq!(error(&message("warning")), None);
    }

    #[test]
    fn executables_are_read_from_the_messages_of_cargo() {
        let (messages, arrived) = mpsc::channel();
        for line in [
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"a"},"executable":null,"fresh":true}"#,
            r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"b"},"executable":"/t/b","fresh":false}"#,
            "not a message",
            r#"{"reason":"build-finished","success":true}"#,
        ] {
            messages.send(line.to_owned()).unwrap();
        }
        drop(messages);
        let binaries = follow(&arrived, Deadline::after(Duration::from_secs(5)), Ticks::Silent);
        assert_eq!(binaries, Binaries::from([("b".to_owned(), PathBuf::from("/t/b"))]));
    }
}
