//! The pool as its shell sees it: events in, actions out, with a node that answers as told.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test may fail where it likes, and names only what it is about"
)]

mod adds;
mod budgets;
mod causes;
mod dels;
mod draining;
mod enis;
mod files;
mod groups;
mod imds;
mod leaks;
mod node;
mod packing;
mod prefixes;
mod region;
mod restarts;
mod scale;
mod subnets;
mod sweeps;
mod switches;
mod targets;
mod truth;
