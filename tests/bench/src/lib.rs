//! The figures of `cargo xtask bench`: what our binaries cost, next to the least that is possible and to a plugin in Go.
//!
//! Owns the simulated nodes in which is measured, the order of the runs, the statistics, the budgets and the report. The
//! floor and the launcher are `bench-floor`'s, the harness around nodes and daemons `e2e`'s.
//!
//! Invariant: a comparison is made of runs that alternate within one process, by one launcher. Absolute times are shown and
//! never decide; what decides is in [`budgets`]. Called by `vpc-bench` alone.

pub mod baseline;
pub mod budgets;
pub mod figures;
mod foreign;
pub mod groups;
pub mod machine;
pub mod report;
pub mod rows;

mod daemons;
mod launcher;
mod pods;
mod world;
