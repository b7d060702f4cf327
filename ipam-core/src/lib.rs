//! The address pool of a node, without I/O: events and time go in, actions come out.
//!
//! [`Core::handle`] is the whole interface. The core owns ENIs, addresses, leases, waiting requests, and the journal of
//! operations; it decides what to ask of EC2 and the kernel and when a request may be answered. It has no clock, no
//! randomness, no file and no thread, so the simulation runs the same code as the daemon.
//!
//! Invariants (see ARCHITECTURE.md): no address is leased twice, and what was replied had been persisted (I1); none is
//! leased or given back while it rests or shows life (I2); leases whose address is out of view are kept (I4).

mod aborts;
mod action;
mod add;
mod address;
mod backoff;
mod block;
mod budget;
mod cause;
mod checkpoint;
mod compare;
mod config;
mod core;
mod del;
mod eni;
mod event;
mod groups;
mod growth;
mod imds;
mod imds_only;
mod intake;
mod invariant;
mod ipam_file;
mod kernel;
mod leaks;
mod lease;
mod lifecycle;
mod mutant;
mod ops;
mod orphans;
mod outbox;
mod pool;
mod scarcity;
mod shrink;
mod side_file;
mod subnets;
mod sweep;
mod targets;
mod time;
mod usage;
mod views;

pub use aborts::AbortHistory;
pub use action::{Action, Grant, Note, Outcome, Owner, Want, Work};
pub use address::{AddressKind, AddressState};
pub use cause::{Cause, CauseCode, NextTry, ShortSubnet};
pub use checkpoint::{Checkpoint, Restored, StoredFiles};
pub use config::{
    AllocationMode, BootKind, CoreConfig, LeakSweep, NodeFacts, Provisioning, StartMode, SubnetChoice, Timers,
    TrunkSlot, WarmTarget,
};
pub use core::{Core, Status};
pub use eni::{Eni, EniPhase, Service};
pub use event::{
    Applied, AttachmentFact, AttachmentState, Ec2View, EniFact, EniRole, Event, ImdsEni, ImdsView, KernelView, Life,
    NodeCondition, OnTermination, OpOutcome, Placement, Refusal, Scheduling, Scope, Signs, SubnetFact, SubnetsView,
    ViewSource,
};
pub use invariant::Violation;
pub use ipam_file::{EntryFault, RestoreError};
pub use lease::{Lease, LeaseState};
#[cfg(feature = "mutants")]
pub use mutant::Mutant;
pub use pool::{Pool, Supply};
pub use subnets::{SubnetAccess, SubnetStatus};
pub use targets::{Settings, TargetWarning};
pub use time::{BootTime, Now, WallTime};

/// Handle of a request, chosen by the shell; unique while the request is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReqId(pub u64);

/// Number of an operation; unique over restarts that kept the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct OpId(pub u64);

/// Counts changes of the persistent state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation(pub u64);
