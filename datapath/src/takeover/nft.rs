//! The `iptables-nft` kind: one transaction per table, which holds only as long as nobody else changes the ruleset.

use std::collections::BTreeSet;

use nft::{CommitError, Family, FoundRule, NftSocket, TableId, Transaction};

use super::traces::{self, TABLES, Target};
use super::{Leftovers, TakeOverError};

/// Others write rulesets too: kube-proxy does on every change of a service.
const TRIES: usize = 8;

pub(super) fn find() -> Result<Leftovers, TakeOverError> {
    let mut socket = NftSocket::open().map_err(TakeOverError::OpenNft)?;
    let mut all = Leftovers::default();
    for (table, base_chains) in TABLES {
        let found = look(&mut socket, table, base_chains)?;
        all = all.plus(found.map(|plan| plan.leftovers).unwrap_or_default());
    }
    Ok(all)
}

pub(super) fn remove() -> Result<Leftovers, TakeOverError> {
    let mut socket = NftSocket::open().map_err(TakeOverError::OpenNft)?;
    let mut all = Leftovers::default();
    for (table, base_chains) in TABLES {
        all = all.plus(remove_from(&mut socket, table, base_chains)?);
    }
    Ok(all)
}

fn remove_from(socket: &mut NftSocket, table: &'static str, base_chains: &[&str]) -> Result<Leftovers, TakeOverError> {
    let refused = |source| TakeOverError::RemoveNft { table, source };
    for _ in 0..TRIES {
        let generation = socket
            .generation()
            .map_err(|source| TakeOverError::ReadNft { table, source })?;
        let Some(plan) = look(socket, table, base_chains)? else {
            return Ok(Leftovers::default());
        };
        match socket.commit(&plan.transaction(table, generation)) {
            Ok(()) => return Ok(plan.leftovers),
            Err(CommitError::Changed) => {}
            Err(error) => return Err(refused(error)),
        }
    }
    Err(refused(CommitError::Changed))
}

/// What has to go from one table.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    rules: Vec<(String, u64)>,
    flush: Vec<String>,
    delete: Vec<String>,
    leftovers: Leftovers,
}

impl Plan {
    /// Rules that jump to the chains first, then what the chains hold, for they jump to each other, then the chains.
    fn transaction(&self, table: &str, generation: u32) -> Transaction {
        let id = TableId::new(Family::Ipv4, table);
        let mut transaction = Transaction::at_generation(generation);
        for (chain, handle) in &self.rules {
            transaction.delete_rule(&id, chain, *handle);
        }
        for chain in &self.flush {
            transaction.flush_chain(&id, chain);
        }
        for chain in &self.delete {
            transaction.delete_chain(&id, chain);
        }
        transaction
    }
}

/// A node has thousands of foreign rules in `nat`: all of them are read only where there is something to remove.
fn look(socket: &mut NftSocket, table: &'static str, base_chains: &[&str]) -> Result<Option<Plan>, TakeOverError> {
    let failed = |source| TakeOverError::ReadNft { table, source };
    let id = TableId::new(Family::Ipv4, table);
    let chains = socket.chains(&id).map_err(failed)?;
    let mut found = chains.iter().any(|chain| traces::is_chain(chain));
    for chain in base_chains.iter().filter(|chain| chains.contains(**chain)) {
        let rules = socket.rules(&id, Some(chain)).map_err(failed)?;
        found |= rules.iter().any(|rule| is_theirs(table, rule));
    }
    if !found {
        return Ok(None);
    }
    let rules = socket.rules(&id, None).map_err(failed)?;
    let plan = plan(table, base_chains, &chains, &rules);
    Ok((plan != Plan::default()).then_some(plan))
}

fn is_theirs(table: &str, rule: &FoundRule) -> bool {
    let comment = rule.comment.as_deref();
    let jumps = rule.jumps.iter().map(|chain| Target::Jump(chain));
    let targets = rule.targets.iter().map(|name| Target::Extension(name));
    jumps
        .chain(targets)
        .any(|target| traces::is_rule(table, comment, target))
}

/// A chain that a rule of somebody else jumps to stays, empty: that rule is not ours to remove.
fn plan(table: &str, base_chains: &[&str], chains: &BTreeSet<String>, rules: &[FoundRule]) -> Plan {
    let mut plan = Plan::default();
    let mut in_use = BTreeSet::new();
    let mut filled = BTreeSet::new();
    for rule in rules {
        if traces::is_chain(&rule.chain) {
            filled.insert(rule.chain.as_str());
            plan.leftovers.rules += 1;
        } else if base_chains.contains(&rule.chain.as_str()) && is_theirs(table, rule) {
            plan.rules.push((rule.chain.clone(), rule.handle));
            plan.leftovers.rules += 1;
        } else {
            in_use.extend(rule.jumps.iter().map(String::as_str));
        }
    }
    for chain in chains.iter().filter(|chain| traces::is_chain(chain)) {
        if filled.contains(chain.as_str()) {
            plan.flush.push(chain.clone());
        }
        if !in_use.contains(chain.as_str()) {
            plan.delete.push(chain.clone());
        }
    }
    plan.leftovers.chains = plan.delete.len();
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(chain: &str, handle: u64, comment: &str, jump: &str) -> FoundRule {
        FoundRule {
            chain: chain.to_owned(),
            handle,
            comment: Some(comment.to_owned()),
            jumps: vec![jump.to_owned()],
            targets: Vec::new(),
        }
    }

    #[test]
    fn a_chain_that_somebody_else_uses_is_emptied_and_stays() {
        let chains = ["POSTROUTING", "AWS-SNAT-CHAIN-0", "AWS-SNAT-CHAIN-1"].map(str::to_owned);
        let rules = [
            rule("POSTROUTING", 1, "AWS SNAT CHAIN", "AWS-SNAT-CHAIN-0"),
            rule("POSTROUTING", 2, "mine", "AWS-SNAT-CHAIN-1"),
            rule("AWS-SNAT-CHAIN-0", 3, "AWS SNAT CHAIN", "AWS-SNAT-CHAIN-1"),
        ];
        let plan = plan("nat", &["POSTROUTING"], &chains.into(), &rules);
        assert_eq!(plan.rules, [("POSTROUTING".to_owned(), 1)]);
        assert_eq!(
            (plan.flush, plan.delete),
            (vec!["AWS-SNAT-CHAIN-0".to_owned()], vec!["AWS-SNAT-CHAIN-0".to_owned()])
        );
        assert_eq!(plan.leftovers, Leftovers { rules: 2, chains: 1 });
    }
}
