//! What happens on a node before and around the daemon: the init container and the entrypoint, as library code.
//!
//! Owns the rules for the operator's variables that the entrypoint checks ([`settings`]), the sysctls that the data plane needs
//! ([`sysctls`]), the copying of programs to the host ([`install`]), the list that tells the runtime which plugins to call
//! ([`conflist`]), and the order of all this ([`sequence`], [`supervise`], [`init`], [`entrypoint`]). Does not own the daemon,
//! nor any request to EC2, IMDS or Kubernetes: what they know (the primary interface, the node's address, the daemon's health) is handed in.
//!
//! Invariants: whatever is decided is decided by pure functions, and the code that acts on it is thin; a file of the host is
//! replaced as a whole or not at all; the node accepts pods only once the daemon serves. Called by the entrypoint and init
//! programs.

pub mod conflist;
pub mod entrypoint;
pub mod init;
pub mod install;
mod json;
pub mod sequence;
pub mod settings;
pub mod supervise;
pub mod sysctls;
pub mod variables;
