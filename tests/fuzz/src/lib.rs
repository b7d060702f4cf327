//! Bytes that nobody should send, for everything of ours that reads bytes of others.
//!
//! Owns a seeded mutator ([`mutate`]), what is fed ([`targets`]), how long and with which findings ([`run`]), and the committed
//! corpus ([`corpus`]). Knows no coverage: that would take another compiler. Instead an input that leads to an outcome of a
//! new shape joins the inputs that are mutated further.
//!
//! Invariants: the same seed gives the same inputs; whatever was found once is replayed by a test for ever. Called by `vpc-fuzz`
//! and by scenarios that feed the real plugin.

pub mod corpus;
pub mod mutate;
pub mod record;
pub mod run;
pub mod targets;
