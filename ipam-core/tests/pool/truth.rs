//! What EC2 shows wins, but never against a running pod.

use std::time::Duration;

use ipam_core::{AttachmentState, EniPhase, EniRole, LeaseState, StoredFiles, Work};
use vpc_types::{Allocation, DeviceNumber};

use crate::node::{Ec2, Node, config, eni, ip, key, prefix, warm};

const PAUSE: Duration = Duration::from_secs(2);

/// One wired pod on the prefix 10.0.1.0/28 of the primary ENI.
fn on_a_prefix() -> (Node, std::net::Ipv4Addr) {
    let mut primary = eni(0, &[]);
    primary.allocations = [prefix(1, 0)].into();
    let mut node = Node::started(config(warm(0)), vec![primary]);
    let req = node.add("a");
    let address = node.granted(req).unwrap();
    node.wire("a", address);
    (node, address)
}

#[test]
fn thread_3824_a_prefix_that_is_not_shown_takes_no_address_from_its_pod() {
    let (mut node, address) = on_a_prefix();
    node.enis[0].allocations.clear();
    node.look();
    assert_eq!(node.lease("a"), Some((LeaseState::Orphan, address)));
    let supply = node.core.pool().supply();
    assert_eq!((supply.free, supply.withheld), (0, 16), "no address of it is granted");
    node.pass(3_600.0);
    assert_eq!(node.lease("a"), Some((LeaseState::Orphan, address)));
    assert_eq!(node.core.pool().supply().total, 0, "two views agree");
    assert!(
        !node
            .runs
            .iter()
            .any(|(_, work)| matches!(work, Work::ReleaseAddresses { .. }))
    );
    let looks = node.described;
    node.pass(3_600.0);
    assert_eq!(node.described, looks, "what is settled is not looked at again");
    node.enis[0].allocations = [prefix(1, 0)].into();
    node.look();
    assert!(matches!(node.lease("a"), Some((LeaseState::Granted | LeaseState::Wired, at)) if at == address));
    assert_eq!(node.core.pool().supply().total, 16);
}

#[test]
fn thread_3824_a_prefix_that_is_missing_once_is_whole_again() {
    let (mut node, address) = on_a_prefix();
    let whole = std::mem::take(&mut node.enis[0].allocations);
    node.look();
    node.enis[0].allocations = whole;
    node.pass(40.0);
    assert!(matches!(node.lease("a"), Some((LeaseState::Granted | LeaseState::Wired, at)) if at == address));
    let supply = node.core.pool().supply();
    assert_eq!((supply.total, supply.assigned, supply.withheld), (16, 1, 0));
}

#[test]
fn thread_3876_leases_outlive_a_start_at_which_ec2_shows_nothing_of_them() {
    let (mut node, address) = on_a_prefix();
    let files = node.files.clone();
    node.enis[0].allocations.clear();
    let mut node = node.restarted(config(warm(0)), &files, PAUSE);
    node.pass(120.0);
    assert_eq!(node.lease("a"), Some((LeaseState::Orphan, address)));
    let text = String::from_utf8(node.files.ipam_json.clone().unwrap()).unwrap();
    assert!(text.contains(&address.to_string()), "the file still has it: {text}");
}

#[test]
fn thread_3019_sets_are_compared_not_their_sizes() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10, 11])]);
    node.add("a");
    node.wire("a", ip(10));
    node.enis[0] = eni(0, &[10, 12]);
    node.look();
    let kind = |node: &Node, last| {
        let primary = node.core.pool().enis().next().unwrap();
        primary.address(ip(last)).map(|state| state.kind().as_str())
    };
    assert_eq!((kind(&node, 11), kind(&node, 12)), (Some("missing"), Some("free")));
    node.pass(40.0);
    assert_eq!((kind(&node, 11), kind(&node, 12)), (None, Some("free")));
    assert!(matches!(node.lease("a"), Some((LeaseState::Wired, _))));
}

#[test]
fn thread_3887_an_address_that_only_an_old_file_names_is_not_granted() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10, 11])]);
    node.add("a");
    node.wire("a", ip(10));
    // The reference ran in between: its file has no stamp of ours.
    let reference = String::from_utf8(node.files.ipam_json.clone().unwrap()).unwrap();
    let files = StoredFiles {
        ipam_json: Some(reference.replace("stamp", "other").into_bytes()),
        side_file: node.files.side_file.clone(),
    };
    node.enis[0] = eni(0, &[10]);
    node.ec2 = Ec2::Unavailable;
    let mut node = node.restarted(config(warm(0)), &files, PAUSE);
    node.pass(120.0);
    assert!(matches!(
        node.lease("a"),
        Some((LeaseState::Granted | LeaseState::Wired, _))
    ));
    let req = node.add("b");
    node.pass(29.0);
    assert_eq!(node.reply(req), None, "EC2 may answer yet");
    node.pass(2.0);
    let refused = format!("{:?}", node.reply(req));
    assert!(refused.contains("Ec2Unavailable"), "{refused}");
    node.ec2 = Ec2::Answers;
    node.pass(300.0);
    assert_eq!(node.core.pool().supply().total, 1, "EC2 never showed the other one");
}

#[test]
fn addresses_of_an_old_file_are_granted_once_ec2_has_shown_them() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10, 11])]);
    node.add("a");
    node.wire("a", ip(10));
    let files = StoredFiles {
        ipam_json: node.files.ipam_json.clone().map(|mut bytes| {
            bytes.push(b' ');
            bytes
        }),
        side_file: node.files.side_file.clone(),
    };
    let mut node = node.restarted(config(warm(0)), &files, PAUSE);
    node.pass(10.0);
    let req = node.add("b");
    assert_eq!(node.granted(req), None, "it rests");
    node.pass(25.0);
    assert_eq!(node.granted(req), Some(ip(11)));
}

#[test]
fn thread_1967_a_view_from_before_the_last_change_takes_nothing_away() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[])]);
    node.add("a");
    node.pass(1.0);
    let (op, _) = node.only_run();
    let stale = node.enis.clone();
    node.allocate(op, &[10]);
    let fresh = std::mem::replace(&mut node.enis, stale);
    let files = node.files.clone();
    let mut node = node.restarted(config(warm(0)), &files, Duration::from_millis(100));
    assert!(matches!(node.lease("a"), Some((LeaseState::Granted, _))));
    assert_eq!(node.core.pool().supply().assigned, 1);
    node.enis = fresh;
    node.wire("a", ip(10));
    node.pass(60.0);
    assert_eq!(node.core.pool().supply().assigned, 1);
    assert!(node.runs.is_empty(), "{:?}", node.runs);
}

#[test]
fn an_eni_that_somebody_detaches_gives_no_address_and_loses_no_lease() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[]), eni(1, &[20, 21])]);
    let req = node.add("a");
    let address = node.granted(req).unwrap();
    node.wire("a", address);
    node.enis[1].attachment.as_mut().unwrap().state = AttachmentState::Detaching;
    node.look();
    assert_eq!(node.core.pool().supply().free, 0);
    node.enis.remove(1);
    node.look();
    node.pass(120.0);
    assert_eq!(node.core.pool().enis().count(), 1, "views agree that it is gone");
    assert_eq!(node.lease("a"), Some((LeaseState::Orphan, address)));
}

#[test]
fn an_eni_that_somebody_attaches_is_used() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[])]);
    node.enis.push(eni(1, &[20]));
    node.kernel.macs.insert(eni(1, &[]).mac);
    node.look();
    node.pass(60.0);
    let req = node.add("a");
    assert_eq!(node.granted(req), Some(ip(20)));
}

#[test]
fn an_eni_that_becomes_unmanaged_keeps_its_pods_and_gives_no_address() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[]), eni(1, &[20, 21])]);
    let req = node.add("a");
    let address = node.granted(req).unwrap();
    node.wire("a", address);
    node.enis[1].role = EniRole::Unmanaged;
    node.look();
    assert_eq!(node.lease("a"), Some((LeaseState::Wired, address)));
    let supply = node.core.pool().supply();
    assert_eq!((supply.total, supply.free), (0, 0));
    node.enis[1].role = EniRole::Managed;
    node.look();
    assert_eq!(node.core.pool().supply().free, 1, "and back");
}

#[test]
fn an_eni_that_moves_to_another_slot_is_set_up_again() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[]), eni(1, &[20])]);
    node.enis[1].attachment.as_mut().unwrap().device = DeviceNumber(4);
    node.look();
    let moved = node
        .core
        .pool()
        .enis()
        .find(|eni| eni.device == DeviceNumber(4))
        .unwrap();
    assert_eq!(moved.phase, EniPhase::Ready);
    let req = node.add("a");
    let Some(ipam_core::Outcome::Granted(grant)) = node.reply(req) else {
        panic!("{:?}", node.replies)
    };
    assert_eq!(grant.device, DeviceNumber(4));
}

#[test]
fn an_address_that_somebody_moves_to_another_eni_takes_its_lease_along() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10]), eni(1, &[20])]);
    node.add("a");
    node.add("b");
    node.enis[0].allocations.clear();
    node.enis[1].allocations.insert(Allocation::Ip(ip(10)));
    node.look();
    let states: Vec<_> = node.core.pool().leases().map(|lease| lease.state).collect();
    assert_eq!(states, [LeaseState::Granted, LeaseState::Granted]);
    assert_eq!(node.core.pool().supply().assigned, 2);
}

#[test]
fn threads_972_1127_1188_1091_a_rest_and_a_draining_pod_outlive_a_restart() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10, 11])]);
    for (container, last) in [("a", 10), ("b", 11)] {
        node.add(container);
        node.wire(container, ip(last));
    }
    node.del("a");
    node.pass(1.0);
    let files = node.files.clone();
    let mut node = node.restarted(config(warm(0)), &files, PAUSE);
    let req = node.add("c");
    node.pass(25.0);
    assert_eq!(node.granted(req), None, "one has a pod, the other rests");
    node.pass(4.0);
    assert_eq!(node.granted(req), Some(ip(10)));
}

#[test]
fn a_prefix_that_others_took_away_may_come_back_as_single_addresses() {
    let mut config = config(warm(1));
    config.mode = ipam_core::AllocationMode::Prefixes;
    let mut fact = eni(0, &[]);
    fact.allocations = [prefix(0, 0)].into();
    let mut node = Node::started(config, vec![fact]);
    let req = node.add("a");
    let address = node.granted(req).unwrap();
    node.wire("a", address);
    // The prefix is gone, and EC2 gives one of its addresses out anew, before the next look.
    node.enis[0].allocations = [Allocation::Ip(ip(5))].into();
    node.tell(ipam_core::Event::LinkGone { mac: eni(0, &[]).mac });
    node.pass(60.0);
    let states: Vec<_> = node.core.pool().enis().flat_map(ipam_core::Eni::allocations).collect();
    assert_eq!(states, [Allocation::Ip(ip(5))]);
    assert_eq!(node.core.pool().lease(&key("a")).unwrap().state, LeaseState::Orphan);
}

#[test]
fn an_eni_whose_device_is_gone_gives_no_address_until_it_is_back() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[]), eni(1, &[20, 21])]);
    let mac = eni(1, &[]).mac;
    node.kernel.macs.remove(&mac);
    node.tell(ipam_core::Event::LinkGone { mac });
    let req = node.add("a");
    assert_eq!(node.granted(req), None, "its routes went with the device");
    node.kernel.macs.insert(mac);
    node.tell(ipam_core::Event::LinkAppeared { mac });
    assert_eq!(node.granted(req), Some(ip(20)));
}

#[test]
fn a_look_that_came_too_soon_after_a_change_of_ours_is_repeated() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10, 11])]);
    node.pass(10.0);
    node.enis[0] = eni(0, &[11]);
    node.look();
    let shown = |node: &Node| node.core.pool().supply().total;
    assert_eq!(shown(&node), 2, "one view is not enough");
    let looks = node.looks.len();
    for container in ["a", "b"] {
        node.add(container);
    }
    node.pass(1.0);
    let (op, _) = node.only_run();
    // The answer comes just before the second look, which may therefore show what was before it.
    node.pass(26.0);
    assert_eq!(node.looks.len(), looks, "the second look is yet to come");
    node.allocate(op, &[12]);
    node.pass(60.0);
    assert_eq!(
        shown(&node),
        2,
        "the address that is gone is forgotten: {:?}",
        node.looks
    );
}
