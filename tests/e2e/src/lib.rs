//! The real binaries in a simulated VPC: what a container runtime does, and what must be true afterwards.
//!
//! Owns the harness (a VPC, a daemon per node, pods added and deleted through the plugin), the demo and the end-to-end
//! scenarios. Knows the binaries only by their paths and their public interfaces, so that others can take their place.

pub mod binaries;
pub mod cluster;
pub mod demo;
pub mod kernel;
pub mod matrix;
pub mod node;
pub mod runtime;
pub mod runtimes;
pub mod scenarios;
pub mod storms;
pub mod upgrade;
pub mod wait;
