//! IMDS: a hint where EC2 may be asked, and the only view where it may not.

use std::collections::BTreeSet;
use std::time::Duration;

use ipam_core::{BootTime, Core, Ec2View, Event, ImdsEni, ImdsView, LeaseState, Provisioning, Scope, ViewSource, Work};
use vpc_types::Allocation;

use crate::node::{Node, config, eni, ip, prefix, times, warm};

/// IMDS shows these addresses on the primary ENI, every half minute for so long.
fn imds_says(node: &mut Node, addresses: &[u8], secs: u32) {
    for _ in 0..secs / 30 {
        node.pass(30.0);
        let allocations = addresses.iter().map(|last| Allocation::Ip(ip(*last))).collect();
        let enis = vec![ImdsEni {
            mac: eni(0, &[]).mac,
            allocations,
        }];
        node.tell(Event::ImdsViewed(ImdsView {
            started_at: BootTime(node.now),
            groups: BTreeSet::new(),
            enis,
        }));
    }
}

#[test]
fn while_imds_agrees_ec2_is_not_asked() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10, 11])]);
    node.pass(60.0);
    let before = node.described;
    imds_says(&mut node, &[10, 11], 24 * 3_600);
    assert_eq!(node.described, before);
}

#[test]
fn an_address_that_somebody_took_away_is_noticed_by_imds_and_confirmed_by_ec2() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10, 11])]);
    node.pass(60.0);
    node.enis[0] = eni(0, &[10]);
    imds_says(&mut node, &[10], 60);
    assert_eq!(
        node.core.pool().supply().withheld,
        1,
        "doubted after two hints and one view"
    );
    imds_says(&mut node, &[10], 60);
    assert_eq!(node.core.pool().supply().total, 1);
}

#[test]
fn threads_3824_3877_a_short_imds_takes_nothing_away_and_costs_ever_fewer_calls() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10, 11])]);
    node.add("a");
    node.wire("a", ip(10));
    node.pass(60.0);
    let before = node.described;
    imds_says(&mut node, &[11], 24 * 3_600);
    assert_eq!(node.lease("a"), Some((LeaseState::Wired, ip(10))));
    assert_eq!(node.core.pool().supply().total, 2);
    let asked = node.described - before;
    assert!((2..=3).contains(&asked), "{asked} calls in a day");
    let before = node.described;
    imds_says(&mut node, &[11], 2 * 24 * 3_600);
    assert!(
        node.described - before <= 2,
        "{} calls in two days",
        node.described - before
    );
}

#[test]
fn a_fickle_imds_costs_no_more_than_a_call_an_hour() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10, 11])]);
    imds_says(&mut node, &[10, 11], 3_600);
    let before = node.described;
    for _ in 0..24 * 10 {
        imds_says(&mut node, &[10], 180);
        imds_says(&mut node, &[10, 11], 180);
    }
    let asked = node.described - before;
    assert!(asked <= 32, "{asked} calls in a day");
}

#[test]
fn thread_3887_an_address_that_only_imds_shows_is_not_granted() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10])]);
    node.pass(60.0);
    imds_says(&mut node, &[10, 99], 600);
    assert_eq!(node.core.pool().supply().total, 1);
}

#[test]
fn an_imds_view_without_the_primary_eni_is_no_view() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10])]);
    node.pass(60.0);
    let before = node.described;
    for _ in 0..10 {
        node.pass(30.0);
        node.tell(Event::ImdsViewed(ImdsView {
            started_at: BootTime(node.now),
            groups: BTreeSet::new(),
            enis: Vec::new(),
        }));
    }
    assert_eq!(node.described, before);
}

/// A node that may not ask EC2; the test answers its looks.
fn imds_only() -> Node {
    let mut config = config(warm(0));
    config.provisioning = Provisioning::ImdsOnly;
    let start = Duration::from_secs(1_000);
    let core = Core::new(config, times(start));
    let mut node = Node::with(core, vec![eni(0, &[10, 11])], start);
    node.source = ViewSource::Imds;
    node.tell(Event::Tick);
    node
}

#[test]
fn where_imds_is_the_only_view_addresses_count_after_two_equal_reads() {
    let mut node = imds_only();
    let req = node.add("a");
    assert_eq!(node.granted(req), None, "one read is nothing");
    node.pass(6.0);
    assert_eq!(node.granted(req), Some(ip(10)));
    let looks = node.described;
    node.pass(3_600.0);
    assert_eq!(node.described, looks, "IMDS is not read for ever either");
}

#[test]
fn where_imds_is_the_only_view_three_reads_drop_what_has_no_pod_and_nothing_else() {
    let mut node = imds_only();
    node.enis[0].allocations.insert(prefix(1, 0));
    node.pass(20.0);
    node.look();
    node.add("a");
    node.wire("a", ip(10));
    node.enis[0] = eni(0, &[]);
    node.look();
    node.pass(20.0);
    let supply = node.core.pool().supply();
    assert_eq!(
        (supply.free, supply.assigned),
        (0, 1),
        "no grants from what is not shown"
    );
    assert!(supply.total > 1, "and not dropped yet: {supply:?}");
    node.pass(120.0);
    let supply = node.core.pool().supply();
    assert_eq!((supply.total, supply.assigned), (1, 1));
    assert_eq!(node.lease("a"), Some((LeaseState::Wired, ip(10))));
}

#[test]
fn thread_3824_a_short_read_where_imds_is_the_only_view_is_forgotten() {
    let mut node = imds_only();
    node.pass(20.0);
    let view = |node: &Node, addresses: &[u8]| {
        Event::Ec2Viewed(Ec2View {
            started_at: BootTime(node.now),
            scope: Scope::Attached,
            source: ViewSource::Imds,
            enis: vec![eni(0, addresses)],
        })
    };
    let short = view(&node, &[]);
    node.tell(short);
    node.pass(300.0);
    assert_eq!(node.core.pool().supply().free, 2);
}

/// Where the pool has an address, and whether it is in a prefix there.
fn places(node: &Node, last: u8) -> Vec<(u16, bool)> {
    let all = node.core.pool().enis().flat_map(|eni| {
        let here = eni
            .allocations()
            .filter(|one| one.addresses().any(|address| address == ip(last)));
        here.map(|one| (eni.device.0, matches!(one, Allocation::Prefix(_))))
    });
    all.collect()
}

#[test]
fn where_imds_is_the_only_view_an_address_on_one_eni_ends_the_prefix_around_it_on_another() {
    let mut node = imds_only();
    node.enis = vec![eni(0, &[]), eni(1, &[20])];
    node.enis[0].allocations.insert(prefix(0, 0));
    node.look();
    node.pass(60.0);
    assert_eq!(places(&node, 5), [(0, true)]);
    // By hand the prefix is taken away and one of its addresses given to the other ENI, before the next read.
    node.enis = vec![eni(0, &[]), eni(1, &[5, 20])];
    node.look();
    node.pass(60.0);
    assert_eq!(places(&node, 5), [(1, false)]);
    assert_eq!(places(&node, 6), [], "the rest of the prefix went with it");
    // And back.
    node.enis = vec![eni(0, &[]), eni(1, &[20])];
    node.enis[0].allocations.insert(prefix(0, 0));
    node.look();
    node.pass(60.0);
    assert_eq!(places(&node, 5), [(0, true)]);
}

#[test]
fn where_imds_is_the_only_view_an_address_that_moves_to_a_new_eni_takes_its_lease_along() {
    let mut node = imds_only();
    node.pass(6.0);
    node.add("a");
    node.wire("a", ip(10));
    node.enis = vec![eni(0, &[11]), eni(1, &[10])];
    node.look();
    node.pass(60.0);
    assert_eq!(places(&node, 10), [(1, false)]);
    assert!(matches!(
        node.lease("a"),
        Some((LeaseState::Granted | LeaseState::Wired, _))
    ));
}

#[test]
fn a_view_that_shows_an_address_twice_puts_it_into_the_pool_once() {
    for source in [ViewSource::Ec2, ViewSource::Imds] {
        let mut node = imds_only();
        if source == ViewSource::Ec2 {
            node = Node::started(config(warm(0)), vec![eni(0, &[10, 11])]);
        }
        node.pass(60.0);
        node.enis = vec![eni(0, &[10, 11]), eni(1, &[10, 20]), eni(2, &[21])];
        node.enis[2].allocations.extend([prefix(0, 1), prefix(0, 0)]);
        node.look();
        node.pass(120.0);
        for last in [10, 11, 20, 21] {
            assert_eq!(places(&node, last).len(), 1, "{last} {source:?}");
        }
    }
}

#[test]
fn an_open_allocation_of_a_former_run_does_not_count_twice_where_imds_is_the_only_view() {
    let mut node = Node::started(config(warm(6)), vec![eni(0, &[10, 11])]);
    let (_, work) = node.only_run();
    assert!(matches!(work, Work::AllocateAddresses { .. }), "{work:?}");
    // It took effect, but its answer is lost, and the next run may not ask EC2.
    node.enis[0] = eni(0, &[10, 11, 12, 13, 14, 15, 16, 17, 18]);
    let mut config = config(warm(6));
    config.provisioning = Provisioning::ImdsOnly;
    let files = node.files.clone();
    node.source = ViewSource::Imds;
    let mut node = node.restarted(config, &files, Duration::from_secs(2));
    node.look();
    node.pass(300.0);
    assert_eq!(node.core.pool().supply().total, 9);
}

#[test]
fn where_imds_is_the_only_view_a_resting_address_that_it_does_not_show_never_comes_free() {
    let mut node = imds_only();
    node.pass(10.0);
    let req = node.add("a");
    assert_eq!(node.granted(req), Some(ip(10)));
    node.del("a");
    node.enis[0] = eni(0, &[11]);
    node.look();
    node.pass(8.0);
    let supply = node.core.pool().supply();
    assert_eq!((supply.free, supply.cooling), (1, 0), "{supply:?}");
    node.add("b");
    let req = node.add("c");
    node.pass(60.0);
    assert_eq!(node.granted(req), None, "10.0.0.10 is not ours any more");
}
