//! libcni's own command: every verb, in the versions that a configuration may name.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::site::{Site, wait_until_reached};
use crate::runtimes::network::{self, Check};
use crate::runtimes::tools::{Answer, cnitool};
use crate::scenarios::world::{NODE, SMALL, SOON, vpc_of};
use crate::scenarios::{Bench, Scenario};
use crate::wait;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "cnitool: ADD, CHECK, DEL and DEL again succeed with configurations of 0.4.0, 1.0.0 and 1.1.0",
        verbs,
    ),
    Scenario::new(
        "cnitool: STATUS succeeds, and GC ends attachments that libcni remembers and is refused without a list",
        status_and_gc,
    ),
];

/// cnitool on the first node.
#[derive(Debug)]
struct Tool<'a> {
    site: &'a Site,
    program: std::path::PathBuf,
    netns: &'a Path,
}

impl Tool<'_> {
    fn call(&self, verb: &str) -> Result<Answer> {
        cnitool(self.site.node(NODE)?, &self.program, verb, network::NAME, self.netns)
    }

    fn succeeds(&self, verb: &str) -> Result<()> {
        let answer = self.call(verb)?;
        answer.succeeded().with_context(|| format!("cnitool {verb}"))?;
        ensure!(
            answer.stdout.trim().is_empty(),
            "cnitool {verb} printed {}",
            answer.stdout
        );
        Ok(())
    }

    /// ADD; the result in the version that was asked for, and the address.
    fn add(&self, version: &str) -> Result<(Value, Ipv4Addr)> {
        let result = self.call("add")?.json().context("cnitool add")?;
        ensure!(result["cniVersion"] == version, "a result of another version: {result}");
        let address = result["ips"][0]["address"]
            .as_str()
            .and_then(|text| text.strip_suffix("/32"));
        let address = address.and_then(|text| text.parse().ok());
        let address: Ipv4Addr = address.with_context(|| format!("no /32 address in {result}"))?;
        let mut leases = self.site.world.leases(NODE)?;
        leases.retain(|lease| lease["address"] == address.to_string());
        ensure!(leases.len() == 1, "{result}, leases {leases:?}");
        Ok((result, address))
    }
}

fn verbs(bench: &Bench) -> Result<()> {
    let site = Site::bare(bench, vpc_of(1, SMALL), &[], &[("MAX_ENI", "1")])?;
    let router = site.world.primary(NODE)?;
    for (number, version) in ["0.4.0", "1.0.0", "1.1.0"].into_iter().enumerate() {
        site.install(NODE, &network::list(network::NAME, version, Check::Enabled))?;
        let name = format!("pod-{number}");
        let netns = site.node(NODE)?.add_pod_netns(&name)?;
        let tool = Tool {
            site: &site,
            program: bench.tools.cnitool()?,
            netns: &netns.path,
        };
        let (result, address) = tool.add(version).with_context(|| version.to_owned())?;
        let family = result["ips"][0]["version"].as_str();
        // Results lost the family when 1.0.0 came.
        ensure!(family.is_some() == (version == "0.4.0"), "{version}: {result}");
        wait_until_reached(&netns.netns, router)?;
        tool.succeeds("check").with_context(|| version.to_owned())?;
        tool.succeeds("del").with_context(|| version.to_owned())?;
        tool.succeeds("del").with_context(|| version.to_owned())?;
        // And with the namespace gone.
        site.node(NODE)?.delete_pod_netns(&name)?;
        tool.succeeds("del").with_context(|| version.to_owned())?;
        drop(netns);
        site.check_no_trace(NODE, &[address])
            .with_context(|| version.to_owned())?;
    }
    site.finish()
}

/// The command names no attachment as wanted, so libcni ends all that it has cached. Then it asks the plugin without a list, which
/// must not mean that everything is garbage.
fn status_and_gc(bench: &Bench) -> Result<()> {
    let site = Site::bare(bench, vpc_of(1, SMALL), &[], &[("MAX_ENI", "1")])?;
    site.install(NODE, &network::list(network::NAME, "1.1.0", Check::Enabled))?;
    let netns = site.node(NODE)?.add_pod_netns("pod")?;
    let tool = Tool {
        site: &site,
        program: bench.tools.cnitool()?,
        netns: &netns.path,
    };
    tool.succeeds("status")?;
    let (_, address) = tool.add("1.1.0")?;
    let gc_is_refused = || {
        let answer = tool.call("gc")?;
        let text = format!("{}{}", answer.stdout, answer.stderr);
        ensure!(
            answer.code == Some(1) && text.contains("cni.dev/valid-attachments"),
            "{answer:?}"
        );
        Ok(())
    };
    gc_is_refused()?;
    wait::until("the lease is gone", SOON, || {
        let leases = site.world.leases(NODE)?;
        Ok(leases.iter().all(|lease| lease["state"] == "cooling").then_some(()))
    })?;
    gc_is_refused()?;
    tool.succeeds("del")?;
    drop(netns);
    site.node(NODE)?.delete_pod_netns("pod")?;
    site.check_no_trace(NODE, &[address])?;
    site.finish()
}
