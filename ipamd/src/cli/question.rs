//! The operator's commands as the command line has them.

use anyhow::Result;
use clap::Subcommand;

use super::{Answer, Ec2Wish, Force, Mode, Output, audit, cleanup, leases, status};
use crate::config::Config;

/// What an operator may want.
#[derive(Debug, Clone, Subcommand)]
pub enum Question {
    /// Pool, ENIs, EC2 calls, and whether a pod would get an address now.
    Status,
    /// All leases.
    Leases,
    /// Compare daemon, kernel and EC2. Status 0: they agree; 1: they do not; 2: something could not be looked at.
    Audit {
        /// Leave EC2 out
        #[arg(long)]
        no_ec2: bool,
    },
    /// For a node that goes back to amazon-vpc-cni-k8s: remove what only we use. Status 1: something was kept.
    Cleanup {
        /// Say what would be removed
        #[arg(long)]
        dry_run: bool,
        /// Even while a daemon runs, or before the other one has taken over
        #[arg(long)]
        force: bool,
    },
}

impl Question {
    /// Answers.
    pub async fn answer(self, config: &Config, output: Output) -> Result<Answer> {
        Ok(match self {
            Self::Status => status(&config.paths.socket, output).await?.into(),
            Self::Leases => leases(&config.paths.socket, output).await?.into(),
            Self::Audit { no_ec2 } => {
                let ec2 = if no_ec2 { Ec2Wish::LeftOut } else { Ec2Wish::Looked };
                audit(config, ec2, output).await
            }
            Self::Cleanup { dry_run, force } => {
                let mode = if dry_run { Mode::DryRun } else { Mode::Act };
                let force = if force { Force::Yes } else { Force::No };
                cleanup(config, mode, force, output).await
            }
        })
    }
}
