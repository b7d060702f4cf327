//! The way back: our table goes when a reference takes the node over.
//!
//! The reference knows a table of our table's name: in its nftables mode it puts chains of its own into it, in its other mode it
//! deletes it. Invariant: chains of the reference stay, and one transaction removes all that is ours, only as long as nobody else
//! changes the ruleset meanwhile.

use nft::{CommitError, NftSocket, Transaction};

use super::{TakeOverError, Variant, find_leftovers};
use crate::ids::NFT_TABLE;
use crate::snat::table_id;

/// Chains of the reference in the table. We have one of the first name too, and never one of the second.
const THEIR_CHAINS: [&str; 2] = ["nat-prerouting", THEIR_MARK];
const THEIR_MARK: &str = "snat-mark";
const TRIES: usize = 8;

/// What stands in the table of our name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OurTable {
    /// There is none, or nothing of ours in it.
    Absent,
    /// Only ours.
    Whole,
    /// The reference's chains are in it as well.
    Shared,
}

/// Whether somebody else marks and translates, so that ours may go without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Successor {
    /// The reference's rules are in.
    Ready,
    /// They are not.
    Missing,
}

/// Looks for our table.
pub fn find_our_table() -> Result<OurTable, TakeOverError> {
    let mut socket = NftSocket::open().map_err(TakeOverError::OpenNft)?;
    Ok(look(&mut socket)?.0)
}

/// Looks for the reference's iptables rules, of either kind.
pub fn find_successor() -> Result<Successor, TakeOverError> {
    for variant in [Variant::Nft, Variant::Legacy] {
        if find_leftovers(variant)?.rules > 0 {
            return Ok(Successor::Ready);
        }
    }
    Ok(Successor::Missing)
}

/// Removes what is ours. Without a [`Successor`] that is ready, connections that leave the VPC break.
pub fn remove_our_table() -> Result<OurTable, TakeOverError> {
    let refused = |source| TakeOverError::RemoveNft {
        table: NFT_TABLE,
        source,
    };
    let mut socket = NftSocket::open().map_err(TakeOverError::OpenNft)?;
    for _ in 0..TRIES {
        let generation = socket.generation().map_err(unread)?;
        let (found, transaction) = look(&mut socket)?;
        if found == OurTable::Absent {
            return Ok(found);
        }
        match socket.commit(&transaction.at(generation)) {
            Ok(()) => return Ok(found),
            Err(CommitError::Changed) => {}
            Err(error) => return Err(refused(error)),
        }
    }
    Err(refused(CommitError::Changed))
}

fn unread(source: nft::ReadError) -> TakeOverError {
    TakeOverError::ReadNft {
        table: NFT_TABLE,
        source,
    }
}

/// What has to go.
#[derive(Debug, Default)]
struct Removal {
    whole: bool,
    chains: Vec<String>,
    sets: Vec<String>,
}

impl Removal {
    fn at(&self, generation: u32) -> Transaction {
        let id = table_id();
        let mut transaction = Transaction::at_generation(generation);
        if self.whole {
            transaction.delete_table(&id);
            return transaction;
        }
        for chain in &self.chains {
            transaction.flush_chain(&id, chain);
        }
        for chain in &self.chains {
            transaction.delete_chain(&id, chain);
        }
        for set in &self.sets {
            transaction.delete_set(&id, set);
        }
        transaction
    }
}

fn look(socket: &mut NftSocket) -> Result<(OurTable, Removal), TakeOverError> {
    let id = table_id();
    let chains = socket.chains(&id).map_err(unread)?;
    let sets = socket.sets(&id).map_err(unread)?;
    if !chains.contains(THEIR_MARK) {
        let found = if chains.is_empty() && sets.is_empty() {
            OurTable::Absent
        } else {
            OurTable::Whole
        };
        let whole = Removal {
            whole: true,
            ..Removal::default()
        };
        return Ok((found, whole));
    }
    let is_ours = |chain: &String| !THEIR_CHAINS.contains(&chain.as_str());
    let removal = Removal {
        whole: false,
        chains: chains.into_iter().filter(is_ours).collect(),
        sets: sets.into_iter().collect(),
    };
    let found = if removal.chains.is_empty() && removal.sets.is_empty() {
        OurTable::Absent
    } else {
        OurTable::Shared
    };
    Ok((found, removal))
}
