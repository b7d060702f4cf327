//! The programs under measurement, and the machine they ran on.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::figures::Figures;

/// Paths of what is started, absolute.
#[derive(Debug, Clone, Args)]
pub struct Programs {
    /// The CNI plugin (`aws-cni`), as it is shipped
    #[arg(long, value_name = "PATH")]
    pub plugin: PathBuf,
    /// The daemon (`ipamd`), as it is shipped
    #[arg(long, value_name = "PATH")]
    pub daemon: PathBuf,
    /// `vpc-floor`, static
    #[arg(long, value_name = "PATH")]
    pub floor: PathBuf,
    /// `vpc-launch`, static
    #[arg(long, value_name = "PATH")]
    pub launcher: PathBuf,
    /// `vpc-nothing`, static
    #[arg(long, value_name = "PATH")]
    pub nothing: PathBuf,
}

impl Programs {
    /// All must be there.
    ///
    /// # Errors
    /// Names the one that is not.
    pub fn resolve(&mut self) -> Result<()> {
        for path in [
            &mut self.plugin,
            &mut self.daemon,
            &mut self.floor,
            &mut self.launcher,
            &mut self.nothing,
        ] {
            ensure!(path.is_file(), "{} is not there", path.display());
            *path = path
                .canonicalize()
                .with_context(|| format!("cannot resolve {}", path.display()))?;
        }
        Ok(())
    }

    /// The options that name them, for a process that is started.
    pub fn options(&self) -> Vec<String> {
        let pairs = [
            ("--plugin", &self.plugin),
            ("--daemon", &self.daemon),
            ("--floor", &self.floor),
            ("--launcher", &self.launcher),
            ("--nothing", &self.nothing),
        ];
        let words = pairs
            .into_iter()
            .flat_map(|(name, path)| [name.to_owned(), path.display().to_string()]);
        words.collect()
    }
}

/// Cores, kernel and load in a line: figures of different lines are not comparable.
pub fn line() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    let cpus = read("/proc/cpuinfo");
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or(": ?");
    let model = model.trim_start_matches(['\t', ' ', ':']);
    format!("{cores} cores ({model}), Linux {kernel}, load average {load} at the start")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(path))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Sizes of what is shipped, in MiB.
///
/// # Errors
/// When a program is gone.
#[expect(clippy::cast_precision_loss, reason = "bytes of a program")]
pub fn sizes(programs: &Programs, figures: &mut Figures) -> Result<()> {
    for (name, path) in [("size.plugin", &programs.plugin), ("size.daemon", &programs.daemon)] {
        let size = std::fs::metadata(path)
            .with_context(|| format!("cannot look at {}", path.display()))?
            .len();
        figures.value(name, size as f64 / f64::from(1 << 20));
    }
    Ok(())
}
