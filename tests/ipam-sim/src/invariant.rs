//! The invariants, judged from the world: kernel, disk, EC2's truth and the plugins, not from the core's own tables.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipam_core::{Grant, OpId, OpOutcome, Placement, Refusal, SubnetChoice, TrunkSlot, Want, WarmTarget, Work};
use serde_json::Value;
use vpc_types::{Allocation, IpamKey};

use crate::ec2::INSTANCE_TAG;
use crate::fault::Fault;
use crate::foreign::addresses_of;
use crate::queue::Pid;
use crate::sandbox::Record;
use crate::world::World;

impl World {
    /// What can be judged from a state alone, after every step.
    pub(crate) fn check_step(&mut self) {
        let verdicts = [
            i1_no_address_is_held_by_two_sandboxes(self),
            i4_no_live_pod_loses_its_lease(self),
        ];
        verdicts
            .into_iter()
            .filter_map(Result::err)
            .for_each(|text| self.violate(text));
    }

    /// At the moment of a reply.
    pub(crate) fn check_grant(&mut self, pid: Option<Pid>, grant: Grant) {
        let key = pid
            .and_then(|pid| self.plugins.get(&pid))
            .map(|plugin| plugin.key.clone());
        let mut verdicts = vec![
            i2_granted_addresses_have_rested(self, key.as_ref(), grant.address),
            granted_addresses_are_ours(self, grant),
        ];
        if let Some(key) = &key {
            verdicts.push(i1_what_is_replied_is_durable(self, key, grant.address));
            verdicts.push(i2_granted_addresses_show_no_foreign_life(self, key, grant.address));
        }
        verdicts
            .into_iter()
            .filter_map(Result::err)
            .for_each(|text| self.violate(text));
    }

    /// At the moment a plugin adds its route.
    pub(crate) fn check_wiring(&mut self, key: &IpamKey, address: Ipv4Addr) {
        if let Err(text) = i2_granted_addresses_show_no_foreign_life(self, key, address) {
            self.violate(text);
        }
    }

    /// At the moment an EC2 call is made.
    pub(crate) fn check_work(&mut self, op: OpId, work: &Work) {
        let verdicts = [
            i2_addresses_are_given_back_dead_and_rested(self, work),
            i3_giving_back_needs_a_dump_newer_than_the_last_change(self, work),
            i5_the_slot_of_a_trunk_stays_free(self, work),
            i6_a_repetition_has_its_token(self, op, work),
            new_enis_go_where_tags_allow(self, work),
            i7_a_call_asks_for_no_more_than_can_be_used(self, work),
            foreign_enis_are_left_alone(self, work),
        ];
        verdicts
            .into_iter()
            .filter_map(Result::err)
            .for_each(|text| self.violate(text));
        if let Work::CreateEni { token, .. } = work {
            self.tokens_of.insert(op, token.clone());
        }
    }

    /// At the moment EC2 answers.
    pub(crate) fn check_refusal(&mut self, work: &Work, outcome: &OpOutcome) {
        if *outcome == OpOutcome::Refused(Refusal::LimitReached) {
            self.limit_refusals += 1;
        }
        if let Err(text) = i5_no_call_exceeds_a_limit(self, work, outcome) {
            self.violate(text);
        }
    }
}

fn i1_no_address_is_held_by_two_sandboxes(world: &World) -> Result<(), String> {
    let running = world
        .sandboxes
        .values()
        .filter_map(|one| one.live_address().map(|address| (address, &one.key)));
    let pending = world
        .plugins
        .values()
        .filter(|plugin| world.now < plugin.deadline)
        .filter_map(|plugin| plugin.grant.map(|grant| (grant.address, &plugin.key)));
    let mut holders: BTreeMap<Ipv4Addr, &IpamKey> = BTreeMap::new();
    for (address, key) in running.chain(pending) {
        if let Some(other) = holders.insert(address, key).filter(|other| *other != key) {
            return Err(format!("I1: {address} is held by {other} and by {key}"));
        }
    }
    Ok(())
}

fn i1_what_is_replied_is_durable(world: &World, key: &IpamKey, address: Ipv4Addr) -> Result<(), String> {
    // As leniently as the readers of the file: keys in any case, a byte-order mark, bytes that are no text.
    let file: Option<Value> = world.disk.ipam_json.as_ref().and_then(|bytes| {
        let text = String::from_utf8_lossy(bytes).to_lowercase();
        serde_json::from_str(text.trim_start_matches('\u{feff}')).ok()
    });
    let (text, container) = (address.to_string(), key.container_id().to_lowercase());
    let matches = |entry: &Value| entry["containerid"] == *container && entry["ipv4"] == *text;
    let listed = file
        .as_ref()
        .and_then(|file| file["allocations"].as_array())
        .is_some_and(|all| all.iter().any(matches));
    listed
        .then_some(())
        .ok_or_else(|| format!("I1: {address} was replied to {key} and is not in the file"))
}

fn i2_granted_addresses_have_rested(world: &World, key: Option<&IpamKey>, address: Ipv4Addr) -> Result<(), String> {
    let held = key
        .and_then(|key| world.sandboxes.get(key))
        .and_then(crate::sandbox::Sandbox::live_address);
    let former = |container: &str| key.is_some_and(|key| key.container_id() == container);
    let Some((cleared, container)) = world.cleared_at.get(&address).filter(|_| held != Some(address)) else {
        return Ok(());
    };
    if former(container) {
        return Ok(());
    }
    // Taken off by others and given to us anew by EC2, with no file left that knew its last pod.
    if world.foreign.contains(&address) && world.memory_lost_at.is_some() {
        return Ok(());
    }
    let (rested, hold) = (world.now - *cleared, world.scenario.timers.hold());
    if rested < hold {
        return Err(format!(
            "I2: {address} was granted {rested:?} after its last owner's end, the hold is {hold:?}"
        ));
    }
    Ok(())
}

fn i2_granted_addresses_show_no_foreign_life(world: &World, key: &IpamKey, address: Ipv4Addr) -> Result<(), String> {
    let route = world.kernel.routes.get(&address);
    let alias = route
        .and_then(|device| world.kernel.veths.get(device))
        .cloned()
        .flatten();
    let own = alias.as_ref().is_some_and(|alias| alias == key.container_id());
    if own || !world.kernel.has_life(address) {
        return Ok(());
    }
    // A killed plugin of the same sandbox leaves what its successor finds.
    let leftover = world
        .sandboxes
        .get(key)
        .is_some_and(|sandbox| sandbox.prev_result == Some(address));
    if leftover {
        return Ok(());
    }
    Err(format!(
        "I2: {address} is granted to {key} while the kernel shows life: route {route:?}, alias {alias:?}"
    ))
}

/// Truth at EC2: the address is on an ENI of this instance, and a secondary ENI is set up in the kernel.
fn granted_addresses_are_ours(world: &World, grant: Grant) -> Result<(), String> {
    let address = grant.address;
    // Where IMDS is the only view, nobody can know better than it does.
    if world.foreign.contains(&address) || world.is_misled_by_imds() {
        return Ok(());
    }
    let home = world
        .ec2
        .enis_of(&world.instance)
        .find(|eni| eni.primary != address && eni.holds(address));
    let Some(home) = home else {
        return Err(format!("I2: {address} is granted and on no ENI of this instance"));
    };
    let primary = home
        .attachment
        .as_ref()
        .is_some_and(vpc_sim::model::Attachment::is_primary);
    if primary || world.kernel.tables.contains(&home.id) {
        Ok(())
    } else {
        Err(format!(
            "I2: {address} is granted and the routes of {} are not there",
            home.id
        ))
    }
}

fn i2_addresses_are_given_back_dead_and_rested(world: &World, work: &Work) -> Result<(), String> {
    for address in given_back(world, work) {
        let rested = world
            .cleared_at
            .get(&address)
            .is_none_or(|(at, _)| world.now - *at >= world.scenario.timers.hold());
        let holder = world.sandboxes.values().find(|one| one.live_address() == Some(address));
        let pending = world
            .plugins
            .values()
            .any(|plugin| world.now < plugin.deadline && plugin.grant.is_some_and(|grant| grant.address == address));
        if let Some(holder) = holder {
            return Err(format!(
                "I2: {address} of {} is given back by {}",
                holder.key,
                work.kind()
            ));
        }
        if pending || !rested || world.kernel.has_life(address) {
            return Err(format!(
                "I2: {address} is given back by {}: pending {pending}, rested {rested}, life {}",
                work.kind(),
                world.kernel.has_life(address)
            ));
        }
    }
    Ok(())
}

fn i4_no_live_pod_loses_its_lease(world: &World) -> Result<(), String> {
    let Some(core) = &world.core else { return Ok(()) };
    for sandbox in world.sandboxes.values().filter(|one| one.record == Record::Kept) {
        let Some(address) = sandbox.live_address() else {
            continue;
        };
        let lease = core.pool().lease(&sandbox.key);
        if lease.is_none_or(|lease| lease.address != address) {
            return Err(format!(
                "I4: {} runs with {address}, its lease is {lease:?}",
                sandbox.key
            ));
        }
    }
    Ok(())
}

fn i5_no_call_exceeds_a_limit(world: &World, work: &Work, outcome: &OpOutcome) -> Result<(), String> {
    if *outcome != OpOutcome::Refused(Refusal::LimitReached) {
        return Ok(());
    }
    // Each edit by others may surprise us once or twice, and once more after each crash: a refusal is not on file, and views are
    // not believed until calls of the former run have settled. Without the journal, a call under way at the crash shows only when
    // EC2's views catch up.
    let lives = if world.foreign_edits > 0 { world.life.0 } else { 0 };
    let excused = world.limit_refusals <= 2 * world.foreign_edits + lives || is_blind(world);
    if !excused {
        return Err(format!("I5: EC2 refuses for a limit: {work:?}"));
    }
    Ok(())
}

/// Addresses that leave the node by this call.
fn given_back(world: &World, work: &Work) -> Vec<Ipv4Addr> {
    match work {
        Work::ReleaseAddresses { allocations, .. } => allocations
            .iter()
            .flat_map(|one: &Allocation| one.addresses())
            .collect(),
        Work::Detach { eni, .. } => world.ec2.eni(eni).map(|eni| addresses_of(eni)).unwrap_or_default(),
        Work::CreateEni { .. }
        | Work::Attach { .. }
        | Work::DeleteOnTermination { .. }
        | Work::AllocateAddresses { .. }
        | Work::SetGroups { .. }
        | Work::DeleteEni { .. }
        | Work::SetupEni { .. }
        | Work::TeardownEni { .. }
        | Work::ClearPodState { .. } => Vec::new(),
    }
}

fn i3_giving_back_needs_a_dump_newer_than_the_last_change(world: &World, work: &Work) -> Result<(), String> {
    for address in given_back(world, work) {
        let Some((changed, _)) = world.cleared_at.get(&address) else {
            continue;
        };
        if world.last_dump.is_none_or(|dump| dump < *changed) {
            return Err(format!(
                "I3: {address} is given back by {}, its state changed at {changed:?}, the last dump began at {:?}",
                work.kind(),
                world.last_dump
            ));
        }
    }
    Ok(())
}

fn i5_the_slot_of_a_trunk_stays_free(world: &World, work: &Work) -> Result<(), String> {
    // A repetition makes nothing new.
    let creates = matches!(work, Work::CreateEni { token, .. } if !world.tokens.contains(token));
    let wanted = world.scenario.trunk == TrunkSlot::Reserved && creates;
    if !wanted || world.foreign_edits > 0 || world.memory_lost_at.is_some() {
        return Ok(());
    }
    // One that was created and never attached may be unknown to a daemon that lost its journal.
    let ours =
        |eni: &&std::sync::Arc<vpc_sim::model::Eni>| eni.tags.contains_key(INSTANCE_TAG) && eni.attachment.is_some();
    // The primary ENI has no tag of ours here; the new one comes on top.
    let enis = world.ec2.enis().filter(ours).count() + 2;
    let limit = usize::from(world.scenario.max_enis).saturating_sub(1);
    if enis > limit.max(1) {
        return Err(format!(
            "I5: ENI {enis} is created, {limit} are allowed beside the trunk"
        ));
    }
    Ok(())
}

fn i6_a_repetition_has_its_token(world: &World, op: OpId, work: &Work) -> Result<(), String> {
    let Work::CreateEni { token, .. } = work else {
        return Ok(());
    };
    match world.tokens_of.get(&op) {
        Some(former) if former != token => Err(format!("I6: {op:?} is repeated with another token")),
        Some(_) | None => Ok(()),
    }
}

/// What targets and pods could use at most, with a lot and a prefix to spare.
fn i7_a_call_asks_for_no_more_than_can_be_used(world: &World, work: &Work) -> Result<(), String> {
    let (Work::CreateEni { want, .. } | Work::AllocateAddresses { want, .. }) = work else {
        return Ok(());
    };
    let slots = u32::from(world.scenario.slots_per_eni);
    let target = match world.settings.target {
        WarmTarget::Enis(warm) => {
            (u32::from(warm) + 1) * slots * if matches!(want, Want::Prefixes(_)) { 16 } else { 1 }
        }
        WarmTarget::Prefixes(warm) => u32::from(warm) * 16,
        WarmTarget::Addresses { warm, minimum } => warm.max(minimum),
        WarmTarget::Adaptive => 8,
    };
    let pods = u32::try_from(world.plugins.len()).unwrap_or(u32::MAX) + world.announced;
    let most = target + pods + 32;
    if want.addresses() > most && !world.scenario.has(Fault::Reconfigured) {
        return Err(format!("I7: {want:?} is asked for, {most} addresses could be used"));
    }
    Ok(())
}

/// Without a look at the subnets, the one of the primary ENI is the only one known.
fn new_enis_go_where_tags_allow(world: &World, work: &Work) -> Result<(), String> {
    let Work::CreateEni { subnet, token, .. } = work else {
        return Ok(());
    };
    // Where tags are not looked at, nobody is told of them.
    let unread = world.settings.subnets == SubnetChoice::PrimaryOnly && *subnet == world.subnet;
    let given = unread || matches!(&world.placement, Placement::Given { subnet: wanted, .. } if wanted == subnet);
    let unknown = *subnet == world.subnet && !world.subnets_shown;
    // A repetition has the parameters of its first try, whatever has changed since.
    let repeated = world.tokens.contains(token) || !token.contains(&format!("{:016x}", world.nonce()));
    // One that waited for the disk was decided on before.
    let delayed = world.scenario.has(Fault::DiskFull) || world.scenario.has(Fault::WriteFailure);
    if repeated
        || delayed
        || given
        || unknown
        || world.scenario.custom
        || world.scenario.has(Fault::Reconfigured)
        || world.is_usable(subnet)
    {
        return Ok(());
    }
    Err(format!("an ENI is created in {subnet}, whose tags forbid it"))
}

fn foreign_enis_are_left_alone(world: &World, work: &Work) -> Result<(), String> {
    let Some(eni) = work
        .eni()
        .filter(|id| world.foreign_enis.contains(*id))
        .and_then(|id| world.ec2.eni(id))
    else {
        return Ok(());
    };
    let fills = matches!(work, Work::AllocateAddresses { .. } | Work::ReleaseAddresses { .. });
    let efa = eni.interface_type == vpc_sim::model::InterfaceType::Efa;
    if efa && (fills || matches!(work, Work::SetGroups { .. } | Work::DeleteOnTermination { .. })) {
        return Ok(());
    }
    Err(format!("{} on {}, which is somebody else's", work.kind(), eni.id))
}

/// Whether a daemon lost files so lately that EC2's views may not have told it all yet.
fn is_blind(world: &World) -> bool {
    world
        .memory_lost_at
        .is_some_and(|at| world.now - at < Duration::from_secs(120))
}
