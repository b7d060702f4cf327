//! What will happen, in order of time.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipam_core::{BootTime, Checkpoint, Event, OpId, Outcome, ReqId, Scope, Work};
use vpc_types::{EniId, IpamKey};

use crate::outage::Outage;

/// Counts lives of the daemon: what belongs to a dead one is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Life(pub(crate) u32);

/// A plugin process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Pid(pub(crate) u32);

/// One thing that happens.
#[derive(Debug, Clone)]
pub(crate) enum Happening {
    /// The daemon's queue hands an event to the core.
    Deliver { life: Life, event: Event },
    /// A request reaches EC2. `answered` is off when the caller will hear nothing.
    Ec2Work {
        life: Life,
        op: OpId,
        work: Work,
        answered: bool,
    },
    /// A describe reaches EC2.
    Ec2Describe {
        life: Life,
        scope: Scope,
        started_at: BootTime,
    },
    /// A change in the kernel is made.
    KernelWork { life: Life, op: OpId, work: Work },
    /// Links are dumped; routes and rules follow.
    DumpLinks { life: Life, started_at: BootTime },
    /// Routes and rules are dumped, the view is complete.
    DumpRoutes {
        life: Life,
        view: Box<ipam_core::KernelView>,
    },
    /// The first file is replaced, the second follows.
    WriteIpam { life: Life, checkpoint: Box<Checkpoint> },
    /// The second file is replaced.
    WriteSide { life: Life, checkpoint: Box<Checkpoint> },
    /// A plugin hears from the daemon.
    Answered { pid: Pid, req: ReqId, outcome: Outcome },
    /// A plugin goes on.
    Plugin { pid: Pid, step: PluginStep },
    /// A plugin hung up: the daemon learns of it.
    HangUp { life: Life, req: ReqId },
    /// The runtime does something with a sandbox.
    Runtime { key: IpamKey, chore: Chore },
    /// The daemon starts.
    Start,
    /// The daemon reads IMDS.
    PollImds,
    /// IMDS is right again.
    ImdsHealed,
    /// The node may be used again.
    NodeOpen,
    /// Pods that were announced ask for addresses.
    Pods { named: u32 },
    /// The reference daemon that served the node meanwhile goes.
    ReferenceEnds,
    /// Users do something.
    Users,
    /// Bad luck.
    Mishap,
    /// Others give the subnet's addresses back.
    SubnetFreed,
    /// A condition has passed.
    OutageOver(Outage),
    /// The device of an attached ENI comes up at last.
    LinkAppears { eni: EniId },
    /// Somebody gives back the address that somebody took off our ENI.
    ForeignRegret { eni: EniId, address: Ipv4Addr },
}

/// Where a plugin stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PluginStep {
    Connect,
    MakeVeth,
    MakeRoutes,
    Finish,
    ClearItself,
    Expire,
}

/// What a runtime does with a sandbox by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chore {
    Del,
    KillNetns,
}

/// Happenings by time, then by order of planning.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queue {
    planned: BTreeMap<(Duration, u64), Happening>,
    count: u64,
}

impl Queue {
    pub(crate) fn plan(&mut self, at: Duration, happening: Happening) {
        self.count += 1;
        self.planned.insert((at, self.count), happening);
    }

    pub(crate) fn next(&mut self) -> Option<(Duration, Happening)> {
        self.planned.pop_first().map(|((at, _), happening)| (at, happening))
    }

    pub(crate) fn peek(&self) -> Option<Duration> {
        self.planned.first_key_value().map(|((at, _), _)| *at)
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&Happening) -> bool) {
        self.planned.retain(|_, happening| keep(happening));
    }
}
