//! Marks of other software: set before any of our chains sees a packet, looked for behind the last of them.
//!
//! kube-proxy's bit is left alone in connections to the node's own address: there kube-proxy itself sets it, and acts on it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vpc_fabric::Node;

use super::kube::{feed, run};
use super::settings::{Mark, NodePorts, Settings, Snat};

/// Packets that were looked at, and those that lost a mark.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Marks(BTreeMap<String, u64>);

const COUNTERS: [&str; 9] = [
    "first",
    "later",
    "replies",
    "local",
    "ours",
    "ours-other",
    "lost-calico",
    "lost-kube-proxy",
    "pinned",
];
/// What must have been seen for the rest to mean anything.
const SEEN: [&str; 4] = ["first", "later", "replies", "local"];

/// Begins to mark and to count.
pub(super) fn install(node: &Node, address: Ipv4Addr) -> Result<()> {
    let counters: String = COUNTERS.map(|name| format!("counter {name} {{ }}\n")).concat();
    // Behind the translation of sources, and where routing is decided. Locally made packets have no input device.
    let text = format!(
        "table ip foreign {{
            {counters}
            chain raw {{ type filter hook prerouting priority -300;
                meta mark set meta mark or 0xa5a50000; }}
            chain mangle {{ type filter hook prerouting priority -150;
                ct original ip daddr != {address} meta mark set meta mark or 0x4000; }}
            chain look {{
                ct state new counter name first
                ct state established ct direction original counter name later
                ct direction reply counter name replies
                meta mark and 0x80 == 0x80 counter name ours
                meta mark and 0x100 == 0x100 counter name ours-other
                meta mark and 0xffff0000 != 0xa5a50000 counter name lost-calico
                ct original ip daddr != {address} meta mark and 0x4000 == 0 counter name lost-kube-proxy
            }}
            chain forward {{ type filter hook forward priority 0; jump look; }}
            chain postrouting {{ type filter hook postrouting priority 300; iifname \"e*\" jump look; }}
            chain input {{ type filter hook input priority 0;
                iifname \"eni*\" counter name local
                iifname \"e*\" meta mark and 0xffff0000 != 0xa5a50000 counter name lost-calico
                iifname \"eni*\" meta mark and 0x180 != 0 counter name pinned
            }}
        }}"
    );
    feed(node, &["nft", "-f", "-"], &text).map(drop)
}

/// A rule that overwrites the whole mark, as an older aws-node has it.
pub(super) fn install_bad_rule(node: &Node) -> Result<()> {
    let text = "table ip bad { chain prerouting { type filter hook prerouting priority -80; \
                meta mark set ct mark and 0x80; }; }";
    feed(node, &["nft", "-f", "-"], text).map(drop)
}

/// Counts from zero.
pub(super) fn reset(node: &Node) -> Result<()> {
    run(node, &["nft", "reset", "counters", "table", "ip", "foreign"])
}

impl Marks {
    /// Since the last reset.
    pub(super) fn of(node: &Node) -> Result<Self> {
        let text = feed(node, &["nft", "-j", "list", "counters", "table", "ip", "foreign"], "")?;
        let json: Value = serde_json::from_str(&text).context("nft's list of counters")?;
        let list = json["nftables"].as_array().context("nft lists counters")?;
        let counter = |entry: &Value| {
            let counter = &entry["counter"];
            Some((counter["name"].as_str()?.to_owned(), counter["packets"].as_u64()?))
        };
        Ok(Self(list.iter().filter_map(counter).collect()))
    }

    /// One counter.
    pub(super) fn count(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Packets that were looked at.
    pub(super) fn looked_at(&self) -> u64 {
        SEEN.iter().map(|kind| self.count(kind)).sum()
    }

    /// Packets that lost a mark of somebody else.
    pub(super) fn lost(&self) -> u64 {
        self.count("lost-calico") + self.count("lost-kube-proxy")
    }

    /// Every kind of packet was seen, and none has lost a mark; none for the node itself has ours. Ours
    /// is where something needs it.
    pub(super) fn check(&self, settings: Settings) -> Result<()> {
        ensure!(SEEN.iter().all(|kind| self.count(kind) > 0), "not looked at: {self:?}");
        ensure!(self.lost() == 0, "foreign marks were lost: {self:?}");
        let is_used = settings.snat == Snat::Node || settings.node_ports == NodePorts::Supported;
        let is_right = |counter, mark| (self.count(counter) > 0) == (is_used && settings.mark == mark);
        ensure!(
            is_right("ours", Mark::Usual) && is_right("ours-other", Mark::Other),
            "our mark is wrong: {self:?}"
        );
        ensure!(
            self.count("pinned") == 0,
            "packets for the node itself have our mark: {self:?}"
        );
        Ok(())
    }
}
