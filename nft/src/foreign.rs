//! Chains and rules of others, as far as one must know them to find those of one's predecessor.
//!
//! Owns the reading of `iptables-nft` rules: their comments and the names of their targets. What they match is nobody's
//! business here. Anything may stand in these bytes; what cannot be read is left out or `None`.

use std::collections::BTreeSet;

use netlink::{Attributes, parse_str};

use crate::canonical::names;
use crate::numbers::{attr, msg};
use crate::read::{self, be_u64};
use crate::socket::{NftSocket, ReadError};
use crate::table::TableId;

/// A rule of whatever origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRule {
    /// Its chain.
    pub chain: String,
    /// By which it is deleted.
    pub handle: u64,
    /// Its comment, in either of the forms that `iptables-nft` uses.
    pub comment: Option<String>,
    /// Chains that it jumps or goes to.
    pub jumps: Vec<String>,
    /// Targets of xtables that it calls, such as `CONNMARK`.
    pub targets: Vec<String>,
}

impl FoundRule {
    /// Reads an nf_tables message about a rule, from its `nfgenmsg` on.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let list = read::attributes(payload)
            .find_value(attr::RULE_EXPRESSIONS)
            .unwrap_or_default();
        let mut found = Self {
            chain: read::text(payload, attr::RULE_CHAIN)?.to_owned(),
            handle: read::attributes(payload)
                .find_value(attr::RULE_HANDLE)
                .and_then(be_u64)?,
            comment: read::attributes(payload)
                .find_value(attr::RULE_USERDATA)
                .and_then(userdata_comment),
            jumps: Vec::new(),
            targets: Vec::new(),
        };
        for (name, data) in read::expressions(list) {
            match name {
                "match" => found.comment = found.comment.take().or_else(|| match_comment(data)),
                "target" => found.targets.extend(extension(data).map(|(name, _)| name.to_owned())),
                "immediate" => found.jumps.extend(jump(data)),
                _ => {}
            }
        }
        Some(found)
    }
}

/// Name and data of an xtables match or target.
fn extension(data: &[u8]) -> Option<(&str, &[u8])> {
    let data = Attributes::new(data);
    let name = data.clone().find_value(attr::XT_NAME).and_then(parse_str)?;
    Some((name, data.find_value(attr::XT_INFO).unwrap_or_default()))
}

fn match_comment(data: &[u8]) -> Option<String> {
    let (name, info) = extension(data)?;
    (name == "comment").then(|| until_nul(info)).flatten()
}

/// User data are (type, length, value), and a comment is of type 0.
fn userdata_comment(mut data: &[u8]) -> Option<String> {
    while let [kind, len, rest @ ..] = data {
        let (value, rest) = rest.split_at_checked(usize::from(*len))?;
        if *kind == 0 {
            return until_nul(value);
        }
        data = rest;
    }
    None
}

fn until_nul(bytes: &[u8]) -> Option<String> {
    let text = bytes.split(|byte| *byte == 0).next()?;
    std::str::from_utf8(text).ok().map(str::to_owned)
}

fn jump(data: &[u8]) -> Option<String> {
    let data = Attributes::new(data).find_value(attr::IMMEDIATE_DATA)?;
    let verdict = Attributes::new(data).find_value(attr::DATA_VERDICT)?;
    let chain = Attributes::new(verdict).find_value(attr::VERDICT_CHAIN)?;
    parse_str(chain).map(str::to_owned)
}

impl NftSocket {
    /// Names of a table's chains; none if there is no such table.
    pub fn chains(&mut self, table: &TableId) -> Result<BTreeSet<String>, ReadError> {
        let messages = self.dump("chains", msg::GETCHAIN, table, |w| {
            w.text(attr::CHAIN_TABLE, &table.name);
        })?;
        // The kernel does not filter chains by table.
        let of_table = messages
            .iter()
            .filter(|(_, payload)| names(payload, attr::CHAIN_TABLE, &table.name));
        Ok(of_table
            .filter_map(|(_, payload)| read::text(payload, attr::CHAIN_NAME))
            .map(str::to_owned)
            .collect())
    }

    /// Names of a table's sets and maps; none if there is no such table.
    pub fn sets(&mut self, table: &TableId) -> Result<BTreeSet<String>, ReadError> {
        let messages = self.dump("sets", msg::GETSET, table, |w| w.text(attr::SET_TABLE, &table.name))?;
        let of_table = messages
            .iter()
            .filter(|(_, payload)| names(payload, attr::SET_TABLE, &table.name));
        Ok(of_table
            .filter_map(|(_, payload)| read::text(payload, attr::SET_NAME))
            .map(str::to_owned)
            .collect())
    }

    /// The rules of one chain in order, or of all chains; none if there is no such chain.
    pub fn rules(&mut self, table: &TableId, chain: Option<&str>) -> Result<Vec<FoundRule>, ReadError> {
        let messages = self.dump("rules", msg::GETRULE, table, |w| {
            w.text(attr::RULE_TABLE, &table.name);
            if let Some(chain) = chain {
                w.text(attr::RULE_CHAIN, chain);
            }
        })?;
        let of_table = messages
            .iter()
            .filter(|(_, payload)| names(payload, attr::RULE_TABLE, &table.name));
        let parsed = of_table.filter_map(|(_, payload)| FoundRule::parse(payload));
        // Kernels before 4.1 do not know the filter by chain.
        Ok(parsed
            .filter(|rule| chain.is_none_or(|chain| chain == rule.chain))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write::Writer;

    /// A message's attributes behind its netlink header, as the kernel would dump them.
    fn message(body: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.message("rule", (msg::NEWRULE, 0), 2, body);
        writer.buffer.split_off(16)
    }

    fn rule(expressions: impl FnOnce(&mut Writer)) -> Vec<u8> {
        message(|w| {
            w.text(attr::RULE_TABLE, "nat");
            w.text(attr::RULE_CHAIN, "PREROUTING");
            w.bytes(attr::RULE_HANDLE, &7_u64.to_be_bytes());
            w.nest(attr::RULE_EXPRESSIONS, expressions);
        })
    }

    fn expression(w: &mut Writer, name: &str, data: impl FnOnce(&mut Writer)) {
        w.nest(attr::LIST_ELEM, |w| {
            w.text(attr::EXPR_NAME, name);
            w.nest(attr::EXPR_DATA, data);
        });
    }

    fn comment(w: &mut Writer, text: &str) {
        let mut info = text.as_bytes().to_vec();
        info.resize(256, 0);
        expression(w, "match", |w| {
            w.text(attr::XT_NAME, "comment");
            w.bytes(attr::XT_INFO, &info);
        });
    }

    #[test]
    fn comment_target_and_jump_of_an_iptables_rule_are_found() {
        let payload = rule(|w| {
            comment(w, "AWS, CONNMARK");
            expression(w, "target", |w| w.text(attr::XT_NAME, "CONNMARK"));
            expression(w, "immediate", |w| {
                w.nest(attr::IMMEDIATE_DATA, |w| {
                    w.nest(attr::DATA_VERDICT, |w| w.text(attr::VERDICT_CHAIN, "AWS-SNAT-CHAIN-0"));
                });
            });
        });
        let found = FoundRule::parse(&payload).unwrap();
        assert_eq!((found.chain.as_str(), found.handle), ("PREROUTING", 7));
        assert_eq!(found.comment.as_deref(), Some("AWS, CONNMARK"));
        assert_eq!(
            (found.targets, found.jumps),
            (vec!["CONNMARK".into()], vec!["AWS-SNAT-CHAIN-0".into()])
        );
    }

    #[test]
    fn a_comment_may_be_user_data_too() {
        let data = |bytes: &[u8]| userdata_comment(bytes);
        assert_eq!(data(b"\x01\x01x\x00\x04AWS\0").as_deref(), Some("AWS"));
        assert_eq!(data(b"\x00\x03AWS").as_deref(), Some("AWS"));
        for bytes in [&b""[..], b"\x00", b"\x00\x09AWS", b"\x01\x00"] {
            assert_eq!(data(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn no_cut_off_rule_makes_the_reader_panic() {
        let payload = rule(|w| {
            comment(w, "AWS, CONNMARK");
            expression(w, "target", |w| w.text(attr::XT_NAME, "CONNMARK"));
        });
        for len in 0..payload.len() {
            let _ = FoundRule::parse(&payload[..len]);
        }
    }
}
