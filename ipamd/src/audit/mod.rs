//! Compares what the daemon believes with what the kernel and EC2 show. Pure.
//!
//! Owns the judgement and its words; looking is the caller's (`cli::audit`). Invariant: what is in motion is no finding,
//! and a look that was not taken is never taken for agreement.

mod account;
mod finding;
mod looks;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use datapath::ids::{RULE_FROM_POD, RULE_TO_POD};
use ipam_core::{AddressKind, EniPhase};
use vpc_types::{EniId, RouteTableId};

pub use account::{Account, AddressAccount, EniAccount, LeaseAccount, Role, Settled};
pub use finding::{Finding, Object};
pub use looks::{Ec2Look, EniLook, Judgement, KernelLook, LeftoverLook, NodeLook};

/// Everything that was looked at; `None` where the look failed or was not wanted.
#[derive(Debug, Clone, Default)]
pub struct Looks {
    /// Devices, routes, rules.
    pub kernel: Option<KernelLook>,
    /// The node's own rules.
    pub node: Option<NodeLook>,
    /// Rules of the reference, of each kind that was looked for.
    pub leftovers: Vec<LeftoverLook>,
    /// ENIs and addresses.
    pub ec2: Option<Ec2Look>,
}

/// All disagreements, in a stable order.
pub fn audit(pool: &Settled, looks: &Looks) -> BTreeSet<Finding> {
    let mut findings = BTreeSet::new();
    let twice = held_twice(pool);
    findings.extend(twice.iter().map(|(address, pods)| Finding::TwoPodsOneAddress {
        address: *address,
        pods: pods.clone(),
    }));
    if let Some(kernel) = &looks.kernel {
        // The kernel can be right about one of two pods at most.
        for lease in pool.leases.iter().filter(|lease| !twice.contains_key(&lease.address)) {
            lease_in_kernel(lease, kernel, &mut findings);
        }
        leftovers(pool, kernel, &mut findings);
        veths_without_lease(pool, kernel, &mut findings);
        enis_in_kernel(pool, kernel, &mut findings);
        findings.extend(
            kernel
                .odd_rules
                .iter()
                .map(|priority| Finding::ForeignRule { priority: *priority }),
        );
    }
    if let Some(node) = &looks.node {
        findings.extend((node.mark_rule == Judgement::Wrong).then_some(Finding::MarkRule));
        findings.extend((node.service_rules == Judgement::Wrong).then_some(Finding::ServiceRules));
        findings.extend(node.table.clone().map(|difference| Finding::NodeTable { difference }));
    }
    let left = looks.leftovers.iter().filter(|left| left.rules > 0);
    findings.extend(left.map(|left| Finding::ReferenceRules {
        program: left.program,
        rules: left.rules,
    }));
    if let Some(ec2) = &looks.ec2 {
        enis_at_ec2(pool, ec2, &mut findings);
        addresses_at_ec2(pool, ec2, &mut findings);
    }
    findings
}

fn held_twice(pool: &Settled) -> BTreeMap<Ipv4Addr, Vec<String>> {
    let mut holders: BTreeMap<Ipv4Addr, Vec<String>> = BTreeMap::new();
    for lease in &pool.leases {
        holders.entry(lease.address).or_default().push(lease.pod.clone());
    }
    holders.retain(|_, pods| pods.len() > 1);
    holders
}

fn lease_in_kernel(lease: &LeaseAccount, kernel: &KernelLook, findings: &mut BTreeSet<Finding>) {
    let (pod, address) = (lease.pod.clone(), lease.address);
    let own = own_veths(lease, kernel);
    match kernel.routes.get(&address) {
        _ if own.is_empty() => {
            // The route went with the device; saying so twice helps nobody.
            findings.insert(Finding::LeaseWithoutVeth { pod, address });
            return;
        }
        None => {
            findings.insert(Finding::LeaseWithoutRoute {
                pod: pod.clone(),
                address,
            });
        }
        Some(device) if !own.contains(&device.as_str()) => {
            findings.insert(Finding::WrongRoute {
                pod: pod.clone(),
                address,
                device: device.clone(),
            });
        }
        Some(_) => {}
    }
    let mut expect = |priority, tables: Option<&Vec<RouteTableId>>, expected| {
        let tables = tables.map(Vec::as_slice).unwrap_or_default();
        let pod = pod.clone();
        if tables.is_empty() {
            findings.insert(Finding::LeaseWithoutRule { pod, address, priority });
        } else if let Some(found) = tables.iter().copied().find(|table| *table != expected) {
            findings.insert(Finding::WrongTable {
                pod,
                address,
                priority,
                found,
                expected,
            });
        }
    };
    expect(RULE_TO_POD, kernel.to_pod.get(&address), RouteTableId::MAIN);
    match kernel.from_pod.get(&address) {
        None if lease.table.is_main() => {}
        tables => expect(RULE_FROM_POD, tables, lease.table),
    }
}

/// The host veth of a lease. Several, when the sandbox has several interfaces, whose veths have one alias, and none of them has
/// the name that ours would have: the plugin's prefix may be another than the daemon's.
fn own_veths<'a>(lease: &LeaseAccount, kernel: &'a KernelLook) -> Vec<&'a str> {
    // A veth without alias is from software that sets none: its name tells whose it is.
    let is_own = |(name, alias): &(&String, &Option<String>)| match alias {
        Some(alias) => *alias == lease.container,
        None => **name == lease.host_veth,
    };
    let own = kernel.veths.iter().filter(is_own).map(|(name, _)| name.as_str());
    let own: Vec<&str> = own.collect();
    match own.iter().find(|name| **name == lease.host_veth) {
        Some(named) => vec![*named],
        None => own,
    }
}

/// Rules and routes of addresses without a lease.
fn leftovers(pool: &Settled, kernel: &KernelLook, findings: &mut BTreeSet<Finding>) {
    let leased: BTreeSet<Ipv4Addr> = pool.leases.iter().map(|lease| lease.address).collect();
    let is_nobodys = |address: &Ipv4Addr| !leased.contains(address) && !pool.moving_addresses.contains(address);
    let rests = |address: &Ipv4Addr| pool.unleased.get(address) == Some(&AddressKind::Cooling);
    let lists = [(RULE_TO_POD, &kernel.to_pod), (RULE_FROM_POD, &kernel.from_pod)];
    for (priority, rules) in lists {
        for address in rules.keys().copied().filter(is_nobodys) {
            findings.insert(if rests(&address) {
                Finding::CoolingWithSigns { address }
            } else {
                Finding::RuleWithoutLease { address, priority }
            });
        }
    }
    // Routes to devices of others are none of our business.
    let to_veths = kernel
        .routes
        .iter()
        .filter(|(_, device)| kernel.veths.contains_key(*device));
    for (address, device) in to_veths.filter(|(address, _)| is_nobodys(address)) {
        findings.insert(if rests(address) {
            Finding::CoolingWithSigns { address: *address }
        } else {
            Finding::StaleRoute {
                address: *address,
                device: device.clone(),
            }
        });
    }
}

fn veths_without_lease(pool: &Settled, kernel: &KernelLook, findings: &mut BTreeSet<Finding>) {
    let sandboxes: BTreeSet<&str> = pool.leases.iter().map(|lease| lease.container.as_str()).collect();
    for (device, alias) in &kernel.veths {
        // Without an alias it is from software that sets none, or its plugin has not come that far.
        let Some(container) = alias else { continue };
        let moves = pool.moving_sandboxes.contains(container) || pool.moving_sandboxes.contains(device);
        if !sandboxes.contains(container.as_str()) && !moves {
            findings.insert(Finding::VethWithoutLease {
                device: device.clone(),
                container: container.clone(),
            });
        }
    }
}

fn enis_in_kernel(pool: &Settled, kernel: &KernelLook, findings: &mut BTreeSet<Finding>) {
    let ours = pool.enis.iter().filter(|(_, eni)| eni.role != Role::Unmanaged);
    for (id, eni) in ours {
        let Some(device) = kernel.devices.get(&eni.mac) else {
            findings.insert(Finding::EniWithoutDevice {
                eni: id.clone(),
                mac: eni.mac,
            });
            continue;
        };
        if eni.table.is_main() || eni.state != EniPhase::Ready {
            continue;
        }
        let (eni_id, table) = (id.clone(), eni.table);
        match kernel.ways_out.get(&table).and_then(|devices| devices.first()) {
            None => findings.insert(Finding::MissingEniTable { eni: eni_id, table }),
            Some(found) => found != device && findings.insert(Finding::WrongEniTable { eni: eni_id, table }),
        };
        // The same rule twice does no harm; another table may win.
        let leads_there = |tables: &Vec<RouteTableId>| !tables.is_empty() && tables.iter().all(|found| *found == table);
        if !kernel.from_eni.get(&eni.primary).is_some_and(leads_there) {
            findings.insert(Finding::MissingEniRule {
                eni: id.clone(),
                address: eni.primary,
                table,
            });
        }
    }
    let unknown = kernel
        .from_eni
        .keys()
        .filter(|address| !pool.primaries.contains(address));
    findings.extend(unknown.map(|address| Finding::RuleWithoutEni { address: *address }));
}

fn enis_at_ec2(pool: &Settled, ec2: &Ec2Look, findings: &mut BTreeSet<Finding>) {
    for (id, look) in &ec2.enis {
        let is_known = pool.enis.contains_key(id) || pool.moving_enis.contains(id);
        if !is_known && !look.in_motion {
            findings.insert(Finding::EniUnknown { eni: id.clone() });
        }
    }
    let missing = pool.enis.keys().filter(|id| !ec2.enis.contains_key(*id));
    findings.extend(missing.map(|id| Finding::EniNotAtEc2 { eni: id.clone() }));
}

fn addresses_at_ec2(pool: &Settled, ec2: &Ec2Look, findings: &mut BTreeSet<Finding>) {
    let holder = |address: &Ipv4Addr| pool.leases.iter().find(|lease| lease.address == *address);
    let home = |address: &Ipv4Addr| -> Option<&EniId> {
        let mut enis = ec2.enis.iter();
        enis.find(|(_, look)| look.addresses.contains(address))
            .map(|(id, _)| id)
    };
    let mut known = &pool.moving_addresses | &pool.unsure_at_ec2;
    let judged = |id: &EniId| ec2.enis.get(id).filter(|look| !look.in_motion);
    let ours = pool.enis.iter().filter(|(_, eni)| eni.role != Role::Unmanaged);
    for (id, eni) in ours {
        known.extend(eni.addresses.keys());
        let Some(look) = judged(id) else { continue };
        let absent = eni.addresses.keys().filter(|address| !look.addresses.contains(address));
        for address in absent.filter(|address| !pool.moving_addresses.contains(address)) {
            findings.insert(match home(address) {
                Some(at_ec2) => Finding::AddressOnOtherEni {
                    address: *address,
                    eni: id.clone(),
                    at_ec2: at_ec2.clone(),
                },
                None => Finding::AddressNotAtEc2 {
                    address: *address,
                    eni: Some(id.clone()),
                    pod: holder(address).map(|lease| lease.pod.clone()),
                },
            });
        }
        let strange = look
            .addresses
            .iter()
            .filter(|address| !known.contains(address) && !eni.addresses.contains_key(address));
        let strange: Vec<_> = strange.filter(|address| !elsewhere(pool, address)).collect();
        findings.extend(strange.into_iter().map(|address| Finding::AddressAtEc2UnknownToPool {
            address: *address,
            eni: id.clone(),
        }));
    }
    // Orphans whose ENI the daemon has forgotten.
    let homeless = pool
        .leases
        .iter()
        .filter(|lease| home(&lease.address).is_none() && !known.contains(&lease.address));
    findings.extend(homeless.map(|lease| Finding::AddressNotAtEc2 {
        address: lease.address,
        eni: None,
        pod: Some(lease.pod.clone()),
    }));
}

/// Whether the daemon has the address on another ENI, about which there is a finding of its own.
fn elsewhere(pool: &Settled, address: &Ipv4Addr) -> bool {
    pool.enis.values().any(|eni| eni.addresses.contains_key(address))
}
