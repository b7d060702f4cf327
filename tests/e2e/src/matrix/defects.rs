//! The judge can say no: defects made by hand are noticed, each by the connections that suffer from it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::flow::{Actor, Flow, Way};
use super::kube::run as call;
use super::marks::{self, Marks};
use super::round::{self, Conditions, History};
use super::settings::{Exclude, Settings};
use super::stage::Stage;
use crate::scenarios::Bench;
use crate::scenarios::runner::say;
use crate::scenarios::world::NODE;

/// For answers that will not come, and others that may come later on a slow machine: only the former are looked for.
const BROKEN: Duration = Duration::from_secs(2);

const EXCLUDING: Settings = Settings {
    exclude: Exclude::Partner,
    ..Settings::DEFAULT
};

/// Connections that must suffer.
type Victims = fn(&Flow) -> bool;

/// Something to break with the daemon away, which would repair it.
struct Defect {
    name: &'static str,
    command: &'static [&'static str],
    victims: &'static [Victims],
}

const DEFECTS: [Defect; 4] = [
    Defect {
        name: "our table deleted",
        command: &["nft", "delete", "table", "ip", "aws-cni"],
        victims: &[primary_pod_outside, secondary_pod_outside, node_port],
    },
    Defect {
        name: "incoming connections not marked",
        command: &["nft", "flush", "chain", "ip", "aws-cni", "mangle-prerouting"],
        victims: &[node_port],
    },
    Defect {
        name: "excluded networks forgotten",
        command: &["nft", "flush", "set", "ip", "aws-cni", "exclude-cidrs"],
        victims: &[to_partner],
    },
    Defect {
        name: "the mark rule deleted",
        command: &["ip", "rule", "delete", "priority", "1024"],
        victims: &[secondary_pod_outside, node_port],
    },
];

fn primary_pod_outside(flow: &Flow) -> bool {
    flow.way == Way::Direct && (flow.client, flow.server) == (Actor::PrimaryPod, Actor::Internet)
}

fn secondary_pod_outside(flow: &Flow) -> bool {
    flow.way == Way::Direct && (flow.client, flow.server) == (Actor::SecondaryPod, Actor::Internet)
}

fn to_partner(flow: &Flow) -> bool {
    flow.way == Way::Direct && (flow.client, flow.server) == (Actor::SecondaryPod, Actor::Partner)
}

fn node_port(flow: &Flow) -> bool {
    matches!(flow.way, Way::NodePort(..)) && flow.server == Actor::SecondaryPod
}

pub(super) fn run(bench: &Bench) -> Result<()> {
    let mut stage = Stage::set(bench, EXCLUDING)?;
    let mut history = History::new();
    round::run(&stage, Conditions::sound(EXCLUDING), &mut history)?.check()?;
    let broken = Conditions {
        patience: BROKEN,
        ..Conditions::sound(EXCLUDING)
    };
    for defect in &DEFECTS {
        stage.world.cluster.daemon(NODE)?.stop(Signal::SIGKILL)?;
        call(stage.node()?, defect.command)?;
        let outcome = round::run(&stage, broken, &mut history)?;
        for victims in defect.victims {
            let mut flows = outcome.problems.iter().filter_map(|problem| problem.flow);
            let is_noticed = flows.any(|flow| victims(&flow));
            let context = || format!("{}: {:?}", defect.name, outcome.problems);
            is_noticed.then_some(()).with_context(context)?;
        }
        say(&format!("{}: {} problems", defect.name, outcome.problems.len()));
        stage.restart(EXCLUDING)?;
    }
    lost_marks(&stage, broken, &mut history)?;
    stage.world.finish()
}

fn lost_marks(stage: &Stage, broken: Conditions, history: &mut History) -> Result<()> {
    marks::install_bad_rule(stage.node()?)?;
    marks::reset(stage.node()?)?;
    round::run(stage, broken, history)?;
    let marks = Marks::of(stage.node()?)?;
    ensure!(marks.lost() > 0, "overwritten marks were not noticed: {marks:?}");
    say(&format!(
        "marks overwritten: {} lost in {} looks",
        marks.lost(),
        marks.looked_at()
    ));
    Ok(())
}
