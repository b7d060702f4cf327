//! Which programs are tested.

use std::ffi::OsString;
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
    /// This plugin and this daemon.
    pub fn new(plugin: &Path, daemon: &Path) -> Self {
        Self {
            plugin: Some(plugin.to_owned()),
            daemon: Some(daemon.to_owned()),
            simulator: None,
        }
    }

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

/// Programs that only the suite of real callers uses; each has a default beside this program.
#[derive(Debug, Clone, Default, Args)]
pub struct Tools {
    /// First process of pods, statically linked
    #[arg(long, value_name = "PATH")]
    pause: Option<PathBuf>,
    /// libcni's command (`cnitool`)
    #[arg(long, value_name = "PATH")]
    cnitool: Option<PathBuf>,
    /// The gRPC client (`grpcurl`)
    #[arg(long, value_name = "PATH")]
    grpcurl: Option<PathBuf>,
}

impl Tools {
    /// The pods' first process, absolute.
    pub fn pause(&self) -> Result<PathBuf> {
        resolve(self.pause.as_deref(), "pause")
    }

    /// libcni's command, absolute.
    pub fn cnitool(&self) -> Result<PathBuf> {
        resolve(self.cnitool.as_deref(), "cnitool")
    }

    /// The gRPC client, absolute.
    pub fn grpcurl(&self) -> Result<PathBuf> {
        resolve(self.grpcurl.as_deref(), "grpcurl")
    }

    /// The options that stand for these.
    pub fn arguments(&self) -> Vec<OsString> {
        let pairs = [
            ("--pause", &self.pause),
            ("--cnitool", &self.cnitool),
            ("--grpcurl", &self.grpcurl),
        ];
        let given = pairs.iter().filter_map(|(option, path)| Some((option, path.as_ref()?)));
        given
            .flat_map(|(option, path)| [OsString::from(option), path.clone().into_os_string()])
            .collect()
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
