//! Looking into a running simulator and steering it: one JSON request per line over a Unix socket, one JSON line back.
//!
//! Owns the requests and the socket's name. The socket is abstract (it has a name but no file), bound before the
//! simulator enters its sandbox: it is reachable from where the user is, and vanishes with the simulator however that
//! ends. Only the simulator's own uid is served.
//! An answer is `{"ok": …}` or `{"error": "…"}`.

mod apply;
mod client;
mod dump;
mod kube;
mod server;

use clap::{Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

pub use client::{ClientError, request};
pub use kube::KubeRequest;
pub use server::{bind, serve};

use crate::Simulator;
use crate::model::{Delay, Settings};
use crate::vpc::VpcHandle;

/// A request. The same words are the command line of `vpc-sim ctl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Subcommand)]
#[serde(tag = "cmd", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Show subnets, instances, ENIs and what they hold.
    State,
    /// Show calls per action: as clients count them, as HTTP requests, and what became of them.
    Counts {
        /// Start over after showing them.
        #[arg(long)]
        #[serde(default)]
        reset: bool,
    },
    /// Show the packets that the fabric dropped, by ENI, reason and addresses.
    Drops,
    /// Show how to enter a node, an internet host, or `fabric`.
    Address {
        /// Its name.
        node: String,
    },
    /// Make the next calls of an action go wrong.
    Fault {
        /// Name of the action, for instance `AssignPrivateIpAddresses`.
        action: String,
        /// Refuse with this code.
        #[arg(long, conflicts_with_all = ["lose", "delay_ms"])]
        code: Option<String>,
        /// Lose the answer; the call has its effect (`applied`) or not (`not-applied`).
        #[arg(long, conflicts_with = "delay_ms")]
        lose: Option<Lose>,
        /// Answer that much later.
        #[arg(long)]
        delay_ms: Option<u64>,
        /// How many calls.
        #[arg(long, default_value_t = 1)]
        #[serde(default = "one")]
        calls: usize,
    },
    /// Forget faults that have not happened yet, and heal IMDS.
    ClearFaults,
    /// Make IMDS wrong until `clear-faults`.
    ImdsFault {
        /// What is wrong.
        kind: ImdsFaultKind,
        /// Instance id for `gone` and `disabled`, else ENI id.
        id: String,
    },
    /// What callers see of lost answers: a closed connection, or nothing at all.
    LostAnswers {
        /// Which.
        mode: LostMode,
    },
    /// Set the latency of an action.
    Latency {
        /// Name of the action.
        action: String,
        /// Milliseconds.
        ms: u64,
    },
    /// Set how long things take, and how old views are. What is not named stays.
    Timing(Timing),
    /// Throttle as EC2 does times a factor; without one, not at all.
    Throttle {
        /// 1 is what an account has.
        factor: Option<f64>,
    },
    /// Give addresses or prefixes to an ENI, behind the back of its node.
    Assign {
        /// The ENI.
        eni: String,
        /// How many.
        #[arg(long, default_value_t = 1)]
        #[serde(default = "one_address")]
        count: u32,
        /// Prefixes instead of addresses.
        #[arg(long)]
        #[serde(default)]
        prefixes: bool,
    },
    /// Take addresses or prefixes away, behind the back of the node.
    Unassign {
        /// The ENI.
        eni: String,
        /// Addresses, or prefixes with their length.
        what: Vec<String>,
    },
    /// Somebody else takes addresses of a subnet: as `subnets` of the configuration, but now.
    Take {
        /// The subnet.
        subnet: String,
        /// How many, of EC2's choice.
        #[arg(long, default_value_t = 0)]
        #[serde(default)]
        count: u32,
        /// One in each /28, so that no prefix is left.
        #[arg(long)]
        #[serde(default)]
        fragmented: bool,
    },
    /// Somebody else leaves a subnet.
    GiveBack {
        /// The subnet.
        subnet: String,
    },
    /// Announce in IMDS that an instance will end soon.
    Notice {
        /// The instance.
        instance: String,
        /// Who says so; nobody any more when absent.
        from: Option<NoticeKind>,
    },
    /// Detach an ENI at once, behind the back of the node.
    Detach {
        /// The ENI.
        eni: String,
    },
    /// Terminate an instance.
    Terminate {
        /// The instance.
        instance: String,
    },
    /// Look into the cluster, change its objects, or take its API server away.
    #[command(subcommand)]
    Kube(KubeRequest),
}

fn one() -> usize {
    1
}

fn one_address() -> u32 {
    1
}

/// Delays in milliseconds, in the configuration file too. What is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Args)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// From attach call to device.
    #[arg(long, value_name = "MS")]
    pub attach: Option<u64>,
    /// From detach call to the device's disappearance.
    #[arg(long, value_name = "MS")]
    pub unplug: Option<u64>,
    /// From detach call to `available`.
    #[arg(long, value_name = "MS")]
    pub detach: Option<u64>,
    /// Age of what describes show.
    #[arg(long, value_name = "MS")]
    pub describe_lag: Option<u64>,
    /// Age of what IMDS shows.
    #[arg(long, value_name = "MS")]
    pub imds_lag: Option<u64>,
}

impl Timing {
    pub(crate) fn set(&self, settings: &mut Settings) {
        for (field, millis) in [
            (&mut settings.attach, self.attach),
            (&mut settings.unplug, self.unplug),
            (&mut settings.detach, self.detach),
            (&mut settings.describe_lag, self.describe_lag),
            (&mut settings.imds_lag, self.imds_lag),
        ] {
            *field = millis.map_or(*field, Delay::millis);
        }
    }
}

/// Whether a call whose answer is lost has its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Lose {
    /// EC2 did it.
    Applied,
    /// EC2 never saw it.
    NotApplied,
}

/// See [`Request::LostAnswers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LostMode {
    /// The connection closes.
    Close,
    /// Nothing happens.
    Hang,
}

/// See [`Request::ImdsFault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ImdsFaultKind {
    /// IMDS does not answer the instance.
    Gone,
    /// IMDS refuses the instance with 403.
    Disabled,
    /// The ENI is listed without id and device number.
    HalfEntry,
    /// The ENI is listed without secondary addresses and prefixes.
    NoSecondaries,
    /// The ENI's next change is not shown.
    StaleForever,
}

/// See [`Request::Notice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeKind {
    /// EC2, which wants spot capacity back.
    Spot,
    /// The Auto Scaling group.
    AutoScaling,
}

/// What requests are applied to.
#[derive(Debug, Clone)]
pub struct Target {
    /// Always there.
    pub simulator: Simulator,
    /// Absent when only the API is served.
    pub vpc: Option<VpcHandle>,
}
