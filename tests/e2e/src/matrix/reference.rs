//! The oracle is right: rules like the reference's, written by hand, keep the same promises but where they are known to fail.
//!
//! Both ways in which the reference marks connections are tried, with each of the four settings that shape its rules. In
//! the end the daemon starts on the node as the reference left it, and nothing may fail any more.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use vpc_fabric::Node;

use super::flow::{self, Actor, Flow, Place, Way};
use super::kube::{feed, run as call};
use super::marks::{self, Marks};
use super::round::{self, Conditions, History};
use super::settings::{Exclude, NodePorts, PARTNER_NETWORK, Settings, Snat};
use super::stage::Stage;
use crate::scenarios::Bench;
use crate::scenarios::runner::say;
use crate::scenarios::world::NODE;

/// What marks connections that leave the VPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backend {
    Iptables,
    Nftables,
}

const VPC_NETWORK: &str = "10.0.0.0/16";
const PRIMARY_DEVICE: &str = "eth0";
/// Saving and restoring the mark's own bit.
const RESTORE: &str = "-j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80";
const MARK: &str = "-j CONNMARK --set-xmark 0x80/0x80";

/// A service's first packet is not marked once its destination is translated; and programs with the secondary ENI's address
/// get the primary one. Both then leave by the secondary ENI with the primary address.
fn is_known_defect(settings: Settings, flow: &Flow) -> bool {
    let is_excluded = flow.server == Actor::Partner && settings.exclude == Exclude::Partner;
    let leaves = flow.server.place() == Place::Outside && settings.snat == Snat::Node && !is_excluded;
    let through_service = matches!(flow.way, Way::ClusterIp(_)) && flow.client == Actor::SecondaryPod;
    leaves && (through_service || flow.client == Actor::NodeSecond)
}

fn all() -> Vec<(Backend, Settings)> {
    let mut all = Vec::new();
    for backend in [Backend::Iptables, Backend::Nftables] {
        for snat in [Snat::Node, Snat::External] {
            for node_ports in [NodePorts::Supported, NodePorts::Unsupported] {
                let settings = Settings {
                    snat,
                    node_ports,
                    exclude: Exclude::Partner,
                    ..Settings::DEFAULT
                };
                all.push((backend, settings));
            }
        }
    }
    all
}

pub(super) fn run(bench: &Bench) -> Result<()> {
    let first = all()[0].1;
    let mut stage = Stage::set(bench, first)?;
    let mut history = History::new();
    bare(&mut stage)?;
    let node = stage.node()?;
    for (backend, settings) in all() {
        let rules = rules(backend, settings, stage.address(Actor::Node));
        rules.install(node)?;
        under(&stage, backend, settings, &mut history).with_context(|| format!("{backend:?}: {settings}"))?;
        rules.remove(node)?;
    }
    for backend in [Backend::Iptables, Backend::Nftables] {
        rules(backend, first, stage.address(Actor::Node)).install(stage.node()?)?;
        stage.restart(first)?;
        taken_over(&stage, first, &mut history).with_context(|| format!("after {backend:?}"))?;
        bare(&mut stage)?;
    }
    stage.restart(first)?;
    stage.world.finish()
}

/// No daemon and nothing of ours but pods and ENIs.
fn bare(stage: &mut Stage) -> Result<()> {
    stage.world.cluster.daemon(NODE)?.stop(Signal::SIGKILL)?;
    call(stage.node()?, &["nft", "delete", "table", "ip", "aws-cni"])?;
    call(stage.node()?, &with_mark_rule("delete"))
}

/// Nothing of what the reference left does harm.
fn taken_over(stage: &Stage, settings: Settings, history: &mut History) -> Result<()> {
    marks::reset(stage.node()?)?;
    let outcome = round::run(stage, Conditions::sound(settings), history)?;
    // Drops of the rounds before are still counted.
    let failed: Vec<_> = outcome.failed().collect();
    ensure!(failed.is_empty(), "{failed:?}");
    Marks::of(stage.node()?)?.check(settings)
}

/// One round under rules like the reference's.
fn under(stage: &Stage, backend: Backend, settings: Settings, history: &mut History) -> Result<()> {
    marks::reset(stage.node()?)?;
    let conditions = Conditions {
        is_doomed: is_known_defect,
        ..Conditions::sound(settings)
    };
    let outcome = round::run(stage, conditions, history)?;
    let failed: Vec<_> = outcome.failed().collect();
    let unknown = failed
        .iter()
        .filter(|problem| !problem.flow.is_some_and(|flow| is_known_defect(settings, &flow)));
    let unknown: Vec<String> = unknown.map(ToString::to_string).collect();
    ensure!(unknown.is_empty(), "the oracle asks for more:\n{}", unknown.join("\n"));
    let is_noticed = |flow: &Flow| failed.iter().any(|problem| problem.flow == Some(*flow));
    let mut known = flow::all().into_iter().filter(|flow| is_known_defect(settings, flow));
    ensure!(
        known.all(|flow| is_noticed(&flow)),
        "a known defect does not show: {failed:?}"
    );
    let marks = Marks::of(stage.node()?)?;
    // One of its two backends overwrites the mark of first packets.
    let overwrites = backend == Backend::Nftables && settings.snat == Snat::Node;
    ensure!((marks.lost() > 0) == overwrites, "foreign marks: {marks:?}");
    say(&format!(
        "{backend:?}, {:?}, node ports {:?}: {} connections, {} complaints, all known; {} marks lost",
        settings.snat,
        settings.node_ports,
        outcome.tried,
        failed.len(),
        marks.lost()
    ));
    Ok(())
}

/// Rules of iptables-nft by table, a table of nftables, and the policy rule.
struct Rules {
    nat: Vec<String>,
    /// Of the reference's own chains.
    chains: Vec<String>,
    mangle: Vec<String>,
    table: Option<String>,
    has_mark_rule: bool,
}

fn rules(backend: Backend, settings: Settings, primary: Ipv4Addr) -> Rules {
    let (translates, supports) = (settings.snat == Snat::Node, settings.node_ports == NodePorts::Supported);
    let mut rules = Rules {
        nat: Vec::new(),
        chains: Vec::new(),
        mangle: Vec::new(),
        table: None,
        has_mark_rule: translates || supports,
    };
    if supports {
        rules.mangle.push(format!(
            "PREROUTING -i {PRIMARY_DEVICE} -m addrtype --dst-type LOCAL --limit-iface-in {MARK}"
        ));
    }
    if translates || supports {
        rules.mangle.push(format!("PREROUTING -i eni+ {RESTORE}"));
    }
    if translates {
        rules.nat.push("POSTROUTING -j AWS-SNAT-CHAIN-0".to_owned());
        for network in [PARTNER_NETWORK, VPC_NETWORK] {
            rules.chains.push(format!("AWS-SNAT-CHAIN-0 -d {network} -j RETURN"));
        }
        rules.chains.push(format!(
            "AWS-SNAT-CHAIN-0 ! -o vlan+ -m addrtype ! --dst-type LOCAL -j SNAT --to-source {primary} --random-fully"
        ));
        match backend {
            Backend::Iptables => rules.mark_by_iptables(),
            Backend::Nftables => rules.table = Some(mark_by_nftables()),
        }
    }
    rules
}

fn mark_by_nftables() -> String {
    format!(
        "table ip aws-cni {{
            chain nat-prerouting {{ type nat hook prerouting priority -90;
                fib daddr type local return
                iifname \"eni*\" counter jump snat-mark
                counter meta mark set ct mark and 0x80
            }}
            chain snat-mark {{
                counter ip daddr {VPC_NETWORK} return
                counter ip daddr {PARTNER_NETWORK} return
                counter ct mark set ct mark or 0x80
            }}
        }}"
    )
}

impl Rules {
    fn mark_by_iptables(&mut self) {
        self.nat.push("PREROUTING -i eni+ -j AWS-CONNMARK-CHAIN-0".to_owned());
        self.nat.push(format!("PREROUTING {RESTORE}"));
        for network in [PARTNER_NETWORK, VPC_NETWORK] {
            self.chains.push(format!("AWS-CONNMARK-CHAIN-0 -d {network} -j RETURN"));
        }
        self.chains.push(format!("AWS-CONNMARK-CHAIN-0 {MARK}"));
    }

    /// Input of `iptables-nft-restore --noflush`, which empties chains that it is told to make.
    fn text(&self, verb: &str, chains: &[String]) -> String {
        let mut text = String::from("*nat\n:AWS-SNAT-CHAIN-0 - [0:0]\n:AWS-CONNMARK-CHAIN-0 - [0:0]\n");
        for rule in chains {
            let _ = writeln!(text, "-A {rule}");
        }
        for rule in &self.nat {
            let _ = writeln!(text, "{verb} {rule}");
        }
        text.push_str("COMMIT\n*mangle\n");
        for rule in &self.mangle {
            let _ = writeln!(text, "{verb} {rule}");
        }
        text.push_str("COMMIT\n");
        text
    }

    fn install(&self, node: &Node) -> Result<()> {
        feed(
            node,
            &["iptables-nft-restore", "--noflush"],
            &self.text("-A", &self.chains),
        )?;
        if let Some(table) = &self.table {
            feed(node, &["nft", "-f", "-"], table)?;
        }
        if self.has_mark_rule {
            call(node, &with_mark_rule("add"))?;
        }
        Ok(())
    }

    fn remove(&self, node: &Node) -> Result<()> {
        if self.has_mark_rule {
            call(node, &with_mark_rule("delete"))?;
        }
        if self.table.is_some() {
            call(node, &["nft", "delete", "table", "ip", "aws-cni"])?;
        }
        feed(node, &["iptables-nft-restore", "--noflush"], &self.text("-D", &[])).map(drop)
    }
}

fn with_mark_rule(verb: &'static str) -> [&'static str; 9] {
    [
        "ip",
        "rule",
        verb,
        "priority",
        "1024",
        "fwmark",
        "0x80/0x80",
        "lookup",
        "main",
    ]
}
