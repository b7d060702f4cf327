use std::time::Duration;

use ipam_core::{Applied, EniPhase, LeaseState, OpId, OpOutcome, Refusal, WarmTarget, Work};

use crate::node::{Disk, Node, config, eni, ip, key, warm};

#[test]
fn an_unknown_creation_is_repeated_with_its_token() {
    let mut config = config(warm(1));
    config.node.slots_per_eni = 1;
    let mut node = Node::started(config, vec![eni(0, &[10])]);
    node.add("a");
    node.pass(10.0);
    let (op, first) = node.only_run();
    assert!(matches!(first, Work::CreateEni { .. }));
    node.outcome(op, OpOutcome::Unknown);
    node.pass(10.0);
    assert_eq!(node.only_run(), (op, first.clone()));
    // Turned away unread: the first try may still have made one.
    node.outcome(op, OpOutcome::Refused(Refusal::Throttled));
    node.pass(60.0);
    assert_eq!(node.only_run(), (op, first));
}

#[test]
fn a_creation_under_way_at_a_crash_is_repeated_with_its_token() {
    let mut tight = config(warm(1));
    tight.node.slots_per_eni = 1;
    let mut node = Node::started(tight.clone(), vec![eni(0, &[10])]);
    node.add("a");
    node.pass(10.0);
    let (_, first) = node.only_run();
    let files = node.files.clone();
    tight.nonce = 8;
    let mut node = node.restarted(tight, &files, Duration::from_secs(3));
    node.pass(10.0);
    assert_eq!(node.only_run().1, first);
}

#[test]
fn an_unknown_allocation_is_resolved_by_a_later_view_and_not_repeated_blindly() {
    let mut node = Node::started(config(warm(2)), vec![eni(0, &[])]);
    node.pass(6.0);
    let (op, _) = node.only_run();
    node.outcome(op, OpOutcome::Unknown);
    node.enis[0] = eni(0, &[10, 11]);
    node.pass(20.0);
    assert!(node.runs.is_empty(), "the addresses were there: {:?}", node.runs);
    let req = node.add("a");
    assert!(node.granted(req).is_some());
}

#[test]
fn an_idle_eni_goes_only_after_a_dump_without_life_on_it() {
    let detached = |pods: &[u8]| {
        let mut node = Node::started(config(warm(2)), vec![eni(0, &[10, 11, 12]), eni(1, &[20, 21])]);
        node.pass(30.0);
        pods.iter().for_each(|last| node.wire("stranger", ip(*last)));
        node.pass(2_000.0);
        node.runs
            .into_iter()
            .any(|(_, work)| matches!(work, Work::Detach { .. }))
    };
    assert!(detached(&[]), "an idle ENI goes");
    assert!(!detached(&[20]), "one with life stays");
}

#[test]
fn the_primary_eni_never_goes() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10, 11, 12])]);
    node.pass(5_000.0);
    assert!(node.core.pool().enis().any(|eni| eni.phase == EniPhase::Ready));
    assert!(node.runs.iter().all(|(_, work)| !matches!(work, Work::Detach { .. })));
}

#[test]
fn a_lease_out_of_view_is_kept_as_an_orphan_and_adopted_again() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10, 11])]);
    let req = node.add("a");
    node.wire("a", ip(10));
    assert_eq!(node.granted(req), Some(ip(10)));
    let look = |node: &mut Node| {
        // A link that goes makes the core look at EC2.
        node.tell(ipam_core::Event::LinkGone { mac: eni(0, &[]).mac });
        node.pass(6.0);
    };
    node.enis[0] = eni(0, &[11]);
    look(&mut node);
    let lease = |node: &Node| {
        node.core
            .pool()
            .lease(&key("a"))
            .map(|lease| (lease.state, lease.address))
    };
    assert_eq!(lease(&node), Some((LeaseState::Orphan, ip(10))));
    node.enis[0] = eni(0, &[10, 11]);
    look(&mut node);
    assert_eq!(
        lease(&node),
        Some((LeaseState::Wired, ip(10))),
        "the kernel was looked at"
    );
}

#[test]
fn a_view_without_the_primary_eni_is_no_view() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10])]);
    node.add("a");
    node.enis.clear();
    node.tell(ipam_core::Event::LinkGone { mac: eni(0, &[]).mac });
    node.pass(4.0);
    assert_eq!(node.core.pool().lease(&key("a")).unwrap().state, LeaseState::Granted);
}

#[test]
fn an_address_missing_from_one_view_is_not_granted_and_not_forgotten() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10])]);
    node.enis[0] = eni(0, &[]);
    node.tell(ipam_core::Event::LinkGone { mac: eni(0, &[]).mac });
    node.pass(6.0);
    let supply = node.core.pool().supply();
    assert_eq!((supply.total, supply.free, supply.withheld), (1, 0, 1));
    node.pass(40.0);
    assert_eq!(node.core.pool().supply().total, 0, "two views agree");
}

#[test]
fn an_instance_without_slots_for_pods_makes_no_call() {
    let mut config = config(WarmTarget::Enis(1));
    config.node.slots_per_eni = 0;
    let mut node = Node::started(config, vec![eni(0, &[])]);
    let req = node.add("a");
    node.pass(3_600.0);
    assert!(node.runs.is_empty(), "{:?}", node.runs);
    assert!(node.reply(req).is_some());
}

#[test]
fn growth_stops_at_the_limits_of_the_instance() {
    let mut config = config(warm(500));
    (config.node.max_enis, config.node.slots_per_eni) = (2, 3);
    let mut node = Node::started(config, vec![eni(0, &[])]);
    node.pass(10.0);
    let asked: Vec<u16> = node
        .runs
        .iter()
        .filter_map(|(_, work)| match work {
            Work::AllocateAddresses { want, .. } => Some(want.slots()),
            Work::CreateEni { want, .. } => Some(want.slots()),
            _ => None,
        })
        .collect();
    assert_eq!(asked, [3, 3]);
}

#[test]
fn an_eni_refused_for_its_slot_is_deleted_and_not_asked_for_again() {
    let mut config = config(warm(4));
    (config.node.max_enis, config.node.slots_per_eni) = (3, 1);
    let mut node = Node::started(config, vec![eni(0, &[10])]);
    node.pass(10.0);
    let mut attaches = 0;
    for number in 1..12 {
        for (op, work) in std::mem::take(&mut node.runs) {
            match work {
                Work::CreateEni { .. } => {
                    let mut fact = eni(number, &[u8::try_from(number).unwrap()]);
                    fact.id = format!("eni-{:017x}", u64::from(number) * 100 + op.0).parse().unwrap();
                    fact.allocations = [vpc_types::Allocation::Ip(ip(100 + u8::try_from(op.0).unwrap()))].into();
                    fact.attachment = None;
                    node.finish(op, Applied::Created(fact));
                }
                Work::Attach { .. } => {
                    attaches += 1;
                    node.outcome(op, OpOutcome::Refused(Refusal::LimitReached));
                }
                _ => node.finish(op, Applied::Done),
            }
        }
        node.pass(60.0);
    }
    assert!((1..=2).contains(&attaches), "{attaches} attaches");
    assert_eq!(node.core.pool().enis().count(), 1);
}

#[test]
fn nothing_runs_at_ec2_before_its_journal_is_durable() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[])]);
    node.disk = Disk::Fails;
    node.add("a");
    node.pass(5.0);
    assert!(node.runs.is_empty(), "{:?}", node.runs);
    node.disk = Disk::Works;
    node.pass(2.0);
    assert_eq!(node.runs.len(), 1);
}

#[test]
fn a_refusal_that_concerns_one_eni_is_not_repeated_in_haste() {
    let mut node = Node::started(config(warm(3)), vec![eni(0, &[])]);
    let mut calls = 0;
    for _ in 0..60 {
        node.pass(1.0);
        for (op, _) in std::mem::take(&mut node.runs) {
            calls += 1;
            node.outcome(op, OpOutcome::Refused(Refusal::LimitReached));
        }
    }
    assert!((2..=10).contains(&calls), "{calls} calls in a minute");
}

#[test]
fn an_address_that_comes_back_on_another_eni_goes_on_resting() {
    let mut config = config(warm(1));
    config.node.slots_per_eni = 1;
    let mut node = Node::started(config, vec![eni(0, &[10])]);
    node.add("a");
    node.pass(10.0);
    let (op, _) = node.only_run();
    node.del("a");
    let mut fact = eni(1, &[10]);
    fact.attachment = None;
    node.finish(op, Applied::Created(fact));
    let supply = node.core.pool().supply();
    assert_eq!((supply.cooling, supply.free, supply.arriving), (1, 0, 0));
}

#[test]
fn a_repeated_creation_does_not_wait_for_the_pause_of_a_refill() {
    for refusal in [Refusal::SubnetFull, Refusal::Throttled] {
        let mut tight = config(warm(2));
        tight.node.slots_per_eni = 1;
        let mut node = Node::started(tight, vec![eni(0, &[10])]);
        node.add("a");
        node.pass(10.0);
        let ops: Vec<OpId> = std::mem::take(&mut node.runs).into_iter().map(|(op, _)| op).collect();
        assert_eq!(ops.len(), 2, "two ENIs are asked for");
        // Only the warm target wants more, so the next creation would be minutes, or ten ordinary waits, away.
        node.outcome(ops[0], OpOutcome::Refused(refusal));
        node.outcome(ops[1], OpOutcome::Unknown);
        node.pass(2.0);
        let run = node.only_run();
        assert_eq!(
            run.0, ops[1],
            "it is repeated, and nothing else is asked for: {refusal:?}"
        );
    }
}

#[test]
fn an_attach_refused_for_its_slot_takes_another_one() {
    let mut config = config(warm(1));
    config.node.slots_per_eni = 1;
    let mut node = Node::started(config, vec![eni(0, &[10])]);
    node.add("a");
    node.pass(10.0);
    let (op, _) = node.only_run();
    let mut fact = eni(1, &[11]);
    fact.attachment = None;
    node.finish(op, Applied::Created(fact));
    let mut slots = Vec::new();
    for _ in 0..2 {
        node.pass(60.0);
        let (op, work) = node.only_run();
        let Work::Attach { device, .. } = work else {
            panic!("{work:?}")
        };
        slots.push(device);
        node.outcome(op, OpOutcome::Refused(Refusal::Conflict));
    }
    assert_ne!(slots[0], slots[1], "somebody else may have the first one");
}

#[test]
fn no_attach_goes_beyond_the_instances_slots_when_a_stranger_has_the_last_one() {
    let mut config = config(warm(1));
    (config.node.max_enis, config.node.slots_per_eni) = (2, 1);
    let mut node = Node::started(config, vec![eni(0, &[10])]);
    node.add("a");
    node.pass(10.0);
    let (op, _) = node.only_run();
    let mut fact = eni(1, &[11]);
    fact.attachment = None;
    node.finish(op, Applied::Created(fact));
    for _ in 0..4 {
        node.pass(60.0);
        let (op, work) = node.only_run();
        assert!(
            matches!(work, Work::Attach { device, .. } if device.0 == 1),
            "the instance has slots 0 and 1: {work:?}"
        );
        node.outcome(op, OpOutcome::Refused(Refusal::Conflict));
    }
}

#[test]
fn an_eni_that_ec2_did_not_know_yet_is_not_forgotten_however_late_that_answer_comes() {
    let mut config = config(warm(1));
    config.node.slots_per_eni = 1;
    let mut node = Node::started(config, vec![eni(0, &[10])]);
    node.add("a");
    node.pass(10.0);
    let (op, _) = node.only_run();
    let mut fact = eni(1, &[11]);
    fact.attachment = None;
    node.finish(op, Applied::Created(fact));
    let (op, attach) = node.only_run();
    assert!(matches!(attach, Work::Attach { .. }), "{attach:?}");
    node.outcome(op, OpOutcome::Refused(Refusal::LimitReached));
    let (op, deletion) = node.only_run();
    assert!(matches!(deletion, Work::DeleteEni { .. }), "{deletion:?}");
    node.now += Duration::from_secs(8);
    node.outcome(op, OpOutcome::Refused(Refusal::Gone));
    assert_eq!(node.core.pool().enis().count(), 2, "EC2 may know it by now");
    node.pass(30.0);
    let (_, again) = node.only_run();
    assert_eq!(again, deletion);
}
