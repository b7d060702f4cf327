//! Deterministic simulation of the address pool: the real core against the model of EC2, a model of the kernel, plugins
//! that die, and a disk that fails, in virtual time. One seed is a whole history.
//!
//! Owns the world and the invariants judged from it; the core's own checks run besides. It opens no file, starts no
//! process and reads no clock. `ipam-sim` and `cargo xtask sim` call it.

pub mod cli;
mod coverage;
mod daemon;
mod dice;
mod ec2;
mod fate;
mod fault;
pub mod fleet;
mod foreign;
mod imds;
mod invariant;
mod kernel;
mod load;
mod mishap;
mod names;
mod node;
mod outage;
mod plugin;
mod queue;
mod region;
mod run;
mod sandbox;
mod scenario;
mod settings;
mod shrink;
mod stored;
mod verdict;
mod world;

pub use coverage::Coverage;
pub use fate::{Allowed, Fallen, NoStroke, Origin, Stroke};
pub use fault::Fault;
pub use load::Hour;
#[cfg(not(feature = "mutants"))]
pub use run::NoMutant;
pub use run::{Defect, Failure, Plan, Report, quiet_panics, run};
pub use shrink::shrink;
pub use world::Logging;
