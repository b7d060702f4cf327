//! The reference's pool management as an agent in the same world as the core: a loop every five seconds, one small
//! action per pass, its extra calls, its retries. Written from measurements and descriptions of its behaviour.
//!
//! Owns no truth: EC2 does. What it leaves out (lagging metadata, tag refreshes, custom networking) would only make it
//! slower.

mod calls;
pub(crate) mod formulas;
mod manager;
mod store;

pub(crate) use manager::{Manager, Wake};
