//! The real binary against stand-ins for its daemons, in network namespaces that each test makes for itself.

#![expect(clippy::unwrap_used, reason = "helpers of tests may unwrap like the tests")]

mod add;
mod bad_input;
mod call;
mod check;
mod daemons;
mod del;
mod kernel;
mod network;
mod ours;
mod policy;
mod verbs;
