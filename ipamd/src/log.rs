//! Where log lines go.

use std::io;
use std::sync::Mutex;

use anyhow::{Context, Result};
use log_file::LogFile;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::{Config, LogTarget};

/// Starts logging: JSON lines, one per event. The libraries below us speak only when something is wrong.
pub fn start(config: &Config) -> Result<()> {
    let layer = fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false);
    let ours = tracing_subscriber::filter::Targets::new()
        .with_target("ipamd", config.log_level)
        .with_target("cloud", config.log_level)
        .with_default(LevelFilter::WARN);
    let layer = match &config.log_target {
        LogTarget::Stdout => layer.with_writer(io::stdout).boxed(),
        LogTarget::Stderr => layer.with_writer(io::stderr).boxed(),
        LogTarget::File(path) => {
            let file = LogFile::open(path).with_context(|| format!("cannot open the log file {}", path.display()))?;
            layer.with_writer(Mutex::new(file)).boxed()
        }
    };
    tracing_subscriber::registry().with(layer.with_filter(ours)).init();
    Ok(())
}
