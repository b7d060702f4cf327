//! Where new ENIs go, what is asked of a subnet that has little, and how often subnets are read.

use std::collections::BTreeSet;
use std::time::Duration;

use ipam_core::{
    AllocationMode, Applied, Core, CoreConfig, EniFact, Event, OpOutcome, Outcome, Placement, Refusal, Scope, Service,
    SubnetChoice, SubnetFact, Want, WarmTarget, Work,
};

use crate::node::{Node, config, eni, ip, prefix, times, warm};

const PRIMARY: &str = "subnet-0123";

fn subnet(id: &str, free: u32, tags: &[(&str, &str)]) -> SubnetFact {
    SubnetFact {
        id: id.parse().unwrap(),
        free,
        size: 251,
        tags: tags
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

const FOR_PODS: (&str, &str) = ("kubernetes.io/role/cni", "1");

/// A node that has started and read these subnets, with as many ENIs as its config allows still to make.
fn by_tag(mut config: CoreConfig, enis: Vec<EniFact>, subnets: Vec<SubnetFact>) -> Node {
    config.subnets = SubnetChoice::ByTag;
    let start = Duration::from_secs(1_000);
    let mut node = Node::with(Core::new(config, times(start)), enis, start);
    node.subnets = subnets;
    node.tell(Event::Tick);
    node
}

/// One address per ENI, so that growth is new ENIs.
fn tight(target: WarmTarget) -> CoreConfig {
    let mut config = config(target);
    config.node.slots_per_eni = 1;
    config
}

fn creations(node: &Node) -> Vec<String> {
    let subnet = |work: &Work| match work {
        Work::CreateEni { subnet, .. } => Some(subnet.to_string()),
        _ => None,
    };
    node.runs.iter().filter_map(|(_, work)| subnet(work)).collect()
}

fn readings(node: &Node) -> usize {
    node.looks.iter().filter(|(_, scope)| *scope == Scope::Subnets).count()
}

#[test]
fn thread_3067_new_enis_go_to_the_tagged_subnet_with_most_free_addresses() {
    let subnets = vec![
        subnet(PRIMARY, 100, &[]),
        subnet("subnet-a", 150, &[FOR_PODS]),
        subnet("subnet-b", 200, &[FOR_PODS]),
        subnet("subnet-c", 250, &[]),
    ];
    let mut node = by_tag(tight(warm(1)), vec![eni(0, &[10])], subnets);
    node.add("a");
    node.pass(10.0);
    assert_eq!(creations(&node), ["subnet-b"]);
}

#[test]
fn tags_say_which_subnets_are_for_pods_of_which_cluster() {
    let with = |tags: &[(&str, &str)]| {
        let mut config = tight(warm(1));
        config.cluster = Some("blue".to_owned());
        let subnets = vec![
            subnet(PRIMARY, 200, &[("kubernetes.io/role/cni", "0")]),
            subnet("subnet-a", 100, tags),
        ];
        let mut node = by_tag(config, vec![eni(0, &[])], subnets);
        node.add("a");
        node.pass(10.0);
        creations(&node)
    };
    let of = |name| (name, "");
    assert!(with(&[]).is_empty());
    assert!(with(&[("kubernetes.io/role/cni", "")]).is_empty());
    assert_eq!(with(&[FOR_PODS]), ["subnet-a"]);
    assert_eq!(
        with(&[FOR_PODS, of("cni.networking.k8s.aws/cluster/blue")]),
        ["subnet-a"]
    );
    assert!(with(&[FOR_PODS, of("cni.networking.k8s.aws/cluster/green")]).is_empty());
    let both = [
        of("cni.networking.k8s.aws/cluster/green"),
        of("cni.networking.k8s.aws/cluster/blue"),
        FOR_PODS,
    ];
    assert_eq!(with(&both), ["subnet-a"]);
}

#[test]
fn an_eni_in_an_excluded_subnet_gets_no_new_pods_and_keeps_those_it_has() {
    let mut node = by_tag(
        config(warm(0)),
        vec![eni(0, &[10, 11])],
        vec![subnet(PRIMARY, 200, &[])],
    );
    let first = node.add("a");
    assert_eq!(node.granted(first), Some(ip(10)));
    node.wire("a", ip(10));
    node.subnets = vec![
        subnet(PRIMARY, 60, &[("kubernetes.io/role/cni", "0")]),
        subnet("subnet-a", 200, &[FOR_PODS]),
    ];
    node.tell(Event::SubnetsViewed(ipam_core::SubnetsView {
        started_at: ipam_core::BootTime(node.now),
        subnets: node.subnets.clone(),
    }));
    let primary = node.core.pool().enis().next().unwrap();
    assert!(node.core.is_excluded(primary) && primary.service == Service::Closed);
    assert_eq!(node.core.pool().supply().total, 0, "it does not count");
    assert_eq!(node.core.pool().leases().count(), 1);
    let second = node.add("b");
    node.pass(1.0);
    assert_eq!(node.granted(second), None);
    assert_eq!(creations(&node), ["subnet-a"]);
    // The pod's address is given back to nobody else here.
    node.del("a");
    node.pass(40.0);
    assert_eq!(node.core.pool().supply().free, 0);
}

#[test]
fn a_node_that_may_not_describe_subnets_serves_from_the_primary_one() {
    let mut config = tight(warm(0));
    config.subnets = SubnetChoice::ByTag;
    let start = Duration::from_secs(1_000);
    let mut node = Node::with(Core::new(config, times(start)), vec![eni(0, &[10])], start);
    node.forbidden = BTreeSet::from([Scope::Subnets]);
    node.tell(Event::Tick);
    let (first, second) = (node.add("a"), node.add("b"));
    node.pass(5.0);
    assert_eq!(node.granted(first), Some(ip(10)));
    assert!(node.reply(second).is_none());
    assert_eq!(creations(&node), [PRIMARY]);
    node.pass(3_600.0);
    assert!(readings(&node) <= 3, "{:?}", node.looks);
}

#[test]
fn thread_2749_without_a_free_prefix_the_pod_gets_a_single_address_on_the_same_eni() {
    let mut config = config(warm(0));
    config.mode = AllocationMode::Prefixes;
    let mut node = Node::started(config, vec![eni(0, &[])]);
    let req = node.add("a");
    node.pass(1.0);
    let (op, work) = node.only_run();
    assert!(
        matches!(
            work,
            Work::AllocateAddresses {
                want: Want::Prefixes(1),
                ..
            }
        ),
        "{work:?}"
    );
    node.outcome(op, OpOutcome::Refused(Refusal::SubnetFragmented));
    node.pass(1.0);
    let (op, work) = node.only_run();
    assert!(
        matches!(
            work,
            Work::AllocateAddresses {
                want: Want::Addresses(1..),
                ..
            }
        ),
        "{work:?}"
    );
    node.allocate(op, &[10]);
    assert_eq!(node.granted(req), Some(ip(10)));
    node.wire("a", ip(10));
    // Prefixes are asked for again, but not soon.
    node.pass(300.0);
    node.add("b");
    node.pass(1.0);
    let (op, work) = node.only_run();
    assert!(
        matches!(
            work,
            Work::AllocateAddresses {
                want: Want::Addresses(_),
                ..
            }
        ),
        "{work:?}"
    );
    node.allocate(op, &[11]);
    node.wire("b", ip(11));
    node.pass(500.0);
    node.add("c");
    node.pass(1.0);
    let (_, work) = node.only_run();
    assert!(
        matches!(
            work,
            Work::AllocateAddresses {
                want: Want::Prefixes(1),
                ..
            }
        ),
        "{work:?}"
    );
}

#[test]
fn thread_3105_too_few_addresses_or_prefixes_is_taken_for_too_few_prefixes() {
    let mut config = config(warm(0));
    config.mode = AllocationMode::Prefixes;
    let mut node = Node::started(config, vec![eni(0, &[])]);
    node.add("a");
    node.pass(1.0);
    let (op, _) = node.only_run();
    node.outcome(op, OpOutcome::Refused(Refusal::SubnetFull));
    node.pass(1.0);
    let (_, work) = node.only_run();
    assert!(
        matches!(
            work,
            Work::AllocateAddresses {
                want: Want::Addresses(1..),
                ..
            }
        ),
        "{work:?}"
    );
}

#[test]
fn thread_3264_a_refused_number_of_prefixes_becomes_smaller_in_few_calls_and_never_two_at_a_time() {
    let mut config = config(WarmTarget::Prefixes(6));
    config.mode = AllocationMode::Prefixes;
    let mut node = Node::started(config, vec![eni(0, &[])]);
    let mut asked = Vec::new();
    for _ in 0..600 {
        node.pass(1.0);
        assert!(node.runs.len() <= 1, "{:?}", node.runs);
        for (op, work) in std::mem::take(&mut node.runs) {
            if let Work::AllocateAddresses { want, .. } = work {
                asked.push(want);
                match want {
                    Want::Prefixes(_) => node.outcome(op, OpOutcome::Refused(Refusal::SubnetFragmented)),
                    Want::Addresses(count) => {
                        let new: Vec<u8> = (0..count).map(|last| 10 + u8::try_from(last).unwrap()).collect();
                        node.allocate(op, &new);
                    }
                }
            }
        }
        if matches!(asked.last(), Some(Want::Addresses(_))) {
            break;
        }
    }
    assert_eq!(asked[..2], [Want::Prefixes(6), Want::Prefixes(1)]);
    assert!(matches!(asked[2..], [Want::Addresses(_)]), "{asked:?}");
}

#[test]
fn a_subnet_with_prefixes_comes_before_one_without() {
    let mut config = tight(warm(0));
    config.mode = AllocationMode::Prefixes;
    let subnets = vec![subnet(PRIMARY, 200, &[]), subnet("subnet-a", 100, &[FOR_PODS])];
    let mut primary = eni(0, &[]);
    primary.allocations = [prefix(0, 0)].into();
    let mut node = by_tag(config, vec![primary], subnets);
    for pod in 0..17 {
        node.add(&format!("pod-{pod}"));
    }
    node.pass(1.0);
    assert_eq!(creations(&node), [PRIMARY]);
    let (op, _) = node.only_run();
    node.outcome(op, OpOutcome::Refused(Refusal::SubnetFragmented));
    node.pass(1.0);
    assert_eq!(creations(&node), ["subnet-a"]);
}

#[test]
fn a_full_subnet_rests_and_another_one_is_asked_at_once() {
    let subnets = vec![subnet(PRIMARY, 200, &[]), subnet("subnet-a", 100, &[FOR_PODS])];
    let mut node = by_tag(tight(warm(0)), vec![eni(0, &[])], subnets);
    node.add("a");
    node.pass(1.0);
    let (op, _) = node.only_run();
    node.finish(op, Applied::Allocated(vec![vpc_types::Allocation::Ip(ip(10))]));
    node.enis[0] = eni(0, &[10]);
    let req = node.add("b");
    node.pass(1.0);
    assert_eq!(creations(&node), [PRIMARY]);
    let (op, _) = node.only_run();
    node.outcome(op, OpOutcome::Refused(Refusal::SubnetFull));
    node.pass(1.0);
    assert_eq!(creations(&node), ["subnet-a"]);
    assert!(node.reply(req).is_none());
}

#[test]
fn a_starving_node_asks_for_what_a_reading_says_is_left() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[])]);
    node.subnets = vec![subnet(PRIMARY, 2, &[])];
    for pod in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        node.add(pod);
    }
    node.pass(1.0);
    let (op, work) = node.only_run();
    assert!(
        matches!(
            work,
            Work::AllocateAddresses {
                want: Want::Addresses(8),
                ..
            }
        ),
        "{work:?}"
    );
    assert_eq!(readings(&node), 0, "nothing was read before");
    node.outcome(op, OpOutcome::Refused(Refusal::SubnetFull));
    node.pass(1.0);
    let (op, work) = node.only_run();
    assert!(
        matches!(
            work,
            Work::AllocateAddresses {
                want: Want::Addresses(1..=2),
                ..
            }
        ),
        "{work:?}"
    );
    assert_eq!(readings(&node), 1);
    // The count was wrong: now the subnet rests, for seconds while pods wait.
    node.outcome(op, OpOutcome::Refused(Refusal::SubnetFull));
    node.pass(7.0);
    assert!(node.runs.is_empty());
    node.pass(10.0);
    assert_eq!(node.runs.len(), 1);
}

#[test]
fn thread_3719_subnets_are_read_at_start_and_then_only_while_one_in_use_is_nearly_empty() {
    let day = 24.0 * 3_600.0;
    let calls = |free| {
        let mut node = by_tag(
            config(warm(1)),
            vec![eni(0, &[10, 11])],
            vec![subnet(PRIMARY, free, &[])],
        );
        node.pass(day);
        assert!(node.runs.is_empty(), "{:?}", node.runs);
        readings(&node)
    };
    assert_eq!(calls(200), 1);
    let watched = calls(70);
    assert!((75..=130).contains(&watched), "{watched} readings a day");
    let mut fixed = Node::started(config(warm(1)), vec![eni(0, &[10, 11])]);
    fixed.pass(day);
    assert_eq!(readings(&fixed), 0);
}

#[test]
fn a_restart_with_its_files_reads_no_subnet_and_keeps_closed_what_tags_closed() {
    let read = vec![
        subnet(PRIMARY, 200, &[FOR_PODS]),
        subnet("subnet-0456", 200, &[("kubernetes.io/role/cni", "0")]),
    ];
    let mut closed = eni(1, &[20, 21]);
    closed.subnet = "subnet-0456".parse().unwrap();
    let node = by_tag(config(warm(1)), vec![eni(0, &[10]), closed.clone()], read);
    let mut after = config(warm(0));
    after.subnets = SubnetChoice::ByTag;
    let files = node.files.clone();
    let mut node = node.restarted(after, &files, Duration::from_secs(5));
    node.looks.clear();
    node.pass(3_600.0);
    assert_eq!(readings(&node), 0);
    let (first, second) = (node.add("one"), node.add("two"));
    assert_eq!(node.granted(first), Some(ip(10)));
    assert_eq!(node.granted(second), None, "the other ENI is closed to pods");
}

#[test]
fn a_reading_comes_before_an_eni_only_where_the_last_one_is_old_or_showed_little() {
    let second = |primary, other, pause| {
        let mut subnets = vec![subnet(PRIMARY, primary, &[])];
        subnets.extend((other > 0).then(|| subnet("subnet-a", other, &[FOR_PODS])));
        let mut node = by_tag(tight(warm(0)), vec![eni(0, &[10])], subnets);
        node.add("a");
        node.wire("a", ip(10));
        node.pass(pause);
        let before = readings(&node);
        node.add("b");
        node.pass(1.0);
        assert_eq!(creations(&node).len(), 1);
        readings(&node) - before
    };
    assert_eq!(second(200, 100, 500.0), 0);
    assert_eq!(second(200, 100, 1_500.0), 1, "it is old");
    assert_eq!(second(200, 0, 1_000.0), 0, "there is nothing to choose");
    assert_eq!(second(50, 0, 500.0), 1, "it showed little");
}

#[test]
fn with_custom_networking_the_primary_eni_has_no_pods_and_new_enis_go_where_the_caller_says() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10, 11])]);
    let groups: BTreeSet<_> = [vpc_types::SecurityGroupId::parse("sg-1").unwrap()].into();
    node.tell(Event::PlacementChanged(Placement::Missing));
    let refused = node.add("a");
    let Some(Outcome::Refused(cause)) = node.reply(refused) else {
        panic!("{:?}", node.replies);
    };
    assert_eq!(cause.code.as_str(), "ENICONFIG_MISSING");
    assert_eq!(node.core.pool().supply().total, 0);
    node.tell(Event::PlacementChanged(Placement::Given {
        subnet: "subnet-c".parse().unwrap(),
        groups: groups.clone(),
    }));
    node.add("b");
    node.pass(1.0);
    let (_, work) = node.only_run();
    let Work::CreateEni {
        subnet, groups: asked, ..
    } = work
    else {
        panic!("{work:?}");
    };
    assert_eq!((subnet.as_str(), asked), ("subnet-c", groups));
    assert_eq!(readings(&node), 0);
}

#[test]
fn a_cause_names_the_subnet_and_what_it_has() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[])]);
    node.subnets = vec![subnet(PRIMARY, 0, &[])];
    let req = node.add("a");
    for _ in 0..40 {
        node.pass(1.0);
        for (op, _) in std::mem::take(&mut node.runs) {
            node.outcome(op, OpOutcome::Refused(Refusal::SubnetFull));
        }
    }
    let Some(Outcome::Refused(cause)) = node.reply(req) else {
        panic!("{:?}", node.replies);
    };
    let text = cause.to_string();
    assert!(
        text.starts_with("SUBNET_FULL: ") && text.contains("subnet-0123 has 0 free addresses"),
        "{text}"
    );
    assert!(text.contains("1 of 3 ENIs with 9 slots each"), "{text}");
}

#[test]
fn an_eni_that_waits_for_its_subnets_tags_is_not_on_file_as_excluded() {
    let mut config = config(warm(1));
    config.subnets = SubnetChoice::ByTag;
    let start = Duration::from_secs(1_000);
    let mut node = Node::with(Core::new(config.clone(), times(start)), vec![eni(0, &[10])], start);
    node.unanswered.insert(Scope::Subnets);
    node.tell(Event::Tick);
    assert!(node.core.pool().enis().all(|eni| !eni.is_open()));
    let files = node.files.clone();
    node.forbidden.insert(Scope::Subnets);
    let mut node = node.restarted(config, &files, Duration::from_secs(3));
    node.pass(60.0);
    let req = node.add("a");
    node.pass(1.0);
    assert_eq!(node.granted(req), Some(ip(10)));
}
