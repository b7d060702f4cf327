//! What is to go although pods are on it: stand-ins, ENIs that are closed to pods, reserves in a scarce subnet.

use std::collections::{BTreeMap, BTreeSet};

use ipam_core::{
    BootTime, CoreConfig, EniPhase, Event, Placement, SubnetChoice, SubnetFact, SubnetsView, WarmTarget, Work,
};
use vpc_types::Allocation;

use crate::node::{Node, config, eni, ip, prefix, warm};
use crate::region::{Region, Subnet, names};
use crate::targets::prefixes;

#[test]
fn single_addresses_that_stood_in_drain_when_prefixes_come_again() {
    let mut region = Region::with(Node::started(prefixes(warm(2)), vec![eni(0, &[])]), Subnet::Fragmented);
    region.run_pods(names(0..5));
    region.pass(20);
    assert_eq!((region.kinds(), region.node.core.pool().leases().count()), ((0, 7), 5));
    region.subnet = Subnet::Empty;
    region.pass(1_000);
    // Nothing is tried on behalf of nobody; the next pod is reason enough.
    region.run_pods(names(5..6));
    region.pass(1_000);
    assert_eq!(region.kinds(), (1, 6), "a prefix has come, and what no pod has is back");
    names(0..6).for_each(|name| region.end_pod(&name));
    region.run_pods(names(10..13));
    region.pass(1_000);
    assert_eq!(region.kinds(), (1, 0));
}

#[test]
fn where_single_addresses_stand_in_a_slot_is_left_for_the_next_prefix() {
    let mut region = Region::with(
        Node::started(prefixes(WarmTarget::Prefixes(1)), vec![eni(0, &[])]),
        Subnet::Fragmented,
    );
    region.pass(5_000);
    for eni in region.node.core.pool().enis() {
        assert!(eni.slots_used() < 9, "{} of {}", eni.slots_used(), eni.id);
    }
}

#[test]
fn custom_networking_takes_the_primary_eni_out_of_service_and_its_pods_stay() {
    let mut first = eni(0, &[10, 11]);
    first.allocations.insert(prefix(1, 0));
    let mut region = Region::of(Node::started(config(warm(0)), vec![first]));
    region.run_pods(names(0..1));
    assert_eq!(region.address_of("pod-0"), ip(10));
    region.node.tell(Event::PlacementChanged(Placement::Given {
        subnet: "subnet-9".parse().unwrap(),
        groups: BTreeSet::new(),
    }));
    let req = region.run_pods(names(1..2))[0];
    let address = region.node.granted(req).unwrap();
    assert!(
        !(address == ip(11) || address.octets()[2] == 1),
        "{address}: new pods go elsewhere"
    );
    region.pass(1_500);
    let primary = &region.node.enis[0];
    let left: Vec<_> = primary.allocations.iter().flat_map(|one| one.addresses()).collect();
    assert_eq!(left, [ip(10)], "only what the pod has");
}

#[test]
fn an_excluded_eni_goes_when_its_last_pod_has_gone() {
    let mut second = eni(1, &[20, 21]);
    second.subnet = "subnet-9".parse().unwrap();
    let mut config = config(warm(0));
    config.subnets = SubnetChoice::ByTag;
    let mut region = Region::of(Node::started(config, vec![eni(0, &[10]), second]));
    region.run_pods(names(0..2));
    assert_eq!(region.address_of("pod-1"), ip(20));
    let tag = ("kubernetes.io/role/cni".to_owned(), "0".to_owned());
    look(
        &mut region,
        &[
            ("subnet-0123", 1_000, BTreeMap::new()),
            ("subnet-9", 1_000, [tag].into()),
        ],
    );
    region.pass(1_500);
    assert_eq!(region.address_of("pod-1"), ip(20));
    region.end_pod("pod-1");
    region.pass(1_500);
    let enis: Vec<EniPhase> = region.node.core.pool().enis().map(|eni| eni.phase).collect();
    assert_eq!(enis, [EniPhase::Ready], "the primary one");
}

fn look(region: &mut Region, subnets: &[(&str, u32, BTreeMap<String, String>)]) {
    let subnets = subnets
        .iter()
        .map(|(id, free, tags)| SubnetFact {
            id: id.parse().unwrap(),
            free: *free,
            size: 1_000,
            tags: tags.clone(),
        })
        .collect();
    let started_at = BootTime(region.node.now);
    region
        .node
        .tell(Event::SubnetsViewed(SubnetsView { started_at, subnets }));
    region.work();
}

#[test]
fn in_a_scarce_subnet_reserves_are_smaller_and_go_sooner() {
    let after = |free: u32| {
        let mut config: CoreConfig = prefixes(WarmTarget::Adaptive);
        config.subnets = SubnetChoice::ByTag;
        let mut first = eni(0, &[]);
        first.allocations = [prefix(1, 0), prefix(1, 1)].into();
        let mut region = Region::of(Node::started(config, vec![first]));
        region.pass(300);
        region.run_pods(names(0..14));
        names(12..14).for_each(|name| region.end_pod(&name));
        // The use of fourteen is over, and eight more are kept for the next burst.
        look(&mut region, &[("subnet-0123", free, BTreeMap::new())]);
        region.pass(150);
        let early = region.kinds();
        region.pass(300);
        (early, region.kinds())
    };
    assert_eq!(after(500), ((2, 0), (2, 0)));
    assert_eq!(after(50), ((1, 0), (1, 0)), "nothing but what is in use, and one more");
}

#[test]
fn targets_that_were_set_hold_in_a_scarce_subnet_too() {
    let mut config = prefixes(WarmTarget::Prefixes(2));
    config.subnets = SubnetChoice::ByTag;
    let mut first = eni(0, &[]);
    first.allocations = [prefix(1, 0), prefix(1, 1)].into();
    let mut region = Region::of(Node::started(config, vec![first]));
    look(&mut region, &[("subnet-0123", 20, BTreeMap::new())]);
    region.pass(2_000);
    assert_eq!(region.kinds(), (2, 0));
    assert!(
        region
            .calls
            .iter()
            .all(|work| !matches!(work, Work::ReleaseAddresses { .. }))
    );
}

#[test]
fn an_instance_that_takes_no_prefix_gets_single_addresses_and_falls_silent() {
    let mut node = Node::started(prefixes(warm(2)), vec![eni(0, &[])]);
    let req = node.add("a");
    let mut asked = 0;
    for round in 0..2_000 {
        let pause = if round < 60 { 1.0 } else { 60.0 };
        node.pass(pause);
        // Something stirs now and then, as a look at IMDS would.
        node.tell(Event::Tick);
        for (op, work) in std::mem::take(&mut node.runs) {
            match work {
                Work::AllocateAddresses {
                    want: ipam_core::Want::Addresses(count),
                    ..
                } => {
                    let addresses: Vec<u8> = (10..10 + u8::try_from(count).unwrap()).collect();
                    node.allocate(op, &addresses);
                }
                _ => {
                    asked += u32::from(round > 1_000);
                    node.outcome(op, ipam_core::OpOutcome::Refused(ipam_core::Refusal::Other));
                }
            }
        }
    }
    assert!(node.granted(req).is_some());
    assert!(asked <= 2, "{asked} further tries within sixteen hours");
}

/// A node on whose ENIs single addresses stand in for prefixes, all but one on each free, once one prefix is to be had.
fn stood_in_for(target: WarmTarget, slots: u16, enis: u16, pods: usize) -> Region {
    let mut config = prefixes(target);
    (config.node.slots_per_eni, config.node.max_enis) = (slots, enis);
    let mut region = Region::with(Node::started(config, vec![eni(0, &[])]), Subnet::Fragmented);
    region.run_pods(names(0..pods));
    region.pass(60);
    let mut kept = BTreeSet::new();
    for name in names(0..pods) {
        let address = Allocation::Ip(region.address_of(&name));
        let home = region.node.enis.iter().find(|fact| fact.allocations.contains(&address));
        if !kept.insert(home.unwrap().id.clone()) {
            region.end_pod(&name);
        }
    }
    region.pass(2_000);
    assert_eq!(region.kinds().0, 0);
    region.subnet = Subnet::OneBlock;
    region.calls.clear();
    region
}

#[test]
fn the_one_prefix_to_be_had_is_not_given_back_for_single_addresses_that_stand_in() {
    for (target, slots, enis, pods) in [(WarmTarget::Enis(1), 20, 2, 25), (warm(20), 4, 8, 21)] {
        let mut region = stood_in_for(target, slots, enis, pods);
        let singles = region.kinds().1;
        for pod in 0..8 {
            // Prefixes are tried again when something happens.
            region.run_pods(names(100 + pod..101 + pod));
            names(100 + pod..101 + pod).for_each(|name| region.end_pod(&name));
            region.pass(1_200);
        }
        let gives_a_prefix = |work: &Work| {
            let Work::ReleaseAddresses { allocations, .. } = work else {
                return false;
            };
            allocations.iter().any(|one| matches!(one, Allocation::Prefix(_)))
        };
        assert!(!region.calls.iter().any(gives_a_prefix), "{:?}", region.calls);
        assert!(
            region.kinds().0 == 1 && region.kinds().1 <= singles,
            "{:?}",
            region.kinds()
        );
    }
}
