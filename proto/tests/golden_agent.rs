//! Golden bytes of the agent interface, written by hand from `agent.proto`: a released CLI and a released daemon of different
//! versions must understand each other.

use prost::Message;
use proto::agent;

fn check<M: Message + Default + PartialEq + std::fmt::Debug>(message: &M, golden: &[u8]) {
    assert_eq!(message.encode_to_vec(), golden, "{message:?}");
    assert_eq!(&M::decode(golden).expect("golden bytes decode"), message);
}

fn attachment() -> agent::Attachment {
    agent::Attachment {
        network_name: "n".into(),
        container_id: "c".into(),
        if_name: "i".into(),
    }
}

const ATTACHMENT: [u8; 9] = [0x0a, 1, b'n', 0x12, 1, b'c', 0x1a, 1, b'i'];

#[test]
fn attachments_and_requests_have_their_golden_bytes() {
    check(&attachment(), &ATTACHMENT);
    check(&agent::GetStatusRequest {}, &[]);
    check(&agent::ListLeasesRequest {}, &[]);
    let check_request = agent::CheckAttachmentRequest {
        attachment: Some(attachment()),
    };
    check(&check_request, &[&[0x0a, 9][..], &ATTACHMENT].concat());
    let collect = agent::CollectGarbageRequest {
        network_name: "n".into(),
        valid: vec![attachment()],
    };
    check(&collect, &[&[0x0a, 1, b'n', 0x12, 9][..], &ATTACHMENT].concat());
}

#[test]
fn pools_and_enis_have_their_golden_bytes() {
    let pool = agent::Pool {
        total: 1,
        assigned: 2,
        cooling: 3,
        free: 4,
        waiting: 5,
        enis_max: 6,
        orphans: 7,
        prefixes: 8,
    };
    check(
        &pool,
        &[0x08, 1, 0x10, 2, 0x18, 3, 0x20, 4, 0x28, 5, 0x30, 6, 0x38, 7, 0x40, 8],
    );
    let eni = agent::Eni {
        id: "e".into(),
        mac: "m".into(),
        device_number: 1,
        route_table: 254,
        primary_address: "p".into(),
        total: 2,
        assigned: 3,
        state: "s".into(),
        role: "r".into(),
        subnet: "t".into(),
        prefixes: 4,
        security_groups: vec!["g".into()],
    };
    let golden = [
        &[0x0a, 1, b'e', 0x12, 1, b'm', 0x18, 1, 0x20, 0xfe, 0x01][..],
        &[0x2a, 1, b'p', 0x30, 2, 0x38, 3, 0x42, 1, b's'],
        &[0x4a, 1, b'r', 0x52, 1, b't', 0x58, 4, 0x62, 1, b'g'],
    ]
    .concat();
    check(&eni, &golden);
}

#[test]
fn replies_have_their_golden_bytes() {
    let status = agent::GetStatusReply {
        ready: true,
        cause: "c".into(),
        detail: "d".into(),
        pool: Some(agent::Pool::default()),
        enis: vec![agent::Eni::default()],
        ec2_calls: [("a".to_owned(), 2)].into(),
        mode: "m".into(),
        target: "t".into(),
        provisioning: "p".into(),
        safe_mode: true,
        warnings: vec!["w".into()],
        subnets: vec![agent::Subnet {
            id: "i".into(),
            free: 1,
            access: "a".into(),
        }],
        data_plane: "r".into(),
        repairs: [("r".to_owned(), 3)].into(),
    };
    let golden = [
        &[0x08, 1, 0x12, 1, b'c', 0x1a, 1, b'd', 0x22, 0, 0x2a, 0][..],
        &[0x32, 5, 0x0a, 1, b'a', 0x10, 2],
        &[0x3a, 1, b'm', 0x42, 1, b't', 0x4a, 1, b'p', 0x50, 1, 0x5a, 1, b'w'],
        &[0x62, 8, 0x0a, 1, b'i', 0x10, 1, 0x1a, 1, b'a', 0x6a, 1, b'r'],
        &[0x72, 5, 0x0a, 1, b'r', 0x10, 3],
    ]
    .concat();
    check(&status, &golden);
}

#[test]
fn leases_and_garbage_have_their_golden_bytes() {
    let lease = agent::Lease {
        attachment: Some(attachment()),
        pod_namespace: "p".into(),
        pod_name: "q".into(),
        address: "a".into(),
        eni_id: "e".into(),
        device_number: 1,
        route_table: 2,
        state: "s".into(),
        granted_at: 3,
    };
    let lease_golden = [
        &[0x0a, 9][..],
        &ATTACHMENT,
        &[
            0x12, 1, b'p', 0x1a, 1, b'q', 0x22, 1, b'a', 0x2a, 1, b'e', 0x30, 1, 0x38, 2, 0x42, 1, b's', 0x48, 3,
        ],
    ]
    .concat();
    check(&lease, &lease_golden);
    let in_list = [&[0x0a, 32][..], &lease_golden].concat();
    check(
        &agent::ListLeasesReply {
            leases: vec![lease.clone()],
        },
        &in_list,
    );
    check(
        &agent::CheckAttachmentReply {
            lease: Some(lease.clone()),
        },
        &in_list,
    );
    let collected = agent::CollectGarbageReply {
        released: vec!["a".into()],
        young: vec!["b".into()],
        ended: vec![lease],
        left: vec!["c".into()],
        network_policy_mode: "d".into(),
    };
    let collected_golden = [
        &[0x0a, 1, b'a', 0x12, 1, b'b', 0x1a, 32][..],
        &lease_golden,
        &[0x22, 1, b'c', 0x2a, 1, b'd'],
    ]
    .concat();
    check(&collected, &collected_golden);
}

#[test]
fn accounts_have_their_golden_bytes() {
    check(&agent::GetAccountRequest {}, &[]);
    let node = agent::NodeAccount {
        instance_id: "i".into(),
        primary_mac: "m".into(),
        primary_address: "p".into(),
        vpc_cidrs: vec!["v".into()],
        exclude_cidrs: vec!["x".into()],
        snat: "s".into(),
        node_ports: true,
        mark: 1,
        mark_mask: 2,
        mtu: 3,
        veth_prefix: "e".into(),
        service_cidrs: vec!["c".into()],
    };
    let node_golden = [
        &[0x0a, 1, b'i', 0x12, 1, b'm', 0x1a, 1, b'p', 0x22, 1, b'v'][..],
        &[0x2a, 1, b'x', 0x32, 1, b's', 0x38, 1, 0x40, 1, 0x48, 2],
        &[0x50, 3, 0x5a, 1, b'e', 0x62, 1, b'c'],
    ]
    .concat();
    check(&node, &node_golden);
    let address = agent::AddressAccount {
        address: "a".into(),
        state: "f".into(),
        since: 1,
    };
    let address_golden = [0x0a, 1, b'a', 0x12, 1, b'f', 0x18, 1];
    check(&address, &address_golden);
    let eni = agent::EniAccount {
        id: "e".into(),
        mac: "m".into(),
        route_table: 2,
        primary_address: "p".into(),
        role: "r".into(),
        state: "s".into(),
        in_motion: true,
        addresses: vec![address],
    };
    let eni_golden = [
        &[0x0a, 1, b'e', 0x12, 1, b'm', 0x18, 2, 0x22, 1, b'p'][..],
        &[0x2a, 1, b'r', 0x32, 1, b's', 0x38, 1, 0x42, 8],
        &address_golden,
    ]
    .concat();
    check(&eni, &eni_golden);
    let reply = agent::GetAccountReply {
        node: Some(agent::NodeAccount::default()),
        enis: vec![agent::EniAccount::default()],
        leases: vec![agent::Lease::default()],
        operations: 1,
        waiting: 2,
        seen_ec2: true,
    };
    check(&reply, &[0x0a, 0, 0x12, 0, 0x1a, 0, 0x20, 1, 0x28, 2, 0x30, 1]);
}
