//! A table of `iptables-legacy` without the reference's entries. Pure, and safe with any bytes.
//!
//! Invariant: what is kept is kept byte for byte, except for offsets of jumps and counters; it stays in its order and leads
//! where it led.

use std::collections::BTreeSet;

use super::super::Leftovers;
use super::super::traces::{self, Target};
use super::sockopt::Counter;
use super::table::{
    COMEFROM_AT, Does, ENTRY_COUNTERS_AT, Entry, HOOKS, Malformed, NAME_LEN, REPLACE_COUNTERS_AT, REPLACE_ENTRIES_AT,
    TableInfo, entries, malformed, name_field,
};

/// A table to load instead of one that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// What it lacks.
    pub removed: Leftovers,
    name: [u8; NAME_LEN],
    hook_entry: [u32; HOOKS],
    underflow: [u32; HOOKS],
    entries: Vec<u8>,
    /// Positions in the old table.
    kept: Vec<usize>,
}

impl Replacement {
    /// `struct ipt_replace`, with 0 for the pointer to counters.
    pub fn message(&self, old: &TableInfo) -> Vec<u8> {
        let mut message = self.name.to_vec();
        let count = u32::try_from(self.kept.len()).unwrap_or(u32::MAX);
        let size = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let head = [old.valid_hooks, count, size];
        for word in head.iter().chain(&self.hook_entry).chain(&self.underflow) {
            message.extend(word.to_ne_bytes());
        }
        message.extend(old.entries.to_ne_bytes());
        debug_assert_eq!(message.len(), REPLACE_COUNTERS_AT);
        message.extend([0; REPLACE_ENTRIES_AT - REPLACE_COUNTERS_AT]);
        message.extend(&self.entries);
        message
    }

    /// The kept entries' counters, out of those of the old table.
    pub(super) fn counters(&self, old: &[Counter]) -> Vec<Counter> {
        let of = |position: &usize| old.get(*position).copied().unwrap_or_default();
        self.kept.iter().map(of).collect()
    }
}

/// The table without the reference's entries; `None` if it has none of them. `blob` are the entries of the table `name` as the
/// kernel gives them, which `info` describes.
pub fn without_leftovers(name: &str, info: &TableInfo, blob: &[u8]) -> Result<Option<Replacement>, Malformed> {
    let all = entries(info, blob)?;
    let chains = their_chains(&all);
    let goes = judge(name, info, &all, &chains)?;
    let removed = Leftovers {
        rules: count_rules(&all, &goes),
        chains: count_headers(&all, &goes),
    };
    if !goes.contains(&true) {
        return Ok(None);
    }
    let moved = Moved::new(&all, &goes);
    let mut new = Vec::with_capacity(blob.len());
    let mut kept = Vec::new();
    for (position, entry) in all.iter().enumerate().filter(|(position, _)| !goes[*position]) {
        kept.push(position);
        new.extend(moved.entry(entry)?);
    }
    let (mut hook_entry, mut underflow) = (info.hook_entry, info.underflow);
    for (hook, first, policy) in info.hooks() {
        hook_entry[hook] = moved.word(first)?;
        underflow[hook] = moved.word(policy)?;
    }
    Ok(Some(Replacement {
        removed,
        name: name_field(name),
        hook_entry,
        underflow,
        entries: new,
        kept,
    }))
}

/// One of the reference's chains: positions from its header to its last entry, which returns.
struct Chain<'a> {
    name: &'a str,
    header: usize,
    last: usize,
}

fn their_chains<'a>(all: &[Entry<'a>]) -> Vec<Chain<'a>> {
    let headers: Vec<(usize, &str)> = all
        .iter()
        .enumerate()
        .filter_map(|(position, entry)| match entry.does {
            Does::ChainHeader(name) => Some((position, name)),
            Does::Jump(_) | Does::Verdict | Does::Extension(_) => None,
        })
        .collect();
    // The header that follows ends a chain; the table ends with one.
    let pairs = headers.iter().zip(headers.iter().skip(1));
    pairs
        .filter(|((_, name), _)| traces::is_chain(name))
        .map(|((header, name), (next, _))| Chain {
            name,
            header: *header,
            last: next - 1,
        })
        .collect()
}

/// For each entry whether it goes. A chain that a rule of somebody else jumps to stays, empty: that rule is not ours to
/// remove.
fn judge(name: &str, info: &TableInfo, all: &[Entry<'_>], chains: &[Chain<'_>]) -> Result<Vec<bool>, Malformed> {
    let chain_of = |offset: usize| {
        let within = |chain: &&Chain<'_>| (all[chain.header].offset..all[chain.last].end()).contains(&offset);
        chains.iter().find(within)
    };
    let policies: BTreeSet<usize> = info.hooks().map(|(_, _, policy)| policy).collect();
    let is_base = |entry: &Entry<'_>| {
        let mut hooks = info.hooks();
        hooks.any(|(_, first, policy)| (first..policy).contains(&entry.offset))
    };
    let is_theirs = |entry: &Entry<'_>| {
        let target = match entry.does {
            Does::Jump(to) => chain_of(to).map(|chain| Target::Jump(chain.name)),
            Does::Extension(name) => Some(Target::Extension(name)),
            Does::Verdict | Does::ChainHeader(_) => None,
        };
        target.is_some_and(|target| traces::is_rule(name, entry.comment, target))
    };
    let mut goes: Vec<bool> = all
        .iter()
        .map(|entry| chain_of(entry.offset).is_some() || (is_base(entry) && is_theirs(entry)))
        .collect();
    for (position, entry) in all.iter().enumerate() {
        if goes[position] && policies.contains(&entry.offset) {
            return Err(malformed("a policy stands within a chain", entry.offset));
        }
    }
    for position in 0..all.len() {
        let (false, Does::Jump(to)) = (goes[position], all[position].does) else {
            continue;
        };
        if let Some(chain) = chain_of(to) {
            (goes[chain.header], goes[chain.last]) = (false, false);
        }
    }
    Ok(goes)
}

fn count_headers(all: &[Entry<'_>], goes: &[bool]) -> usize {
    let is_header = |entry: &Entry<'_>| matches!(entry.does, Does::ChainHeader(_));
    let gone = all.iter().zip(goes).filter(|(_, goes)| **goes);
    gone.filter(|(entry, _)| is_header(entry)).count()
}

/// Neither headers nor the returns at chains' ends are rules to anybody who lists them.
fn count_rules(all: &[Entry<'_>], goes: &[bool]) -> usize {
    let gone = goes.iter().filter(|goes| **goes).count();
    gone.saturating_sub(2 * count_headers(all, goes))
}

/// Where entries are after the removal.
struct Moved(Vec<(usize, usize)>);

impl Moved {
    /// What jumped to a removed entry goes on at the next one.
    fn new(all: &[Entry<'_>], goes: &[bool]) -> Self {
        let mut new = 0;
        let place = |(entry, goes): (&Entry<'_>, &bool)| {
            let pair = (entry.offset, new);
            new += if *goes { 0 } else { entry.bytes.len() };
            pair
        };
        Self(all.iter().zip(goes).map(place).collect())
    }

    fn of(&self, offset: usize) -> Result<usize, Malformed> {
        let found = self.0.binary_search_by_key(&offset, |(old, _)| *old);
        found
            .map(|index| self.0[index].1)
            .map_err(|_| malformed("something leads to where no entry begins", offset))
    }

    fn word(&self, offset: usize) -> Result<u32, Malformed> {
        u32::try_from(self.of(offset)?).map_err(|_| malformed("the table is too long", offset))
    }

    /// Counters are added afterwards; what came from where is the kernel's note.
    fn entry(&self, entry: &Entry<'_>) -> Result<Vec<u8>, Malformed> {
        let mut bytes = entry.bytes.to_vec();
        bytes[COMEFROM_AT..COMEFROM_AT + 4].fill(0);
        bytes[ENTRY_COUNTERS_AT..ENTRY_COUNTERS_AT + 16].fill(0);
        if let Does::Jump(to) = entry.does {
            let at = entry.verdict_at();
            bytes[at..at + 4].copy_from_slice(&self.word(to)?.to_ne_bytes());
        }
        Ok(bytes)
    }
}
