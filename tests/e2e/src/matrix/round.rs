//! One round: every connection once, from ports that no other round uses, and what was seen of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vpc_fabric::fabric::{DropReason, Flow as Sent};
use vpc_fabric::probe::{Question, Vantage};

use super::flow::{self, Actor, Flow, Traffic, Way};
use super::kube::{LOCAL_SERVICE, cluster_address, node_port};
use super::oracle::{Eni, Expected, Passage, Port, expected};
use super::record::Record;
use super::settings::{Random, Settings, Snat};
use super::stage::{ECHO_PORT, Stage};
use crate::wait;

/// For answers that must come; only a loss takes as long.
const PATIENCE: Duration = Duration::from_secs(10);
/// For answers that must not come. Nothing depends on its length: what the node sent instead is looked for as well.
const SILENCE: Duration = Duration::from_millis(300);
/// Below the node ports, above the ports of servers.
const FIRST_PORT: u16 = 10_000;
const LAST_PORT: u16 = 29_999;

/// What earlier rounds left. Hands out ports of clients, each once, and none that the node has given to a connection: the kernel may still know that
/// connection, and then cannot keep the port of another one.
#[derive(Debug)]
pub(super) struct History {
    last: u16,
    given: BTreeSet<u16>,
    /// Whether replies were lost: more of them may be sent again later.
    has_lost: bool,
}

impl History {
    pub(super) fn new() -> Self {
        Self {
            last: FIRST_PORT,
            given: BTreeSet::new(),
            has_lost: false,
        }
    }

    fn next_port(&mut self) -> Result<u16> {
        self.last += 1;
        while self.given.contains(&self.last) {
            self.last += 1;
        }
        ensure!(self.last <= LAST_PORT, "too many rounds: no port is left");
        Ok(self.last)
    }
}

/// A connection that was tried.
#[derive(Debug, Clone)]
pub(super) struct Tried {
    pub(super) flow: Flow,
    pub(super) expected: Expected,
    pub(super) question: Question,
    /// The client as the server saw it.
    pub(super) answer: Option<SocketAddrV4>,
}

/// What was wrong.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    pub(super) flow: Option<Flow>,
    pub(super) text: String,
}

/// What a round showed.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Connections that were tried.
    pub(super) tried: usize,
    /// Of these, how many were lost as they must be.
    pub(super) lost: usize,
    /// Connections whose client the node gave another port.
    pub(super) other_ports: usize,
    pub(super) problems: Vec<Problem>,
}

impl Outcome {
    fn problem(&mut self, flow: &Flow, text: String) {
        self.problems.push(Problem {
            flow: Some(*flow),
            text,
        });
    }

    /// Problems of connections, as opposed to sums.
    pub(super) fn failed(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|problem| problem.flow.is_some())
    }

    /// No problem, or an error with all of them.
    pub(super) fn check(&self) -> Result<()> {
        let lines: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        ensure!(lines.is_empty(), "{} problems:\n{}", lines.len(), lines.join("\n"));
        Ok(())
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.flow {
            Some(flow) => write!(f, "{flow}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// Under which conditions connections are tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conditions {
    /// The variables whose promises are judged.
    pub(super) settings: Settings,
    /// How long answers may take.
    pub(super) patience: Duration,
    /// Connections whose answers are not waited for.
    pub(super) is_doomed: fn(Settings, &Flow) -> bool,
}

impl Conditions {
    /// All is well.
    pub(super) fn sound(settings: Settings) -> Self {
        Self {
            settings,
            patience: PATIENCE,
            is_doomed: |_, _| false,
        }
    }
}

/// Tries every connection and judges it.
pub(super) fn run(stage: &Stage, conditions: Conditions, history: &mut History) -> Result<Outcome> {
    let settings = conditions.settings;
    let mut tried = Vec::new();
    for flow in flow::all() {
        tried.push(Tried {
            flow,
            expected: expected(settings, &flow),
            question: Question {
                transport: flow.transport,
                from_port: history.next_port()?,
                server: target(stage, &flow),
            },
            answer: None,
        });
    }
    stage.world.cluster.vpc.handle().record_flows()?;
    ask(stage, &mut tried, conditions)?;
    history.has_lost |= tried.iter().any(|one| one.expected == Expected::Lost);
    let seen = tried.iter().filter_map(|one| Some(one.answer?.port()));
    history.given.extend(seen);
    judge(stage, settings, &tried, history)
}

/// Where the client finds the server.
fn target(stage: &Stage, flow: &Flow) -> SocketAddrV4 {
    match flow.way {
        Way::Direct => SocketAddrV4::new(stage.address(flow.server), ECHO_PORT),
        Way::ClusterIp(proxy) => cluster_address(proxy, flow.server),
        Way::LocalService => LOCAL_SERVICE,
        Way::NodePort(proxy, traffic) => {
            SocketAddrV4::new(stage.address(Actor::Node), node_port(proxy, traffic, flow.server))
        }
        Way::SecondNodePort(proxy) => {
            let port = node_port(proxy, Traffic::Local, flow.server);
            SocketAddrV4::new(stage.address(Actor::NodeSecond), port)
        }
    }
}

/// All clients at once, each on a thread in its namespace; first what must be answered, then the rest.
fn ask(stage: &Stage, tried: &mut [Tried], conditions: Conditions) -> Result<()> {
    let is_silent =
        |one: &Tried| one.expected == Expected::Lost || (conditions.is_doomed)(conditions.settings, &one.flow);
    for (silent, patience) in [(false, conditions.patience), (true, SILENCE)] {
        let mut by_client: BTreeMap<Actor, Vec<&mut Tried>> = BTreeMap::new();
        for one in tried.iter_mut().filter(|one| is_silent(one) == silent) {
            by_client.entry(one.flow.client).or_default().push(one);
        }
        std::thread::scope(|scope| {
            let clients = by_client.into_iter().map(|(client, asked)| {
                let vantage = Vantage::new(stage.netns(client)).within(patience);
                let vantage = if client == Actor::NodeSecond {
                    vantage.from_address(stage.address(client))
                } else {
                    vantage
                };
                scope.spawn(move || -> Result<()> {
                    let questions: Vec<Question> = asked.iter().map(|one| one.question).collect();
                    let answers = vantage.ask_each(&questions)?;
                    asked
                        .into_iter()
                        .zip(answers)
                        .for_each(|(one, answer)| one.answer = answer);
                    Ok(())
                })
            });
            let clients: Vec<_> = clients.collect();
            clients
                .into_iter()
                .try_for_each(|client| client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })?;
    }
    Ok(())
}

fn judge(stage: &Stage, settings: Settings, tried: &[Tried], history: &History) -> Result<Outcome> {
    let mut outcome = Outcome {
        tried: tried.len(),
        ..Outcome::default()
    };
    let mut record = Record::of(stage, tried)?;
    let is_lost = |one: &&Tried| one.expected == Expected::Lost;
    for one in tried.iter().filter(is_lost) {
        outcome.lost += 1;
        let _ = wait::until("the reply shows", PATIENCE, || {
            if record.of_connection(stage, one).is_empty() {
                record = Record::of(stage, tried)?;
                return Ok(None);
            }
            Ok(Some(()))
        });
    }
    for one in tried {
        let sent = record.of_connection(stage, one);
        match one.expected {
            Expected::Lost => judge_lost(stage, one, &sent, &mut outcome),
            Expected::Answered(passage) => judge_answered(stage, settings, one, passage, &sent, &mut outcome),
        }
    }
    judge_random(settings, &mut outcome);
    judge_drops(stage, history, &mut outcome)?;
    Ok(outcome)
}

fn judge_lost(stage: &Stage, one: &Tried, sent: &[&(Eni, Sent)], outcome: &mut Outcome) {
    if let Some(seen) = one.answer {
        outcome.problem(
            &one.flow,
            format!("answered, seen as {seen}, although node ports are not supported"),
        );
    }
    judge_sent(stage, one, Some((Eni::Secondary, Actor::Node)), sent, outcome);
}

fn judge_answered(
    stage: &Stage,
    settings: Settings,
    one: &Tried,
    passage: Passage,
    sent: &[&(Eni, Sent)],
    outcome: &mut Outcome,
) {
    let Some(seen) = one.answer else {
        outcome.problem(&one.flow, format!("no answer; sent {}", text(sent)));
        return;
    };
    let address = stage.address(passage.seen);
    if *seen.ip() != address {
        outcome.problem(&one.flow, format!("seen as {seen}, not as {address}"));
    }
    let is_own = seen.port() == one.question.from_port;
    let may_change = match passage.port {
        Port::Own => false,
        Port::Translated => settings.random != Random::None,
        Port::Any => true,
    };
    if !is_own && !may_change {
        outcome.problem(
            &one.flow,
            format!("port {} became {}", one.question.from_port, seen.port()),
        );
    }
    outcome.other_ports += usize::from(passage.port == Port::Translated && !is_own);
    judge_sent(stage, one, passage.leaves, sent, outcome);
}

fn judge_sent(stage: &Stage, one: &Tried, leaves: Option<(Eni, Actor)>, sent: &[&(Eni, Sent)], outcome: &mut Outcome) {
    let wanted = leaves.map(|(eni, actor)| (eni, stage.address(actor)));
    let is_right = match wanted {
        None => sent.is_empty(),
        Some(wanted) => !sent.is_empty() && sent.iter().all(|(eni, sent)| (*eni, *sent.source.ip()) == wanted),
    };
    if !is_right {
        let wanted = wanted.map_or_else(
            || "nothing".to_owned(),
            |(eni, address)| format!("{address} by {eni:?}"),
        );
        outcome.problem(&one.flow, format!("the node sent {}, not {wanted}", text(sent)));
    }
}

fn text(sent: &[&(Eni, Sent)]) -> String {
    let lines = sent
        .iter()
        .map(|(eni, sent)| format!("{} → {} by {eni:?} ×{}", sent.source, sent.destination, sent.packets));
    format!("[{}]", lines.collect::<Vec<_>>().join(", "))
}

/// That a port of its own choice is the client's by chance is as good as impossible for all connections.
fn judge_random(settings: Settings, outcome: &mut Outcome) {
    let is_random = settings.snat == Snat::Node && settings.random != Random::None;
    if (outcome.other_ports > 0) != is_random {
        outcome.problems.push(Problem {
            flow: None,
            text: format!("{} connections got another port", outcome.other_ports),
        });
    }
}

/// Nothing is dropped but what is lost for good reason: replies as the node by the secondary ENI.
fn judge_drops(stage: &Stage, history: &History, outcome: &mut Outcome) -> Result<()> {
    let clients = [Actor::Internet, Actor::Partner, Actor::VpcHost].map(|client| stage.address(client));
    let is_explained = |eni: Option<Eni>, source: Ipv4Addr, destination: &Ipv4Addr| {
        history.has_lost
            && (eni, source) == (Some(Eni::Secondary), stage.address(Actor::Node))
            && clients.contains(destination)
    };
    for drop in stage.world.cluster.vpc.handle().drops()? {
        let is_lost = drop.reason == DropReason::WrongSource
            && is_explained(stage.eni(&drop.eni), drop.source, &drop.destination);
        if !is_lost {
            let eni = stage.eni(&drop.eni).context("a drop of an ENI that sends nothing here");
            outcome.problems.push(Problem {
                flow: None,
                text: format!("dropped: {drop:?} ({eni:?})"),
            });
        }
    }
    Ok(())
}
