//! Pods from the kubelet's side: addresses, reach, and what is left of them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Result, ensure};

use super::site::Site;
use crate::kernel::KernelState;
use crate::scenarios::world::{NODE, OTHER, SMALL, SMALL_SLOTS, vpc_of};
use crate::scenarios::{Bench, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "containerd: pods on two nodes have their leases' addresses on their nodes' ENIs and reach each other",
        two_nodes,
    ),
    Scenario::new(
        "containerd: StopPodSandbox and RemovePodSandbox leave nothing of a pod",
        nothing_left,
    ),
];

fn two_nodes(bench: &Bench) -> Result<()> {
    let site = Site::start(bench, vpc_of(2, SMALL), &[], &[])?;
    // One more than the first ENI carries.
    let count = usize::try_from(SMALL_SLOTS)? + 1;
    let mut pods = site.run(NODE, "web", count)?;
    pods.extend(site.run(OTHER, "db", count)?);
    let distinct: BTreeSet<Ipv4Addr> = pods.iter().map(|pod| pod.address).collect();
    ensure!(distinct.len() == pods.len(), "an address was given twice: {distinct:?}");
    for node in [NODE, OTHER] {
        ensure!(
            pods.iter().any(|pod| pod.node == node && pod.device > 0),
            "no pod of {node} is on a secondary ENI"
        );
    }
    site.world.check_mesh(&pods)?;
    site.remove(&pods)?;
    drop(pods);
    for node in [NODE, OTHER] {
        site.check_no_trace(node, &distinct.iter().copied().collect::<Vec<_>>())?;
    }
    site.finish()
}

fn nothing_left(bench: &Bench) -> Result<()> {
    let site = Site::start(bench, vpc_of(1, SMALL), &[], &[("MAX_ENI", "1")])?;
    let baseline = KernelState::of(site.node(NODE)?)?;
    for round in 1..=2 {
        let pods = site.run(NODE, "pod", 3)?;
        let addresses: Vec<Ipv4Addr> = pods.iter().map(|pod| pod.address).collect();
        for pod in &pods {
            // The kubelet repeats both. A containerd of this age knows a removed sandbox no more, which Stop tells as an error.
            let (cri, id) = (site.cri(NODE)?, &pod.identity.container_id);
            cri.stop(id)?;
            cri.stop(id)?;
            cri.remove(id)?;
            cri.remove(id)?;
        }
        drop(pods);
        site.check_no_trace(NODE, &addresses)?;
        site.world.wait_for_kernel(NODE, &baseline)?;
        ensure!(
            site.world.checkpointed(NODE)?.is_empty(),
            "round {round}: leases are on file"
        );
    }
    site.finish()
}
