//! Prefixes: growth, fall-back, switching them on and off, giving back.

use ipam_core::{CoreConfig, EniPhase, Event, Want, WarmTarget, Work};
use vpc_types::Allocation;

use crate::node::{Node, config, eni, prefix, warm};
use crate::region::{Region, names};
use crate::targets::prefixes;

fn wants(region: &Region) -> Vec<Want> {
    region
        .calls
        .iter()
        .filter_map(|work| match work {
            Work::AllocateAddresses { want, .. } | Work::CreateEni { want, .. } => Some(*want),
            _ => None,
        })
        .collect()
}

#[test]
fn the_whole_deficit_is_one_call_and_enis_come_with_their_prefixes() {
    let mut config = prefixes(warm(0));
    config.node.slots_per_eni = 3;
    let mut region = Region::of(Node::started(config, vec![eni(0, &[])]));
    let reqs = region.run_pods(names(0..70));
    assert!(reqs.iter().all(|req| region.node.granted(*req).is_some()));
    assert_eq!(wants(&region), [Want::Prefixes(3), Want::Prefixes(2)]);
}

#[test]
fn a_burst_waits_fifty_milliseconds_for_a_prefix() {
    let mut node = Node::started(prefixes(warm(0)), vec![eni(0, &[])]);
    node.add("a");
    node.pass(0.04);
    assert!(node.runs.is_empty());
    node.pass(0.02);
    assert!(matches!(
        node.only_run().1,
        Work::AllocateAddresses {
            want: Want::Prefixes(1),
            ..
        }
    ));
}

/// Pods come, and then the daemon starts again with another configuration.
fn switched(from: &CoreConfig, to: CoreConfig, fact: ipam_core::EniFact, pods: usize) -> Region {
    let mut before = Region::of(Node::started(from.clone(), vec![fact]));
    before.run_pods(names(0..pods));
    let files = before.node.files.clone();
    let node = before.node.restarted(to, &files, std::time::Duration::from_secs(3));
    Region::of(node)
}

#[test]
fn switched_on_single_addresses_serve_on_and_go_as_their_pods_go() {
    let all: Vec<u8> = (10..18).collect();
    let mut on = prefixes(WarmTarget::Prefixes(1));
    on.node.slots_per_eni = 14;
    let mut region = switched(&config(warm(0)), on, eni(0, &all), 6);
    region.pass(20);
    assert_eq!(region.kinds(), (1, 8), "a prefix beside them");
    let reqs = region.run_pods(names(20..22));
    for req in reqs {
        let address = region.node.granted(req).unwrap();
        assert!(address.octets()[2] >= 100, "new pods go to the prefix: {address}");
    }
    region.pass(700);
    let (_, singles) = region.kinds();
    assert_eq!(
        singles, 6,
        "the free ones are back at EC2, those with pods are not touched"
    );
    (0..6).for_each(|pod| assert_eq!(region.address_of(&format!("pod-{pod}")).octets()[2], 0));
    names(0..6).for_each(|name| region.end_pod(&name));
    region.pass(900);
    assert_eq!(region.kinds().1, 0);
}

#[test]
fn switched_off_prefixes_serve_on_and_go_as_their_pods_go() {
    let mut fact = eni(0, &[]);
    fact.allocations = [prefix(1, 0), prefix(1, 1), prefix(1, 2)].into();
    let mut region = switched(&prefixes(warm(0)), config(warm(3)), fact, 20);
    region.pass(20);
    assert_eq!(region.kinds(), (3, 3), "the target is met with single addresses");
    region.pass(700);
    assert_eq!(region.kinds(), (2, 3), "the prefix without a pod is back");
    names(0..20).for_each(|name| region.end_pod(&name));
    region.pass(900);
    assert_eq!(region.kinds(), (0, 3));
}

#[test]
fn switched_on_where_every_slot_is_taken_free_single_addresses_make_room() {
    let all: Vec<u8> = (10..19).collect();
    let mut on = prefixes(WarmTarget::Prefixes(1));
    on.node.max_enis = 1;
    let mut region = switched(&config(warm(0)), on, eni(0, &all), 5);
    region.pass(30);
    assert_eq!(region.kinds().0, 1, "{:?}", region.calls);
    assert!(region.kinds().1 >= 5);
}

#[test]
fn switching_moves_no_pod() {
    for (from, to) in [
        (config(warm(2)), prefixes(warm(2))),
        (prefixes(warm(2)), config(warm(2))),
        (config(WarmTarget::Enis(1)), prefixes(WarmTarget::Adaptive)),
    ] {
        let mut fact = eni(0, &[10, 11, 12]);
        fact.allocations.insert(prefix(1, 0));
        let mut region = switched(&from, to, fact, 7);
        let before: Vec<_> = names(0..7).map(|name| region.address_of(&name)).collect();
        region.pass(3_000);
        let after: Vec<_> = names(0..7).map(|name| region.address_of(&name)).collect();
        assert_eq!(before, after);
        let held = region.held();
        let holds = |address: std::net::Ipv4Addr| held.iter().any(|one| one.addresses().any(|other| other == address));
        assert!(after.iter().all(|address| holds(*address)));
    }
}

#[test]
fn a_prefix_goes_back_after_the_window_and_only_when_wholly_free() {
    let mut first = eni(0, &[]);
    first.allocations = [prefix(1, 0), prefix(1, 1)].into();
    let mut region = Region::of(Node::started(prefixes(warm(0)), vec![first]));
    region.run_pods(names(0..17));
    names(0..16).for_each(|name| region.end_pod(&name));
    region.pass(290);
    assert_eq!(region.kinds(), (2, 0), "the peak of the last five minutes is kept");
    region.pass(600);
    assert_eq!(region.kinds(), (1, 0));
    let left = region.held().into_iter().next().unwrap();
    assert!(left.addresses().any(|address| address == region.address_of("pod-16")));
}

#[test]
fn a_release_has_one_kind_of_allocation() {
    let mut first = eni(0, &[10, 11, 12, 13, 14]);
    first.allocations.extend([prefix(1, 0), prefix(1, 1)]);
    for target in [prefixes(warm(0)), config(warm(0))] {
        let mut region = Region::of(Node::started(target, vec![first.clone()]));
        region.pass(3_000);
        assert!(region.calls.len() >= 2);
        for work in &region.calls {
            let Work::ReleaseAddresses { allocations, .. } = work else {
                continue;
            };
            let singles = allocations
                .iter()
                .filter(|one| matches!(one, Allocation::Ip(_)))
                .count();
            assert!(singles == 0 || singles == allocations.len(), "{work:?}");
        }
        assert_eq!(region.kinds(), (0, 0), "everything that no target keeps is back");
    }
}

#[test]
fn an_empty_eni_goes_even_when_it_has_no_address_left() {
    let mut second = eni(1, &[]);
    second.allocations = [prefix(2, 0)].into();
    let mut first = eni(0, &[]);
    first.allocations = [prefix(1, 0)].into();
    let mut region = Region::of(Node::started(prefixes(WarmTarget::Prefixes(1)), vec![first, second]));
    region.pass(3_000);
    let enis: Vec<EniPhase> = region.node.core.pool().enis().map(|eni| eni.phase).collect();
    assert_eq!(enis, [EniPhase::Ready]);
    assert_eq!(region.kinds(), (1, 0));
}

#[test]
fn an_announcement_keeps_what_it_announced_for() {
    let mut first = eni(0, &[]);
    first.allocations = [prefix(1, 0), prefix(1, 1)].into();
    let mut region = Region::of(Node::started(prefixes(warm(0)), vec![first]));
    region.node.tell(Event::Demand { pods: 20 });
    region.pass(2_000);
    assert_eq!(region.kinds(), (2, 0));
    region.node.tell(Event::Demand { pods: 0 });
    region.pass(2_000);
    assert_eq!(region.kinds(), (0, 0));
}

#[test]
fn nodes_give_back_at_different_moments() {
    let moment = |nonce| {
        let mut config = prefixes(warm(0));
        config.nonce = nonce;
        let mut first = eni(0, &[]);
        first.allocations = [prefix(1, 0)].into();
        let mut region = Region::of(Node::started(config, vec![first]));
        region.pass(300);
        region.run_pods(["pod".to_owned()]);
        region.end_pod("pod");
        let start = region.node.now;
        while region.kinds() != (0, 0) {
            region.pass(1);
        }
        (region.node.now - start).as_secs()
    };
    let moments: Vec<u64> = (1..6).map(moment).collect();
    assert!(moments.iter().all(|at| (300..400).contains(at)), "{moments:?}");
    assert!(
        moments.windows(2).any(|pair| pair[0].abs_diff(pair[1]) > 5),
        "{moments:?}"
    );
}

#[test]
fn single_addresses_go_in_lots_of_four_at_least() {
    let all: Vec<u8> = (10..19).collect();
    let mut region = Region::of(Node::started(config(warm(3)), vec![eni(0, &all)]));
    region.run_pods(names(0..3));
    region.pass(3_000);
    assert_eq!(region.kinds(), (0, 9), "three more than the target is not worth a call");
    region.end_pod("pod-0");
    region.pass(3_000);
    assert_eq!(region.kinds(), (0, 5));
}
