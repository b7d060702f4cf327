//! Which programs are tested.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

/// Paths of the programs; each has a default beside this program.
#[derive(Debug, Clone, Args)]
pub struct Binaries {
    /// The CNI plugin (`aws-cni`)
    #[arg(long, value_name = "PATH")]
    plugin: Option<PathBuf>,
    /// The daemon (`ipamd`)
    #[arg(long, value_name = "PATH")]
    daemon: Option<PathBuf>,
    /// The simulator (`vpc-sim`), for the hints of `--keep`
    #[arg(long, value_name = "PATH")]
    simulator: Option<PathBuf>,
}

impl Binaries {
    /// The plugin, absolute.
    pub fn plugin(&self) -> Result<PathBuf> {
        resolve(self.plugin.as_deref(), "aws-cni")
    }

    /// The daemon, absolute.
    pub fn daemon(&self) -> Result<PathBuf> {
        resolve(self.daemon.as_deref(), "ipamd")
    }

    /// The simulator, absolute.
    pub fn simulator(&self) -> Result<PathBuf> {
        resolve(self.simulator.as_deref(), "vpc-sim")
    }
}

fn resolve(given: Option<&Path>, name: &str) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()
            .context("this program has no path")?
            .with_file_name(name),
    };
    ensure!(
        path.is_file(),
        "{} is not there: build it, or name another",
        path.display()
    );
    path.canonicalize()
        .with_context(|| format!("cannot resolve {}", path.display()))
}
