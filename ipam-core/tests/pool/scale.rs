use std::time::Duration;

use ipam_core::AllocationMode;
use vpc_types::Allocation;

use crate::node::{Node, config, eni, prefix, warm};

/// 250 pods on five ENIs come, are wired and go. The bound is far above what linear work takes and far below quadratic.
#[test]
fn two_hundred_and_fifty_pods_cost_little_each() {
    let mut config = config(warm(0));
    (config.node.max_enis, config.node.slots_per_eni, config.max_waiting) = (5, 50, 1_000);
    let enis = (0..5_u16).map(|number| {
        let mut fact = eni(number, &[]);
        let low = u8::try_from(number).unwrap();
        fact.primary_address = [10, 0, 99, low].into();
        fact.allocations = (0..50).map(|last| Allocation::Ip([10, 0, low, last].into())).collect();
        fact
    });
    let node = Node::started(config, enis.collect());
    come_and_go(node, Duration::from_millis(20));
}

/// The same with fifty prefixes: sums go over 800 addresses. In release the bound is that of the hot path.
#[test]
fn pods_on_eight_hundred_addresses_cost_little_each() {
    let mut config = config(warm(0));
    config.mode = AllocationMode::Prefixes;
    (config.node.max_enis, config.node.slots_per_eni, config.max_waiting) = (5, 29, 1_000);
    let enis = (0..2_u16).map(|number| {
        let mut fact = eni(number, &[]);
        let low = u8::try_from(number).unwrap();
        fact.primary_address = [10, 0, 99, low].into();
        fact.allocations = (0..25).map(|block| prefix(low * 4 + block / 16, block % 16)).collect();
        fact
    });
    let node = Node::started(config, enis.collect());
    let bound = if cfg!(debug_assertions) {
        Duration::from_millis(20)
    } else {
        Duration::from_micros(60)
    };
    come_and_go(node, bound);
}

fn come_and_go(mut node: Node, bound: Duration) {
    let names: Vec<String> = (0..250).map(|number| format!("pod-{number}")).collect();
    let reqs: Vec<_> = names.iter().map(|name| node.add(name)).collect();
    assert!(reqs.iter().all(|req| node.granted(*req).is_some()));
    // The median: other programs on the machine make some events look slow.
    node.costs.sort_unstable();
    let cost = node.costs[node.costs.len() / 2];
    assert!(cost < bound, "{cost:?} for one of {} events", node.events);
    names.iter().for_each(|name| {
        node.del(name);
    });
    assert_eq!(node.core.pool().leases().count(), 0);
}
