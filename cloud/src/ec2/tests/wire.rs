//! What goes over the wire, and what comes back as values.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::num::NonZeroU16;

use vpc_types::limits::PrefixDelegation;
use vpc_types::{
    Allocation, AttachmentId, DeviceNumber, EniId, InstanceId, NetworkCard, Prefix28, SecurityGroupId, SubnetId, VpcId,
};

use super::{Bench, answer_body};
use crate::canned::Reply;
use crate::ec2::eni::{
    AttachmentStatus, AttachmentView, DeleteOnTermination, EniKind, EniStatus, EniView, SourceDestCheck,
};
use crate::ec2::error::Action;
use crate::ec2::request::{ClientToken, CreateEni, TagFilter, Want};
use crate::ec2::traits::{EniAllocations, EniLifecycle, ReadEc2};

const ENI: &str = "<networkInterfaceId>eni-0a1</networkInterfaceId><subnetId>subnet-1</subnetId><vpcId>vpc-1</vpcId>\
    <availabilityZone>us-west-2a</availabilityZone><description>aws-K8S-i-1</description><status>in-use</status>\
    <macAddress>02:00:00:00:00:0a</macAddress><privateIpAddress>10.0.1.10</privateIpAddress>\
    <sourceDestCheck>true</sourceDestCheck><interfaceType>interface</interfaceType>\
    <groupSet><item><groupId>sg-1</groupId><groupName>default</groupName></item></groupSet>\
    <privateIpAddressesSet><item><privateIpAddress>10.0.1.10</privateIpAddress><primary>true</primary></item>\
    <item><privateIpAddress>10.0.1.11</privateIpAddress><primary>false</primary></item></privateIpAddressesSet>\
    <ipv4PrefixSet><item><ipv4Prefix>10.0.1.32/28</ipv4Prefix></item></ipv4PrefixSet>\
    <tagSet><item><key>node.k8s.amazonaws.com/instance_id</key><value>i-1</value></item></tagSet>";
const ATTACHMENT: &str = "<attachment><attachmentId>eni-attach-1</attachmentId><instanceId>i-1</instanceId>\
    <deviceIndex>2</deviceIndex><networkCardIndex>1</networkCardIndex><status>attached</status>\
    <deleteOnTermination>true</deleteOnTermination></attachment>";

fn eni() -> EniId {
    EniId::parse("eni-0a1").unwrap()
}

fn prefix() -> Prefix28 {
    Prefix28::new("10.0.1.32/28".parse().unwrap()).unwrap()
}

fn view() -> EniView {
    EniView {
        id: eni(),
        mac: "02:00:00:00:00:0a".parse().unwrap(),
        subnet: SubnetId::parse("subnet-1").unwrap(),
        vpc: VpcId::parse("vpc-1").unwrap(),
        az: Some("us-west-2a".into()),
        status: EniStatus::InUse,
        kind: EniKind::Interface,
        description: "aws-K8S-i-1".into(),
        source_dest_check: SourceDestCheck::On,
        primary: Some(Ipv4Addr::new(10, 0, 1, 10)),
        secondaries: vec![Ipv4Addr::new(10, 0, 1, 11)],
        prefixes: vec![prefix()],
        groups: BTreeSet::from([SecurityGroupId::parse("sg-1").unwrap()]),
        tags: BTreeMap::from([("node.k8s.amazonaws.com/instance_id".into(), "i-1".into())]),
        attachment: Some(AttachmentView {
            id: AttachmentId::parse("eni-attach-1").unwrap(),
            instance: Some(InstanceId::parse("i-1").unwrap()),
            device: DeviceNumber(2),
            card: NetworkCard(1),
            status: AttachmentStatus::Attached,
            delete_on_termination: DeleteOnTermination::Yes,
        }),
    }
}

/// The parameters of the only request, sorted: their order is the SDK's affair.
fn parameters(bench: &Bench) -> Vec<String> {
    let requests = bench.server.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    sorted(&requests[0].body)
}

fn sorted(body: &str) -> Vec<String> {
    let mut all: Vec<_> = body
        .split('&')
        .map(str::to_owned)
        .filter(|pair| pair != "Version=2016-11-15")
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn instance_enis_are_one_filtered_and_paged_question() {
    let set = format!("<networkInterfaceSet><item>{ENI}{ATTACHMENT}</item></networkInterfaceSet>");
    let bench = Bench::answering(answer_body("DescribeNetworkInterfaces", &set)).await;
    let enis = bench
        .client
        .describe_instance_enis(&InstanceId::parse("i-1").unwrap())
        .await
        .unwrap();
    assert_eq!(enis, [view()]);
    assert_eq!(
        enis[0].allocations().collect::<Vec<_>>(),
        [
            Allocation::Ip(Ipv4Addr::new(10, 0, 1, 11)),
            Allocation::Prefix(prefix())
        ]
    );
    assert_eq!(
        parameters(&bench),
        [
            "Action=DescribeNetworkInterfaces",
            "Filter.1.Name=attachment.instance-id",
            "Filter.1.Value.1=i-1",
            "MaxResults=1000"
        ]
    );
    let agent = bench.server.requests()[0].header("user-agent").unwrap().to_owned();
    assert!(agent.starts_with("aws-sdk-rust/"), "{agent}");
}

#[tokio::test]
async fn pages_are_read_to_the_end() {
    let first = format!("<networkInterfaceSet><item>{ENI}</item></networkInterfaceSet><nextToken>two</nextToken>");
    let last = format!("<networkInterfaceSet><item>{ENI}</item></networkInterfaceSet>");
    let bench = Bench::new(move |request| {
        let page = if request.body.contains("NextToken=two") {
            &last
        } else {
            &first
        };
        Reply::text(200, answer_body("DescribeNetworkInterfaces", page))
    })
    .await;
    let tags = [
        TagFilter::Equals {
            key: "node.k8s.amazonaws.com/instance_id".into(),
            value: "i-1".into(),
        },
        TagFilter::Present("node.k8s.amazonaws.com/createdAt".into()),
    ];
    assert_eq!(bench.client.describe_available_enis(&tags).await.unwrap().len(), 2);
    let requests = bench.server.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(
        sorted(&requests[0].body),
        [
            "Action=DescribeNetworkInterfaces",
            "Filter.1.Name=tag%3Anode.k8s.amazonaws.com%2Finstance_id",
            "Filter.1.Value.1=i-1",
            "Filter.2.Name=tag-key",
            "Filter.2.Value.1=node.k8s.amazonaws.com%2FcreatedAt",
            "Filter.3.Name=status",
            "Filter.3.Value.1=available",
            "MaxResults=1000"
        ]
    );
    assert_eq!(bench.reports(), [(Action::DescribeNetworkInterfaces, None, 1); 2]);
}

#[tokio::test]
async fn create_sends_token_tags_and_count_and_returns_the_eni() {
    let created = answer_body(
        "CreateNetworkInterface",
        &format!("<networkInterface>{ENI}</networkInterface>"),
    );
    let bench = Bench::answering(created).await;
    let request = CreateEni {
        subnet: SubnetId::parse("subnet-1").unwrap(),
        groups: vec![
            SecurityGroupId::parse("sg-1").unwrap(),
            SecurityGroupId::parse("sg-2").unwrap(),
        ],
        description: "aws-K8S-i-1".into(),
        tags: BTreeMap::from([("eks:eni:owner".into(), "amazon-vpc-cni".into())]),
        initial: NonZeroU16::new(9).map(Want::Addresses),
        client_token: ClientToken::parse("token-1").unwrap(),
    };
    let created = bench.client.create_eni(&request).await.unwrap();
    assert_eq!(
        created,
        EniView {
            attachment: None,
            ..view()
        }
    );
    assert_eq!(
        parameters(&bench),
        [
            "Action=CreateNetworkInterface",
            "ClientToken=token-1",
            "Description=aws-K8S-i-1",
            "SecondaryPrivateIpAddressCount=9",
            "SecurityGroupId.1=sg-1",
            "SecurityGroupId.2=sg-2",
            "SubnetId=subnet-1",
            "TagSpecification.1.ResourceType=network-interface",
            "TagSpecification.1.Tag.1.Key=eks%3Aeni%3Aowner",
            "TagSpecification.1.Tag.1.Value=amazon-vpc-cni",
        ]
    );
}

#[tokio::test]
async fn attach_always_names_the_card() {
    let answer = answer_body("AttachNetworkInterface", "<attachmentId>eni-attach-7</attachmentId>");
    let bench = Bench::answering(answer).await;
    let instance = InstanceId::parse("i-1").unwrap();
    let attachment = bench
        .client
        .attach_eni(&eni(), &instance, DeviceNumber(1), NetworkCard::DEFAULT)
        .await
        .unwrap();
    assert_eq!(attachment.as_str(), "eni-attach-7");
    assert_eq!(
        parameters(&bench),
        [
            "Action=AttachNetworkInterface",
            "DeviceIndex=1",
            "InstanceId=i-1",
            "NetworkCardIndex=0",
            "NetworkInterfaceId=eni-0a1"
        ]
    );
}

#[tokio::test]
async fn each_modification_changes_one_attribute() {
    let answer = answer_body("ModifyNetworkInterfaceAttribute", "<return>true</return>");
    let bench = Bench::answering(answer.clone()).await;
    let attachment = AttachmentId::parse("eni-attach-1").unwrap();
    bench
        .client
        .set_delete_on_termination(&eni(), &attachment)
        .await
        .unwrap();
    assert_eq!(
        parameters(&bench),
        [
            "Action=ModifyNetworkInterfaceAttribute",
            "Attachment.AttachmentId=eni-attach-1",
            "Attachment.DeleteOnTermination=true",
            "NetworkInterfaceId=eni-0a1"
        ]
    );
    let bench = Bench::answering(answer).await;
    bench
        .client
        .set_security_groups(&eni(), &[SecurityGroupId::parse("sg-1").unwrap()])
        .await
        .unwrap();
    let expected = [
        "Action=ModifyNetworkInterfaceAttribute",
        "NetworkInterfaceId=eni-0a1",
        "SecurityGroupId.1=sg-1",
    ];
    assert_eq!(parameters(&bench), expected);
}

#[tokio::test]
async fn assign_asks_for_a_count_and_returns_what_was_added() {
    let added = "<networkInterfaceId>eni-0a1</networkInterfaceId><assignedPrivateIpAddressesSet><item>\
        <privateIpAddress>10.0.1.12</privateIpAddress></item></assignedPrivateIpAddressesSet><return>true</return>";
    let bench = Bench::answering(answer_body("AssignPrivateIpAddresses", added)).await;
    let want = Want::Addresses(NonZeroU16::new(1).unwrap());
    assert_eq!(
        bench.client.assign(&eni(), want).await.unwrap(),
        [Allocation::Ip(Ipv4Addr::new(10, 0, 1, 12))]
    );
    assert_eq!(
        parameters(&bench),
        [
            "Action=AssignPrivateIpAddresses",
            "NetworkInterfaceId=eni-0a1",
            "SecondaryPrivateIpAddressCount=1"
        ]
    );

    let added = "<networkInterfaceId>eni-0a1</networkInterfaceId><assignedIpv4PrefixSet><item>\
        <ipv4Prefix>10.0.1.32/28</ipv4Prefix></item></assignedIpv4PrefixSet>";
    let bench = Bench::answering(answer_body("AssignPrivateIpAddresses", added)).await;
    let want = Want::Prefixes(NonZeroU16::new(1).unwrap());
    assert_eq!(
        bench.client.assign(&eni(), want).await.unwrap(),
        [Allocation::Prefix(prefix())]
    );
    let expected = [
        "Action=AssignPrivateIpAddresses",
        "Ipv4PrefixCount=1",
        "NetworkInterfaceId=eni-0a1",
    ];
    assert_eq!(parameters(&bench), expected);
}

#[tokio::test]
async fn unassign_names_what_it_gives_back_and_asks_nothing_for_nothing() {
    let bench = Bench::answering(answer_body("UnassignPrivateIpAddresses", "<return>true</return>")).await;
    bench.client.unassign(&eni(), &[]).await.unwrap();
    assert!(bench.server.requests().is_empty());
    let given = [
        Allocation::Ip(Ipv4Addr::new(10, 0, 1, 11)),
        Allocation::Prefix(prefix()),
    ];
    bench.client.unassign(&eni(), &given).await.unwrap();
    assert_eq!(
        parameters(&bench),
        [
            "Action=UnassignPrivateIpAddresses",
            "Ipv4Prefix.1=10.0.1.32%2F28",
            "NetworkInterfaceId=eni-0a1",
            "PrivateIpAddress.1=10.0.1.11"
        ]
    );
}

#[tokio::test]
async fn detach_is_never_forced_and_delete_names_the_eni() {
    let bench = Bench::answering(answer_body("DetachNetworkInterface", "<return>true</return>")).await;
    bench
        .client
        .detach_eni(&AttachmentId::parse("eni-attach-1").unwrap())
        .await
        .unwrap();
    assert_eq!(
        parameters(&bench),
        ["Action=DetachNetworkInterface", "AttachmentId=eni-attach-1"]
    );
    let bench = Bench::answering(answer_body("DeleteNetworkInterface", "<return>true</return>")).await;
    bench.client.delete_eni(&eni()).await.unwrap();
    assert_eq!(
        parameters(&bench),
        ["Action=DeleteNetworkInterface", "NetworkInterfaceId=eni-0a1"]
    );
    assert_eq!(bench.reports(), [(Action::DeleteNetworkInterface, None, 1)]);
}

#[tokio::test]
async fn subnets_are_asked_by_vpc_and_zone() {
    let set = "<subnetSet><item><subnetId>subnet-1</subnetId><vpcId>vpc-1</vpcId><cidrBlock>10.0.1.0/24</cidrBlock>\
        <availableIpAddressCount>251</availableIpAddressCount><availabilityZone>us-west-2a</availabilityZone>\
        <tagSet><item><key>kubernetes.io/role/cni</key><value>1</value></item></tagSet></item></subnetSet>";
    let bench = Bench::answering(answer_body("DescribeSubnets", set)).await;
    let subnets = bench
        .client
        .describe_subnets(&VpcId::parse("vpc-1").unwrap(), "us-west-2a")
        .await
        .unwrap();
    assert_eq!(subnets.len(), 1);
    assert_eq!(subnets[0].cidr, Some("10.0.1.0/24".parse().unwrap()));
    assert_eq!((subnets[0].available_addresses, subnets[0].tags.len()), (251, 1));
    assert_eq!(
        parameters(&bench),
        [
            "Action=DescribeSubnets",
            "Filter.1.Name=vpc-id",
            "Filter.1.Value.1=vpc-1",
            "Filter.2.Name=availability-zone",
            "Filter.2.Value.1=us-west-2a",
            "MaxResults=1000"
        ]
    );
}

#[tokio::test]
async fn limits_of_a_new_type_come_card_by_card() {
    let set = "<instanceTypeSet><item><instanceType>x9.large</instanceType><hypervisor>nitro</hypervisor><networkInfo>\
        <maximumNetworkInterfaces>6</maximumNetworkInterfaces><defaultNetworkCardIndex>0</defaultNetworkCardIndex>\
        <ipv4AddressesPerInterface>30</ipv4AddressesPerInterface><networkCards><item><networkCardIndex>1</networkCardIndex>\
        <maximumNetworkInterfaces>2</maximumNetworkInterfaces></item><item><networkCardIndex>0</networkCardIndex>\
        <maximumNetworkInterfaces>4</maximumNetworkInterfaces></item></networkCards></networkInfo></item></instanceTypeSet>";
    let bench = Bench::answering(answer_body("DescribeInstanceTypes", set)).await;
    let limits = bench.client.describe_instance_type("x9.large").await.unwrap();
    assert_eq!((limits.enis_per_card, limits.ipv4_per_eni), (vec![4, 2], 30));
    assert_eq!(
        (limits.default_card, limits.prefix_delegation),
        (NetworkCard(0), PrefixDelegation::Supported)
    );
    assert_eq!(
        parameters(&bench),
        ["Action=DescribeInstanceTypes", "InstanceType.1=x9.large"]
    );
}
