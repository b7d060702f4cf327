//! Why an ADD is refused: a stable code, the numbers behind it, and when it may change.

use std::fmt;
use std::time::Duration;

/// The codes, for alerts and dashboards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CauseCode {
    /// Addresses are on their way, but not within the deadline.
    PoolEmptyGrowing,
    /// The subnet has no free address.
    SubnetFull,
    /// All ENIs and all their slots are taken.
    EniLimit,
    /// EC2 limits requests.
    Throttled,
    /// EC2 cannot be reached or has a fault.
    Ec2Unavailable,
    /// The node's role may not do what is needed.
    IamDenied,
    /// Free addresses exist but rest between two pods.
    Cooling,
    /// The daemon has not yet seen what the node holds.
    DaemonStarting,
    /// The state file cannot be written.
    CheckpointFailing,
    /// Too many requests in line.
    QueueFull,
    /// A DEL of the same sandbox came while its ADD waited.
    SandboxBusy,
}

impl CauseCode {
    /// Upper-case text, stable across releases.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PoolEmptyGrowing => "POOL_EMPTY_GROWING",
            Self::SubnetFull => "SUBNET_FULL",
            Self::EniLimit => "ENI_LIMIT",
            Self::Throttled => "THROTTLED",
            Self::Ec2Unavailable => "EC2_UNAVAILABLE",
            Self::IamDenied => "IAM_DENIED",
            Self::Cooling => "COOLING",
            Self::DaemonStarting => "DAEMON_STARTING",
            Self::CheckpointFailing => "CHECKPOINT_FAILING",
            Self::QueueFull => "QUEUE_FULL",
            Self::SandboxBusy => "SANDBOX_BUSY",
        }
    }
}

/// A code with its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The code.
    pub code: CauseCode,
    /// Addresses on the node.
    pub total: u32,
    /// Of these leased.
    pub assigned: u32,
    /// Of these resting.
    pub cooling: u32,
    /// Of these grantable.
    pub free: u32,
    /// ENIs on the node.
    pub enis: u16,
    /// ENIs the node may have.
    pub max_enis: u16,
    /// Requests in line.
    pub waiting: usize,
    /// When it may change.
    pub next_try: NextTry,
}

/// When the next address may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextTry {
    /// EC2 has been asked.
    UnderWay,
    /// The next attempt at growth, or the next end of a rest.
    In(Duration),
    /// Nothing is planned: a pod has to go first, or an operator to act.
    Never,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} addresses ({} assigned, {} cooling, {} free) on {} of {} ENIs, {} waiting",
            self.code.as_str(),
            self.total,
            self.assigned,
            self.cooling,
            self.free,
            self.enis,
            self.max_enis,
            self.waiting,
        )?;
        match self.next_try {
            NextTry::UnderWay => f.write_str(", EC2 is being asked"),
            NextTry::In(wait) => write!(f, ", next try in {:.1} s", wait.as_secs_f64()),
            NextTry::Never => f.write_str(", no further try is planned"),
        }
    }
}
