//! Queues of a pod's link: time to make it, and throughput. The kernel's default is one queue per processor that there could be; the
//! plugin asks for one (ADR 9). Measured on demand only: the answer depends on the kernel, not on this code.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vpc_fabric::node::CommandSpec;
use vpc_sim::vpc::Vpc;

use super::Setup;
use crate::figures::{Figures, Who};
use crate::world::{self, NODE};

/// Makes and measures the links, with iproute2, ethtool and iperf3.
const SCRIPT: &str = include_str!("queues.sh");
/// Far more than it needs.
const LIMIT: Duration = Duration::from_secs(600);

pub(super) fn measure(setup: &Setup) -> Result<Figures> {
    let vpc = Vpc::start(&world::config("m5.xlarge", 1), &setup.sandbox)?;
    let node = vpc.node(NODE).context("the VPC has its node")?;
    let (rounds, seconds) = setup.scale.pick(("5", "3"), ("2", "1"));
    let script = CommandSpec::new("/bin/sh").args(["-c", SCRIPT, "queues.sh", rounds, seconds]);
    let output = node.output(&script, b"", LIMIT)?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.success(),
        "ip, ethtool and iperf3 must be installed: {complaint}"
    );
    let mut figures = Figures::default();
    for (name, values) in series(&String::from_utf8_lossy(&output.stdout))? {
        figures.series(&name, Who::Ours, &values);
    }
    Ok(figures)
}

/// Values by name: `veth.create.QUEUES` in milliseconds, `veth.OFFLOAD.FLOWS.QUEUES` in Gbit/s.
fn series(text: &str) -> Result<BTreeMap<String, Vec<f64>>> {
    let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, value, unit) = match words.as_slice() {
            ["create", queues, micros] => (format!("veth.create.{queues}"), micros, 1e3),
            ["flow", queues, flows, offload, bits] => (format!("veth.{offload}.{flows}.{queues}"), bits, 1e9),
            _ => anyhow::bail!("not a measurement: {line:?}"),
        };
        let value: f64 = value.parse().with_context(|| format!("not a number: {line:?}"))?;
        all.entry(name).or_default().push(value / unit);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurements_are_grouped_by_name_and_other_lines_are_errors() {
        let all = series("create 16 400\ncreate 16 500\nflow 1 8 gro 12.5e9\n").unwrap();
        assert_eq!(all["veth.create.16"], [0.4, 0.5]);
        assert_eq!(all["veth.gro.8.1"], [12.5]);
        assert!(series("create 16").is_err());
    }
}
