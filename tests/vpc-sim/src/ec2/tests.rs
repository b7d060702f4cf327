//! Bodies compared with what EC2 sends, byte by byte but for line breaks and ids; and requests as the SDKs send them.

use time::macros::datetime;
use vpc_types::SubnetId;

use super::*;
use crate::model::{AllocationPolicy, Effect, Fault, InstanceSpec, Settings, SubnetSpec};

struct Endpoint {
    model: Model,
    subnet: SubnetId,
    /// What stands for each generated id in the expected bodies.
    names: Vec<(String, &'static str)>,
}

fn endpoint() -> Endpoint {
    let mut model = Model::new(Settings::instant(1));
    let vpc = model.add_vpc(&["10.0.0.0/16".parse().unwrap()], &[]).unwrap();
    let spec = SubnetSpec {
        vpc: vpc.clone(),
        zone: "us-east-1a".into(),
        cidr: "10.0.1.0/24".parse().unwrap(),
        ipv6_cidr: Some("2001:db8::/64".parse().unwrap()),
        policy: AllocationPolicy::Lowest,
        tags: [("Name".to_owned(), "a&b".to_owned())].into(),
    };
    let subnet = model.add_subnet(spec).unwrap();
    let id = "i-00000000000000001".parse().unwrap();
    let spec = InstanceSpec {
        id: Some(id),
        ..InstanceSpec::new("m5.large", subnet.clone())
    };
    let instance = model.run_instance(Duration::ZERO, spec).unwrap();
    let group = model.vpc(&vpc).unwrap().default_group.to_string();
    let primary = model.enis_of(&instance).next().unwrap();
    let tie = primary.attachment.clone().unwrap().id.to_string();
    let names = vec![
        (primary.id.to_string(), "PRIMARY"),
        (primary.mac.to_string(), "PRIMARY-MAC"),
        (tie, "PRIMARY-TIE"),
        (subnet.to_string(), "SUBNET"),
        (vpc.to_string(), "VPC"),
        (group, "GROUP"),
        (instance.to_string(), "INSTANCE"),
    ];
    Endpoint { model, subnet, names }
}

impl Endpoint {
    fn send(&mut self, form: &str) -> (u16, String) {
        let call = Call {
            now: Duration::from_millis(1_500),
            epoch: datetime!(2026-01-02 03:04:05 UTC),
            request_id: "REQUEST".to_owned(),
        };
        let form = self.names.iter().fold(form.to_owned(), |form, (id, name)| {
            form.replace(&format!("<{name}>"), id)
        });
        let Reply::Answer { status, body, .. } = answer(&mut self.model, &call, form.as_bytes()) else {
            panic!("the answer to {form} is lost")
        };
        let mut body = String::from_utf8(body).unwrap();
        for (id, name) in &self.names {
            body = body.replace(id, name);
        }
        (status, body)
    }

    /// Makes an ENI and names it and its attachment.
    fn create_and_attach(&mut self, more: &str) {
        self.send(&format!("Action=CreateNetworkInterface&SubnetId=<SUBNET>{more}"));
        let eni = self.model.enis().find(|eni| eni.attachment.is_none()).unwrap().clone();
        self.names.push((eni.id.to_string(), "ENI"));
        self.names.push((eni.mac.to_string(), "MAC"));
        self.send("Action=AttachNetworkInterface&NetworkInterfaceId=<ENI>&InstanceId=<INSTANCE>&DeviceIndex=1");
        let tie = self.model.eni(&eni.id).unwrap().attachment.clone().unwrap();
        self.names.insert(0, (tie.id.to_string(), "TIE"));
    }
}

fn expect(action: &str, content: &str) -> (u16, String) {
    let content: String = content.lines().map(str::trim).collect();
    let head = r#"<?xml version="1.0" encoding="UTF-8"?>"#;
    let space = "http://ec2.amazonaws.com/doc/2016-11-15/";
    let body = format!(
        r#"{head}<{action}Response xmlns="{space}"><requestId>REQUEST</requestId>{content}</{action}Response>"#
    );
    (200, body)
}

fn refusal(status: u16, code: &str, message: &str) -> (u16, String) {
    let head = r#"<?xml version="1.0" encoding="UTF-8"?>"#;
    let error = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    (
        status,
        format!("{head}<Response><Errors>{error}</Errors><RequestID>REQUEST</RequestID></Response>"),
    )
}

const ADDRESSING: &str = "
    <macAddress>MAC</macAddress>
    <privateIpAddress>10.0.1.5</privateIpAddress>
    <privateDnsName>ip-10-0-1-5.ec2.internal</privateDnsName>
    <sourceDestCheck>true</sourceDestCheck>
    <interfaceType>interface</interfaceType>
    <groupSet><item><groupId>GROUP</groupId><groupName>default</groupName></item></groupSet>
    <privateIpAddressesSet>
      <item><privateIpAddress>10.0.1.5</privateIpAddress>
        <privateDnsName>ip-10-0-1-5.ec2.internal</privateDnsName><primary>true</primary></item>
      <item><privateIpAddress>10.0.1.6</privateIpAddress>
        <privateDnsName>ip-10-0-1-6.ec2.internal</privateDnsName><primary>false</primary></item>
    </privateIpAddressesSet>
    <ipv4PrefixSet><item><ipv4Prefix>10.0.1.16/28</ipv4Prefix></item></ipv4PrefixSet>
    <ipv6AddressesSet></ipv6AddressesSet>";

#[test]
fn an_attached_eni_is_described_with_all_it_has() {
    let mut endpoint = endpoint();
    endpoint.create_and_attach(
        "&Description=a%3Cb&SecondaryPrivateIpAddressCount=1&TagSpecification.1.ResourceType=network-interface\
         &TagSpecification.1.Tag.1.Key=k&TagSpecification.1.Tag.1.Value=v",
    );
    let assigned =
        endpoint.send("Action=AssignPrivateIpAddresses&NetworkInterfaceId=<ENI>&Ipv4PrefixCount=1&Version=2016-11-15");
    let content = "
        <networkInterfaceId>ENI</networkInterfaceId>
        <assignedPrivateIpAddressesSet></assignedPrivateIpAddressesSet>
        <assignedIpv4PrefixSet><item><ipv4Prefix>10.0.1.16/28</ipv4Prefix></item></assignedIpv4PrefixSet>
        <return>true</return>";
    assert_eq!(assigned, expect("AssignPrivateIpAddresses", content));
    let content = format!(
        "<networkInterfaceSet><item>
          <networkInterfaceId>ENI</networkInterfaceId><subnetId>SUBNET</subnetId><vpcId>VPC</vpcId>
          <availabilityZone>us-east-1a</availabilityZone><availabilityZoneId>use1-az1</availabilityZoneId>
          <description>a&lt;b</description><ownerId>123456789012</ownerId>
          <requesterManaged>false</requesterManaged><status>in-use</status>
          {ADDRESSING}
          <attachment><instanceId>INSTANCE</instanceId><instanceOwnerId>123456789012</instanceOwnerId>
            <attachmentId>TIE</attachmentId><deviceIndex>1</deviceIndex><networkCardIndex>0</networkCardIndex>
            <status>attached</status><attachTime>2026-01-02T03:04:06.500Z</attachTime>
            <deleteOnTermination>false</deleteOnTermination></attachment>
          <tagSet><item><key>k</key><value>v</value></item></tagSet>
        </item></networkInterfaceSet>"
    );
    let described = endpoint.send("Action=DescribeNetworkInterfaces&NetworkInterfaceId.1=<ENI>");
    assert_eq!(described, expect("DescribeNetworkInterfaces", &content));
}

#[test]
fn a_subnet_is_described_with_its_free_addresses() {
    let content = "
        <subnetSet><item>
          <subnetId>SUBNET</subnetId><subnetArn>arn:aws:ec2:us-east-1:123456789012:subnet/SUBNET</subnetArn>
          <vpcId>VPC</vpcId><state>available</state><ownerId>123456789012</ownerId>
          <cidrBlock>10.0.1.0/24</cidrBlock><availableIpAddressCount>250</availableIpAddressCount>
          <availabilityZone>us-east-1a</availabilityZone><availabilityZoneId>use1-az1</availabilityZoneId>
          <defaultForAz>false</defaultForAz><mapPublicIpOnLaunch>false</mapPublicIpOnLaunch>
          <assignIpv6AddressOnCreation>false</assignIpv6AddressOnCreation><ipv6Native>false</ipv6Native>
          <ipv6CidrBlockAssociationSet><item><associationId>subnet-cidr-assoc-1</associationId>
            <ipv6CidrBlock>2001:db8::/64</ipv6CidrBlock>
            <ipv6CidrBlockState><state>associated</state></ipv6CidrBlockState></item></ipv6CidrBlockAssociationSet>
          <tagSet><item><key>Name</key><value>a&amp;b</value></item></tagSet>
        </item></subnetSet>";
    let mut endpoint = endpoint();
    let digits = endpoint.subnet.as_str().trim_start_matches("subnet-").to_owned();
    let (status, body) = endpoint.send("Action=DescribeSubnets&Filter.1.Name=vpc-id&Filter.1.Value.1=<VPC>");
    let body = body.replace(&format!("assoc-{digits}"), "assoc-1");
    assert_eq!((status, body), expect("DescribeSubnets", content));
}

#[test]
fn calls_without_output_say_true() {
    let mut endpoint = endpoint();
    endpoint.create_and_attach("&ClientToken=t");
    for (action, form) in [
        (
            "ModifyNetworkInterfaceAttribute",
            "NetworkInterfaceId=<ENI>&Attachment.AttachmentId=<TIE>&Attachment.DeleteOnTermination=true",
        ),
        ("CreateTags", "ResourceId.1=<ENI>&Tag.1.Key=a&Tag.1.Value=b"),
        ("DetachNetworkInterface", "AttachmentId=<TIE>"),
        ("DeleteNetworkInterface", "NetworkInterfaceId=<ENI>"),
    ] {
        let reply = endpoint.send(&format!("Action={action}&{form}"));
        assert_eq!(reply, expect(action, "<return>true</return>"));
    }
}

#[test]
fn attach_and_ipv6_calls_answer_ids_and_addresses() {
    let mut endpoint = endpoint();
    endpoint.create_and_attach("");
    let (_, assigned) = endpoint.send("Action=AssignIpv6Addresses&NetworkInterfaceId=<ENI>&Ipv6PrefixCount=1");
    let prefix = endpoint
        .model
        .enis()
        .find_map(|eni| eni.ipv6_prefixes.first().copied())
        .unwrap();
    let content = format!(
        "<networkInterfaceId>ENI</networkInterfaceId><assignedIpv6Addresses></assignedIpv6Addresses>
         <assignedIpv6PrefixSet><item>{prefix}</item></assignedIpv6PrefixSet>"
    );
    assert_eq!(assigned, expect("AssignIpv6Addresses", &content).1);
    endpoint.send("Action=DetachNetworkInterface&AttachmentId=<TIE>&Force=true");
    let (_, attached) = endpoint.send(
        "Action=AttachNetworkInterface&NetworkInterfaceId=<ENI>&InstanceId=<INSTANCE>&DeviceIndex=2&NetworkCardIndex=0",
    );
    let tie = endpoint
        .model
        .enis()
        .find_map(|eni| eni.attachment.clone().filter(|tie| tie.device.0 == 2))
        .unwrap();
    let content = format!(
        "<attachmentId>{}</attachmentId><networkCardIndex>0</networkCardIndex>",
        tie.id
    );
    assert_eq!(attached, expect("AttachNetworkInterface", &content).1);
}

#[test]
fn refusals_have_their_status_and_code() {
    let mut endpoint = endpoint();
    for (form, expected) in [
        (
            "Action=CreateWorld",
            refusal(
                400,
                "InvalidAction",
                "The action CreateWorld is not valid for this web service.",
            ),
        ),
        (
            "Version=2016-11-15",
            refusal(400, "MissingParameter", "The request must contain the parameter Action"),
        ),
        (
            "Action=DescribeVpcs&Version=2014-10-01",
            refusal(
                400,
                "InvalidParameter",
                "The version 2014-10-01 is not supported here; use 2016-11-15",
            ),
        ),
        (
            "Action=DeleteNetworkInterface&NetworkInterfaceId=eni-0abc",
            refusal(
                400,
                "InvalidNetworkInterfaceID.NotFound",
                "The networkInterface ID 'eni-0abc' does not exist",
            ),
        ),
        (
            "Action=DeleteNetworkInterface&NetworkInterfaceId=nonsense",
            refusal(400, "InvalidNetworkInterfaceID.Malformed", "Invalid id: \"nonsense\""),
        ),
        (
            "Action=DescribeSubnets&SubnetID.1=<SUBNET>",
            refusal(400, "UnknownParameter", "The parameter SubnetID.1 is not recognized"),
        ),
        (
            "Action=DescribeSubnets&DryRun=true",
            refusal(
                412,
                "DryRunOperation",
                "Request would have succeeded, but DryRun flag is set.",
            ),
        ),
        (
            "Action=ModifyNetworkInterfaceAttribute&NetworkInterfaceId=<PRIMARY>&SourceDestCheck.Value=true&Description.Value=x",
            refusal(
                400,
                "InvalidParameterCombination",
                "Fields for multiple attribute types specified",
            ),
        ),
    ] {
        assert_eq!(endpoint.send(form), expected, "{form}");
    }
}

#[test]
fn every_way_to_name_addresses_is_understood() {
    let mut endpoint = endpoint();
    for (form, held) in [
        (
            "PrivateIpAddress=10.0.1.40&PrivateIpAddresses.1.PrivateIpAddress=10.0.1.41",
            vec!["10.0.1.41"],
        ),
        (
            "PrivateIpAddresses.1.PrivateIpAddress=10.0.1.42&PrivateIpAddresses.1.Primary=true\
             &PrivateIpAddresses.2.PrivateIpAddress=10.0.1.43&PrivateIpAddresses.2.Primary=false",
            vec!["10.0.1.43"],
        ),
        ("Ipv4Prefix.1.Ipv4Prefix=10.0.1.64%2F28", vec!["10.0.1.64/28"]),
        (
            "SecondaryPrivateIpAddressCount=0&Ipv4PrefixCount=2",
            vec!["10.0.1.16/28", "10.0.1.48/28"],
        ),
    ] {
        let before: Vec<_> = endpoint.model.enis().map(|eni| eni.id.clone()).collect();
        let (status, body) = endpoint.send(&format!("Action=CreateNetworkInterface&SubnetId=<SUBNET>&{form}"));
        assert_eq!(status, 200, "{form}: {body}");
        let new = endpoint.model.enis().find(|eni| !before.contains(&eni.id)).unwrap();
        let mut got: Vec<_> = new.allocations().map(|one| one.to_string()).collect();
        got.sort();
        assert_eq!(got, held, "{form}");
    }
    let form = "Action=AssignPrivateIpAddresses&NetworkInterfaceId=<PRIMARY>&Ipv4Prefix.1=10.0.1.96%2F28";
    assert_eq!(endpoint.send(form).0, 200);
    let form = "Action=UnassignPrivateIpAddresses&NetworkInterfaceId=<PRIMARY>&Ipv4Prefix.1=10.0.1.96%2F28";
    assert_eq!(endpoint.send(form).0, 200);
    let form = "Action=CreateNetworkInterface&SubnetId=<SUBNET>&Ipv4PrefixCount=1&SecondaryPrivateIpAddressCount=1";
    assert!(endpoint.send(form).1.contains("InvalidParameterCombination"));
}

#[test]
fn a_lost_answer_has_no_body() {
    let mut endpoint = endpoint();
    endpoint
        .model
        .faults_mut()
        .inject(Action::DescribeVpcs, &Fault::LoseAnswer(Effect::Applied), 1);
    let call = Call {
        now: Duration::ZERO,
        epoch: datetime!(2026-01-02 03:04:05 UTC),
        request_id: String::new(),
    };
    assert_eq!(answer(&mut endpoint.model, &call, b"Action=DescribeVpcs"), Reply::Lost);
}
