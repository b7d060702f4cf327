//! The invariants, judged from the world: kernel, disk, EC2's truth and the plugins, not from the core's own tables.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipam_core::{Grant, OpOutcome, Refusal, Work};
use serde_json::Value;
use vpc_types::{Allocation, EniId, IpamKey};

use crate::fault::Fault;
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
    pub(crate) fn check_work(&mut self, work: &Work) {
        if let Err(text) = i2_addresses_are_given_back_dead_and_rested(self, work) {
            self.violate(text);
        }
    }

    /// At the moment EC2 answers.
    pub(crate) fn check_refusal(&mut self, work: &Work, outcome: &OpOutcome) {
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
    let file: Option<Value> = world
        .disk
        .ipam_json
        .as_ref()
        .and_then(|bytes| serde_json::from_slice(bytes).ok());
    let text = address.to_string();
    let matches = |entry: &Value| entry["containerID"] == key.container_id() && entry["ipv4"] == *text;
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
    if world.foreign_edits > 0 {
        return Ok(());
    }
    let address = grant.address;
    let home = world
        .ec2
        .enis_of(&world.instance)
        .find(|eni| eni.secondary.contains(&address));
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
    let going: Vec<Ipv4Addr> = match work {
        Work::ReleaseAddresses { allocations, .. } => allocations
            .iter()
            .flat_map(|one: &Allocation| one.addresses())
            .collect(),
        Work::Detach { eni, .. } => world.ec2.eni(eni).map(|eni| eni.secondary.clone()).unwrap_or_default(),
        Work::CreateEni { .. }
        | Work::Attach { .. }
        | Work::DeleteOnTermination { .. }
        | Work::AllocateAddresses { .. }
        | Work::SetGroups { .. }
        | Work::DeleteEni { .. }
        | Work::SetupEni { .. }
        | Work::TeardownEni { .. }
        | Work::ClearPodState { .. } => return Ok(()),
    };
    for address in going {
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
    let edited = world.foreign_edits > 0 || world.scenario.has(Fault::ForeignEdit);
    // Without the journal a call under way at the crash shows only when EC2's views catch up.
    let blind = world
        .memory_lost_at
        .is_some_and(|at| world.now - at < Duration::from_secs(120));
    if *outcome == OpOutcome::Refused(Refusal::LimitReached) && !edited && !blind {
        return Err(format!("I5: EC2 refuses for a limit: {work:?}"));
    }
    Ok(())
}

/// At the end, faults over and everything settled.
pub(crate) fn i6_every_eni_is_attached_and_known_or_deleted(world: &World) -> Result<(), String> {
    let core = world.core.as_ref().ok_or("the daemon is not running at the end")?;
    let known = |id: &EniId| core.pool().enis().any(|eni| eni.id == *id);
    let ours = |eni: &&std::sync::Arc<vpc_sim::model::Eni>| {
        eni.tags.keys().any(|tag| tag.ends_with("instance_id")) && !world.foreign_enis.contains(&eni.id)
    };
    for eni in world.ec2.enis().filter(ours) {
        let Some(tie) = &eni.attachment else {
            return Err(format!(
                "I6: {} exists and is not attached, known: {}",
                eni.id,
                known(&eni.id)
            ));
        };
        if !known(&eni.id) {
            return Err(format!("I6: {} is attached and not known", eni.id));
        }
        if tie.on_termination != vpc_sim::model::OnTermination::Delete {
            return Err(format!("I6: {} would outlive the instance", eni.id));
        }
    }
    let ghost = core.pool().enis().find(|eni| world.ec2.eni(&eni.id).is_none());
    ghost.map_or(Ok(()), |eni| {
        Err(format!(
            "I6: {} is known and does not exist, phase {:?}",
            eni.id, eni.phase
        ))
    })
}

/// At the end: a lease for each sandbox that runs, none besides; and kernel state for no others.
pub(crate) fn i7_nothing_is_leaked(world: &World) -> Result<(), String> {
    let core = world.core.as_ref().ok_or("the daemon is not running at the end")?;
    let live: BTreeMap<&IpamKey, Ipv4Addr> = world
        .sandboxes
        .values()
        .filter_map(|one| one.live_address().map(|address| (&one.key, address)))
        .collect();
    if let Some(lease) = core.pool().leases().find(|lease| !live.contains_key(&lease.key)) {
        return Err(format!("I7: leaked lease {lease:?}"));
    }
    let stray = world
        .kernel
        .signs()
        .into_keys()
        .find(|address| !live.values().any(|held| held == address));
    // A lost file leaves addresses that are in no view of ours; nobody is told of rules there.
    let known = |address: &Ipv4Addr| core.pool().enis().any(|eni| eni.address(*address).is_some());
    stray.filter(known).map_or(Ok(()), |address| {
        Err(format!("I7: leaked routes or rules of {address}"))
    })
}

/// At the end: nobody waits.
pub(crate) fn i7_every_request_is_answered(world: &World) -> Result<(), String> {
    let waiting = world
        .core
        .as_ref()
        .map_or(0, |core| core.status(world.both_times()).waiting);
    if waiting > 0 || !world.open_requests.is_empty() {
        return Err(format!(
            "I7: {waiting} ADDs wait, {} requests are open",
            world.open_requests.len()
        ));
    }
    Ok(())
}
