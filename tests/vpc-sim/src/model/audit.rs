//! What must hold in every state of the model, checked from the records alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use vpc_types::{EniId, SubnetId};

use super::record::AttachmentStatus;
use super::{Model, World};

impl Model {
    /// Everything that is wrong with the model's own state; empty unless the model has a bug.
    pub fn audit(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        audit_addresses(&self.world, &mut wrong);
        audit_attachments(&self.world, &mut wrong);
        audit_index(&self.world, &mut wrong);
        wrong
    }
}

/// No address on two ENIs, and each subnet counts exactly what its ENIs hold.
fn audit_addresses(world: &World, wrong: &mut Vec<String>) {
    let mut owners: BTreeMap<(&SubnetId, Ipv4Addr), &EniId> = BTreeMap::new();
    let mut held: BTreeMap<&SubnetId, u32> = BTreeMap::new();
    for eni in world.live_enis() {
        let all = std::iter::once(eni.primary).chain(eni.allocations().flat_map(|one| one.addresses()));
        for address in all {
            *held.entry(&eni.subnet).or_default() += 1;
            if let Some(other) = owners.insert((&eni.subnet, address), &eni.id) {
                wrong.push(format!("{address} is on {other} and on {}", eni.id));
            }
            if !world.subnets[&eni.subnet].is_taken(address) {
                wrong.push(format!("{address} of {} counts as free", eni.id));
            }
        }
    }
    let (macs, enis) = (world.eni_count(), world.live_enis().count());
    if macs != enis {
        wrong.push(format!("{enis} ENIs have {macs} MACs"));
    }
    for subnet in world.subnets.values() {
        let (held, taken) = (held.get(&subnet.id).copied().unwrap_or(0), subnet.count_taken());
        let size = 1_u32 << (32 - u32::from(subnet.cidr.prefix_len()));
        if held != taken || subnet.available() + taken + 5 != size {
            wrong.push(format!(
                "{}: ENIs hold {held}, taken {taken}, available {}",
                subnet.id,
                subnet.available()
            ));
        }
    }
}

/// Attachments agree on all sides and stay within the types' limits.
fn audit_attachments(world: &World, wrong: &mut Vec<String>) {
    for eni in world.live_enis() {
        let Some(tie) = &eni.attachment else { continue };
        let instance = &world.instances[&tie.instance];
        let plugged = world.plugged.contains(&tie.id);
        let fits = match tie.status {
            AttachmentStatus::Attaching => !plugged,
            AttachmentStatus::Attached => plugged,
            AttachmentStatus::Detaching => true,
        };
        if !fits || !instance.enis.contains(&eni.id) || world.attachments.get(&tie.id) != Some(&eni.id) {
            wrong.push(format!("{} and its attachment {} disagree", eni.id, tie.id));
        }
        if eni.ipv4_slots() > usize::from(instance.limits.ipv4_per_eni) {
            wrong.push(format!("{} has {} slots in use", eni.id, eni.ipv4_slots()));
        }
    }
    for instance in world.instances.values() {
        let ties = || {
            instance
                .enis
                .iter()
                .filter_map(|id| world.find_eni(id))
                .filter_map(|eni| eni.attachment.as_ref())
        };
        let slots: BTreeSet<_> = ties().map(|tie| (tie.card, tie.device)).collect();
        let most: usize = instance
            .limits
            .enis_per_card
            .iter()
            .map(|most| usize::from(*most))
            .sum();
        if slots.len() != instance.enis.len() || instance.enis.len() > most {
            wrong.push(format!(
                "{} has {} ENIs in {} slots",
                instance.id,
                instance.enis.len(),
                slots.len()
            ));
        }
    }
}

/// Whoever looks for ENIs by instance finds all that any viewer may see there.
fn audit_index(world: &World, wrong: &mut Vec<String>) {
    for (eni, history) in &world.enis {
        for instance in history.instances() {
            if !world.seen_on.get(&instance).is_some_and(|seen| seen.contains(eni)) {
                wrong.push(format!("{eni} is not found on {instance}"));
            }
        }
    }
    for (instance, seen) in &world.seen_on {
        let stale = |eni: &&EniId| {
            world
                .enis
                .get(*eni)
                .is_none_or(|history| !history.instances().contains(instance))
        };
        if let Some(eni) = seen.iter().find(stale) {
            wrong.push(format!("{eni} is looked for on {instance}"));
        }
    }
}
