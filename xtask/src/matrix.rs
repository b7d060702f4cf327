//! The matrix: real packets under every combination of the variables that decide where they leave.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::builds::Product;
use crate::context::Context;
use crate::run::{self, Deadline};
use crate::setup;
use crate::steps::{self, Step};

/// The executable.
const MATRIX: &str = "vpc-matrix";

/// The matrix as a suite of the tests.
pub(crate) fn step() -> Step {
    Step::new("matrix", 5, |context, deadline| suite(context, &[], deadline))
}

/// `cargo xtask matrix`; words choose scenarios by name.
pub(crate) fn by_hand(context: &Context, words: &[String]) -> Result<ExitCode> {
    setup::programs(context)?;
    let words = words.to_vec();
    let step = Step::new("matrix", 30, move |context, deadline| suite(context, &words, deadline));
    steps::report(context, vec![step])
}

fn suite(context: &Context, words: &[String], deadline: Deadline) -> Result<()> {
    let product = Product::build(context, deadline)?;
    let mut command = context.program(product.executable(MATRIX)?);
    for (option, path) in [("--plugin", &product.plugin), ("--daemon", &product.daemon)] {
        let path = path
            .canonicalize()
            .with_context(|| format!("{option} {}", path.display()))?;
        command.arg(option).arg(path);
    }
    run::check(command.args(words), deadline)
}
