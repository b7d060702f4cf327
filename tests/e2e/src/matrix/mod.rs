//! The matrix: real packets under every combination of the variables that decide where they leave and from which address.
//!
//! Owns the connections that are tried, the rules of others around ours (services, foreign marks) and the oracle. One world is
//! made; for each combination the daemon starts anew with other variables while pods and rules of others stay. The simulated
//! VPC tells by which ENI and with which source each packet left. Invariant: a scenario passes only if its judge can say no,
//! which the last one proves with defects made by hand. Called by `vpc-matrix` alone.

mod defects;
mod flow;
mod kube;
mod marks;
mod oracle;
mod record;
mod reference;
mod round;
mod settings;
mod stage;

use std::time::Instant;

use anyhow::{Context, Result};

use crate::scenarios::runner::say;
use crate::scenarios::{Bench, Scenario};
use marks::Marks;
use round::{Conditions, History};
use settings::{Settings, Snat};
use stage::Stage;

/// Two run at a time.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "without external SNAT every packet leaves by the right ENI with the right address, and keeps foreign marks",
        translating,
    )
    .within(120)
    .also_unprivileged(),
    Scenario::new(
        "with external SNAT every packet leaves by the right ENI with the right address, and keeps foreign marks",
        external,
    )
    .within(120)
    .also_unprivileged(),
    Scenario::new(
        "the matrix notices a missing table, a missing rule and an overwritten mark",
        defects::run,
    )
    .within(120),
    Scenario::new(
        "the reference's rules keep the same promises but for their known defects, and its node is taken over",
        reference::run,
    )
    .within(120),
];

fn translating(bench: &Bench) -> Result<()> {
    combinations(bench, Snat::Node)
}

fn external(bench: &Bench) -> Result<()> {
    combinations(bench, Snat::External)
}

fn combinations(bench: &Bench, snat: Snat) -> Result<()> {
    let all = [Settings::all(snat), Settings::more(snat)].concat();
    let mut stage = Stage::set(bench, all[0])?;
    let mut history = History::new();
    let (mut tried, mut lost, mut looked, mut ours) = (0, 0, 0, 0);
    let started = Instant::now();
    for settings in &all {
        stage.restart(*settings)?;
        marks::reset(stage.node()?)?;
        let outcome = round::run(&stage, Conditions::sound(*settings), &mut history)?;
        outcome.check().with_context(|| settings.to_string())?;
        let marks = Marks::of(stage.node()?)?;
        marks.check(*settings).with_context(|| settings.to_string())?;
        tried += outcome.tried;
        lost += outcome.lost;
        looked += marks.looked_at();
        ours += marks.count("ours") + marks.count("ours-other");
    }
    say(&format!(
        "variables changed {} times, {tried} connections in {:.1} s ({lost} lost as they must be), {looked} looks at packets with foreign \
         marks, {ours} of them with ours; no other packet was dropped, no mark was lost",
        all.len(),
        started.elapsed().as_secs_f64(),
    ));
    stage.world.finish()
}
