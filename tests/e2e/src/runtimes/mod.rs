//! Programs of others that call our plugin and daemon: containerd, podman, libcni's own command, grpcurl.
//!
//! Owns how each is started inside a node of the simulated VPC, and what it is given: configuration, an image made here, a
//! cgroup tree. Does not own what must be true afterwards; that is the scenarios'.
//!
//! Invariant: what these programs make lies in the sandbox's namespaces and below one directory of each cgroup hierarchy, so
//! that it ends with the sandbox and with [`cgroups::sweep`]. All of them need root.

pub mod cgroups;
pub mod client;
pub mod containerd;
pub mod image;
pub mod network;
pub mod podman;
pub mod tools;
