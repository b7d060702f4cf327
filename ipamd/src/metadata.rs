//! Reads IMDS now and then: what may change there while the node lives, as hints for the owner.
//!
//! One task for all of it, on one connection. It asks EC2 nothing, and it decides nothing: what a hint is worth is the
//! core's to say.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cloud::{ImdsClient, ImdsGlance};
use ipam_core::{Event, ImdsEni, ImdsView, Life, NodeCondition};
use ipnet::Ipv4Net;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use vpc_types::MacAddress;

use crate::boot::Node;
use crate::clock;
use crate::config::{Config, ImdsTimers};
use crate::exec::KernelExecutor;
use crate::observe::Chain;
use crate::owner::{Inbox, Input};

/// Reads IMDS until its task ends.
#[derive(Debug)]
pub struct Metadata {
    /// Whom to ask.
    pub imds: ImdsClient,
    /// This node.
    pub node: Node,
    /// What its rules follow from.
    pub config: Config,
    /// Whose node rules and subnets are kept up to date.
    pub kernel: KernelExecutor,
    /// Where the VPC's ranges are made known.
    pub ranges: watch::Sender<Vec<Ipv4Net>>,
    /// Who wants to know the rest.
    pub inbox: Inbox,
    /// Told when an ENI waits for the range of its subnet.
    pub unknown_subnet: Arc<Notify>,
}

impl Metadata {
    /// See the type's description.
    pub async fn run(self) {
        let ImdsTimers { notices, enis } = self.config.imds;
        let mut known = self.learn_subnets().await;
        let mut condition = NodeCondition::default();
        let (mut next_notices, mut next_enis) = (soon(notices), soon(enis));
        loop {
            tokio::select! {
                () = sleep_until(next_notices) => {
                    self.check_node().await;
                    self.look_for_notice(&mut condition).await;
                    next_notices = soon(notices);
                }
                () = sleep_until(next_enis) => {
                    self.look_at_enis(&mut known).await;
                    next_enis = soon(enis);
                }
                () = self.unknown_subnet.notified() => known = self.learn_subnets().await,
            }
        }
    }

    /// Ranges of the subnets of all ENIs: masks and gateways follow from them. The MACs that were seen.
    async fn learn_subnets(&self) -> BTreeSet<MacAddress> {
        // A kept connection that was closed meanwhile fails once.
        let read = match self.imds.enis().await {
            Err(error) if error.is_transient() => self.imds.enis().await,
            done => done,
        };
        let enis = match read {
            Ok(enis) => enis,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "ranges of other subnets not read");
                return BTreeSet::new();
            }
        };
        let seen = enis.iter().map(|eni| eni.mac).collect();
        for eni in enis {
            if let Some(range) = eni.subnet_cidr {
                self.kernel.learn_subnet(eni.subnet, range);
            }
        }
        seen
    }

    /// Keeps the node's rules in line: the VPC may gain ranges, and other programs flush rules.
    async fn check_node(&self) {
        match self.imds.vpc_cidrs(self.node.facts.mac).await {
            Ok(found) if !found.is_empty() => {
                self.ranges.send_if_modified(|known| {
                    let changed = *known != found;
                    if changed {
                        tracing::info!(ranges = ?found, "ranges of the VPC have changed");
                    }
                    known.clone_from(&found);
                    changed
                });
            }
            Ok(_) => tracing::warn!("IMDS shows no range of the VPC; keeping the known ones"),
            Err(error) => tracing::debug!(error = %Chain(&error), "VPC ranges not read"),
        }
        let cidrs = self.ranges.borrow().clone();
        self.kernel.apply_node(self.node.datapath(&self.config, cidrs));
    }

    async fn look_for_notice(&self, condition: &mut NodeCondition) {
        let life = match self.imds.is_leaving().await {
            Ok(true) => Life::Leaving,
            Ok(false) => Life::Staying,
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "notices not read");
                return;
            }
        };
        if life != condition.life {
            tracing::info!(?life, "IMDS tells of the instance's end");
            condition.life = life;
            self.tell(Event::NodeConditionChanged(*condition)).await;
        }
    }

    async fn look_at_enis(&self, known: &mut BTreeSet<MacAddress>) {
        let started_at = clock::now().boot;
        let glance = match self.imds.glance(self.node.facts.mac).await {
            Ok(glance) => glance,
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "ENIs not read from IMDS");
                return;
            }
        };
        if glance.enis.keys().any(|mac| !known.contains(mac)) {
            // Somebody's ENI may be in a subnet that was never heard of.
            *known = self.learn_subnets().await;
        }
        let ImdsGlance { groups, enis } = glance;
        let eni = |(mac, allocations): (MacAddress, Vec<_>)| ImdsEni {
            mac,
            allocations: allocations.into_iter().collect(),
        };
        let enis = enis.into_iter().map(eni).collect();
        let view = ImdsView {
            started_at,
            groups,
            enis,
        };
        self.tell(Event::ImdsViewed(view)).await;
    }

    async fn tell(&self, event: Event) {
        self.inbox.send(Input::Event(event)).await;
    }
}

/// After this pause, give or take a tenth.
fn soon(pause: Duration) -> Instant {
    Instant::now() + pause.mul_f64(0.9 + 0.2 * fastrand::f64())
}
