//! The instance metadata service, version 2: a hint about the node's ENIs, and the only source of who the node is.

pub(crate) mod client;
pub(crate) mod facts;

#[cfg(test)]
mod tests;
