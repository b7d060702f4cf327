//! Provisioning switched off, a cordoned node, an instance that is about to end.

use std::time::Duration;

use ipam_core::{
    Applied, Event, Life, NodeCondition, OnTermination, OpOutcome, Outcome, Provisioning, Scheduling, Scope,
    SubnetChoice, WarmTarget, Work,
};

use crate::node::{Node, config, eni, ip, warm};

const CORDONED: NodeCondition = NodeCondition {
    scheduling: Scheduling::Cordoned,
    life: Life::Staying,
};
const LEAVING: NodeCondition = NodeCondition {
    scheduling: Scheduling::Open,
    life: Life::Leaving,
};

#[test]
fn with_provisioning_off_nothing_at_ec2_is_changed_and_free_addresses_are_served() {
    for provisioning in [Provisioning::Disabled, Provisioning::ImdsOnly] {
        let mut config = config(WarmTarget::Enis(2));
        (config.provisioning, config.subnets) = (provisioning, SubnetChoice::ByTag);
        let mut second = eni(1, &[20]);
        second.attachment.as_mut().unwrap().on_termination = OnTermination::Keep;
        second.groups = [vpc_types::SecurityGroupId::parse("sg-b").unwrap()].into();
        let mut node = Node::started(config, vec![eni(0, &[10]), second]);
        node.pass(1.0);
        let reqs = [node.add("a"), node.add("b"), node.add("c")];
        node.pass(40.0);
        assert_eq!(reqs.iter().filter(|req| node.granted(**req).is_some()).count(), 2);
        assert!(matches!(node.reply(reqs[2]), Some(Outcome::Refused(_))));
        node.pass(20_000.0);
        assert!(node.runs.is_empty(), "{provisioning:?}: {:?}", node.runs);
        let asked = |scope| node.looks.iter().any(|(_, looked)| *looked == scope);
        assert!(!asked(Scope::Leaked) && !asked(Scope::OwnAvailable));
        assert_eq!(asked(Scope::Subnets), provisioning == Provisioning::Disabled);
    }
}

#[test]
fn a_call_of_a_former_run_is_looked_up_and_not_repeated_where_provisioning_is_off() {
    let mut tight = config(warm(1));
    tight.node.slots_per_eni = 1;
    let mut node = Node::started(tight.clone(), vec![eni(0, &[10])]);
    node.add("a");
    node.pass(10.0);
    assert!(matches!(node.runs[..], [(_, Work::CreateEni { .. })]));
    let files = node.files.clone();
    tight.provisioning = Provisioning::Disabled;
    let mut node = node.restarted(tight.clone(), &files, Duration::from_secs(3));
    node.pass(600.0);
    assert!(node.runs.is_empty(), "{:?}", node.runs);
    assert_eq!(node.core.status(crate::node::times(node.now)).open_ops, 0);
    // Whoever may change something again finds what the call left behind.
    let files = node.files.clone();
    tight.provisioning = Provisioning::Full;
    let mut node = node.restarted(tight, &files, Duration::from_secs(3));
    node.pass(600.0);
    assert!(
        node.looks.iter().any(|(_, scope)| *scope == Scope::OwnAvailable),
        "{:?}",
        node.looks
    );
}

#[test]
fn a_cordoned_node_serves_those_who_wait_and_grows_for_nobody_else() {
    let mut node = Node::started(config(warm(5)), vec![eni(0, &[10, 11, 12, 13, 14])]);
    node.pass(10.0);
    node.tell(Event::NodeConditionChanged(CORDONED));
    for pod in ["a", "b", "c", "d", "e"] {
        node.add(pod);
    }
    node.pass(60.0);
    assert!(node.runs.is_empty(), "{:?}", node.runs);
    let req = node.add("f");
    node.pass(1.0);
    let (op, _) = node.only_run();
    node.allocate(op, &[15]);
    assert_eq!(node.granted(req), Some(ip(15)));
    node.tell(Event::NodeConditionChanged(NodeCondition::default()));
    node.pass(10.0);
    assert_eq!(node.runs.len(), 1, "the target counts again");
}

#[test]
fn a_cordoned_node_frees_no_eni() {
    let detaches = |condition| {
        let mut node = Node::started(config(warm(1)), vec![eni(0, &[10, 11]), eni(1, &[20])]);
        node.tell(Event::NodeConditionChanged(condition));
        node.pass(3_000.0);
        node.runs
            .iter()
            .filter(|(_, work)| matches!(work, Work::Detach { .. }))
            .count()
    };
    assert_eq!(
        (
            detaches(NodeCondition::default()),
            detaches(CORDONED),
            detaches(LEAVING)
        ),
        (1, 0, 0)
    );
}

#[test]
fn a_leaving_node_makes_no_enis() {
    let mut tight = config(warm(1));
    tight.node.slots_per_eni = 1;
    let mut node = Node::started(tight, vec![eni(0, &[10])]);
    node.tell(Event::NodeConditionChanged(LEAVING));
    node.add("a");
    let req = node.add("b");
    node.pass(40.0);
    assert!(node.runs.is_empty(), "{:?}", node.runs);
    assert!(matches!(node.reply(req), Some(Outcome::Refused(_))));
}

#[test]
fn thread_66_of_a_half_made_eni_a_leaving_node_first_sees_to_its_deletion() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10])]);
    let mut second = eni(1, &[20]);
    second.attachment.as_mut().unwrap().on_termination = OnTermination::Keep;
    node.enis.push(second.clone());
    node.tell(Event::NodeConditionChanged(LEAVING));
    node.tell(Event::LinkGone { mac: eni(0, &[]).mac });
    node.pass(6.0);
    let (op, work) = node.only_run();
    assert!(matches!(work, Work::DeleteOnTermination { .. }), "{work:?}");
    node.outcome(op, OpOutcome::Refused(ipam_core::Refusal::Unavailable));
    node.pass(2.0);
    assert_eq!(node.runs.len(), 1, "it is tried again soon");
}

#[test]
fn thread_66_an_eni_not_attached_yet_is_deleted_by_a_leaving_node() {
    let mut tight = config(warm(1));
    tight.node.slots_per_eni = 1;
    let mut node = Node::started(tight, vec![eni(0, &[10])]);
    node.add("a");
    node.pass(10.0);
    let (op, _) = node.only_run();
    node.tell(Event::NodeConditionChanged(LEAVING));
    let mut fact = eni(1, &[20]);
    fact.attachment = None;
    node.finish(op, Applied::Created(fact));
    node.pass(1.0);
    let (_, work) = node.only_run();
    assert!(matches!(work, Work::DeleteEni { .. }), "{work:?}");
}

#[test]
fn with_provisioning_off_a_pod_that_waits_has_ec2_asked_now_and_then() {
    let mut config = config(WarmTarget::Enis(2));
    config.provisioning = Provisioning::Disabled;
    let mut node = Node::started(config, vec![eni(0, &[])]);
    node.pass(1_000.0);
    let before = node.described;
    node.enis[0] = eni(0, &[10]);
    let req = node.add("a");
    node.pass(1.0);
    assert_eq!(node.granted(req), Some(ip(10)), "somebody has assigned it");
    for number in 0..40 {
        node.add(&format!("more-{number}"));
        node.pass(15.0);
    }
    assert!(
        node.described - before <= 11,
        "{} in ten minutes",
        node.described - before
    );
}
