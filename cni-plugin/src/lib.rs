//! The CNI plugin: what happens between a runtime's call and its answer.
//!
//! Owns the order of things in one call: validate everything, ask ipamd for the address while the sockets are opened,
//! wire, tell the network policy agent, answer; and on a failure the way back, newest first. CHECK looks, STATUS and GC ask
//! ipamd. It does not know how a pod is wired (`datapath`), what the texts of the protocol look like (`cni-spec`), or which
//! address a pod gets (ipamd).
//!
//! Invariants: standard output carries the answer and nothing else; before the first change everything that can be checked
//! has been checked; a failed ADD leaves nothing behind that it made; nothing waits without a limit; a DEL touches only what
//! belongs to its own container. Called by the binary `aws-cni` alone, once per process.

mod add;
mod attachment;
mod check;
mod clock;
mod del;
mod garbage;
mod log;
mod network;
mod paths;
mod plugin;
mod policy;
mod rpc;
mod sandbox;
mod settings;
mod status;

pub use plugin::{Outcome, run};
