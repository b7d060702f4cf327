//! Where things are: repository, cargo, host. The only module that reads the environment.
//!
//! Invariant: a cargo started through [`Context::cargo`] sees the environment that a person's shell would give it, so that
//! builds by hand and builds by xtask share every artefact.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Variables that `cargo run` adds for us. Some build scripts (ring's is one) ask to run again when one of them changes: passed
/// on, they would make every build alternate between two states.
const OF_CARGO_RUN: [&str; 7] = [
    "CARGO_PKG_",
    "CARGO_MANIFEST_",
    "CARGO_BIN_",
    "CARGO_CRATE_NAME",
    "CARGO_PRIMARY_PACKAGE",
    "CARGO_TARGET_TMPDIR",
    "OUT_DIR",
];

/// Directories of system programs that the PATH of an unprivileged Debian user lacks.
const SYSTEM_PROGRAMS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// What every command needs to know.
#[derive(Debug)]
pub(crate) struct Context {
    /// Root of the repository.
    pub(crate) root: PathBuf,
    cargo: OsString,
    environment: BTreeMap<OsString, OsString>,
}

impl Context {
    /// Reads the environment once.
    pub(crate) fn from_environment() -> Result<Self> {
        let mut environment: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        let cargo = environment.get(&OsString::from("CARGO")).cloned();
        environment.retain(|name, _| !is_of_cargo_run(&name.to_string_lossy()));
        let path = environment.entry("PATH".into()).or_default();
        for directory in SYSTEM_PROGRAMS {
            path.push(":");
            path.push(directory);
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask lies in no directory")?
            .to_path_buf();
        ensure!(
            root.join("Cargo.toml").is_file(),
            "no Cargo.toml in {}: the repository was moved, build xtask again",
            root.display()
        );
        Ok(Self {
            root,
            cargo: cargo.unwrap_or_else(|| "cargo".into()),
            environment,
        })
    }

    /// A cargo command in the repository.
    pub(crate) fn cargo<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = self.program(&self.cargo);
        command.args(arguments);
        command
    }

    /// Any other program, in the repository.
    pub(crate) fn program(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).env_clear().envs(&self.environment);
        command
    }

    /// File of a program that the search path leads to.
    pub(crate) fn find(&self, program: &str) -> Option<PathBuf> {
        let path = self.environment.get(&OsString::from("PATH"))?;
        std::env::split_paths(path)
            .map(|directory| directory.join(program))
            .find(|file| file.is_file())
    }

    /// The statically linked target of this machine's processor.
    pub(crate) fn static_target() -> String {
        format!("{}-unknown-linux-musl", std::env::consts::ARCH)
    }
}

fn is_of_cargo_run(name: &str) -> bool {
    OF_CARGO_RUN.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_run_adds_is_left_out_and_what_people_set_is_not() {
        assert!(is_of_cargo_run("CARGO_PKG_VERSION") && is_of_cargo_run("CARGO_MANIFEST_DIR"));
        assert!(!is_of_cargo_run("CARGO_TARGET_DIR") && !is_of_cargo_run("CARGO_HOME"));
    }

    #[test]
    fn programs_are_found_by_the_search_path() {
        let context = Context::from_environment().unwrap();
        assert!(context.find("sh").is_some());
        assert_eq!(context.find("no-such-program-anywhere"), None);
    }
}
