use std::time::Duration;

use ipam_core::{Event, LeaseState, OpOutcome, Outcome, Refusal, Want, Work};

use crate::node::{Disk, Node, config, eni, ip, key, warm};

#[test]
fn adds_wait_for_addresses_and_are_served_in_order_of_arrival() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[])]);
    let reqs = [node.add("c"), node.add("a"), node.add("b")];
    node.pass(1.0);
    assert!(node.replies.is_empty());
    let (op, work) = node.only_run();
    assert!(
        matches!(
            work,
            Work::AllocateAddresses {
                want: Want::Addresses(3),
                ..
            }
        ),
        "a burst is one call: {work:?}"
    );
    node.allocate(op, &[20, 10]);
    assert_eq!(reqs.map(|req| node.granted(req).is_some()), [true, true, false]);
    let (op, _) = node.only_run();
    node.allocate(op, &[30]);
    assert_eq!(node.granted(reqs[2]), Some(ip(30)));
}

#[test]
fn the_same_key_gets_the_same_lease() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10, 11])]);
    let (first, second) = (node.add("a"), node.add("a"));
    assert!(node.granted(first).is_some());
    assert_eq!(node.granted(first), node.granted(second));
    assert_eq!(node.core.pool().leases().count(), 1);
}

#[test]
fn a_del_cancels_a_waiting_add_of_its_key_only() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[])]);
    let (mine, other) = (node.add("a"), node.add("b"));
    let del = node.del("a");
    assert_eq!(node.reply(del), Some(&Outcome::UnknownPod));
    let Some(Outcome::Refused(cause)) = node.reply(mine) else {
        panic!("{:?}", node.replies)
    };
    assert_eq!(cause.code.as_str(), "SANDBOX_BUSY");
    assert_eq!(node.reply(other), None);
}

#[test]
fn an_abandoned_add_takes_no_address() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[])]);
    let (gone, next) = (node.add("a"), node.add("b"));
    node.tell(Event::AddAbandoned { req: gone });
    node.pass(1.0);
    let (op, _) = node.only_run();
    node.allocate(op, &[10, 11]);
    assert_eq!((node.reply(gone), node.granted(next)), (None, Some(ip(10))));
    assert!(node.core.pool().lease(&key("a")).is_none());
}

#[test]
fn an_add_that_cannot_be_served_in_time_is_refused_with_code_and_numbers() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10])]);
    let served = node.add("a");
    assert!(node.granted(served).is_some());
    let req = node.add("b");
    node.pass(1.0);
    let (op, _) = node.only_run();
    node.outcome(op, OpOutcome::Refused(Refusal::Throttled));
    for _ in 0..40 {
        node.pass(1.0);
        for (op, _) in std::mem::take(&mut node.runs) {
            node.outcome(op, OpOutcome::Refused(Refusal::Throttled));
        }
    }
    let Some(Outcome::Refused(cause)) = node.reply(req) else {
        panic!("{:?}", node.replies)
    };
    let text = cause.to_string();
    assert!(
        text.starts_with("THROTTLED: 1 addresses (1 assigned, 0 cooling, 0 free) on 1 of 3 ENIs"),
        "{text}"
    );
}

#[test]
fn an_add_beyond_all_limits_is_refused_at_once() {
    let mut config = config(warm(0));
    (config.node.max_enis, config.node.slots_per_eni) = (1, 1);
    let mut node = Node::started(config, vec![eni(0, &[10])]);
    let (first, second) = (node.add("a"), node.add("b"));
    assert_eq!(node.granted(first), Some(ip(10)));
    let Some(Outcome::Refused(cause)) = node.reply(second) else {
        panic!("{:?}", node.replies)
    };
    assert_eq!(cause.code.as_str(), "ENI_LIMIT");
    assert!(node.runs.is_empty(), "no call could help: {:?}", node.runs);
}

#[test]
fn a_line_that_is_full_refuses_at_once() {
    let mut config = config(warm(0));
    config.max_waiting = 1;
    let mut node = Node::started(config, vec![eni(0, &[])]);
    let (_, second) = (node.add("a"), node.add("b"));
    assert!(matches!(node.reply(second), Some(Outcome::Refused(cause)) if cause.code.as_str() == "QUEUE_FULL"));
}

#[test]
fn without_a_working_disk_an_add_is_refused_and_its_address_is_free_again() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10])]);
    node.disk = Disk::Fails;
    let req = node.add("a");
    assert!(matches!(node.reply(req), Some(Outcome::Refused(cause)) if cause.code.as_str() == "CHECKPOINT_FAILING"));
    assert_eq!(node.core.pool().leases().count(), 0);
    node.disk = Disk::Works;
    node.pass(2.0);
    let req = node.add("b");
    assert_eq!(node.granted(req), Some(ip(10)));
}

#[test]
fn a_lease_becomes_wired_when_the_kernel_shows_its_veth_and_route() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10])]);
    node.add("a");
    assert_eq!(node.core.pool().lease(&key("a")).unwrap().state, LeaseState::Granted);
    node.wire("a", ip(10));
    assert_eq!(node.core.pool().lease(&key("a")).unwrap().state, LeaseState::Wired);
}

#[test]
fn an_address_with_unexplained_life_is_not_granted_until_the_life_is_over_and_it_has_rested() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10])]);
    node.wire("stranger", ip(10));
    node.kill("stranger", ip(10));
    node.pass(10.0);
    let req = node.add("a");
    assert_eq!(node.granted(req), None, "it rests");
    node.pass(25.0);
    assert_eq!(node.granted(req), Some(ip(10)));
}

#[test]
fn a_full_subnet_is_asked_for_less_and_ever_more_rarely() {
    let mut node = Node::started(config(warm(8)), vec![eni(0, &[])]);
    let mut asked = Vec::new();
    for _ in 0..6 * 3_600 {
        node.pass(1.0);
        for (op, work) in std::mem::take(&mut node.runs) {
            if let Work::AllocateAddresses {
                want: Want::Addresses(count),
                ..
            } = work
            {
                asked.push((node.now.as_secs(), count));
            }
            node.outcome(op, OpOutcome::Refused(Refusal::SubnetFull));
        }
    }
    assert!(asked.len() < 45, "{asked:?}");
    assert!(
        asked.is_sorted_by(|(_, more), (_, less)| more >= less) && asked.last().unwrap().1 == 1,
        "{asked:?}"
    );
}

#[test]
fn a_pod_waits_for_the_address_of_a_sandbox_that_seems_gone() {
    let mut config = config(warm(0));
    (config.node.slots_per_eni, config.node.max_enis) = (1, 1);
    let seconds = Duration::from_secs;
    (config.timers.sweep_grace, config.timers.sweep_gap) = (seconds(5), seconds(2));
    (config.timers.cooldown, config.timers.minimum_hold) = (seconds(4), seconds(4));
    let mut node = Node::started(config, vec![eni(0, &[10])]);
    node.add("a");
    node.pass(1.0);
    node.wire("a", ip(10));
    node.kill("a", ip(10));
    node.pass(1.5);
    let next = node.add("b");
    assert_eq!(node.reply(next), None, "it is worth waiting");
    node.pass(20.0);
    assert_eq!(node.granted(next), Some(ip(10)));
}
