//! The change of hands: from the reference to us and back, under load.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::builds::Product;
use crate::context::Context;
use crate::run::{self, Deadline};
use crate::setup;
use crate::steps::{self, Step};

/// The executable.
const UPGRADE: &str = "vpc-upgrade";

/// The change of hands as a suite of the tests.
pub(crate) fn step() -> Step {
    Step::new("upgrade", 5, suite)
}

/// `cargo xtask upgrade`.
pub(crate) fn by_hand(context: &Context) -> Result<ExitCode> {
    setup::programs(context)?;
    steps::report(context, vec![Step::new("upgrade", 30, suite)])
}

fn suite(context: &Context, deadline: Deadline) -> Result<()> {
    let product = Product::build(context, deadline)?;
    let mut command = context.program(product.executable(UPGRADE)?);
    for (option, path) in [("--plugin", &product.plugin), ("--daemon", &product.daemon)] {
        let path = path
            .canonicalize()
            .with_context(|| format!("{option} {}", path.display()))?;
        command.arg(option).arg(path);
    }
    run::check(&mut command, deadline)
}
