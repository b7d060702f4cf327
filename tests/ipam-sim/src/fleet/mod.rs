//! Many nodes, one account: what a policy costs and how long pods wait.
//!
//! A discrete-event world for figures, not for faults: each node has the real core, or the reference's formulas; all
//! share one model of EC2 with its request buckets, with latencies of the size users see. Nothing is lost, nothing lies.
//! Left out: lagging views, the account's quota of ENIs, other users of the buckets, several zones, the scheduler's
//! reaction to failed pods.

mod account;
pub mod cli;
mod figures;
pub mod goals;
pub mod grid;
mod kernel;
mod node;
mod ours;
pub mod page;
mod plan;
mod queue;
mod reference;
mod targets;
mod workload;
mod world;

pub use account::Calls;
pub use figures::Figures;
pub use plan::{Knowledge, Launch, Mode, Plan, Policy, Program, Retry, Subnets, Targets, Workload};
pub use world::run;
