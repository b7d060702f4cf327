//! Checks of the source: format, clippy, tidy, licences, documentation.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::cli::Extras;
use crate::context::Context;
use crate::run::{self, Deadline};
use crate::steps::Step;
use crate::tidy;

/// Test targets that `--all-targets` leaves out because plain `cargo test` does.
const JUDGED: &[&str] = &[
    "clippy", "-p", "nft", "-p", "datapath", "--test", "kernel", "--test", "node", "--test", "pod", "--test", "repair",
    "--test", "rules", "--test", "takeover", "--test", "traffic", "--", "-D", "warnings",
];

/// The version that `deny.toml` was written for; installed into cargo's own directory.
const DENY: [&str; 5] = ["install", "cargo-deny", "--version", "0.20.2", "--locked"];

/// All checks, the quick ones first.
pub(crate) fn steps(extras: Extras) -> Vec<Step> {
    vec![
        Step::cargo("fmt", 2, &["fmt", "--all", "--check"]),
        tidy::step(),
        Step::new("deny", 20, move |context, deadline| deny(context, extras, deadline)),
        Step::cargo("clippy, judged", 10, JUDGED),
        Step::cargo(
            "clippy",
            20,
            &[
                "clippy",
                "--workspace",
                "--all-targets",
                "--keep-going",
                "--",
                "-D",
                "warnings",
            ],
        ),
        docs(),
    ]
}

/// rustdoc of our crates.
pub(crate) fn docs() -> Step {
    Step::new("docs", 15, |context, deadline| {
        let mut command = context.cargo([
            "doc",
            "--workspace",
            "--no-deps",
            "--document-private-items",
            "--keep-going",
        ]);
        run::check(command.env("RUSTDOCFLAGS", "-Dwarnings"), deadline)
    })
}

/// Licences, sources and duplicates need no network; advisories need github.com and are a choice.
fn deny(context: &Context, extras: Extras, deadline: Deadline) -> Result<()> {
    if context.find("cargo-deny").is_none() {
        if !extras.install {
            bail!(
                "cargo-deny is not installed: run `cargo xtask lint --install`, or `cargo {}`",
                DENY.join(" ")
            );
        }
        let within = Deadline::after(deadline.left().saturating_sub(Duration::from_secs(60)));
        run::check(&mut context.cargo(DENY), within)?;
    }
    let mut command = context.cargo(["deny", "--workspace", "check", "--hide-inclusion-graph"]);
    command.args(["licenses", "bans", "sources"]);
    if extras.advisories {
        command.arg("advisories");
    }
    run::check(&mut command, deadline)
}
