//! From create to delete: states, limits, refusals, idempotency, termination.

use super::super::request::*;
use super::super::*;
use super::*;

#[test]
fn an_eni_goes_through_its_states_in_its_own_time() {
    let settings = Settings {
        attach: Delay::Fixed(secs(2)),
        unplug: Delay::Fixed(secs(3)),
        detach: Delay::Fixed(secs(7)),
        ..Settings::instant(1)
    };
    let mut region = region_with(settings, "m5.large", "10.0.1.0/24");
    let eni = region.create(secs(10));
    let attached = region.attach(secs(10), &eni, 1).unwrap();
    let mut status = |now: u64| {
        region.model.advance(secs(now));
        let eni = region.model.eni(&eni).unwrap();
        (
            eni.status(),
            eni.attachment.as_ref().map(|tie| tie.status),
            region.model.is_plugged(eni),
        )
    };
    assert_eq!(status(11), (EniStatus::InUse, Some(AttachmentStatus::Attaching), false));
    assert_eq!(status(12), (EniStatus::InUse, Some(AttachmentStatus::Attached), true));
    let detach = DetachNetworkInterface {
        attachment: attached.attachment,
        mode: DetachMode::Orderly,
    };
    region.model.call(secs(20), &detach).done().unwrap();
    assert_eq!(
        code(region.model.call(secs(20), &detach).done()),
        Some(ErrorCode::IncorrectState)
    );
    let delete = DeleteNetworkInterface { eni: eni.clone() };
    let busy = region.model.call(secs(26), &delete).done().unwrap_err();
    assert_eq!(
        busy,
        Ec2Error::value(format!("Network interface '{eni}' is currently in use."))
    );
    assert_eq!(region.model.next_transition(), Some(secs(27)));
    region.model.advance(secs(27));
    assert_eq!(region.model.eni(&eni).unwrap().status(), EniStatus::Available);
    assert_eq!(
        code(region.model.call(secs(27), &detach).done()),
        Some(ErrorCode::InvalidAttachmentNotFound)
    );
    region.model.call(secs(27), &delete).done().unwrap();
    assert!(region.model.eni(&eni).is_none());
    let changes = region.model.drain_changes();
    assert!(
        matches!(changes.as_slice(), [Change::Attached { .. }, Change::Detached { .. }]),
        "{changes:?}"
    );
}

#[test]
fn a_detach_during_the_attach_never_shows_a_device() {
    let settings = Settings {
        attach: Delay::Fixed(secs(5)),
        detach: Delay::Fixed(secs(1)),
        ..Settings::instant(1)
    };
    let mut region = region_with(settings, "m5.large", "10.0.1.0/24");
    let eni = region.create(secs(0));
    let attachment = region.attach(secs(0), &eni, 1).unwrap().attachment;
    region
        .model
        .call(
            secs(1),
            &DetachNetworkInterface {
                attachment,
                mode: DetachMode::Orderly,
            },
        )
        .done()
        .unwrap();
    region.model.advance(secs(60));
    assert_eq!(region.model.eni(&eni).unwrap().status(), EniStatus::Available);
    assert_eq!(region.model.drain_changes(), []);
}

#[test]
fn attach_refuses_taken_slots_full_cards_and_used_enis() {
    let mut region = region("m5.large");
    let enis: Vec<_> = (0..3).map(|_| region.create(secs(1))).collect();
    region.attach(secs(1), &enis[0], 1).unwrap();
    let taken = region.attach(secs(1), &enis[1], 1).unwrap_err();
    let text = format!(
        "Instance '{}' already has an interface attached at device index '1'.",
        region.instance
    );
    assert_eq!(taken, Ec2Error::value(text));
    assert_eq!(
        code(region.attach(secs(1), &enis[0], 2)),
        Some(ErrorCode::InvalidEniInUse)
    );
    region.attach(secs(1), &enis[1], 2).unwrap();
    let full = region.attach(secs(1), &enis[2], 3).unwrap_err();
    assert_eq!(
        full.to_string(),
        "AttachmentLimitExceeded: Interface count 4 exceeds the limit for m5.large"
    );
    assert_eq!(region.model.audit(), Vec::<String>::new());
}

#[test]
fn the_primary_eni_cannot_be_detached() {
    let mut region = region("m5.large");
    let primary = region
        .model
        .enis_of(&region.instance)
        .next()
        .unwrap()
        .attachment
        .clone()
        .unwrap();
    let detach = DetachNetworkInterface {
        attachment: primary.id,
        mode: DetachMode::Force,
    };
    assert_eq!(
        code(region.model.call(secs(1), &detach).done()),
        Some(ErrorCode::OperationNotPermitted)
    );
}

#[test]
fn addresses_and_prefixes_share_the_slots_of_an_eni() {
    let mut region = region("t3.medium");
    let primary = region.model.enis_of(&region.instance).next().unwrap().id.clone();
    let mut assign = |wanted| {
        region
            .model
            .call(secs(1), &AssignPrivateIpAddresses::new(primary.clone(), wanted))
            .done()
    };
    let first = assign(Ipv4Request::Count(3)).unwrap();
    assert_eq!((first.addresses.len(), first.prefixes.len()), (3, 0));
    let second = assign(Ipv4Request::PrefixCount(2)).unwrap();
    assert_eq!(
        (second.addresses.len(), second.prefixes.len()),
        (0, 2),
        "only what is new"
    );
    assert_eq!(
        code(assign(Ipv4Request::Count(1))),
        Some(ErrorCode::PrivateIpAddressLimitExceeded)
    );
    assert_eq!(code(assign(Ipv4Request::Count(0))), Some(ErrorCode::MissingParameter));
}

#[test]
fn xen_types_take_no_prefixes() {
    let mut region = region("t2.micro");
    let primary = region.model.enis_of(&region.instance).next().unwrap().id.clone();
    let request = AssignPrivateIpAddresses::new(primary, Ipv4Request::PrefixCount(1));
    assert_eq!(
        code(region.model.call(secs(1), &request).done()),
        Some(ErrorCode::UnsupportedOperation)
    );
}

#[test]
fn unassign_takes_all_or_nothing_and_never_the_primary() {
    let mut region = region("m5.large");
    let primary = region.model.enis_of(&region.instance).next().unwrap().clone();
    let assign = AssignPrivateIpAddresses::new(primary.id.clone(), Ipv4Request::Count(2));
    let got = region.model.call(secs(1), &assign).done().unwrap().addresses;
    let mut unassign = |addresses: Vec<_>, prefixes: Vec<_>| {
        region
            .model
            .call(
                secs(1),
                &UnassignPrivateIpAddresses {
                    eni: primary.id.clone(),
                    addresses,
                    prefixes,
                },
            )
            .done()
    };
    assert_eq!(
        code(unassign(vec![primary.primary], vec![])),
        Some(ErrorCode::InvalidParameterValue)
    );
    let stranger = "10.0.1.250".parse().unwrap();
    assert_eq!(
        code(unassign(vec![got[0], stranger], vec![])),
        Some(ErrorCode::InvalidParameterValue)
    );
    assert_eq!(code(unassign(vec![], vec![])), Some(ErrorCode::MissingParameter));
    unassign(vec![got[0], got[0]], vec![]).unwrap();
    assert_eq!(region.model.eni(&primary.id).unwrap().secondary, [got[1]]);
    assert_eq!(region.model.audit(), Vec::<String>::new());
}

#[test]
fn a_named_address_moves_only_when_that_is_allowed() {
    let mut region = region("m5.large");
    let (a, b) = (region.create(secs(1)), region.create(secs(1)));
    let address = "10.0.1.77".parse().unwrap();
    let mut assign = |eni: &EniId, reassignment| {
        let wanted = Ipv4Request::Addresses(vec![address]);
        region
            .model
            .call(
                secs(1),
                &AssignPrivateIpAddresses {
                    eni: eni.clone(),
                    wanted,
                    reassignment,
                },
            )
            .done()
    };
    assign(&a, Reassignment::Refused).unwrap();
    assert_eq!(
        code(assign(&b, Reassignment::Refused)),
        Some(ErrorCode::InvalidIpAddressInUse)
    );
    assign(&b, Reassignment::Allowed).unwrap();
    assert!(region.model.eni(&a).unwrap().secondary.is_empty());
    assert_eq!(region.model.audit(), Vec::<String>::new());
}

#[test]
fn a_repeated_client_token_gives_the_first_eni_again() {
    let mut region = region("m5.large");
    let request = CreateNetworkInterface {
        client_token: Some("t".into()),
        ipv4: Some(Ipv4Request::Count(4)),
        ..CreateNetworkInterface::new(region.subnet.clone())
    };
    let before = region.model.subnet(&region.subnet).unwrap().available();
    let first = region.model.call(secs(1), &request).done().unwrap();
    let again = region.model.call(secs(2), &request).done().unwrap();
    assert_eq!(first.eni, again.eni);
    assert_eq!(region.model.subnet(&region.subnet).unwrap().available(), before - 5);
    let other = CreateNetworkInterface {
        description: "other".into(),
        ..request.clone()
    };
    assert_eq!(
        code(region.model.call(secs(3), &other).done()),
        Some(ErrorCode::IdempotentParameterMismatch)
    );
    let late = region.model.call(secs(3 + 24 * 3_600), &other).done().unwrap();
    assert_ne!(late.eni.id, first.eni.id, "a token is forgotten after a day");
}

#[test]
fn a_create_that_does_not_fit_takes_nothing() {
    let mut region = region_with(Settings::instant(1), "m5.large", "10.0.1.0/28");
    let mut create = |ipv4| {
        let request = CreateNetworkInterface {
            ipv4,
            ..CreateNetworkInterface::new(region.subnet.clone())
        };
        region.model.call(secs(1), &request).done()
    };
    assert_eq!(
        code(create(Some(Ipv4Request::Count(10)))),
        Some(ErrorCode::InsufficientFreeAddressesInSubnet)
    );
    create(Some(Ipv4Request::Count(9))).unwrap();
    assert_eq!(code(create(None)), Some(ErrorCode::InsufficientFreeAddressesInSubnet));
}

#[test]
fn termination_deletes_what_says_so_and_leaks_the_rest() {
    let mut region = region("m5.large");
    let (kept, deleted) = (region.create(secs(1)), region.create(secs(1)));
    region.attach(secs(1), &kept, 1).unwrap();
    let attachment = region.attach(secs(1), &deleted, 2).unwrap().attachment;
    let attribute = EniAttribute::OnTermination(attachment, OnTermination::Delete);
    region
        .model
        .call(
            secs(1),
            &ModifyNetworkInterfaceAttribute {
                eni: deleted.clone(),
                attribute,
            },
        )
        .done()
        .unwrap();
    region.model.terminate_instance(secs(2), &region.instance).unwrap();
    let left: Vec<_> = region.model.enis().map(|eni| (eni.id.clone(), eni.status())).collect();
    assert_eq!(left, [(kept, EniStatus::Available)]);
    assert_eq!(region.model.audit(), Vec::<String>::new());
    let gone = region
        .model
        .drain_changes()
        .iter()
        .filter(|change| matches!(change, Change::Detached { .. }))
        .count();
    assert_eq!(gone, 3);
}

#[test]
fn quotas_and_group_limits_hold() {
    let mut region = region_with(
        Settings {
            eni_quota: 2,
            ..Settings::instant(1)
        },
        "m5.large",
        "10.0.1.0/24",
    );
    let eni = region.create(secs(1));
    let request = CreateNetworkInterface::new(region.subnet.clone());
    assert_eq!(
        code(region.model.call(secs(1), &request).done()),
        Some(ErrorCode::NetworkInterfaceLimitExceeded)
    );
    let vpc = region.model.vpcs().next().unwrap().id.clone();
    let groups: Vec<_> = (0..6)
        .map(|i| region.model.add_security_group(&vpc, &format!("g{i}")).unwrap())
        .collect();
    let mut set = |groups: &[_]| {
        let attribute = EniAttribute::Groups(groups.to_vec());
        region
            .model
            .call(
                secs(1),
                &ModifyNetworkInterfaceAttribute {
                    eni: eni.clone(),
                    attribute,
                },
            )
            .done()
    };
    assert_eq!(
        code(set(&groups)),
        Some(ErrorCode::SecurityGroupsPerInterfaceLimitExceeded)
    );
    set(&groups[..5]).unwrap();
    assert_eq!(
        code(set(&["sg-0".parse().unwrap()])),
        Some(ErrorCode::InvalidGroupNotFound)
    );
}

#[test]
fn ipv6_prefixes_are_distinct_and_go_back_whole() {
    let mut region = region("m5.large");
    let eni = region.create(secs(1));
    let wanted = Ipv6Request::PrefixCount(3);
    let got = region
        .model
        .call(
            secs(1),
            &AssignIpv6Addresses {
                eni: eni.clone(),
                wanted,
            },
        )
        .done()
        .unwrap();
    assert!(
        got.prefixes
            .iter()
            .all(|prefix| prefix.prefix_len() == 80 && prefix.trunc() == *prefix)
    );
    let wanted = Ipv6Request::Prefixes(vec![got.prefixes[0]]);
    let again = AssignIpv6Addresses {
        eni: eni.clone(),
        wanted,
    };
    assert_eq!(
        code(region.model.call(secs(1), &again).done()),
        Some(ErrorCode::InvalidIpAddressInUse)
    );
    let back = UnassignIpv6Addresses {
        eni: eni.clone(),
        addresses: vec![],
        prefixes: vec![got.prefixes[0]],
    };
    region.model.call(secs(1), &back).done().unwrap();
    assert_eq!(region.model.eni(&eni).unwrap().ipv6_prefixes, got.prefixes[1..]);
    region.model.call(secs(1), &again).done().unwrap();
}
