//! The gRPC contracts of ipamd and their validated Rust forms.
//!
//! [`rpc`] is the deployed wire (plugin, ipamd, network policy agent); [`agent`] is our own interface for CHECK, STATUS,
//! GC and the operator CLI. Generated names are mangled and unchecked, so callers use the types of [`convert`]: a value of
//! those has valid addresses, keys and numbers.

pub mod convert;

/// Messages, clients and servers of `rpc.proto`.
#[allow(
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::or_fun_call,
    clippy::too_many_lines,
    reason = "generated code; which of these fire depends on the features"
)]
pub mod rpc {
    tonic::include_proto!("rpc");
}

/// Messages, clients and servers of `agent.proto`.
#[allow(
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::or_fun_call,
    clippy::too_many_lines,
    reason = "generated code; which of these fire depends on the features"
)]
pub mod agent {
    tonic::include_proto!("vpc_cni.agent.v1");
}
