//! The judge can say no: defects made by hand are noticed, each by the connections that suffer from it.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use super::flow::{Actor, Flow, Way};
use super::kube::run as call;
use super::marks::{self, Marks};
use super::round::{self, Outcome, Ports};
use super::settings::Settings;
use super::stage::Stage;
use crate::scenarios::Bench;
use crate::scenarios::runner::say;
use crate::scenarios::world::NODE;

pub(super) fn run(bench: &Bench) -> Result<()> {
    let mut stage = Stage::set(bench, Settings::DEFAULT)?;
    let mut ports = Ports::new();
    sound(&stage, &mut ports)?;
    let outside = |flow: &Flow| flow.way == Way::Direct && flow.server == Actor::Internet;
    let node_port = |flow: &Flow| matches!(flow.way, Way::NodePort(..)) && flow.server == Actor::SecondaryPod;

    break_by(&mut stage, &["nft", "delete", "table", "ip", "aws-cni"])?;
    let without_table = round::run(&stage, Settings::DEFAULT, &mut ports)?;
    suffers(&without_table, "pods outside", |flow| {
        outside(flow) && flow.client == Actor::SecondaryPod
    })?;
    suffers(&without_table, "node ports", node_port)?;

    stage.restart(Settings::DEFAULT)?;
    break_by(&mut stage, &["ip", "rule", "delete", "priority", "1024"])?;
    let without_rule = round::run(&stage, Settings::DEFAULT, &mut ports)?;
    suffers(&without_rule, "pods outside", |flow| {
        outside(flow) && flow.client == Actor::SecondaryPod
    })?;
    suffers(&without_rule, "node ports", node_port)?;
    ensure!(
        !without_rule
            .problems
            .iter()
            .any(|problem| problem.flow.is_some_and(|flow| flow.client == Actor::PrimaryPod)),
        "a pod on the primary ENI suffers from a rule that it does not need"
    );

    stage.restart(Settings::DEFAULT)?;
    marks::install_bad_rule(stage.node()?)?;
    marks::reset(stage.node()?)?;
    round::run(&stage, Settings::DEFAULT, &mut ports)?;
    let marks = Marks::of(stage.node()?)?;
    ensure!(marks.lost() > 0, "overwritten marks were not noticed: {marks:?}");
    say(&format!(
        "{} problems without our table, {} without the mark rule; a bad rule lost {} marks of {} packets",
        without_table.problems.len(),
        without_rule.problems.len(),
        marks.lost(),
        marks.looked_at(),
    ));
    stage.world.finish()
}

/// Before anything is broken.
fn sound(stage: &Stage, ports: &mut Ports) -> Result<()> {
    round::run(stage, Settings::DEFAULT, ports)?.check()
}

/// With the daemon away, which would repair it.
fn break_by(stage: &mut Stage, words: &[&str]) -> Result<()> {
    stage.world.cluster.daemon(NODE)?.stop(Signal::SIGKILL)?;
    call(stage.node()?, words)
}

fn suffers(outcome: &Outcome, what: &str, which: impl Fn(&Flow) -> bool) -> Result<()> {
    let of = |flow: &Option<Flow>| flow.as_ref().is_some_and(&which);
    let is_noticed = outcome.problems.iter().any(|problem| of(&problem.flow));
    ensure!(is_noticed, "nothing was noticed of {what}: {:?}", outcome.problems);
    Ok(())
}
