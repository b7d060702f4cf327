//! `ipamd audit`: looks at everything and prints where it disagrees. The judgement is [`crate::audit`]'s.
//!
//! The looks cannot be taken at one moment. So the daemon's account is read before and after, and what disagrees is looked
//! at a second time: a finding is what both times show.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cloud::{Ec2Client, ImdsClient, ReadEc2};
use datapath::takeover::{Variant, find_leftovers};
use datapath::{Change, NodeConfig, NodePorts, RouteSocket, inspect, inspect_node};
use ipam_core::{AddressKind, EniPhase, LeaseState};
use proto::agent::agent_client::AgentClient;
use proto::agent::{self, GetAccountReply, GetAccountRequest};
use serde_json::json;
use tonic::transport::Channel;
use vpc_types::{EniId, FwMark, InstanceId, IpamKey, PodName, RouteTableId, VethPrefix, host_veth_name};

use super::{Answer, Output, connect, pretty};
use crate::audit::{
    Account, AddressAccount, Ec2Look, EniAccount, Finding, Judgement, KernelLook, LeaseAccount, LeftoverLook, Looks,
    NodeLook, Role, Settled, audit as compare,
};
use crate::clock;
use crate::config::Config;
use crate::observe::Calls;
use crate::serve::parse_snat;

/// A sandbox that is just being removed, or a notice that the daemon is just digesting, is over by then.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// Credentials, the region, and one list.
const EC2_DEADLINE: Duration = Duration::from_secs(20);

/// Whether EC2 is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ec2Wish {
    /// Yes, with one read-only call.
    Looked,
    /// No.
    LeftOut,
}

/// Something that could not be looked at.
#[derive(Debug)]
struct Blind {
    what: &'static str,
    why: String,
}

/// One round of looks.
#[derive(Debug, Default)]
struct Round {
    findings: BTreeSet<Finding>,
    /// What only one of two looks showed.
    unconfirmed: BTreeSet<Finding>,
    in_motion: usize,
    leases: usize,
    enis: usize,
    blind: Vec<Blind>,
}

/// Compares; the answer's status is 0, 1, or 2. What cannot be looked at is part of the answer.
pub async fn audit(config: &Config, ec2: Ec2Wish, output: Output) -> Answer {
    let round = match two_rounds(config, ec2).await {
        Ok(round) => round,
        Err(error) => Round {
            blind: vec![Blind::new("daemon", &error)],
            ..Round::default()
        },
    };
    Answer {
        text: match output {
            Output::Json => json_of(&round, ec2),
            Output::Text => text_of(&round, ec2),
        },
        status: match round.verdict() {
            "agrees" => 0,
            "mismatch" => 1,
            _ => 2,
        },
    }
}

async fn two_rounds(config: &Config, ec2: Ec2Wish) -> Result<Round> {
    let first = look(config, ec2).await?;
    if first.findings.is_empty() {
        return Ok(first);
    }
    tokio::time::sleep(SECOND_LOOK).await;
    let second = look(config, ec2).await?;
    Ok(first.confirmed_by(second))
}

async fn look(config: &Config, wish: Ec2Wish) -> Result<Round> {
    let mut agent = connect(&config.paths.socket).await?;
    let (before, facts) = read(&mut agent).await?;
    let mut round = Round::default();
    let mut looks = Looks::default();
    let tables = before
        .enis
        .values()
        .map(|eni| eni.table)
        .filter(|table| !table.is_main());
    match kernel(tables.collect(), &facts.rules.veth_prefix) {
        Ok(look) => looks.kernel = Some(look),
        Err(error) => round.blind.push(Blind::new("kernel", &error)),
    }
    match node(&facts.rules) {
        Ok(look) => looks.node = Some(look),
        Err(error) => round.blind.push(Blind::new("nftables", &error)),
    }
    for variant in [Variant::Nft, Variant::Legacy] {
        let program = variant.program();
        match find_leftovers(variant) {
            Ok(found) => looks.leftovers.push(LeftoverLook {
                program,
                rules: found.rules,
            }),
            Err(error) => round.blind.push(Blind::new(program, &error.into())),
        }
    }
    if wish == Ec2Wish::Looked {
        match ec2(config, &facts).await {
            Ok(look) => looks.ec2 = Some(look),
            Err(error) => round.blind.push(Blind::new("EC2", &error)),
        }
    }
    let (after, _) = read(&mut agent).await?;
    let settled = Settled::between(&before, &after, clock::now().wall);
    round.findings = compare(&settled, &looks);
    round.in_motion = settled.in_motion();
    (round.leases, round.enis) = (settled.leases.len(), settled.enis.len());
    Ok(round)
}

/// What the looks need to know of the daemon.
struct Facts {
    instance: InstanceId,
    rules: NodeConfig,
    seen_ec2: bool,
}

async fn read(agent: &mut AgentClient<Channel>) -> Result<(Account, Facts)> {
    let reply = agent.get_account(GetAccountRequest {}).await;
    let reply = reply.context("the daemon gives no account")?.into_inner();
    let facts = facts(&reply).context("the daemon's account of the node")?;
    let leases = reply.leases.iter().map(|one| lease(one, &facts.rules.veth_prefix));
    let enis = reply.enis.iter().map(eni);
    Ok((
        Account {
            leases: leases.collect::<Result<_>>()?,
            enis: enis.collect::<Result<_>>()?,
        },
        facts,
    ))
}

fn facts(reply: &GetAccountReply) -> Result<Facts> {
    let node = reply.node.as_ref().context("field node is missing")?;
    let cidrs = |texts: &[String]| texts.iter().map(|text| Ok(text.parse()?)).collect::<Result<Vec<_>>>();
    Ok(Facts {
        instance: InstanceId::parse(&node.instance_id)?,
        seen_ec2: reply.seen_ec2,
        rules: NodeConfig {
            primary_mac: node.primary_mac.parse()?,
            primary_address: node.primary_address.parse()?,
            mtu: node.mtu,
            snat: parse_snat(&node.snat).with_context(|| format!("field snat: {:?} is no policy", node.snat))?,
            node_ports: if node.node_ports {
                NodePorts::Supported
            } else {
                NodePorts::Unsupported
            },
            vpc_cidrs: cidrs(&node.vpc_cidrs)?,
            exclude_cidrs: cidrs(&node.exclude_cidrs)?,
            service_cidrs: cidrs(&node.service_cidrs)?,
            mark: FwMark {
                value: node.mark,
                mask: node.mark_mask,
            },
            veth_prefix: VethPrefix::parse(&node.veth_prefix)?,
        },
    })
}

fn lease(wire: &agent::Lease, veth_prefix: &VethPrefix) -> Result<LeaseAccount> {
    let attachment = wire.attachment.clone().unwrap_or_default();
    let key = IpamKey::new(&attachment.network_name, &attachment.container_id, &attachment.if_name);
    let key = key.with_context(|| format!("the lease of {}", wire.address))?;
    let pod = PodName::new(&wire.pod_namespace, &wire.pod_name);
    Ok(LeaseAccount {
        pod: match &pod {
            Some(pod) => format!("{}/{}", pod.namespace, pod.name),
            None => format!("container {}", attachment.container_id),
        },
        host_veth: host_veth_name(veth_prefix, pod.as_ref(), &key),
        container: attachment.container_id,
        interface: attachment.if_name,
        address: wire
            .address
            .parse()
            .with_context(|| format!("a lease of {:?}", wire.address))?,
        table: RouteTableId(wire.route_table),
        state: LeaseState::parse(&wire.state)
            .with_context(|| format!("the lease of {}: {:?} is no state", wire.address, wire.state))?,
        granted_at: wire.granted_at,
    })
}

fn eni(wire: &agent::EniAccount) -> Result<(EniId, EniAccount)> {
    let of = || format!("the account of {}", wire.id);
    let address = |row: &agent::AddressAccount| -> Result<(Ipv4Addr, AddressAccount)> {
        let account = AddressAccount {
            state: AddressKind::parse(&row.state)
                .with_context(|| format!("{}: {:?} is no state", row.address, row.state))?,
            since: row.since,
        };
        Ok((row.address.parse().with_context(of)?, account))
    };
    let account = EniAccount {
        mac: wire.mac.parse().with_context(of)?,
        table: RouteTableId(wire.route_table),
        primary: wire.primary_address.parse().with_context(of)?,
        role: match wire.role.as_str() {
            "primary" => Role::Primary,
            "managed" => Role::Managed,
            "unmanaged" => Role::Unmanaged,
            other => anyhow::bail!("the account of {}: {other:?} is no role", wire.id),
        },
        state: EniPhase::parse(&wire.state).with_context(|| format!("{}: {:?} is no state", wire.id, wire.state))?,
        in_motion: wire.in_motion,
        addresses: wire.addresses.iter().map(address).collect::<Result<_>>()?,
    };
    Ok((EniId::parse(&wire.id).with_context(of)?, account))
}

fn kernel(tables: BTreeSet<RouteTableId>, veth_prefix: &VethPrefix) -> Result<KernelLook> {
    let mut socket = RouteSocket::open()?;
    Ok(KernelLook::of(&inspect(&mut socket, tables)?, veth_prefix))
}

fn node(rules: &NodeConfig) -> Result<NodeLook> {
    let mut socket = RouteSocket::open()?;
    let found = inspect_node(&mut socket, rules)?;
    let judge = |change| match change {
        Change::Unchanged => Judgement::Right,
        Change::Changed => Judgement::Wrong,
    };
    Ok(NodeLook {
        mark_rule: judge(found.mark_rule),
        service_rules: judge(found.service_rules),
        table: found.table.map(|difference| difference.to_string()),
    })
}

async fn ec2(config: &Config, facts: &Facts) -> Result<Ec2Look> {
    anyhow::ensure!(
        facts.seen_ec2,
        "the daemon itself has not heard from EC2 since its start"
    );
    let ask = async {
        let imds = ImdsClient::new(&config.cloud)?;
        let client = Ec2Client::connect(&config.cloud, &imds, Arc::new(Calls::default())).await?;
        Ok(Ec2Look::of(&client.describe_instance_enis(&facts.instance).await?))
    };
    let asked = tokio::time::timeout(EC2_DEADLINE, ask).await;
    asked.with_context(|| format!("no answer within {} s", EC2_DEADLINE.as_secs()))?
}

impl Blind {
    fn new(what: &'static str, error: &anyhow::Error) -> Self {
        Self {
            what,
            why: format!("{error:#}"),
        }
    }
}

impl Round {
    /// Where either round was blind the other one had no second look, so what it found there is not refuted.
    fn confirmed_by(mut self, second: Self) -> Self {
        self.blind
            .retain(|one| second.blind.iter().all(|other| other.what != one.what));
        self.blind.extend(second.blind);
        Self {
            unconfirmed: &self.findings ^ &second.findings,
            findings: &self.findings & &second.findings,
            blind: self.blind,
            ..second
        }
    }

    fn verdict(&self) -> &'static str {
        match (self.findings.is_empty(), self.blind.is_empty()) {
            (false, _) => "mismatch",
            (true, false) => "incomplete",
            (true, true) => "agrees",
        }
    }
}

fn text_of(round: &Round, wish: Ec2Wish) -> String {
    let mut lines: Vec<String> = Vec::new();
    for finding in &round.findings {
        lines.push(format!("{:<26}{}", finding.kind(), finding.text()));
    }
    for blind in &round.blind {
        lines.push(format!("{:<26}{}: {}", "not looked at", blind.what, blind.why));
    }
    if wish == Ec2Wish::LeftOut {
        lines.push(format!("{:<26}EC2, because of --no-ec2", "left out"));
    }
    if !round.unconfirmed.is_empty() {
        let kinds: BTreeSet<&str> = round.unconfirmed.iter().map(Finding::kind).collect();
        let kinds: Vec<&str> = kinds.into_iter().collect();
        lines.push(format!("{:<26}{}", "seen once, no finding", kinds.join(", ")));
    }
    lines.push(format!(
        "{}: {} findings; {} leases and {} ENIs compared, {} things in motion left out",
        round.verdict(),
        round.findings.len(),
        round.leases,
        round.enis,
        round.in_motion
    ));
    lines.join("\n")
}

fn json_of(round: &Round, wish: Ec2Wish) -> String {
    let finding = |finding: &Finding| {
        let object = finding.object();
        json!({
            "kind": finding.kind(), "text": finding.text(), "address": object.address.map(|a| a.to_string()),
            "eni": object.eni.map(ToString::to_string), "pod": object.pod, "device": object.device,
        })
    };
    let blind = |blind: &Blind| json!({"what": blind.what, "why": blind.why});
    pretty(&json!({
        "result": round.verdict(),
        "findings": round.findings.iter().map(finding).collect::<Vec<_>>(),
        "notLookedAt": round.blind.iter().map(blind).collect::<Vec<_>>(),
        "leftOut": if wish == Ec2Wish::LeftOut { vec!["EC2"] } else { vec![] },
        "unconfirmed": round.unconfirmed.iter().map(finding).collect::<Vec<_>>(),
        "inMotion": round.in_motion,
        "compared": {"leases": round.leases, "enis": round.enis},
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(finding: Option<Finding>, blind: Option<&'static str>) -> Round {
        Round {
            findings: finding.into_iter().collect(),
            blind: blind
                .into_iter()
                .map(|what| Blind::new(what, &anyhow::anyhow!("no")))
                .collect(),
            ..Round::default()
        }
    }

    #[test]
    fn a_finding_that_one_round_could_not_look_for_is_no_agreement() {
        let finding = || Some(Finding::MarkRule);
        let verdict = |first: Round, second: Round| first.confirmed_by(second).verdict();
        assert_eq!(verdict(round(finding(), None), round(finding(), None)), "mismatch");
        assert_eq!(verdict(round(finding(), None), round(None, None)), "agrees");
        assert_eq!(verdict(round(finding(), None), round(None, Some("EC2"))), "incomplete");
        // The first finding is gone; what the first round did not see has been looked at only once.
        let other = Some(Finding::ForeignRule { priority: 512 });
        assert_eq!(
            verdict(round(finding(), Some("kernel")), round(other, None)),
            "incomplete"
        );
        let both = round(None, Some("EC2")).confirmed_by(round(None, Some("EC2")));
        assert_eq!(both.blind.len(), 1);
    }

    #[test]
    fn an_account_in_words_that_this_audit_does_not_know_is_not_judged() {
        let good = agent::EniAccount {
            id: "eni-0000000000000000a".into(),
            mac: "02:00:00:00:00:0a".into(),
            route_table: 254,
            primary_address: "10.0.1.10".into(),
            role: "managed".into(),
            state: "ready".into(),
            in_motion: false,
            addresses: vec![agent::AddressAccount {
                address: "10.0.1.11".into(),
                state: "free".into(),
                since: 1,
            }],
        };
        assert!(eni(&good).is_ok());
        let bad: [fn(&mut agent::EniAccount); 3] = [
            |one| one.role = "new".into(),
            |one| one.state = "new".into(),
            |one| one.addresses[0].state = "new".into(),
        ];
        for change in bad {
            let mut other = good.clone();
            change(&mut other);
            let error = eni(&other).unwrap_err();
            assert!(format!("{error:#}").contains(r#""new" is no "#), "{error:#}");
        }
    }
}
