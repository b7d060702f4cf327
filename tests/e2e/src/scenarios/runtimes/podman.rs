//! Containers without Kubernetes, in the pods' network.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};

use super::site::{Site, wait_until_reached};
use crate::kernel::KernelState;
use crate::runtime::Identity;
use crate::runtimes::containerd::image_archive;
use crate::runtimes::podman::Podman;
use crate::scenarios::world::{NODE, OTHER, SMALL, vpc_of};
use crate::scenarios::{Bench, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario::new(
    "podman: a container without Kubernetes gets an address, reaches a pod on another node, and leaves nothing",
    container,
)];

fn container(bench: &Bench) -> Result<()> {
    let site = Site::configured(bench, vpc_of(2, SMALL), &[], &[("MAX_ENI", "1")])?;
    let baseline = KernelState::of(site.node(NODE)?)?;
    let peer = site
        .world
        .cluster
        .runtime
        .add(site.node(OTHER)?, &Identity::pod("peer"))?;
    let podman = Podman::new(site.node(NODE)?, image_archive())?;
    let mut addresses: Vec<Ipv4Addr> = Vec::new();
    for name in ["first", "second"] {
        let id = podman.start(name)?;
        let lease = site.lease(NODE, &id)?.with_context(|| format!("{name} has no lease"))?;
        ensure!(lease["networkName"] == "aws-cni", "{lease}");
        let template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address: Ipv4Addr = podman.inspect(name, template)?.parse().context("an address")?;
        ensure!(
            lease["address"] == address.to_string(),
            "podman says {address}, the lease {lease}"
        );
        site.check_eni(NODE, address, &lease)?;
        let key = podman.inspect(name, "{{.NetworkSettings.SandboxKey}}")?;
        let netns = site.node(NODE)?.pod_netns(key.as_ref())?;
        wait_until_reached(&netns.netns, peer.address)?;
        wait_until_reached(&peer.netns.netns, address)?;
        addresses.push(address);
    }
    ensure!(addresses[0] != addresses[1], "both have {}", addresses[0]);
    for name in ["first", "second"] {
        podman.remove(name)?;
    }
    site.check_no_trace(NODE, &addresses)?;
    site.world.wait_for_kernel(NODE, &baseline)?;
    site.world.remove(&[peer])?;
    site.finish()
}
