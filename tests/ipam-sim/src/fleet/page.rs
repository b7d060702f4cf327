//! The table of `docs/pool.md`: what a node holds and has asked EC2 for, by number of pods, ours beside the reference.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::plan::{Mode, Plan, Policy, Targets, Workload};
use super::queue::NodeId;
use super::world::Fleet;

const BEGIN: &str = "<!-- begin: made by `cargo xtask sim --table --write` -->\n";
const END: &str = "<!-- end -->\n";
/// A pool is at rest so long after its pods came.
const REST: Duration = Duration::from_secs(15 * 60);

/// Instance type, pods the kubelet admits without and with prefixes, numbers of pods to show.
const NODES: [(&str, [u32; 2], &[u32]); 2] = [
    ("m5.large", [29, 110], &[0, 1, 5, 10, 15, 27]),
    ("c5.4xlarge", [234, 110], &[0, 20, 60, 108]),
];

/// What is set, with our targets and the reference's.
const SETTINGS: [(&str, Targets, Targets, Mode); 5] = [
    ("nothing set", Targets::UNSET, Targets::UNSET, Mode::Addresses),
    (
        "`WARM_ENI_TARGET=1`",
        Targets::enis(1),
        Targets::enis(1),
        Mode::Addresses,
    ),
    (
        "`WARM_IP_TARGET=5`, `MINIMUM_IP_TARGET=10`",
        Targets::addresses(5, 10),
        Targets::addresses(5, 10),
        Mode::Addresses,
    ),
    (
        "prefixes, nothing set (reference: `WARM_PREFIX_TARGET=1`)",
        Targets::UNSET,
        Targets::prefixes(1),
        Mode::Prefixes,
    ),
    (
        "prefixes, `WARM_PREFIX_TARGET=1`",
        Targets::prefixes(1),
        Targets::prefixes(1),
        Mode::Prefixes,
    ),
];

/// A node at rest.
struct Rest {
    held: usize,
    enis: usize,
    calls: u64,
}

fn at_rest(policy: Policy, instance_type: &'static str, max_pods: u32, pods: u32) -> Rest {
    let plan = Plan {
        instance_type,
        max_pods,
        ..Plan::one_node(policy, Workload::None)
    };
    let mut fleet = Fleet::new(&plan);
    super::workload::begin(&mut fleet);
    fleet.run_until(REST);
    for _ in 0..pods {
        fleet.bind(NodeId(0), None);
    }
    fleet.run_until(REST * 2);
    let (held, enis) = fleet.account.held(&fleet.nodes[0].instance);
    let calls = fleet.account.accepted();
    Rest { held, enis, calls }
}

/// The table in Markdown.
pub fn table() -> String {
    let mut text = String::from(
        "| node | set | pods | addresses held | reference | ENIs | reference | EC2 calls so far | reference |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for (instance_type, max_pods, counts) in NODES {
        for (name, ours, theirs, mode) in SETTINGS {
            let max_pods = match mode {
                Mode::Addresses => max_pods[0],
                Mode::Prefixes => max_pods[1],
            };
            for pods in counts {
                let ours = at_rest(Policy::ours(ours, mode), instance_type, max_pods, *pods);
                let theirs = at_rest(Policy::reference(theirs, mode), instance_type, max_pods, *pods);
                let _ = writeln!(
                    text,
                    "| {instance_type} | {name} | {pods} | {} | {} | {} | {} | {} | {} |",
                    ours.held, theirs.held, ours.enis, theirs.enis, ours.calls, theirs.calls
                );
            }
        }
    }
    text
}

/// Whether the page is to be changed or only compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Fails when the page differs.
    Compare,
    /// Puts the table there.
    Write,
}

/// Compares or replaces what stands between the marks of the page.
pub fn update(page: &Path, purpose: Purpose) -> anyhow::Result<()> {
    let name = page.display();
    let old = std::fs::read_to_string(page).with_context(|| format!("cannot read {name}"))?;
    let (before, rest) = old
        .split_once(BEGIN)
        .with_context(|| format!("{name}: no line {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{name}: no line {END}"))?;
    let new = format!("{before}{BEGIN}\n{}\n{END}{after}", table());
    match purpose {
        Purpose::Write => std::fs::write(page, new).with_context(|| format!("cannot write {name}")),
        Purpose::Compare => {
            anyhow::ensure!(
                old == new,
                "{name}: the table is not what the pool does: run cargo xtask sim --table --write"
            );
            Ok(())
        }
    }
}
