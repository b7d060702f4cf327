//! The runtime's view of its node.

use anyhow::{Context, Result, ensure};
use cri::PodSandboxState;

use super::site::Site;
use crate::runtimes::client::Order;
use crate::runtimes::network;
use crate::scenarios::world::{NODE, SMALL, vpc_of};
use crate::scenarios::{Bench, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario::new(
    "containerd: the node becomes ready when the network configuration appears, and not before",
    readiness,
)];

fn readiness(bench: &Bench) -> Result<()> {
    let mut site = Site::bare(bench, vpc_of(1, SMALL), &[], &[])?;
    site.start_containerd(NODE, &[])?;
    let complaint = site.cri(NODE)?.network()?.err();
    let complaint = complaint.context("the network is ready without a configuration")?;
    ensure!(complaint.contains("cni plugin not initialized"), "{complaint}");
    let refused = site.cri(NODE)?.run(&Order::new("early"));
    ensure!(refused.is_err(), "a sandbox without a network");
    // It stays listed, with a namespace: the kubelet ends it later, and DEL comes for a pod that never had an ADD.
    let early = site.cri(NODE)?.list()?;
    ensure!(
        early.len() == 1 && early[0].1 == PodSandboxState::SandboxNotready,
        "{early:?}"
    );
    site.install(NODE, &network::installed())?;
    site.wait_for_network(NODE)?;
    let pods = site.run(NODE, "pod", 1)?;
    site.remove(&pods)?;
    let id = &early[0].0;
    for _ in 0..2 {
        site.cri(NODE)?.stop(id)?;
    }
    site.cri(NODE)?.remove(id)?;
    let dels = site.plugin_lines(NODE, id)?;
    ensure!(dels.iter().any(|line| line["verb"] == "DEL"), "no DEL came: {dels:?}");
    drop(pods);
    site.check_no_trace(NODE, &[])?;
    site.finish()
}
