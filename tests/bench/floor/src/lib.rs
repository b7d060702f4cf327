//! The least that an ADD, a DEL and a health probe can cost, and what starts programs to find out.
//!
//! Owns a blocking gRPC client for one call at a time, raw rtnetlink messages, and the way in which started programs are
//! measured. Has no log, checks nothing twice and keeps no data: it is what the plugin is compared with, not a model for it.
//! The client is also used to time the daemon over a kept connection.
//!
//! Invariant: the requests to the daemon and the netlink messages are those of the plugin, in number and kind. Used by the
//! programs beside it and by `bench`.

pub mod grpc;
pub mod launch;
pub mod netlink;
pub mod pod;
pub mod proto;

mod sys;
