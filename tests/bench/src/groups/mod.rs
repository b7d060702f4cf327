//! What is measured, in groups. Each group runs in a process and a sandbox of its own.

mod daemon;
mod plugin;
mod queues;
mod rpc;
mod storm;

use anyhow::Result;
use clap::ValueEnum;
use e2e::binaries::Binaries;
use vpc_fabric::Sandbox;

use crate::figures::Figures;
use crate::machine::Programs;
use crate::pods::GO_PLUGINS;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// The plugin's calls, one at a time and in bursts.
    Plugin,
    /// The daemon's start, memory, idle time and end.
    Daemon,
    /// The daemon's answers on a usual node.
    Rpc,
    /// The same on the largest one.
    RpcLarge,
    /// Many pods at once, with EC2's latencies.
    Storm,
    /// Queues of a pod's link; on demand only.
    Queues,
}

impl Group {
    /// All groups, in the order in which they run.
    pub const ALL: [Self; 6] = [
        Self::Plugin,
        Self::Daemon,
        Self::Rpc,
        Self::RpcLarge,
        Self::Storm,
        Self::Queues,
    ];
    /// Those that run if none is asked for.
    pub const USUAL: [Self; 5] = [Self::Plugin, Self::Daemon, Self::Rpc, Self::RpcLarge, Self::Storm];
}

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// For a figure to keep.
    Full,
    /// For a check in passing.
    Quick,
}

impl Scale {
    /// The first for [`Scale::Full`], the second for [`Scale::Quick`].
    pub(crate) fn pick<T>(self, full: T, quick: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
        }
    }
}

/// What a group works with.
#[derive(Debug)]
pub struct Setup {
    /// The entered sandbox.
    pub sandbox: Sandbox,
    /// The programs.
    pub programs: Programs,
    /// The same for the harness.
    pub binaries: Binaries,
    /// How much.
    pub scale: Scale,
}

/// Whether the plugin in Go is installed.
pub fn has_go_plugins() -> bool {
    ["ptp", "host-local"]
        .iter()
        .all(|name| std::path::Path::new(GO_PLUGINS).join(name).is_file())
}

/// Measures one group.
///
/// # Errors
/// When something that is measured does not work.
pub fn run(group: Group, setup: &Setup) -> Result<Figures> {
    match group {
        Group::Plugin => plugin::measure(setup),
        Group::Daemon => daemon::measure(setup),
        Group::Rpc => rpc::measure(setup, &rpc::USUAL),
        Group::RpcLarge => rpc::measure(setup, &rpc::LARGE),
        Group::Storm => storm::measure(setup),
        Group::Queues => queues::measure(setup),
    }
}
