//! The CNI protocol as this project speaks it: configuration, environment, arguments, versions, results, errors.
//!
//! Owns every text that crosses the border between a container runtime and the plugin, in both directions, including the
//! per-pod data that travels inside results ([`carried`]). Does no I/O: callers hand in bytes and a way to look up
//! variables, and get values or a [`CniError`]. Invariant: what a function of this crate returned has been validated, so
//! nothing behind it checks names, numbers or versions again. Called by the CNI binaries.

pub mod args;
pub mod carried;
pub mod config;
pub mod env;
pub mod error;
pub mod garbage;
mod json;
pub mod result;
pub mod version;

pub use args::{ArgsError, PodArgs};
pub use carried::{CarriedError, PodInterface, PodResult, PrevPod};
pub use config::{ConfigError, Document, LogLevel, LogTarget, Mtu, NetConf, NicRequest, SecurityGroupMode};
pub use env::{AttachmentVerb, EnvError, Invocation, NodeVerb, Sandbox};
pub use error::{CniError, ErrorCode};
pub use garbage::{GarbageError, ValidAttachment};
pub use json::FieldError;
pub use result::{CniResult, Interface, IpConfig};
pub use version::{CniVersion, VersionError};
