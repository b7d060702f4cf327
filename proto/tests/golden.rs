//! Golden bytes of every message, written by hand from the field tables of the deployed wire: tag byte = field number × 8 +
//! wire type (0 varint, 2 length-delimited); two bytes from field 16 on, which no message has.

use prost::Message;
use proto::rpc;

/// Encodes, compares with the bytes, decodes the bytes back.
fn check<M: Message + Default + PartialEq + std::fmt::Debug>(message: &M, golden: &[u8]) {
    assert_eq!(message.encode_to_vec(), golden, "{message:?}");
    assert_eq!(&M::decode(golden).expect("golden bytes decode"), message);
}

/// `tag, 1, letter`: a string field that holds one letter.
fn letters(fields: &[(u8, u8)]) -> Vec<u8> {
    fields.iter().flat_map(|&(tag, letter)| [tag, 1, letter]).collect()
}

#[test]
fn add_network_request_has_its_golden_bytes() {
    let message = rpc::AddNetworkRequest {
        k8s_pod_name: "a".into(),
        k8s_pod_namespace: "b".into(),
        k8s_pod_infra_container_id: "c".into(),
        netns: "d".into(),
        if_name: "e".into(),
        network_name: "f".into(),
        container_id: "g".into(),
        client_version: "h".into(),
        requires_multi_nic_attachment: true,
    };
    let mut golden = letters(&[
        (0x0a, b'a'),
        (0x12, b'b'),
        (0x1a, b'c'),
        (0x22, b'd'),
        (0x2a, b'e'),
        (0x32, b'f'),
        (0x3a, b'g'),
        (0x42, b'h'),
    ]);
    golden.extend([0x48, 1]);
    check(&message, &golden);
}

#[test]
fn ip_allocation_metadata_has_its_golden_bytes() {
    let message = rpc::IpAllocationMetadata {
        i_pv4_addr: "4".into(),
        i_pv6_addr: "6".into(),
        device_number: 2,
        route_table_id: 254,
    };
    check(&message, &[0x0a, 1, b'4', 0x12, 1, b'6', 0x18, 2, 0x20, 0xfe, 0x01]);
}

#[test]
fn a_negative_device_number_takes_ten_bytes() {
    let message = rpc::IpAllocationMetadata {
        device_number: -1,
        ..Default::default()
    };
    check(
        &message,
        &[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    );
}

#[test]
fn add_network_reply_has_its_golden_bytes() {
    let message = rpc::AddNetworkReply {
        success: true,
        ip_allocation_metadata: vec![rpc::IpAllocationMetadata {
            device_number: 1,
            ..Default::default()
        }],
        use_external_snat: true,
        vp_cv4_cid_rs: vec!["v".into(), "w".into()],
        pod_vlan_id: 7,
        pod_enimac: "m".into(),
        pod_eni_subnet_gw: "g".into(),
        parent_if_index: 9,
        vp_cv6_cid_rs: vec!["x".into()],
        network_policy_mode: "n".into(),
    };
    let golden = [
        &[0x08, 1, 0x12, 2, 0x18, 1, 0x28, 1][..],
        &letters(&[(0x32, b'v'), (0x32, b'w')]),
        &[0x38, 7],
        &letters(&[(0x42, b'm'), (0x4a, b'g')]),
        &[0x50, 9],
        &letters(&[(0x62, b'x'), (0x6a, b'n')]),
    ]
    .concat();
    check(&message, &golden);
}

#[test]
fn del_network_request_has_its_golden_bytes() {
    let message = rpc::DelNetworkRequest {
        k8s_pod_name: "a".into(),
        k8s_pod_namespace: "b".into(),
        k8s_pod_infra_container_id: "c".into(),
        reason: "d".into(),
        if_name: "e".into(),
        network_name: "f".into(),
        container_id: "g".into(),
        client_version: "h".into(),
        k8s_pod_uid: "i".into(),
    };
    let golden = letters(&[
        (0x0a, b'a'),
        (0x12, b'b'),
        (0x1a, b'c'),
        (0x2a, b'd'),
        (0x32, b'e'),
        (0x3a, b'f'),
        (0x42, b'g'),
        (0x4a, b'h'),
        (0x52, b'i'),
    ]);
    check(&message, &golden);
}

#[test]
fn del_network_reply_has_its_golden_bytes() {
    let message = rpc::DelNetworkReply {
        success: true,
        ip_allocation_metadata: vec![rpc::IpAllocationMetadata {
            route_table_id: 2,
            ..Default::default()
        }],
        pod_vlan_id: 3,
        network_policy_mode: "n".into(),
    };
    check(&message, &[0x08, 1, 0x12, 2, 0x20, 2, 0x20, 3, 0x32, 1, b'n']);
}

#[test]
fn network_policy_messages_have_their_golden_bytes() {
    let enforce = rpc::EnforceNpRequest {
        k8s_pod_name: "a".into(),
        k8s_pod_namespace: "b".into(),
        network_policy_mode: "c".into(),
        interface_count: 1,
    };
    check(
        &enforce,
        &[&letters(&[(0x0a, b'a'), (0x12, b'b'), (0x1a, b'c')])[..], &[0x20, 1]].concat(),
    );
    check(&rpc::EnforceNpReply { success: true }, &[0x08, 1]);
    let delete = rpc::DeleteNpRequest {
        k8s_pod_name: "a".into(),
        k8s_pod_namespace: "b".into(),
    };
    check(&delete, &letters(&[(0x0a, b'a'), (0x12, b'b')]));
    check(&rpc::DeleteNpReply { success: true }, &[0x08, 1]);
}

#[test]
fn network_policy_config_has_its_golden_bytes() {
    let message = rpc::NetworkPolicyAgentConfigReply {
        network_policy_mode: "a".into(),
        multi_nic_enabled: true,
        node_i_pv4: "b".into(),
        node_i_pv6: "c".into(),
        instance_id: "d".into(),
        region: "e".into(),
    };
    let golden = [
        &[0x0a, 1, b'a', 0x10, 1][..],
        &letters(&[(0x1a, b'b'), (0x22, b'c'), (0x2a, b'd'), (0x32, b'e')]),
    ]
    .concat();
    check(&message, &golden);
}

#[test]
fn reserved_numbers_are_ignored_on_input() {
    // Fields 3, 4 and 11 of AddNetworkReply were used by old releases.
    let reply = rpc::AddNetworkReply::decode(&[0x08, 1, 0x1a, 1, b'x', 0x20, 5, 0x5a, 1, b'y'][..]).expect("decodes");
    assert_eq!(
        reply,
        rpc::AddNetworkReply {
            success: true,
            ..Default::default()
        }
    );
}
