use super::*;

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, last)
}

fn device(alias: Option<&str>, state: LinkState, mtu: u32) -> KernelChange {
    KernelChange::LinkAppeared {
        index: vpc_types::IfIndex::new(7).unwrap(),
        name: "eni7".to_owned(),
        mac: Some(MacAddress([2, 0, 0, 0, 0, 7])),
        alias: alias.map(str::to_owned),
        state,
        mtu,
    }
}

fn of(change: &KernelChange) -> Disturbance {
    let mut disturbance = Disturbance::default();
    disturbance.add(change, 9001);
    disturbance
}

#[test]
fn what_an_ordinary_add_shows_disturbs_no_rule_and_no_device() {
    let made = KernelChange::RuleChanged {
        address: Some(address(5)),
        fate: Fate::Made,
    };
    assert!(of(&made).is_empty());
    assert!(of(&device(Some("c"), LinkState::Up, 9001)).is_empty());
    assert!(of(&device(None, LinkState::Up, 9001)).is_empty());
}

#[test]
fn removals_and_devices_that_are_down_or_wrong_are_disturbances() {
    let removed = |address| KernelChange::RuleChanged {
        address,
        fate: Fate::Removed,
    };
    assert_eq!(of(&removed(Some(address(5)))).addresses, BTreeSet::from([address(5)]));
    assert_eq!(of(&removed(None)).reach, Reach::Node);
    assert_eq!(of(&KernelChange::Overrun).reach, Reach::Everything);
    assert_eq!(of(&KernelChange::TableChanged { table: 2 }).tables, BTreeSet::from([2]));
    let down = of(&device(Some("c"), LinkState::Down, 9001));
    assert!(down.aliases.contains("c") && down.devices.is_empty());
    let down = of(&device(None, LinkState::Down, 9001));
    assert!(down.names.contains("eni7") && down.devices.len() == 1);
    assert_eq!(of(&device(None, LinkState::Up, 1500)).devices.len(), 1);
}

#[test]
fn wishes_gather_and_the_first_one_sets_the_time() {
    let (mut lane, start) = (Lane::<Disturbance>::default(), Instant::now());
    let later = start + Duration::from_millis(15);
    lane.wish(start).merge(Disturbance::of_addresses([address(5)].into()));
    lane.wish(later).merge(Disturbance::of_addresses([address(6)].into()));
    assert_eq!(lane.due(), Some(start));
    let wish = lane.take_due(start).unwrap();
    assert_eq!(wish.addresses, BTreeSet::from([address(5), address(6)]));
    assert_eq!(lane.take_due(later), None);
}

#[test]
fn a_wish_waits_for_the_pace_and_is_not_lost() {
    let (mut lane, start) = (Lane::<Disturbance>::default(), Instant::now());
    let pause = (0..10).find_map(|_| lane.limiter.spend(start)).unwrap();
    lane.wish(start).merge(Disturbance::everything());
    assert_eq!(lane.take_due(start), None);
    assert_eq!(lane.take_due(start + pause), Some(Disturbance::everything()));
}

#[test]
fn counts_are_by_kind_of_object() {
    let repairs = Repairs::default();
    let repaired = Repaired {
        routes: 2,
        rules: 3,
        ..Repaired::default()
    };
    repairs.done(&repaired, Duration::ZERO);
    repairs.done(&repaired, Duration::ZERO);
    assert_eq!(repairs.counts(), BTreeMap::from([("podRoutes", 4), ("podRules", 6)]));
}
