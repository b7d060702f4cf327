//! The suites of `cargo xtask test`, in the order of what they tell soonest, each with its longest time.
//!
//! The times hold on two busy cores from an empty target directory: the first suite then compiles the EC2 SDK.

use anyhow::Result;

use crate::bench;
use crate::cli::Lanes;
use crate::context::Context;
use crate::demo::{self, Replacements};
use crate::foreign;
use crate::fuzz;
use crate::matrix;
use crate::runtimes;
use crate::setup;
use crate::sim::{self, Core, Fleet};
use crate::steps::Step;
use crate::storm;
use crate::upgrade;

/// The suites whose judges are installed programs, nft and ip: `cargo test` leaves them out.
const JUDGED: &[&str] = &[
    "test",
    "-p",
    "nft",
    "-p",
    "datapath",
    "--test",
    "kernel",
    "--test",
    "node",
    "--test",
    "pod",
    "--test",
    "repair",
    "--test",
    "rules",
    "--test",
    "takeover",
    "--test",
    "traffic",
    "--no-fail-fast",
];

/// Installs what the suites need, or says what is missing; then the suites.
pub(crate) fn steps(context: &Context, lanes: Lanes) -> Result<Vec<Step>> {
    setup::programs(context)?;
    let mut steps = vec![
        Step::cargo("cargo test", 30, &["test", "--workspace", "--no-fail-fast"]),
        Step::cargo("judged", 10, JUDGED),
        Step::new("fuzz", 10, fuzz::step),
        Step::new("e2e", 15, |context, deadline| {
            demo::e2e_step(context, &Replacements::default(), deadline)
        }),
        runtimes::step(),
        Step::new("demo", 10, demo::demo_step),
        foreign::step(),
        matrix::step(),
        upgrade::step(),
        Step::new("storms", 10, |context, deadline| storm::step(context, &[], deadline)),
        Step::new("sim", 15, |context, deadline| {
            sim::step(context, Core::Shipped, &["--seeds", "1000"], deadline)
        }),
        Step::new("sim, random", 5, |context, deadline| {
            sim::step(
                context,
                Core::Shipped,
                &["--seconds", "30", "--steps", "2000"],
                deadline,
            )
        }),
        Step::new("goals", 10, |context, deadline| {
            sim::fleet_step(context, Fleet::Goals, deadline)
        }),
        Step::new("grid", 5, |context, deadline| {
            sim::fleet_step(context, Fleet::Grid, deadline)
        }),
        Step::new("pool table", 5, |context, deadline| {
            sim::fleet_step(context, Fleet::Table, deadline)
        }),
        Step::new("mutants", 10, |context, deadline| {
            sim::step(context, Core::Mutable, &["--mutants"], deadline)
        }),
        bench::step(),
    ];
    if lanes == Lanes::Slow {
        steps.push(foreign::informers());
        steps.push(Step::new("sim, long", 120, |context, deadline| {
            sim::step(
                context,
                Core::Shipped,
                &["--seeds", "10000", "--steps", "2000"],
                deadline,
            )
        }));
        steps.push(Step::new("storms, long", 60, |context, deadline| {
            storm::step(context, &["--slow"], deadline)
        }));
    }
    Ok(steps)
}
