//! What callers see: describes, filters, pages, lag, faults, throttling, counts, changes.

use super::super::request::*;
use super::super::*;
use super::*;

fn described(model: &mut Model, now: Duration, query: Query) -> Vec<EniId> {
    let page = model.call(now, &DescribeNetworkInterfaces::from(query)).done().unwrap();
    page.items.iter().map(|eni| eni.id.clone()).collect()
}

#[test]
fn filters_narrow_by_attachment_status_and_tag() {
    let mut region = region("m5.large");
    let request = CreateNetworkInterface {
        description: format!("aws-K8S-{}", region.instance),
        tags: [("cluster".to_owned(), "demo".to_owned())].into(),
        ..CreateNetworkInterface::new(region.subnet.clone())
    };
    let tagged = region.model.call(secs(1), &request).done().unwrap().eni.id.clone();
    let mine = Query::filtered("attachment.instance-id", region.instance.as_str());
    assert_eq!(described(&mut region.model, secs(1), mine).len(), 1);
    for (name, value) in [
        ("status", "available"),
        ("tag:cluster", "d*o"),
        ("tag-key", "cluster"),
        ("description", "aws-K8S-*"),
    ] {
        assert_eq!(
            described(&mut region.model, secs(1), Query::filtered(name, value)),
            std::slice::from_ref(&tagged),
            "{name}"
        );
    }
    let both = Query {
        filters: vec![Filter::new("status", "in-use"), Filter::new("tag-key", "cluster")],
        ..Query::default()
    };
    assert_eq!(described(&mut region.model, secs(1), both), []);
    let unknown = DescribeNetworkInterfaces::from(Query::filtered("no-such-filter", "x"));
    assert_eq!(
        code(region.model.call(secs(1), &unknown).done()),
        Some(ErrorCode::InvalidParameterValue)
    );
}

#[test]
fn an_eni_of_another_instance_is_filtered_out_but_not_missing() {
    let mut region = region("m5.large");
    let other = region
        .model
        .run_instance(secs(0), InstanceSpec::new("m5.large", region.subnet.clone()))
        .unwrap();
    let mine = region.model.enis_of(&region.instance).next().unwrap().id.clone();
    let query = Query::filtered("attachment.instance-id", other.as_str());
    let page = region
        .model
        .call(secs(1), &DescribeNetworkInterfaces { ids: vec![mine], query })
        .done()
        .unwrap();
    assert!(page.items.is_empty());
    let pattern = Query::filtered("attachment.instance-id", "i-*");
    assert_eq!(described(&mut region.model, secs(1), pattern).len(), 2);
}

#[test]
fn pages_cover_everything_once_even_when_items_vanish_between_them() {
    let mut region = region("m5.large");
    let mut all: Vec<_> = (0..12).map(|_| region.create(secs(1))).collect();
    all.push(region.model.enis_of(&region.instance).next().unwrap().id.clone());
    all.sort();
    let (mut seen, mut next_token) = (Vec::new(), None);
    loop {
        let query = Query {
            max_results: Some(5),
            next_token,
            ..Query::default()
        };
        let page = region
            .model
            .call(secs(1), &DescribeNetworkInterfaces::from(query))
            .done()
            .unwrap();
        assert!(page.items.len() <= 5);
        seen.extend(page.items.iter().map(|eni| eni.id.clone()));
        next_token = page.next_token;
        if next_token.is_none() {
            break;
        }
    }
    assert_eq!(seen, all);
    let query = Query {
        max_results: Some(5),
        next_token: Some("nonsense".into()),
        ..Query::default()
    };
    let refused = region
        .model
        .call(secs(1), &DescribeNetworkInterfaces::from(query))
        .done();
    assert_eq!(code(refused), Some(ErrorCode::InvalidNextToken));
}

#[test]
fn a_missing_id_is_named_in_quotes() {
    let mut region = region("m5.large");
    let describe = DescribeNetworkInterfaces {
        ids: vec!["eni-0abc".parse().unwrap()],
        query: Query::default(),
    };
    let refusal = region.model.call(secs(1), &describe).done().unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "InvalidNetworkInterfaceID.NotFound: The networkInterface ID 'eni-0abc' does not exist"
    );
}

#[test]
fn an_instance_knows_its_first_eni_from_the_start() {
    let settings = Settings {
        describe_lag: Delay::Fixed(secs(1)),
        imds_lag: Delay::Fixed(secs(5)),
        ..Settings::instant(1)
    };
    let mut region = region_with(settings, "m5.large", "10.0.1.0/24");
    let instance = region.instance.clone();
    let shown = region.model.imds(secs(0), &instance);
    assert!(matches!(shown, ImdsAnswer::Enis(enis) if enis.len() == 1));
    let described = region.model.call(secs(0), &DescribeNetworkInterfaces::default());
    assert_eq!(described.done().unwrap().items.len(), 1);
}

#[test]
fn describes_and_imds_lag_behind_each_in_its_own_time() {
    let settings = Settings {
        describe_lag: Delay::Fixed(secs(1)),
        imds_lag: Delay::Fixed(secs(5)),
        ..Settings::instant(1)
    };
    let mut region = region_with(settings, "m5.large", "10.0.1.0/24");
    let primary = region.model.enis_of(&region.instance).next().unwrap().id.clone();
    let assign = AssignPrivateIpAddresses::new(primary.clone(), Ipv4Request::Count(1));
    region.model.call(secs(10), &assign).done().unwrap();
    let api = |model: &mut Model, now| {
        let page = model
            .call(secs(now), &DescribeNetworkInterfaces::default())
            .done()
            .unwrap();
        page.items[0].secondary.len()
    };
    let instance = region.instance.clone();
    let imds = |model: &mut Model, now| match model.imds(secs(now), &instance) {
        ImdsAnswer::Enis(enis) => enis[0].eni.secondary.len(),
        ImdsAnswer::Gone | ImdsAnswer::Disabled => panic!("no fault was injected"),
    };
    assert_eq!((api(&mut region.model, 10), imds(&mut region.model, 10)), (0, 0));
    assert_eq!((api(&mut region.model, 11), imds(&mut region.model, 11)), (1, 0));
    assert_eq!((api(&mut region.model, 15), imds(&mut region.model, 15)), (1, 1));
    region.model.break_imds(ImdsFault::StaleForever(primary.clone()));
    region.model.call(secs(20), &assign).done().unwrap();
    assert_eq!((api(&mut region.model, 9_000), imds(&mut region.model, 9_000)), (2, 1));
    region.model.call(secs(9_001), &assign).done().unwrap();
    assert_eq!(
        imds(&mut region.model, 9_006),
        3,
        "another change reveals the hidden one"
    );
}

#[test]
fn a_deleted_eni_is_shown_for_a_while_and_then_forgotten() {
    let settings = Settings {
        describe_lag: Delay::Fixed(secs(2)),
        ..Settings::instant(1)
    };
    let mut region = region_with(settings, "m5.large", "10.0.1.0/24");
    let eni = region.create(secs(10));
    region
        .model
        .call(secs(20), &DeleteNetworkInterface { eni: eni.clone() })
        .done()
        .unwrap();
    assert!(described(&mut region.model, secs(21), Query::default()).contains(&eni));
    assert!(!described(&mut region.model, secs(22), Query::default()).contains(&eni));
    assert_eq!(
        region.model.world.enis.len(),
        1,
        "no history is kept of what everybody knows"
    );
}

#[test]
fn fresh_ids_can_be_unknown_to_later_calls() {
    let settings = Settings {
        describe_lag: Delay::Fixed(secs(2)),
        fresh_ids: FreshIds::UnknownUntilVisible,
        ..Settings::instant(1)
    };
    let mut region = region_with(settings, "m5.large", "10.0.1.0/24");
    let eni = region.create(secs(10));
    assert_eq!(
        code(region.attach(secs(11), &eni, 1)),
        Some(ErrorCode::InvalidEniNotFound)
    );
    region.attach(secs(12), &eni, 1).unwrap();
}

#[test]
fn faults_refuse_lose_and_delay_in_order() {
    let mut region = region("m5.large");
    let action = Action::CreateNetworkInterface;
    let faults = region.model.faults_mut();
    faults.inject(
        action,
        &Fault::Refuse(Ec2Error::stock(ErrorCode::UnauthorizedOperation)),
        2,
    );
    faults.inject(action, &Fault::LoseAnswer(Effect::NotApplied), 1);
    faults.inject(action, &Fault::LoseAnswer(Effect::Applied), 1);
    faults.inject(action, &Fault::Delay(secs(3)), 1);
    let request = CreateNetworkInterface::new(region.subnet.clone());
    let mut outcomes = Vec::new();
    for _ in 0..5 {
        let answer = region.model.call(secs(1), &request);
        let word = match answer.outcome {
            Outcome::Done(_) => "done",
            Outcome::Refused(_) => "refused",
            Outcome::Lost => "lost",
        };
        outcomes.push((word, answer.latency.as_secs(), region.model.enis().count()));
    }
    let expected = [
        ("refused", 0, 1),
        ("refused", 0, 1),
        ("lost", 0, 1),
        ("lost", 0, 2),
        ("done", 3, 3),
    ];
    assert_eq!(outcomes, expected);
    let count = region.model.counters().of(action);
    assert_eq!(
        (
            count.accepted,
            count.lost,
            count.refused[&ErrorCode::UnauthorizedOperation]
        ),
        (1, 2, 2)
    );
    assert_eq!((count.total(), region.model.counters().mutations()), (5, 5));
}

#[test]
fn throttled_calls_have_no_effect_and_are_counted() {
    let settings = Settings {
        throttle: Throttle::Buckets { factor: 0.02 },
        ..Settings::instant(1)
    };
    let mut region = region_with(settings, "m5.large", "10.0.1.0/24");
    let request = CreateNetworkInterface::new(region.subnet.clone());
    let codes: Vec<_> = (0..4)
        .map(|_| code(region.model.call(secs(1), &request).done()))
        .collect();
    let refused = Some(ErrorCode::RequestLimitExceeded);
    assert_eq!(codes, [None, None, refused, refused]);
    assert_eq!(region.model.enis().count(), 3);
    assert_eq!(
        code(region.model.call(secs(11), &request).done()),
        None,
        "0.1 tokens a second make one in ten"
    );
}

#[test]
fn changes_are_reported_only_for_devices_on_an_instance() {
    let mut region = region("m5.large");
    let eni = region.create(secs(1));
    let assign = AssignPrivateIpAddresses::new(eni.clone(), Ipv4Request::Count(2));
    let before = region.model.call(secs(1), &assign).done().unwrap().addresses;
    assert_eq!(region.model.drain_changes(), []);
    region.attach(secs(1), &eni, 1).unwrap();
    let changes = region.model.drain_changes();
    let [
        Change::Attached {
            eni: attached, device, ..
        },
    ] = changes.as_slice()
    else {
        panic!("{changes:?}")
    };
    assert_eq!((&attached.secondary, device.0), (&before, 1));
    region.model.call(secs(1), &assign).done().unwrap();
    let unassign = UnassignPrivateIpAddresses {
        eni,
        addresses: before,
        prefixes: vec![],
    };
    region.model.call(secs(1), &unassign).done().unwrap();
    let kinds: Vec<_> = region
        .model
        .drain_changes()
        .iter()
        .map(|change| matches!(change, Change::Assigned { .. }))
        .collect();
    assert_eq!(kinds, [true, true, false, false]);
}

#[test]
fn equal_seeds_make_equal_worlds() {
    let ids = |seed| {
        let mut region = region_with(Settings::aws(seed), "m5.large", "10.0.1.0/24");
        let created = (0..3).map(|_| region.create(secs(1))).collect::<Vec<_>>();
        let shown = region
            .model
            .enis()
            .map(|eni| (eni.mac, eni.primary))
            .collect::<Vec<_>>();
        (created, shown)
    };
    assert_eq!(ids(5), ids(5));
    assert_ne!(ids(5), ids(6));
}
