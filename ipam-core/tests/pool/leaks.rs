//! ENIs that other nodes left behind.

use std::time::Duration;

use ipam_core::{EniFact, LeakSweep, OpOutcome, Provisioning, Refusal, Scope, StartMode, WallTime, Work};

use crate::node::{Node, config, eni, warm};

const DAY: f64 = 24.0 * 3_600.0;

/// A detached ENI of another node, made long before the test.
fn left_behind(number: u16) -> EniFact {
    let mut fact = eni(20 + number, &[]);
    fact.attachment = None;
    fact.owner = Some("i-0fedcba9876543210".parse().unwrap());
    fact.created_at = Some(WallTime(Duration::from_secs(1_700_000_000)));
    fact
}

fn sweeping(enis: Vec<EniFact>, nodes: Option<u32>) -> Node {
    let mut config = config(warm(0));
    config.leak_sweep = LeakSweep::On;
    config.node.cluster_nodes = nodes;
    let mut node = Node::started(config, vec![eni(0, &[10])]);
    node.left_behind = enis;
    node
}

fn sweeps(node: &Node) -> Vec<Duration> {
    node.looks
        .iter()
        .filter(|(_, scope)| *scope == Scope::Leaked)
        .map(|(at, _)| *at)
        .collect()
}

fn deletions(node: &Node) -> usize {
    node.runs
        .iter()
        .filter(|(_, work)| matches!(work, Work::DeleteEni { .. }))
        .count()
}

#[test]
fn thread_1223_an_eni_left_behind_goes_after_two_views_minutes_apart() {
    let mut node = sweeping(vec![left_behind(1)], Some(3));
    while node.runs.is_empty() {
        assert!(node.now < Duration::from_secs(8 * 3_600), "never deleted");
        node.pass(1.0);
    }
    let looks = sweeps(&node);
    assert_eq!(looks.len(), 2);
    assert!(looks[1] - looks[0] >= Duration::from_secs(300), "{looks:?}");
    let (op, work) = node.only_run();
    assert_eq!(work.eni(), Some(&left_behind(1).id));
    node.left_behind.clear();
    node.finish(op, ipam_core::Applied::Done);
    node.pass(DAY);
    assert!(sweeps(&node).len() <= 5, "{:?}", sweeps(&node));
}

#[test]
fn thread_69_whatever_somebody_may_still_be_working_on_stays() {
    let (mut no_tag, mut own, mut young, mut attached) =
        (left_behind(1), left_behind(2), left_behind(3), left_behind(4));
    no_tag.created_at = None;
    own.owner = Some("i-0123456789abcdef0".parse().unwrap());
    young.created_at = Some(WallTime(Duration::from_secs(1_800_000_000 + 10 * 86_400)));
    attached.attachment = eni(1, &[]).attachment;
    let mut node = sweeping(vec![no_tag, own, young, attached], Some(3));
    node.pass(DAY);
    assert!(node.runs.is_empty(), "{:?}", node.runs);
}

#[test]
fn one_that_is_gone_in_the_second_view_is_not_touched() {
    let mut node = sweeping(vec![left_behind(1)], Some(3));
    while sweeps(&node).is_empty() {
        node.pass(10.0);
    }
    node.left_behind = vec![left_behind(2)];
    node.pass(1_000.0);
    assert_eq!(deletions(&node), 0);
}

#[test]
fn a_sweep_deletes_few_and_none_while_ec2_throttles() {
    let many: Vec<EniFact> = (0..30).map(left_behind).collect();
    let mut node = sweeping(many.clone(), Some(3));
    node.pass(7.0 * 3_600.0);
    assert_eq!(deletions(&node), 10);
    let mut node = sweeping(many, Some(3));
    while node.runs.is_empty() {
        node.pass(1.0);
    }
    let begun = node.runs.len();
    for (op, _) in std::mem::take(&mut node.runs) {
        node.outcome(op, OpOutcome::Refused(Refusal::Throttled));
    }
    node.pass(3_600.0);
    assert!(begun <= 5 && deletions(&node) == 0, "{begun} and then {:?}", node.runs);
}

#[test]
fn thread_1825_few_nodes_of_a_large_cluster_look() {
    let mut lookers = 0;
    for number in 0..200_u64 {
        let mut config = config(warm(0));
        config.leak_sweep = LeakSweep::On;
        config.node.cluster_nodes = Some(200);
        config.node.instance = format!("i-{:017x}", number.wrapping_mul(0x9e37_79b9)).parse().unwrap();
        let mut node = Node::started(config, vec![eni(0, &[10])]);
        node.pass(DAY);
        lookers += usize::from(!sweeps(&node).is_empty());
    }
    assert!((2..=25).contains(&lookers), "{lookers} of 200");
}

#[test]
fn nobody_looks_where_it_is_off_or_nothing_may_be_changed() {
    for (sweep, provisioning, start) in [
        (LeakSweep::Off, Provisioning::Full, StartMode::Normal),
        (LeakSweep::On, Provisioning::Disabled, StartMode::Normal),
        (LeakSweep::On, Provisioning::ImdsOnly, StartMode::Normal),
        (LeakSweep::On, Provisioning::Full, StartMode::Safe),
    ] {
        let mut config = config(warm(0));
        (config.leak_sweep, config.provisioning, config.start) = (sweep, provisioning, start);
        let mut node = Node::started(config, vec![eni(0, &[10])]);
        node.pass(3.0 * DAY);
        assert!(sweeps(&node).is_empty());
    }
}
