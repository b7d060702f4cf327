//! The verdict on a run, faults over and everything settled: nothing is left behind, waiting, or busy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipam_core::{AllocationMode, LeakSweep, Placement, Provisioning, StartMode, TrunkSlot};
use vpc_types::{EniId, IpamKey};

use crate::fault::Fault;
use crate::foreign::addresses_of;
use crate::sandbox::Phase;
use crate::world::World;

/// Looks at subnets in a day, while a subnet in use is scarce: one in fifteen minutes, less a quarter by jitter.
const SUBNET_LOOKS: u64 = 24 * 4 * 4 / 3 + 4;
/// Tries in a day to get from a scarce subnet what the target wants: one in ten minutes, less a quarter by jitter, and a few more
/// where a rest begins anew.
const SCARCE_TRIES: u64 = 24 * 10;
/// Looks in a day for ENIs that others left behind.
const LEAK_LOOKS: u64 = 26;
/// Events in a day beside reads of IMDS.
const IDLE_EVENTS: u64 = 3_000;

/// What is wrong at the end.
pub(crate) fn all(world: &World) -> Vec<String> {
    let verdicts = [
        i7_every_request_is_answered(world),
        i7_nothing_is_leaked(world),
        i6_every_eni_is_attached_and_known_or_deleted(world),
        world.load.i9_calls_stay_below_their_ceilings(),
    ];
    verdicts.into_iter().filter_map(Result::err).collect()
}

/// Whether the daemon may change what it holds.
fn is_free_to_act(world: &World) -> bool {
    world.settings.provisioning == Provisioning::Full && world.settings.start == StartMode::Normal
}

/// Whether the subnets have so little that targets cannot be reached, or only just.
fn is_tight(world: &World) -> bool {
    let least = usize::from(world.scenario.slots_per_eni).max(64) + 2;
    let free = |id| world.ec2.subnet(id).map_or(0, |subnet| subnet.available() as usize);
    let used = world
        .other_subnets
        .iter()
        .filter(|id| world.is_usable(id))
        .chain([&world.subnet]);
    let scarce = |id| {
        world
            .ec2
            .subnet(id)
            .is_some_and(|one| one.available() * 3 < 1 << (32 - one.cidr.prefix_len()))
    };
    used.clone().any(scarce)
        || used.map(free).any(|free| free < least)
        || world.scenario.subnet_prefix > 24
        || world.scenario.custom
}

/// Whether prefixes are wanted and a subnet in use has hardly one to give: they are asked for again now and then.
fn lacks_prefixes(world: &World) -> bool {
    let has_blocks = |id| {
        let Some(subnet) = world.ec2.subnet(id) else {
            return false;
        };
        let blocks = subnet
            .cidr
            .subnets(28)
            .expect("a subnet is not smaller than its blocks");
        let is_whole = |block: &ipnet::Ipv4Net| {
            let mut addresses = (0..16).map(|n| Ipv4Addr::from(u32::from(block.network()) + n));
            addresses.all(|address| subnet.is_free(address))
        };
        // A new ENI's own address may fall into a block.
        blocks.filter(is_whole).count() > 2
    };
    let others = world.other_subnets.iter().filter(|id| world.is_usable(id));
    let mut used = others.chain([&world.subnet]);
    world.settings.mode == AllocationMode::Prefixes && !used.all(has_blocks)
}

/// Pods for which there is room without doubt, beyond those that are there.
pub(crate) fn room(world: &World) -> usize {
    let Some(core) = world.core.as_ref().filter(|_| is_simple(world)) else {
        return 0;
    };
    let ours = world
        .ec2
        .enis_of(&world.instance)
        .filter(|eni| !world.foreign_enis.contains(&eni.id));
    let held = ours.map(|eni| addresses_of(eni).len()).sum::<usize>();
    let trunk = usize::from(world.scenario.trunk == TrunkSlot::Reserved);
    let enis = usize::from(world.scenario.max_enis)
        .saturating_sub(world.foreign_enis.len())
        .saturating_sub(trunk)
        .max(1);
    let most = enis * usize::from(world.scenario.slots_per_eni);
    // Limits that a fault has taught the core hold; a subnet too small for a whole ENI stops growth in ENI mode.
    let taught = world.scenario.has(Fault::LimitReached) || world.foreign_edits > 0;
    let reachable = if taught || is_tight(world) || !is_free_to_act(world) {
        held.min(most)
    } else {
        most
    };
    let most_pods = world.settings.max_pods.map_or(usize::MAX, |pods| pods as usize);
    let resting = core.pool().supply().cooling as usize;
    let leased = |address| core.pool().leases().any(|lease| lease.address == address);
    let signs = world.kernel.signs();
    let blocked = signs.keys().filter(|address| !leased(**address)).count();
    reachable
        .min(most_pods)
        .saturating_sub(core.pool().leases().count() + blocked + resting)
}

/// Addresses that may be granted now.
pub(crate) fn free(world: &World) -> usize {
    world.core.as_ref().map_or(0, |core| core.pool().supply().free as usize)
}

/// Whether this run's node may serve from all it has.
fn is_simple(world: &World) -> bool {
    world.is_usable(&world.subnet)
        && world.placement == Placement::Discovered
        && !world.scenario.has(Fault::Reconfigured)
        && !world.is_misled_by_imds()
}

pub(crate) fn i7_a_pod_is_served_where_there_is_room(world: &World, key: &IpamKey) -> Result<(), String> {
    if matches!(world.sandboxes[key].phase, Phase::Running(_)) {
        return Ok(());
    }
    let status = world.core.as_ref().map(|core| core.status(world.both_times()));
    let why = status.map(|status| (status.supply, status.cause.map(|cause| cause.to_string())));
    Err(format!(
        "I7: {key} is not served within 35 s although there is room: {why:?}"
    ))
}

/// What somebody did by hand and the core does not know yet: allocations that are gone, ENIs that came. An IMDS that EC2 has
/// contradicted for long is listened to once a day, be it right by then.
pub(crate) fn unseen_edits(world: &World) -> u64 {
    let may_be_unseen = world.foreign_edits > 0 && world.scenario.has(Fault::ImdsStale);
    let Some(core) = world.core.as_ref().filter(|_| may_be_unseen) else {
        return 0;
    };
    let lost = core.pool().enis().map(|eni| {
        let fact = world.ec2.eni(&eni.id);
        let there: BTreeSet<_> = fact.into_iter().flat_map(|eni| eni.allocations()).collect();
        eni.allocations().filter(|one| !there.contains(one)).count() as u64
    });
    let known = |id: &EniId| core.pool().enis().any(|eni| eni.id == *id);
    let came = world.ec2.enis_of(&world.instance).filter(|eni| !known(&eni.id));
    lost.sum::<u64>() + came.count() as u64
}

/// Calls since `before`, by kind. `unseen` losses may be found out, confirmed and made up for.
pub(crate) fn i7_an_idle_node_is_silent(
    world: &World,
    before: &BTreeMap<&'static str, u64>,
    unseen: u64,
    events: u64,
) -> Result<(), String> {
    for (call, count) in &world.calls {
        let calls = count - before.get(call).copied().unwrap_or_default();
        let sweeps = world.settings.leak_sweep == LeakSweep::On;
        let allowed = match *call {
            "Leaked" if sweeps => LEAK_LOOKS,
            // Once a day EC2 is asked whether an IMDS that goes on contradicting it has become right.
            "Attached" if world.imds_is_wrong() || world.foreign_edits > 0 => 2 + unseen,
            // What a former run left half-made and this one may not finish is such a contradiction for good.
            "Attached" if world.settings.provisioning == Provisioning::Disabled => 2 + unseen,
            "Subnets" if is_tight(world) || lacks_prefixes(world) => SUBNET_LOOKS + SCARCE_TRIES,
            "CreateEni" | "AllocateAddresses" if is_tight(world) || lacks_prefixes(world) => SCARCE_TRIES,
            "AllocateAddresses" | "SetGroups" => unseen,
            _ => 0,
        };
        if calls > allowed {
            return Err(format!("I7: {calls} calls of {call} in an idle day"));
        }
    }
    if events > IDLE_EVENTS {
        return Err(format!("I7: {events} events in an idle day"));
    }
    Ok(())
}

fn i6_every_eni_is_attached_and_known_or_deleted(world: &World) -> Result<(), String> {
    let core = world.core.as_ref().ok_or("the daemon is not running at the end")?;
    if !is_free_to_act(world) {
        return Ok(());
    }
    let known = |id: &EniId| core.pool().enis().any(|eni| eni.id == *id);
    let ours = |eni: &&std::sync::Arc<vpc_sim::model::Eni>| {
        let others = [&world.foreign_enis, &world.detached_unseen];
        eni.tags.contains_key(crate::ec2::INSTANCE_TAG) && !others.iter().any(|ids| ids.contains(&eni.id))
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
fn i7_nothing_is_leaked(world: &World) -> Result<(), String> {
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
fn i7_every_request_is_answered(world: &World) -> Result<(), String> {
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
