//! The part of the kubelet's interface to container runtimes that makes and ends pod sandboxes.
//!
//! Owns the wire alone; connections and deadlines are the caller's. Called by the tests with real runtimes.

#![allow(
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::or_fun_call,
    clippy::too_many_lines,
    reason = "generated code"
)]

tonic::include_proto!("runtime.v1");
