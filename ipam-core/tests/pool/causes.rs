//! A refused ADD says what keeps the next address from coming.

use ipam_core::{Applied, CoreConfig, Event, OpOutcome, Outcome, Refusal, Work};

use crate::node::{Node, config, eni, ip, warm};

/// The cause, as people read it, with which an ADD is refused while `answer` answers EC2's part.
fn refused(config: CoreConfig, enis: Vec<ipam_core::EniFact>, answer: impl Fn(&Work) -> OpOutcome) -> String {
    let mut node = Node::started(config, enis);
    let req = node.add("a");
    for _ in 0..400 {
        node.pass(0.1);
        for (op, work) in std::mem::take(&mut node.runs) {
            node.outcome(op, answer(&work));
        }
    }
    match node.reply(req) {
        Some(Outcome::Refused(cause)) => cause.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn throttling_names_the_call_and_the_next_try() {
    let text = refused(config(warm(0)), vec![eni(0, &[])], |_| {
        OpOutcome::Refused(Refusal::Throttled)
    });
    assert!(text.starts_with("THROTTLED: "), "{text}");
    assert!(
        text.contains("ec2:AssignPrivateIpAddresses was refused, next try in"),
        "{text}"
    );
}

#[test]
fn an_eni_that_takes_no_further_address_is_not_a_full_subnet() {
    let text = refused(config(warm(0)), vec![eni(0, &[])], |_| {
        OpOutcome::Refused(Refusal::LimitReached)
    });
    assert!(text.starts_with("IP_PER_ENI_LIMIT: "), "{text}");
}

#[test]
fn an_instance_without_slots_says_so() {
    let mut config = config(warm(0));
    config.node.slots_per_eni = 0;
    let text = refused(config, vec![eni(0, &[])], |_| OpOutcome::Unknown);
    assert!(
        text.starts_with("IP_PER_ENI_LIMIT: ") && text.contains("0 slots each"),
        "{text}"
    );
}

#[test]
fn the_account_s_limit_of_enis_is_a_limit() {
    let mut config = config(warm(0));
    (config.node.slots_per_eni, config.node.max_enis) = (1, 3);
    let mut primary = eni(0, &[10]);
    primary.allocations = [vpc_types::Allocation::Ip(ip(10))].into();
    let mut node = Node::started(config, vec![primary]);
    node.add("a");
    let req = node.add("b");
    for _ in 0..400 {
        node.pass(0.1);
        for (op, _) in std::mem::take(&mut node.runs) {
            node.outcome(op, OpOutcome::Refused(Refusal::LimitReached));
        }
    }
    let Some(Outcome::Refused(cause)) = node.reply(req) else {
        panic!("{:?}", node.replies);
    };
    assert_eq!(
        (cause.code.as_str(), cause.call),
        ("ENI_LIMIT", Some("CreateNetworkInterface"))
    );
}

#[test]
fn without_a_free_prefix_and_without_single_addresses_the_subnet_is_fragmented() {
    let mut config = config(warm(0));
    config.mode = ipam_core::AllocationMode::Prefixes;
    let text = refused(config, vec![eni(0, &[])], |_| {
        OpOutcome::Refused(Refusal::SubnetFragmented)
    });
    assert!(
        text.starts_with("SUBNET_FRAGMENTED: ") && text.contains("subnet-0123"),
        "{text}"
    );
}

#[test]
fn a_device_that_does_not_appear_is_the_kernel_s_fault() {
    let mut config = config(warm(0));
    (config.node.slots_per_eni, config.node.max_enis) = (1, 2);
    let mut node = Node::started(config, vec![eni(0, &[10])]);
    node.add("a");
    node.wire("a", ip(10));
    let req = node.add("b");
    node.pass(1.0);
    let (op, _) = node.only_run();
    let mut fact = eni(1, &[20]);
    fact.attachment = None;
    node.finish(op, Applied::Created(fact));
    node.pass(0.1);
    let (op, work) = node.only_run();
    assert!(matches!(work, Work::Attach { .. }), "{work:?}");
    node.enis.push(eni(1, &[20]));
    node.finish(op, Applied::Attached("eni-attach-00000000000000001".parse().unwrap()));
    // A second pod comes when the device is overdue.
    node.pass(70.0);
    let late = node.add("c");
    node.pass(40.0);
    node.tell(Event::Tick);
    let codes: Vec<_> = [req, late]
        .into_iter()
        .filter_map(|req| match node.reply(req) {
            Some(Outcome::Refused(cause)) => Some(cause.code.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(codes, ["POOL_EMPTY_GROWING", "KERNEL_ERROR"]);
}
