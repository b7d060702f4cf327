//! Leases whose DEL never comes, and dumps of the kernel that cannot be trusted.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipam_core::{BootTime, Event, LeaseState, ReqId, Signs};
use vpc_types::{PodName, VethPrefix, host_veth_name};

use crate::node::{Node, config, eni, ip, key, warm};

/// Six wired pods on 10 to 15.
fn six() -> Node {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10, 11, 12, 13, 14, 15, 16, 17])]);
    for last in 10..16 {
        node.add(&format!("pod-{last}"));
        node.wire(&format!("pod-{last}"), ip(last));
    }
    node.pass(120.0);
    node
}

#[test]
fn thread_3109_a_lease_whose_del_was_lost_ends() {
    let mut node = six();
    node.kill("pod-12", ip(12));
    node.pass(20.0);
    assert_eq!(node.core.pool().leases().count(), 5);
    assert!(!node.kernel.signs.contains_key(&ip(12)), "its rules went with it");
}

#[test]
fn thread_containerd_12923_a_runtime_that_never_sends_del_leaks_nothing() {
    let mut node = six();
    // The runtime dies between ADD and its own record of it: no veth, no DEL, ever.
    node.add("lost");
    node.pass(120.0);
    assert!(node.lease("lost").is_none());
}

/// A request for the pod `name` in the sandbox `container`.
fn add_of(node: &mut Node, name: &str, container: &str, req: u64) -> Option<Ipv4Addr> {
    let deadline = BootTime(node.now + Duration::from_secs(30));
    node.tell(Event::AddRequested {
        req: ReqId(req),
        key: key(container),
        pod: PodName::new("default", name),
        deadline,
    });
    node.granted(ReqId(req))
}

#[test]
fn thread_azure_4497_the_former_sandbox_of_a_recreated_pod_goes_without_delay() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10, 11])]);
    let former = add_of(&mut node, "web-0", "old", 900).unwrap();
    node.wire("old", former);
    node.pass(120.0);
    // Nobody notices that the old sandbox has died, until the pod comes again.
    node.kernel.veths.clear();
    node.kernel.signs.clear();
    let new = add_of(&mut node, "web-0", "new", 901).unwrap();
    assert_ne!(new, former);
    node.wire("new", new);
    node.pass(3.0);
    assert!(node.lease("old").is_none(), "{:?}", node.lease("old"));
    assert_eq!(node.lease("new").unwrap().1, new);
}

#[test]
fn thread_azure_4497_a_former_sandbox_that_is_still_there_keeps_its_address() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10, 11])]);
    let former = add_of(&mut node, "web-0", "old", 900).unwrap();
    node.wire("old", former);
    add_of(&mut node, "web-0", "new", 901).unwrap();
    node.pass(300.0);
    assert_eq!(node.lease("old"), Some((LeaseState::Wired, former)));
}

#[test]
fn a_veth_without_alias_belongs_to_the_sandbox_of_the_pod_that_its_route_names() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10, 11])]);
    let pod = PodName::new("default", "web-0");
    let veth = host_veth_name(&VethPrefix::default(), pod.as_ref(), &key("old"));
    let former = add_of(&mut node, "web-0", "old", 900).unwrap();
    node.pass(1.0);
    let new = add_of(&mut node, "web-0", "new", 901).unwrap();
    node.kernel.veths.insert(veth.clone(), None);
    let signs = Signs {
        route_device: Some(veth),
        rules: 2,
    };
    node.kernel.signs.insert(new, signs);
    node.tell(Event::KernelChanged);
    node.pass(120.0);
    assert!(node.lease("old").is_none(), "{former} is free");
    assert_eq!(node.lease("new"), Some((LeaseState::Wired, new)));
}

#[test]
fn a_dump_that_lost_most_pods_ends_no_lease_and_frees_no_address() {
    let mut node = six();
    node.wire("stranger", ip(16));
    let whole = node.kernel.clone();
    node.kernel.veths.clear();
    node.kernel.signs.clear();
    node.tell(Event::KernelChanged);
    node.pass(300.0);
    assert_eq!(node.core.pool().leases().count(), 6);
    let (first, second) = (node.add("a"), node.add("b"));
    let granted = [node.granted(first), node.granted(second)];
    assert!(!granted.contains(&Some(ip(16))), "a pod lives there: {granted:?}");
    node.kernel.signs = whole.signs;
    node.kernel.veths = whole.veths;
    node.pass(900.0);
    assert_eq!(
        node.core
            .pool()
            .leases()
            .filter(|l| l.state == LeaseState::Wired)
            .count(),
        6
    );
}

#[test]
fn pods_that_stay_gone_for_ten_minutes_are_gone() {
    let mut node = six();
    for last in 10..16 {
        node.kernel.veths.clear();
        node.kernel.signs.remove(&ip(last));
    }
    node.tell(Event::KernelChanged);
    node.pass(500.0);
    assert_eq!(node.core.pool().leases().count(), 6);
    node.pass(300.0);
    assert_eq!(node.core.pool().leases().count(), 0);
}

#[test]
fn pods_that_end_with_their_dels_are_no_mass_disappearance() {
    let mut node = six();
    for last in 10..16 {
        node.kernel.veths.clear();
        node.kernel.signs.remove(&ip(last));
        node.del(&format!("pod-{last}"));
    }
    node.pass(31.0);
    assert_eq!(node.core.pool().supply().free, 8);
}

#[test]
fn a_repeated_add_gives_its_plugin_the_whole_grace_again() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10, 11])]);
    node.add("a");
    node.wire("a", ip(10));
    node.pass(120.0);
    node.kill("a", ip(10));
    node.pass(3.0);
    let again = node.add("a");
    assert_eq!(node.granted(again), Some(ip(10)));
    node.pass(40.0);
    assert_eq!(
        node.lease("a").map(|lease| lease.1),
        Some(ip(10)),
        "its plugin may be at work"
    );
    node.pass(60.0);
    assert!(node.lease("a").is_none());
}

#[test]
fn in_safe_mode_nothing_is_given_back_and_pods_are_served() {
    let mut safe = config(warm(0));
    safe.start = ipam_core::StartMode::Safe;
    let mut node = Node::started(safe, vec![eni(0, &[10, 11, 12, 13, 14, 15]), eni(1, &[20, 21])]);
    let (kept, served) = (node.add("a"), node.add("b"));
    let (kept, served) = (node.granted(kept).unwrap(), node.granted(served).unwrap());
    node.wire("a", kept);
    node.wire("b", served);
    node.pass(120.0);
    node.kill("a", kept);
    node.pass(7_200.0);
    assert!(node.lease("a").is_some(), "no lease ends without its DEL");
    assert!(node.runs.is_empty(), "{:?}", node.runs);
    node.del("b");
    node.pass(31.0);
    assert!(node.lease("b").is_none());
    assert_eq!(
        node.core.status(crate::node::times(node.now)).start,
        ipam_core::StartMode::Safe
    );
}
