//! One scenario in this process: gives up root if told to, enters the sandbox, watches the time.

use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};

use anyhow::{Context, Result, bail};
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use vpc_fabric::sandbox::enter;
use vpc_fabric::{Entry, SandboxConfig};

use super::runner::Suite;
use super::{Bench, Scenario, logs};
use crate::binaries::{Binaries, Tools};

/// Runs the scenario of this name. No thread may exist yet.
pub fn run(suite: Suite, name: &str, binaries: Binaries, tools: Tools, uid: Option<u32>) -> Result<ExitCode> {
    let scenario = suite.scenarios().into_iter().find(|scenario| scenario.name == name);
    let scenario = scenario.with_context(|| format!("there is no scenario {name:?}"))?;
    if let Some(uid) = uid {
        become_user(uid).with_context(|| format!("cannot become uid {uid}"))?;
    }
    match enter(&SandboxConfig::default()).context("cannot make a sandbox")? {
        Entry::Ended(status) => Ok(ExitCode::from(status)),
        Entry::Inside(sandbox) => {
            let bench = Bench {
                sandbox,
                binaries,
                tools,
            };
            watched(scenario, bench)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Gives up root for good, as a login of another user would.
fn become_user(uid: u32) -> Result<()> {
    setgroups(&[])?;
    setgid(Gid::from_raw(uid))?;
    setuid(Uid::from_raw(uid))?;
    // Changing the uid makes /proc/self root's, which an ordinary login does not have.
    prctl::set_dumpable(true)?;
    Ok(())
}

/// A scenario that hangs shows its logs before it ends: they are gone with the sandbox.
fn watched(scenario: Scenario, bench: Bench) -> Result<()> {
    let (done, ended) = channel();
    std::thread::spawn(move || {
        let _ = done.send((scenario.run)(&bench));
    });
    match ended.recv_timeout(scenario.limit) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => {
            logs::show();
            bail!("no end within {:?}", scenario.limit)
        }
        Err(RecvTimeoutError::Disconnected) => bail!("it panicked"),
    }
}
