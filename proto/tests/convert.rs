//! Conversions refuse what breaks the contract and keep the rest unchanged.

use std::net::{IpAddr, Ipv4Addr};

use proto::convert::{AddOutcome, AddRequest, Attachment, ConvertError, DelReason, DelRequest, PodAddress};
use proto::rpc;
use vpc_types::{DeviceNumber, IpamKey, PodName, RouteTableId};

fn metadata(v4: &str, v6: &str, device: i32, table: i32) -> rpc::IpAllocationMetadata {
    rpc::IpAllocationMetadata {
        i_pv4_addr: v4.into(),
        i_pv6_addr: v6.into(),
        device_number: device,
        route_table_id: table,
    }
}

#[test]
fn requests_round_trip() {
    let add = AddRequest {
        key: IpamKey::new("aws-cni", "c1", "eth0").unwrap(),
        pod: PodName::new("ns", "pod"),
        netns: "/run/netns/x".into(),
        client_version: String::new(),
        attachment: Attachment::Single,
    };
    assert_eq!(AddRequest::try_from(rpc::AddNetworkRequest::from(&add)).unwrap(), add);
    for reason in [DelReason::PodDeleted, DelReason::SetupFailed] {
        let del = DelRequest {
            key: add.key.clone(),
            pod: None,
            reason,
            pod_uid: Some("uid".into()),
            client_version: String::new(),
        };
        assert_eq!(DelRequest::try_from(rpc::DelNetworkRequest::from(&del)).unwrap(), del);
    }
}

#[test]
fn an_empty_key_field_is_named() {
    let wire = rpc::AddNetworkRequest {
        network_name: "n".into(),
        if_name: "eth0".into(),
        ..Default::default()
    };
    assert_eq!(
        AddRequest::try_from(wire).unwrap_err().to_string(),
        "field ContainerID is empty"
    );
}

#[test]
fn half_a_pod_name_is_no_pod_name() {
    let wire = rpc::DelNetworkRequest {
        network_name: "n".into(),
        if_name: "eth0".into(),
        container_id: "c".into(),
        k8s_pod_name: "p".into(),
        ..Default::default()
    };
    assert_eq!(DelRequest::try_from(wire).unwrap().pod, None);
}

#[test]
fn table_numbers_below_two_mean_main() {
    for (number, table) in [(0, RouteTableId::MAIN), (1, RouteTableId::MAIN), (2, RouteTableId(2))] {
        let pod = PodAddress::try_from(&metadata("10.0.0.5", "2001:db8::1", 1, number)).unwrap();
        let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5));
        assert_eq!(
            pod,
            PodAddress {
                address,
                device: DeviceNumber(1),
                table
            }
        );
    }
}

#[test]
fn bad_addresses_and_numbers_name_their_field() {
    let text = |wire| PodAddress::try_from(&wire).unwrap_err().to_string();
    assert!(text(metadata("10.0.0", "", 0, 254)).contains("IPv4Addr"));
    assert!(text(metadata("", "fe80::x", 0, 254)).contains("IPv6Addr"));
    assert!(text(metadata("10.0.0.1", "", -1, 254)).contains("DeviceNumber"));
    assert!(text(metadata("10.0.0.1", "", 0, -5)).contains("RouteTableId"));
    assert_eq!(
        PodAddress::try_from(&metadata("", "", 0, 254)),
        Err(ConvertError::NoAddress)
    );
}

#[test]
fn success_without_an_address_is_an_error_and_refusal_is_not() {
    let reply = |success| rpc::AddNetworkReply {
        success,
        ..Default::default()
    };
    assert_eq!(AddOutcome::try_from(reply(true)), Err(ConvertError::NoAddress));
    assert_eq!(AddOutcome::try_from(reply(false)), Ok(AddOutcome::Refused));
    let branch = rpc::AddNetworkReply {
        success: true,
        pod_vlan_id: 4,
        ..Default::default()
    };
    assert_eq!(AddOutcome::try_from(branch), Ok(AddOutcome::Branch { vlan_id: 4 }));
}
