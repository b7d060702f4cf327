//! Whom a disturbance concerns: the pods and ENIs as the core has them when the repair is ordered. Reads, decides nothing.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use datapath::DesiredPod;
use ipam_core::{Eni, EniPhase, EniRole, Event, KernelView, Lease, LeaseState, Pool};
use vpc_types::{MacAddress, RouteTableId, SubnetId, VethPrefix, host_veth_name};

use super::{Disturbance, Reach};

/// What the kernel thread is to compare and put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RepairOrder {
    /// All pods that are wired.
    pub(crate) pods: Vec<DesiredPod>,
    /// All secondary ENIs that pods may use.
    pub(crate) enis: Vec<EniOfPods>,
    /// Whether the node's own rules are to be looked at too.
    pub(crate) reach: Reach,
}

/// A secondary ENI; the thread knows its subnet's range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EniOfPods {
    pub(crate) mac: MacAddress,
    pub(crate) table: RouteTableId,
    pub(crate) address: Ipv4Addr,
    pub(crate) subnet: SubnetId,
}

/// The order that follows from a disturbance, or `None` where it is about nothing that is to stay: the end of a pod, a pod
/// that is just being wired, devices of others.
pub(crate) fn order(pool: &Pool, disturbance: &Disturbance, prefix: &VethPrefix) -> Option<RepairOrder> {
    let pods: Vec<DesiredPod> = pool
        .leases()
        .filter(|lease| lease.state == LeaseState::Wired)
        .map(|lease| desired(lease, prefix))
        .collect();
    let ready = pool.enis().filter(|eni| eni.phase == EniPhase::Ready);
    let has_table = |eni: &&Eni| !matches!(eni.role, EniRole::Primary | EniRole::Unmanaged);
    let enis: Vec<EniOfPods> = ready.filter(has_table).map(eni_of_pods).collect();
    let primary = pool.enis().find(|eni| eni.role == EniRole::Primary);
    let is_primary = primary.is_some_and(|eni| disturbance.devices.contains(&eni.mac));
    let reach = if is_primary {
        disturbance.reach.max(Reach::Node)
    } else {
        disturbance.reach
    };
    let concerns = reach != Reach::Named
        || pods.iter().any(|pod| is_about_pod(disturbance, pod))
        || enis.iter().any(|eni| is_about_eni(disturbance, eni));
    concerns.then_some(RepairOrder { pods, enis, reach })
}

fn is_about_pod(disturbance: &Disturbance, pod: &DesiredPod) -> bool {
    disturbance.addresses.contains(&pod.address)
        || disturbance.aliases.contains(&pod.container_id)
        || disturbance.names.contains(&pod.host_veth)
}

fn is_about_eni(disturbance: &Disturbance, eni: &EniOfPods) -> bool {
    disturbance.addresses.contains(&eni.address)
        || disturbance.tables.contains(&eni.table.0)
        || disturbance.devices.contains(&eni.mac)
}

fn desired(lease: &Lease, prefix: &VethPrefix) -> DesiredPod {
    DesiredPod {
        address: lease.address,
        table: lease.table,
        container_id: lease.key.container_id().to_owned(),
        host_veth: host_veth_name(prefix, lease.pod.as_ref(), &lease.key),
    }
}

fn eni_of_pods(eni: &Eni) -> EniOfPods {
    EniOfPods {
        mac: eni.mac,
        table: eni.table(),
        address: eni.primary_address,
        subnet: eni.subnet.clone(),
    }
}

/// Addresses of pods whose veth a view of the kernel shows without its route or without all its rules. Covers what no notice
/// tells: a removal while no daemon ran, or before the pod counted as wired.
pub(crate) fn suspects(pool: &Pool, event: &Event, prefix: &VethPrefix) -> BTreeSet<Ipv4Addr> {
    let Event::KernelViewed(view) = event else {
        return BTreeSet::new();
    };
    let held = |lease: &&Lease| matches!(lease.state, LeaseState::Granted | LeaseState::Wired);
    let lacking = pool.leases().filter(held).filter(|lease| lacks(lease, view));
    lacking
        .filter(|lease| has_veth(&desired(lease, prefix), view))
        .map(|lease| lease.address)
        .collect()
}

fn lacks(lease: &Lease, view: &KernelView) -> bool {
    let rules = if lease.table.is_main() { 1 } else { 2 };
    view.signs
        .get(&lease.address)
        .is_none_or(|signs| signs.route_device.is_none() || signs.rules < rules)
}

fn has_veth(pod: &DesiredPod, view: &KernelView) -> bool {
    let is_its = |(name, alias): (&String, &Option<String>)| match alias {
        Some(alias) => *alias == pod.container_id,
        None => *name == pod.host_veth,
    };
    view.veths.iter().any(is_its)
}
