//! nf_tables over netlink: rulesets as values, one transaction per change, comparison with what the kernel holds.
//!
//! Owns the encoding of tables, chains, sets, maps, counters and rules, the reading of dumps, and the answers of the kernel.
//! Does not own any ruleset: which chains exist and why is the callers' business (`datapath`, the simulated fabric). Does no
//! I/O beyond its socket; the `nft` program is not used.
//!
//! Invariants: a transaction is applied as a whole or not at all, and only an acknowledgement without any other answer counts
//! as success; every refusal names the message, and the expression if the kernel points at one.

mod canonical;
mod encode;
mod encode_expr;
mod expr;
mod foreign;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod interval;
pub mod key;
mod numbers;
mod read;
pub mod rule;
mod socket;
mod table;
mod transaction;
mod watch;
mod write;

pub use canonical::{Comparison, Difference};
pub use expr::{
    CmpOp, CtKey, DynsetOp, Expr, FibFlags, FibResult, LookupMode, MetaKey, NatKind, PayloadBase, Random, Register,
    Reject, Verdict,
};
pub use foreign::FoundRule;
pub use interval::merge;
pub use read::{CounterValue, FoundElement};
pub use socket::{CommitError, NftSocket, ReadError, Refusal};
pub use table::{
    BaseChain, Chain, ChainKind, DataType, Element, ElementCounters, ElementValue, Family, Hook, Policy, Rule, Set,
    SetFlavor, SetKind, Table, TableId,
};
pub use transaction::Transaction;
pub use watch::{NftEvents, RulesetChange};
