//! Why an ADD is refused: a stable code, the numbers behind it, and when it may change.

use std::fmt;
use std::time::Duration;

use vpc_types::SubnetId;

use crate::BootTime;
use crate::backoff::{Backoff, Need};
use crate::core::{Core, OpState};
use crate::eni::EniPhase;
use crate::event::{Placement, Refusal};
use crate::growth::Room;
use crate::pool::Supply;

/// The codes, for alerts and dashboards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CauseCode {
    /// Addresses are on their way, but not within the deadline.
    PoolEmptyGrowing,
    /// The subnet has no free address.
    SubnetFull,
    /// The subnet has free addresses, but no free prefix, and single addresses are not to be had either.
    SubnetFragmented,
    /// The tags of the zone's subnets leave none for pods.
    NoSubnet,
    /// Custom networking is on, and nothing says in which subnet.
    EniConfigMissing,
    /// EC2 gives the node's ENIs no further address.
    IpPerEniLimit,
    /// The kernel does not show, or does not take, an ENI that is there.
    KernelError,
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
            Self::SubnetFragmented => "SUBNET_FRAGMENTED",
            Self::NoSubnet => "NO_SUBNET",
            Self::EniConfigMissing => "ENICONFIG_MISSING",
            Self::IpPerEniLimit => "IP_PER_ENI_LIMIT",
            Self::KernelError => "KERNEL_ERROR",
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
    /// Secondary addresses or prefixes that an ENI takes.
    pub slots_per_eni: u16,
    /// Requests in line.
    pub waiting: usize,
    /// The subnet that lacks addresses.
    pub subnet: Option<ShortSubnet>,
    /// The call that EC2 refused, by the name that permissions have.
    pub call: Option<&'static str>,
    /// When it may change.
    pub next_try: NextTry,
}

/// A subnet that lacks addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShortSubnet {
    /// Which.
    pub id: SubnetId,
    /// Free addresses when it was last read.
    pub free: Option<u32>,
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
            "{}: {} addresses ({} assigned, {} cooling, {} free) on {} of {} ENIs with {} slots each, {} waiting",
            self.code.as_str(),
            self.total,
            self.assigned,
            self.cooling,
            self.free,
            self.enis,
            self.max_enis,
            self.slots_per_eni,
            self.waiting,
        )?;
        match &self.subnet {
            Some(ShortSubnet { id, free: Some(free) }) => write!(f, ", {id} has {free} free addresses")?,
            Some(ShortSubnet { id, free: None }) => write!(f, ", {id} refused")?,
            None => {}
        }
        if let Some(call) = self.call {
            write!(f, ", ec2:{call} was refused")?;
        }
        match self.next_try {
            NextTry::UnderWay => f.write_str(", EC2 is being asked"),
            NextTry::In(wait) => write!(f, ", next try in {:.1} s", wait.as_secs_f64()),
            NextTry::Never => f.write_str(", no further try is planned"),
        }
    }
}

impl Core {
    /// Why there is no address, with the numbers of this moment.
    pub(crate) fn cause(&self, now: BootTime) -> Cause {
        let supply = self.pool.supply();
        let next = match self.next_attempt(now) {
            _ if self.under_way() > 0 => NextTry::UnderWay,
            Some(at) => NextTry::In(at.since(now)),
            // Without a permission there is no hope, but a try now and then.
            None => match self.backoffs.denied_until() {
                Some(at) => NextTry::In(at.since(now)),
                None => NextTry::Never,
            },
        };
        let (code, call) = self.cause_code(supply);
        let subnet = self
            .short_subnet()
            .map(|(id, _, free)| ShortSubnet { id: id.clone(), free });
        Cause {
            code,
            total: supply.total,
            assigned: supply.assigned,
            cooling: supply.cooling,
            free: supply.free,
            enis: self.pool.enis_on_instance(),
            max_enis: self.max_enis,
            slots_per_eni: self.config.node.slots_per_eni,
            waiting: self.waiting.len(),
            subnet: subnet.filter(|_| matches!(code, CauseCode::SubnetFull | CauseCode::SubnetFragmented)),
            call,
            next_try: next,
        }
    }

    /// The code, and the refused call where one is to blame: what keeps the next step from happening, in the order of the steps.
    fn cause_code(&self, supply: Supply) -> (CauseCode, Option<&'static str>) {
        let describe_failed = refusal_of(&self.backoffs.describe, "DescribeNetworkInterfaces");
        let growing = supply.arriving > 0 || self.ops.values().any(|record| record.state == OpState::InFlight);
        let resting = (supply.cooling > 0).then_some((CauseCode::Cooling, None));
        let stuck = self.stuck_eni();
        let of_growth = || self.short_of_addresses().or_else(|| self.refused_growth());
        if self.outbox.is_failing() {
            return (CauseCode::CheckpointFailing, None);
        }
        if !self.seen_ec2 || !self.may_grant() {
            return describe_failed.unwrap_or((CauseCode::DaemonStarting, None));
        }
        let blamed = match self.room() {
            _ if stuck.is_some() => stuck,
            None if supply.arriving > 0 => None,
            None => resting.or_else(|| self.no_room()),
            Some(Room::NewEni) if self.subnets_for_new_eni(Need::Starving).is_empty() => {
                Some((CauseCode::NoSubnet, None))
            }
            Some(_) => of_growth(),
        };
        let growing = growing.then_some((CauseCode::PoolEmptyGrowing, None));
        blamed
            .or(growing)
            .or(resting)
            .unwrap_or((CauseCode::PoolEmptyGrowing, None))
    }

    /// An ENI that is there and does not come into service.
    fn stuck_eni(&self) -> Option<(CauseCode, Option<&'static str>)> {
        let arriving = |eni: &&crate::Eni| matches!(eni.phase, EniPhase::Available | EniPhase::Attached);
        let stuck = self.pool.enis().filter(arriving).find_map(|eni| {
            let in_kernel = matches!(eni.last_refusal, Some(Refusal::Kernel | Refusal::LinkMissing)) || eni.looks > 0;
            let attach = refusal_of(&self.backoffs.attach, "AttachNetworkInterface");
            if eni.phase == EniPhase::Available {
                attach
            } else {
                in_kernel.then_some((CauseCode::KernelError, None))
            }
        });
        // An address that comes from elsewhere makes up for it.
        stuck.filter(|_| self.under_way() == 0)
    }

    fn no_room(&self) -> Option<(CauseCode, Option<&'static str>)> {
        let is_held = |eni: &crate::Eni| eni.last_refusal == Some(Refusal::LimitReached);
        let code = if self.placement == Placement::Missing && self.enis_left() > 0 {
            CauseCode::EniConfigMissing
        } else if self.config.node.slots_per_eni == 0 || self.pool.enis().any(is_held) {
            CauseCode::IpPerEniLimit
        } else {
            CauseCode::EniLimit
        };
        Some((code, None))
    }

    fn short_of_addresses(&self) -> Option<(CauseCode, Option<&'static str>)> {
        let (_, refusal, free) = self.short_subnet()?;
        let is_fragmented = refusal == Refusal::SubnetFragmented && free != Some(0);
        let code = if is_fragmented {
            CauseCode::SubnetFragmented
        } else {
            CauseCode::SubnetFull
        };
        Some((code, None))
    }

    fn refused_growth(&self) -> Option<(CauseCode, Option<&'static str>)> {
        let allocate = refusal_of(&self.backoffs.allocate, "AssignPrivateIpAddresses");
        let create = refusal_of(&self.backoffs.create, "CreateNetworkInterface");
        let attach = refusal_of(&self.backoffs.attach, "AttachNetworkInterface");
        let held = self
            .pool
            .enis()
            .any(|eni| eni.last_refusal == Some(Refusal::LimitReached));
        let held = held.then_some((CauseCode::IpPerEniLimit, None));
        match self.room() {
            Some(Room::OnEni) => allocate.or(held).or(create).or(attach),
            Some(Room::NewEni) | None => create.or(attach).or(allocate).or(held),
        }
    }
}

/// What a refused call means for those who wait.
fn refusal_of(backoff: &Backoff, call: &'static str) -> Option<(CauseCode, Option<&'static str>)> {
    let code = match backoff.last? {
        Refusal::Throttled => CauseCode::Throttled,
        Refusal::Denied => CauseCode::IamDenied,
        Refusal::SubnetFull | Refusal::SubnetFragmented => CauseCode::SubnetFull,
        Refusal::LimitReached => CauseCode::EniLimit,
        Refusal::Unavailable
        | Refusal::Other
        | Refusal::Gone
        | Refusal::Conflict
        | Refusal::LinkMissing
        | Refusal::Kernel => CauseCode::Ec2Unavailable,
    };
    Some((code, Some(call)))
}
