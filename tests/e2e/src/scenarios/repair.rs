//! Other programs remove what the daemon made.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vpc_fabric::node::CommandSpec;

use super::world::{NODE, SMALL, SOON, World, vpc_of};
use super::{Bench, Scenario};
use crate::wait;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario::new(
    "a deleted nftables table is back within the node check's interval",
    deleted_table,
)];

/// The interval is 30 s where nobody shortens it.
const NODE_CHECK: (&str, &str) = ("imds_notices", "0.3");

/// Runs `nft` in the node; what it printed, if it succeeded.
fn nft(world: &World, arguments: &[&str]) -> Result<Option<String>> {
    let command = CommandSpec::new("/usr/sbin/nft").args(arguments);
    let output = world.node(NODE)?.output(&command, b"", Duration::from_secs(10))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(output.status.success().then_some(printed))
}

fn deleted_table(bench: &Bench) -> Result<()> {
    let world = World::start(bench, vpc_of(1, SMALL), &[NODE_CHECK], &[])?;
    let list = ["list", "table", "ip", "aws-cni"];
    let before = nft(&world, &list)?.context("there is a table")?;
    ensure!(
        nft(&world, &["delete", "table", "ip", "aws-cni"])?.is_some(),
        "it cannot be deleted"
    );
    let after = wait::until("the table is back", SOON, || nft(&world, &list))?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    world.finish()
}
