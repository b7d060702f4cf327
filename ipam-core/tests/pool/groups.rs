//! ENIs follow the security groups of the primary one.

use std::collections::BTreeSet;

use ipam_core::{BootTime, Event, ImdsEni, ImdsView, OpOutcome, Placement, Refusal, Scope, Work};
use vpc_types::SecurityGroupId;

use crate::node::{Node, config, eni, warm};

fn groups(names: &[&str]) -> BTreeSet<SecurityGroupId> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// A node whose primary ENI has `primary` and whose second one has `second`, with what EC2 is asked after it has looked.
fn with(primary: &[&str], second: &[&str], role: ipam_core::EniRole) -> Node {
    let (mut first, mut other) = (eni(0, &[10]), eni(1, &[20]));
    (first.groups, other.groups, other.role) = (groups(primary), groups(second), role);
    let mut node = Node::started(config(warm(0)), vec![first, other]);
    node.pass(2.0);
    node
}

fn imds(node: &mut Node, shown: &[&str]) {
    let enis = node.enis.iter().map(|eni| ImdsEni {
        mac: eni.mac,
        allocations: eni.allocations.clone(),
    });
    let view = ImdsView {
        started_at: BootTime(node.now),
        groups: groups(shown),
        enis: enis.collect(),
    };
    node.tell(Event::ImdsViewed(view));
}

#[test]
fn only_an_eni_that_differs_is_touched() {
    use ipam_core::EniRole::{Efa, Managed, Trunk, Unmanaged};
    for (second, role, calls) in [
        (["sg-a"], Managed, 0),
        (["sg-b"], Managed, 1),
        (["sg-b"], Efa, 1),
        (["sg-b"], Trunk, 0),
        (["sg-b"], Unmanaged, 0),
    ] {
        let node = with(&["sg-a"], &second, role);
        assert_eq!(node.runs.len(), calls, "{second:?} {role:?}: {:?}", node.runs);
    }
}

#[test]
fn a_failed_change_of_groups_is_tried_again() {
    let mut node = with(&["sg-a"], &["sg-b"], ipam_core::EniRole::Managed);
    let (op, work) = node.only_run();
    node.outcome(op, OpOutcome::Refused(Refusal::Unavailable));
    node.pass(30.0);
    let (op, again) = node.only_run();
    assert_eq!(again, work);
    assert!(matches!(&again, Work::SetGroups { groups: set, .. } if *set == groups(&["sg-a"])));
    node.finish(op, ipam_core::Applied::Done);
    node.enis[1].groups = groups(&["sg-a"]);
    node.pass(200.0);
    assert!(node.runs.is_empty(), "{:?}", node.runs);
}

#[test]
fn what_imds_shows_twice_makes_the_daemon_ask_ec2_once() {
    let mut node = with(&["sg-a"], &["sg-a"], ipam_core::EniRole::Managed);
    node.pass(100.0);
    let looks = |node: &Node| node.looks.iter().filter(|(_, scope)| *scope == Scope::Attached).count();
    let before = looks(&node);
    imds(&mut node, &["sg-b"]);
    assert_eq!(looks(&node), before, "once is no sign");
    for _ in 0..5 {
        node.pass(30.0);
        imds(&mut node, &["sg-b"]);
    }
    node.pass(30.0);
    assert_eq!(looks(&node), before + 1);
    assert!(node.runs.is_empty(), "EC2 says otherwise: {:?}", node.runs);
    imds(&mut node, &["sg-a"]);
    node.enis[0].groups = groups(&["sg-b"]);
    imds(&mut node, &["sg-b"]);
    node.pass(30.0);
    imds(&mut node, &["sg-b"]);
    node.pass(1.0);
    let (_, work) = node.only_run();
    assert!(matches!(work, Work::SetGroups { groups: set, .. } if set == groups(&["sg-b"])));
}

#[test]
fn with_custom_networking_enis_keep_their_groups() {
    let (mut first, mut other) = (eni(0, &[10]), eni(1, &[20]));
    (first.groups, other.groups) = (groups(&["sg-a"]), groups(&["sg-c"]));
    let start = std::time::Duration::from_secs(1_000);
    let core = ipam_core::Core::new(config(warm(0)), crate::node::times(start));
    let mut node = Node::with(core, vec![first, other], start);
    node.tell(Event::PlacementChanged(Placement::Given {
        subnet: "subnet-c".parse().unwrap(),
        groups: groups(&["sg-c"]),
    }));
    node.pass(60.0);
    assert!(node.runs.is_empty(), "{:?}", node.runs);
}
