//! Packing: grants come from what is fullest, so that the rest drains and goes back.

use crate::node::{Node, config, eni, prefix, warm};
use crate::region::{Region, names};
use crate::targets::prefixes;

#[test]
fn thread_2460_after_a_scale_down_new_pods_gather_and_a_prefix_goes_back() {
    let mut first = eni(0, &[]);
    first.allocations = [prefix(1, 0), prefix(1, 1)].into();
    let mut region = Region::of(Node::started(prefixes(warm(0)), vec![first]));
    region.run_pods(names(0..17));
    // Ten pods are left, nine on the first prefix and one on the second.
    names(9..16).for_each(|name| region.end_pod(&name));
    region.pass(60);
    region.run_pods(names(20..24));
    region.end_pod("pod-16");
    for name in names(20..24) {
        assert_eq!(region.address_of(&name).octets()[3] / 16, 0, "the fullest prefix first");
    }
    region.pass(900);
    assert_eq!(region.kinds(), (1, 0));
}

#[test]
fn the_fullest_prefix_comes_before_the_fullest_eni() {
    let mut first = eni(0, &[]);
    first.allocations = [prefix(1, 0), prefix(1, 1), prefix(1, 2)].into();
    let mut second = eni(1, &[]);
    second.allocations = [prefix(2, 0)].into();
    let mut node = Node::started(prefixes(warm(0)), vec![first, second]);
    let fill = |node: &mut Node, name: &str| {
        let req = node.add(name);
        node.granted(req).unwrap().octets()
    };
    // One ENI fills up first, prefix by prefix.
    let blocks: Vec<(u8, u8)> = names(0..64)
        .map(|name| fill(&mut node, &name))
        .map(|octets| (octets[2], octets[3] / 16))
        .collect();
    let mut order = blocks.clone();
    order.dedup();
    assert_eq!(order.len(), 4, "no prefix is begun before another is full: {order:?}");
    assert_eq!(order[3], (2, 0), "and no ENI");
}

#[test]
fn single_addresses_come_from_the_fullest_eni_the_longest_free_first() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10, 11]), eni(1, &[20, 21, 22])]);
    node.add("a");
    node.del("a");
    node.pass(60.0);
    let (first, second) = (node.add("b"), node.add("c"));
    assert_eq!(node.granted(first).unwrap().octets()[3], 11, "10 was used a minute ago");
    assert_eq!(node.granted(second).unwrap().octets()[3], 10);
}
