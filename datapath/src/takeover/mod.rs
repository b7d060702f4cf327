//! Removal of the iptables rules that the reference left on a node that is ours now.
//!
//! A node can hold them in two kinds, made by `iptables-nft` and by `iptables-legacy`, and in both at once. They do what our
//! own table does, so nothing depends on them once that is loaded; but their list of the VPC's networks is frozen. Owns
//! which rules are the reference's (`traces`), their removal by plain nf_tables messages (`nft`) and by the socket options of
//! `iptables-legacy` (`legacy`), and the rules of pods that older releases made (`pod_rules`), and the way back (`give_back`). Not its native table, whose name is ours: loading ours replaces that. Nor the rules of
//! `filter`, which nothing of ours replaces.
//!
//! Invariants: each table changes in one step or not at all; every rule of others stays, with its counters; nothing that
//! the kernel has not loaded gets loaded. Called by the daemon, once per start, after [`apply_node`](crate::apply_node);
//! the audit only looks.

mod give_back;
pub mod legacy;
mod nft;
pub(crate) mod pod_rules;
mod traces;

use std::path::Path;

use ::nft::{CommitError, ReadError};
use netlink::SocketError;

pub use give_back::{OurTable, Successor, find_our_table, find_successor, remove_our_table};
pub use legacy::LegacyError;
pub use pod_rules::{SettleError, SettledRules, settle_pod_rules};

/// The two kinds of xtables rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variant {
    /// `iptables-nft`.
    Nft,
    /// `iptables-legacy`.
    Legacy,
}

impl Variant {
    /// The program that shows them.
    pub fn program(self) -> &'static str {
        match self {
            Self::Nft => "iptables-nft",
            Self::Legacy => "iptables-legacy",
        }
    }
}

/// Rules and chains of the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leftovers {
    /// Rules, those within its chains included.
    pub rules: usize,
    /// Chains that it made.
    pub chains: usize,
}

impl Leftovers {
    /// Nothing.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    fn plus(self, other: Self) -> Self {
        Self {
            rules: self.rules + other.rules,
            chains: self.chains + other.chains,
        }
    }
}

/// Rules that could not be looked at or removed. The rules of the table in question are as they were.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    /// No nf_tables socket.
    #[error("open nf_tables socket")]
    OpenNft(#[source] SocketError),
    /// The rules cannot be read.
    #[error("read nf_tables rules of table {table}")]
    ReadNft {
        /// Which.
        table: &'static str,
        /// What the kernel said.
        #[source]
        source: ReadError,
    },
    /// The removal was refused, or others changed rules during each try.
    #[error("remove nf_tables rules of table {table}")]
    RemoveNft {
        /// Which.
        table: &'static str,
        /// What the kernel said.
        #[source]
        source: CommitError,
    },
    /// The other kind.
    #[error("rules of iptables-legacy")]
    Legacy(#[from] LegacyError),
}

/// What the reference left, of one kind. Reads only.
pub fn find_leftovers(variant: Variant) -> Result<Leftovers, TakeOverError> {
    match variant {
        Variant::Nft => nft::find(),
        Variant::Legacy => Ok(legacy::find()?),
    }
}

/// Removes what the reference left, of one kind. `lock` is the file by which xtables programs exclude each other. Call it
/// only when our own rules are in.
pub fn remove_leftovers(variant: Variant, lock: &Path) -> Result<Leftovers, TakeOverError> {
    match variant {
        Variant::Nft => nft::remove(),
        Variant::Legacy => Ok(legacy::remove(lock)?),
    }
}
