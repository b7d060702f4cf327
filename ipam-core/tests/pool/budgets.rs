//! When calls go out after refusals, and who goes first.

use std::time::Duration;

use ipam_core::{AllocationMode, Applied, Event, OpOutcome, Outcome, Refusal, TrunkSlot, Want, WarmTarget, Work};

use crate::node::{Node, config, eni, ip, prefix, times, warm};

/// Seconds until the next call, none for an hour counting as such.
fn wait_for_call(node: &mut Node) -> f64 {
    for tenth in 0..36_000 {
        node.pass(0.1);
        if !node.runs.is_empty() {
            return f64::from(tenth) / 10.0;
        }
    }
    3_600.0
}

#[test]
fn thread_405_after_throttling_a_refill_waits_much_longer_than_a_pod() {
    let mean_wait = |starving: bool| {
        let waits = (0..20).map(|nonce| {
            let mut config = config(warm(if starving { 0 } else { 2 }));
            config.nonce = nonce;
            let mut node = Node::started(config, vec![eni(0, &[])]);
            let mut total = 0.0;
            for round in 0..3 {
                if starving {
                    node.add(&format!("pod-{round}"));
                }
                total += wait_for_call(&mut node);
                let (op, _) = node.only_run();
                node.outcome(op, OpOutcome::Refused(Refusal::Throttled));
            }
            total
        });
        waits.sum::<f64>() / 20.0
    };
    let (pod, refill) = (mean_wait(true), mean_wait(false));
    assert!(pod < 8.0, "{pod} s");
    assert!(refill > 4.0 * pod && refill < 60.0, "{refill} s against {pod} s");
}

#[test]
fn throttling_of_one_kind_of_call_does_not_slow_another() {
    let mut config = config(warm(0));
    (config.node.slots_per_eni, config.node.max_enis) = (2, 3);
    let mut node = Node::started(config, vec![eni(0, &[10])]);
    for pod in ["a", "b", "c", "d"] {
        node.add(pod);
    }
    node.pass(1.0);
    assert_eq!(
        node.runs.len(),
        2,
        "one call for the slot, one for a new ENI: {:?}",
        node.runs
    );
    let create = node
        .runs
        .iter()
        .position(|(_, work)| matches!(work, Work::CreateEni { .. }))
        .unwrap();
    let (op, _) = node.runs.remove(create);
    node.outcome(op, OpOutcome::Refused(Refusal::Throttled));
    let (op, _) = node.only_run();
    node.allocate(op, &[11]);
    node.pass(5.0);
    assert!(
        node.runs.iter().any(|(_, work)| matches!(work, Work::CreateEni { .. })),
        "{:?}",
        node.runs
    );
}

#[test]
fn thread_2730_with_prefixes_a_pod_takes_whichever_call_is_let_through() {
    let second = |mode| {
        let mut config = config(warm(0));
        config.mode = mode;
        let mut node = Node::started(config, vec![eni(0, &[])]);
        node.add("a");
        node.pass(0.5);
        let (op, _) = node.only_run();
        node.outcome(op, OpOutcome::Refused(Refusal::Throttled));
        node.runs
    };
    assert!(matches!(
        second(AllocationMode::Prefixes)[..],
        [(
            _,
            Work::CreateEni {
                want: Want::Prefixes(1),
                ..
            }
        )]
    ));
    assert!(
        second(AllocationMode::Addresses).is_empty(),
        "single addresses gain nothing by it"
    );
}

#[test]
fn after_the_second_path_succeeded_the_first_is_not_tried_again() {
    let mut config = config(warm(0));
    config.mode = AllocationMode::Prefixes;
    let mut node = Node::started(config, vec![eni(0, &[])]);
    node.add("a");
    node.pass(0.5);
    let (op, _) = node.only_run();
    node.outcome(op, OpOutcome::Refused(Refusal::Throttled));
    let (op, _) = node.only_run();
    let mut fact = eni(1, &[]);
    fact.allocations = [prefix(1, 0)].into();
    fact.attachment = None;
    node.finish(op, Applied::Created(fact));
    node.pass(20.0);
    assert!(matches!(node.only_run().1, Work::Attach { .. }));
}

#[test]
fn a_missing_permission_refuses_the_pod_at_once_and_is_tried_again_now_and_then() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[])]);
    let first = node.add("a");
    node.pass(0.5);
    let (op, _) = node.only_run();
    node.outcome(op, OpOutcome::Refused(Refusal::Denied));
    let Some(Outcome::Refused(cause)) = node.reply(first) else {
        panic!("{:?}", node.replies);
    };
    let text = cause.to_string();
    assert!(
        text.starts_with("IAM_DENIED: ") && text.contains("ec2:AssignPrivateIpAddresses was refused"),
        "{text}"
    );
    assert!(text.contains("next try in"), "{text}");
    let second = node.add("b");
    assert!(node.reply(second).is_some(), "nothing has changed");
    // Somebody grants it.
    node.pass(60.0);
    let third = node.add("c");
    node.pass(1.0);
    let (op, _) = node.only_run();
    node.allocate(op, &[10]);
    assert_eq!(node.granted(third), Some(ip(10)));
}

#[test]
fn a_daemon_that_starts_again_and_again_does_not_call_faster() {
    let target = warm(2);
    let mut node = Node::started(config(target), vec![eni(0, &[])]);
    let mut calls = 0;
    for _ in 0..50 {
        node.pass(6.0);
        for (op, _) in std::mem::take(&mut node.runs) {
            calls += 1;
            node.outcome(op, OpOutcome::Refused(Refusal::Throttled));
        }
        let files = node.files.clone();
        node = node.restarted(config(target), &files, Duration::from_secs(1));
    }
    assert!(calls <= 8, "{calls} refused calls in six minutes");
}

#[test]
fn nodes_that_start_together_spread_their_refills_but_no_pod_waits_for_that() {
    let first_call = |nonce| {
        let mut config = config(warm(2));
        (config.node.cluster_nodes, config.nonce) = (Some(2_500), nonce);
        let mut node = Node::started(config, vec![eni(0, &[])]);
        wait_for_call(&mut node)
    };
    let calls: Vec<f64> = (0..30).map(first_call).collect();
    assert!(calls.iter().all(|at| *at <= 500.5), "{calls:?}");
    let mean = calls.iter().sum::<f64>() / 30.0;
    assert!((150.0..350.0).contains(&mean), "{mean} s");
    let mut config = config(warm(2));
    config.node.cluster_nodes = Some(2_500);
    let mut node = Node::started(config, vec![eni(0, &[])]);
    node.add("a");
    assert!(wait_for_call(&mut node) < 1.0);
}

#[test]
fn a_burst_of_one_kind_of_call_is_bounded() {
    let mut config = config(WarmTarget::Enis(20));
    (config.node.max_enis, config.node.slots_per_eni) = (21, 5);
    let mut node = Node::started(config, vec![eni(0, &[10, 11, 12, 13, 14])]);
    assert_eq!(node.runs.len(), 5, "{:?}", node.runs);
    node.pass(10.2);
    assert_eq!(node.runs.len(), 15);
    node.pass(10.0);
    assert_eq!(node.runs.len(), 19);
}

#[test]
fn an_eni_that_ec2_refused_for_lack_of_slots_is_tried_again_hours_later() {
    let mut config = config(warm(4));
    (config.node.max_enis, config.node.slots_per_eni) = (3, 1);
    let mut node = Node::started(config, vec![eni(0, &[10])]);
    let mut tries = Vec::new();
    let mut number = 0;
    for _ in 0..5 * 3_600 {
        node.pass(1.0);
        for (op, work) in std::mem::take(&mut node.runs) {
            match work {
                Work::CreateEni { .. } => {
                    number += 1;
                    let mut fact = eni(1, &[100 + number]);
                    fact.id = format!("eni-{:017x}", u64::from(number) + 100).parse().unwrap();
                    fact.attachment = None;
                    node.finish(op, Applied::Created(fact));
                }
                Work::Attach { .. } => {
                    tries.push(node.now.as_secs());
                    node.outcome(op, OpOutcome::Refused(Refusal::LimitReached));
                }
                _ => node.finish(op, Applied::Done),
            }
        }
    }
    let first = tries[0];
    let later: Vec<u64> = tries.iter().map(|at| at - first).filter(|since| *since > 60).collect();
    assert!(!later.is_empty() && later[0] > 2_600 && later.len() <= 4, "{later:?}");
    assert!(node.core.status(times(node.now)).max_enis >= 1);
}

#[test]
fn the_slot_of_a_trunk_that_is_to_come_stays_free() {
    let enis = |trunk| {
        let mut config = config(warm(40));
        (config.node.max_enis, config.node.slots_per_eni, config.node.trunk) = (3, 2, trunk);
        let mut node = Node::started(config, vec![eni(0, &[10, 11])]);
        node.pass(20.0);
        node.runs
            .iter()
            .filter(|(_, work)| matches!(work, Work::CreateEni { .. }))
            .count()
    };
    assert_eq!((enis(TrunkSlot::NotWanted), enis(TrunkSlot::Reserved)), (2, 1));
    let mut config = config(warm(40));
    (config.node.max_enis, config.node.slots_per_eni, config.node.trunk) = (3, 2, TrunkSlot::Reserved);
    let mut trunk = eni(1, &[]);
    trunk.role = ipam_core::EniRole::Trunk;
    let mut node = Node::started(config, vec![eni(0, &[10, 11]), trunk]);
    node.pass(20.0);
    assert_eq!(node.runs.len(), 1, "the trunk has its slot: {:?}", node.runs);
    node.tell(Event::Tick);
}
