//! Warm targets: which one the variables amount to, and what the pool then holds.

use ipam_core::{AllocationMode, CoreConfig, Event, Settings, TargetWarning, Want, WarmTarget, Work};

use crate::node::{Node, config, eni, prefix, warm};
use crate::region::{Region, names};

const NONE: Settings = Settings {
    warm_eni: None,
    warm_ip: None,
    minimum_ip: None,
    warm_prefix: None,
};

fn of(set: Settings) -> [(WarmTarget, Vec<TargetWarning>); 2] {
    [AllocationMode::Addresses, AllocationMode::Prefixes].map(|mode| WarmTarget::from_settings(set, mode))
}

pub(crate) fn prefixes(target: WarmTarget) -> CoreConfig {
    let mut config = config(target);
    config.mode = AllocationMode::Prefixes;
    config
}

#[test]
fn without_any_variable_the_target_is_our_own() {
    assert_eq!(
        of(NONE),
        [(WarmTarget::Adaptive, vec![]), (WarmTarget::Adaptive, vec![])]
    );
}

#[test]
fn the_charts_defaults_keep_their_meaning_and_are_no_contradiction() {
    let chart = Settings {
        warm_eni: Some(1),
        warm_prefix: Some(1),
        ..NONE
    };
    assert_eq!(
        of(chart),
        [(WarmTarget::Enis(1), vec![]), (WarmTarget::Prefixes(1), vec![])]
    );
}

#[test]
fn address_targets_come_before_the_others_which_are_named() {
    let set = Settings {
        warm_eni: Some(2),
        warm_ip: Some(5),
        minimum_ip: Some(10),
        warm_prefix: Some(3),
    };
    let target = WarmTarget::Addresses { warm: 5, minimum: 10 };
    let warnings = vec![
        TargetWarning::EniTargetOverridden,
        TargetWarning::PrefixTargetOverridden,
    ];
    assert_eq!(of(set), [(target, warnings.clone()), (target, warnings)]);
}

#[test]
fn a_target_of_the_other_mode_is_named() {
    let set = Settings {
        warm_eni: Some(2),
        warm_prefix: Some(3),
        ..NONE
    };
    let [addresses, prefixes] = of(set);
    assert_eq!(
        addresses,
        (WarmTarget::Enis(2), vec![TargetWarning::PrefixTargetWithoutPrefixes])
    );
    assert_eq!(
        prefixes,
        (WarmTarget::Prefixes(3), vec![TargetWarning::EniTargetWithPrefixes])
    );
}

#[test]
fn zero_is_no_address_target_and_says_so_where_nothing_else_is_set() {
    let set = Settings {
        warm_ip: Some(0),
        minimum_ip: Some(0),
        ..NONE
    };
    let expected = (WarmTarget::Adaptive, vec![TargetWarning::ZeroIsUnset]);
    assert_eq!(of(set), [expected.clone(), expected]);
    let set = Settings {
        warm_eni: Some(1),
        ..set
    };
    assert_eq!(of(set)[0], (WarmTarget::Enis(1), vec![]));
}

#[test]
fn prefixes_with_all_targets_zero_are_fetched_on_demand() {
    let set = Settings {
        warm_ip: Some(0),
        minimum_ip: Some(0),
        warm_prefix: Some(0),
        warm_eni: None,
    };
    assert_eq!(of(set)[1], (WarmTarget::Prefixes(0), vec![TargetWarning::OnDemand]));
}

#[test]
fn every_warning_names_its_variable_and_says_why() {
    for warning in [
        TargetWarning::EniTargetOverridden,
        TargetWarning::EniTargetWithPrefixes,
        TargetWarning::PrefixTargetOverridden,
        TargetWarning::PrefixTargetWithoutPrefixes,
        TargetWarning::MinimumWithoutWarm,
        TargetWarning::ZeroIsUnset,
    ] {
        assert!(warning.to_string().starts_with(warning.variable()), "{warning}");
    }
}

#[test]
fn thread_3685_a_pool_at_its_minimum_grows_for_pods_that_wait() {
    let set = Settings {
        warm_ip: Some(0),
        minimum_ip: Some(22),
        warm_prefix: Some(1),
        warm_eni: Some(1),
    };
    let (target, warnings) = WarmTarget::from_settings(set, AllocationMode::Prefixes);
    assert_eq!(warnings, [TargetWarning::MinimumWithoutWarm]);
    let mut region = Region::of(Node::started(prefixes(target), vec![eni(0, &[])]));
    region.pass(10);
    assert_eq!(region.kinds(), (2, 0), "22 addresses are two prefixes");
    let reqs = region.run_pods(names(0..60));
    assert!(reqs.iter().all(|req| region.node.granted(*req).is_some()));
}

#[test]
fn thread_2896_cooling_addresses_do_not_count() {
    let minimum = WarmTarget::Addresses { warm: 2, minimum: 4 };
    let mut region = Region::of(Node::started(config(minimum), vec![eni(0, &[10, 11, 12, 13])]));
    region.run_pods(names(0..4));
    region.pass(10);
    names(0..2).for_each(|name| region.end_pod(&name));
    let supply = region.node.core.pool().supply();
    assert_eq!((supply.cooling, supply.free), (2, 2));
    let reqs = region.run_pods(names(10..15));
    assert!(
        reqs.iter().all(|req| region.node.granted(*req).is_some()),
        "nobody waits for the end of a rest"
    );
}

#[test]
fn thread_2056_a_burst_is_one_call_whatever_the_target() {
    let mut small = config(warm(1));
    small.node.slots_per_eni = 50;
    let mut region = Region::of(Node::started(small, vec![eni(0, &[])]));
    region.pass(10);
    region.calls.clear();
    let reqs: Vec<_> = names(0..30).map(|name| region.node.add(&name)).collect();
    region.pass(2);
    assert!(reqs.iter().all(|req| region.node.granted(*req).is_some()));
    assert_eq!(region.calls.len(), 1, "{:?}", region.calls);
}

#[test]
fn announced_pods_have_their_addresses_before_they_come() {
    let mut region = Region::of(Node::started(config(warm(1)), vec![eni(0, &[])]));
    region.pass(10);
    region.calls.clear();
    region.node.tell(Event::Demand { pods: 6 });
    region.pass(1);
    assert!(
        matches!(
            region.calls[..],
            [Work::AllocateAddresses {
                want: Want::Addresses(6),
                ..
            }]
        ),
        "{:?}",
        region.calls
    );
    let supply = region.node.core.pool().supply();
    assert_eq!(supply.free, 7, "the six, and the warm target");
}

#[test]
fn thread_2793_the_pool_never_holds_more_than_the_kubelet_admits() {
    let held = |config: CoreConfig| {
        let mut region = Region::of(Node::started(config, vec![eni(0, &[])]));
        region.run_pods(names(0..15));
        region.node.tell(Event::Demand { pods: 100 });
        region.pass(60);
        let supply = region.node.core.pool().supply();
        assert_eq!(supply.assigned, 15);
        supply.total
    };
    for target in [WarmTarget::Enis(2), warm(40), WarmTarget::Adaptive] {
        let mut limited = config(target);
        limited.node.max_pods = Some(20);
        assert!(held(limited) <= 20, "{target:?}");
    }
    for target in [WarmTarget::Prefixes(4), warm(40), WarmTarget::Adaptive] {
        let mut limited = prefixes(target);
        limited.node.max_pods = Some(20);
        assert_eq!(
            held(limited),
            32,
            "{target:?}: the rest of the last prefix comes with it"
        );
    }
}

#[test]
fn pods_beyond_the_kubelets_limit_are_served_all_the_same() {
    let mut limited = config(warm(0));
    limited.node.max_pods = Some(3);
    let mut region = Region::of(Node::started(limited, vec![eni(0, &[])]));
    let reqs = region.run_pods(names(0..5));
    assert!(reqs.iter().all(|req| region.node.granted(*req).is_some()));
}

#[test]
fn our_own_target_follows_bursts_and_forgets_them() {
    let mut region = Region::of(Node::started(prefixes(WarmTarget::Adaptive), vec![eni(0, &[])]));
    region.pass(2);
    assert_eq!(region.kinds(), (1, 0), "a fresh node has one prefix");
    region.run_pods(names(0..10));
    region.calls.clear();
    region.pass(5);
    assert_eq!(region.calls, [], "six free are more than half of eight");
    region.run_pods(names(10..13));
    region.pass(8);
    assert_eq!(region.kinds(), (2, 0), "three are less");
    names(9..13).for_each(|name| region.end_pod(&name));
    region.pass(400);
    assert_eq!(region.kinds(), (2, 0), "eight are still kept for the next burst");
    region.pass(2_000);
    assert_eq!(region.kinds(), (1, 0));
}

#[test]
fn our_own_target_asks_for_single_addresses_by_fours() {
    let mut region = Region::of(Node::started(config(WarmTarget::Adaptive), vec![eni(0, &[])]));
    region.pass(2);
    let asked: Vec<u16> = region
        .calls
        .iter()
        .map(|work| match work {
            Work::AllocateAddresses { want, .. } => want.slots(),
            _ => 0,
        })
        .collect();
    assert_eq!(asked, [4]);
}

#[test]
fn a_target_in_prefixes_is_free_prefixes_worth_of_addresses() {
    let mut region = Region::of(Node::started(prefixes(WarmTarget::Prefixes(1)), vec![eni(0, &[])]));
    region.pass(2);
    assert_eq!(region.kinds(), (1, 0));
    region.run_pods(names(0..1));
    region.pass(10);
    assert_eq!(region.kinds(), (2, 0), "fifteen free are less than a prefix");
}

/// After an hour of pods that come and go every target is quiet for a day.
#[test]
fn a_pool_without_change_makes_no_call_and_sets_no_alarm() {
    let targets = [
        warm(0),
        warm(5),
        WarmTarget::Addresses { warm: 3, minimum: 12 },
        WarmTarget::Adaptive,
        WarmTarget::Prefixes(0),
        WarmTarget::Prefixes(1),
        WarmTarget::Enis(0),
        WarmTarget::Enis(1),
    ];
    for mode in [AllocationMode::Addresses, AllocationMode::Prefixes] {
        for target in targets {
            if matches!(target, WarmTarget::Enis(_)) && mode == AllocationMode::Prefixes {
                continue;
            }
            let mut config = config(target);
            config.mode = mode;
            let mut region = Region::of(Node::started(config, vec![eni(0, &[10])]));
            region.run_pods(names(0..12));
            names(3..12).for_each(|name| region.end_pod(&name));
            region.pass(6_000);
            let (calls, events) = (region.calls.len(), region.node.events);
            region.node.pass(86_400.0);
            region.work();
            assert_eq!(region.calls[calls..], [], "{mode:?} {target:?}");
            assert_eq!(region.node.events, events, "{mode:?} {target:?}: it was woken");
        }
    }
}

#[test]
fn an_address_of_a_prefix_is_granted_like_any_other() {
    let mut first = eni(0, &[]);
    first.allocations = [prefix(1, 0)].into();
    let mut node = Node::started(prefixes(warm(0)), vec![first]);
    let reqs: Vec<_> = names(0..16).map(|name| node.add(&name)).collect();
    let granted: std::collections::BTreeSet<_> = reqs.iter().filter_map(|req| node.granted(*req)).collect();
    assert_eq!(
        granted.len(),
        16,
        "network and broadcast address of the block serve as well"
    );
}

#[test]
fn our_own_target_makes_no_eni_for_the_last_address_of_a_burst() {
    let mut region = Region::of(Node::started(config(WarmTarget::Adaptive), vec![eni(0, &[])]));
    region.pass(60);
    region.run_pods(names(0..5));
    region.pass(3_000);
    let made_one = region.calls.iter().any(|work| matches!(work, Work::CreateEni { .. }));
    assert!(!made_one && region.held().len() == 9, "{:?}", region.calls);
    region.run_pods(names(5..8));
    region.pass(60);
    let made_one = region.calls.iter().any(|work| matches!(work, Work::CreateEni { .. }));
    assert!(made_one, "one address left is less than half of what a burst may want");
}
