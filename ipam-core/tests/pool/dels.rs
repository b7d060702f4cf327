use ipam_core::{LeaseState, Outcome};

use crate::node::{Disk, Node, config, eni, ip, key, warm};

#[test]
fn a_deleted_address_rests_before_it_is_granted_again() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10])]);
    node.add("a");
    node.wire("a", ip(10));
    let del = node.del("a");
    assert!(matches!(node.reply(del), Some(Outcome::Deleted(grant)) if grant.address == ip(10)));
    assert!(node.kernel.signs.is_empty(), "rules and route went before the answer");
    let early = node.add("b");
    node.pass(29.0);
    assert_eq!(node.granted(early), None);
    let late = node.add("c");
    node.pass(2.0);
    assert!(node.granted(early).or_else(|| node.granted(late)).is_some());
}

#[test]
fn the_rest_is_longer_than_the_plugins_del_deadline_even_without_cooldown() {
    let mut config = config(warm(0));
    config.timers.cooldown = std::time::Duration::ZERO;
    let mut node = Node::started(config, vec![eni(0, &[10])]);
    node.add("a");
    node.del("a");
    let next = node.add("b");
    node.pass(11.0);
    assert_eq!(node.granted(next), None);
    node.pass(2.0);
    assert_eq!(node.granted(next), Some(ip(10)));
}

#[test]
fn del_is_repeatable_and_an_unknown_key_is_no_error() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10])]);
    node.add("a");
    let (first, second, other) = (node.del("a"), node.del("a"), node.del("never"));
    assert!(matches!(node.reply(first), Some(Outcome::Deleted(_))));
    assert_eq!(
        (node.reply(second), node.reply(other)),
        (Some(&Outcome::UnknownPod), Some(&Outcome::UnknownPod))
    );
}

#[test]
fn without_a_working_disk_a_del_succeeds() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10])]);
    node.add("a");
    node.disk = Disk::Fails;
    let del = node.del("a");
    node.pass(2.0);
    assert!(
        matches!(node.reply(del), Some(Outcome::Deleted(_))),
        "{:?}",
        node.replies
    );
}

#[test]
fn a_draining_key_gets_a_fresh_address() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10, 11])]);
    node.add("a");
    // The disk is slow: the end of the lease cannot be told yet.
    node.disk = Disk::Fails;
    node.del("a");
    let again = node.add("a");
    node.disk = Disk::Works;
    node.pass(3.0);
    let req = node.granted(again).map_or_else(|| node.add("a"), |_| again);
    node.pass(1.0);
    assert_eq!(node.granted(req), Some(ip(11)));
}

#[test]
fn one_look_without_a_sandbox_ends_no_lease_and_two_do() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10])]);
    node.add("a");
    node.wire("a", ip(10));
    node.pass(120.0);
    node.kill("a", ip(10));
    node.pass(3.0);
    assert_eq!(node.core.pool().lease(&key("a")).unwrap().state, LeaseState::Wired);
    node.pass(12.0);
    assert!(node.core.pool().lease(&key("a")).is_none());
    assert!(node.kernel.signs.is_empty(), "its rules went with it");
}

#[test]
fn a_plugin_that_dies_before_it_wires_leaves_no_lease_for_ever() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10])]);
    node.add("a");
    node.pass(50.0);
    assert!(
        node.core.pool().lease(&key("a")).is_some(),
        "the plugin may still be at work"
    );
    node.pass(40.0);
    assert!(node.core.pool().lease(&key("a")).is_none());
}

#[test]
fn a_late_del_of_a_former_sandbox_leaves_the_recreated_pod_alone() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10, 11])]);
    node.add("old");
    let new = node.add("new");
    let address = node.granted(new).unwrap();
    node.wire("new", address);
    node.del("old");
    assert_eq!(node.core.pool().lease(&key("new")).unwrap().address, address);
    assert!(node.kernel.signs.contains_key(&address));
}
