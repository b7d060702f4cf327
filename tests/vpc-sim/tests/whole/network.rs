//! What the data plane does when the API is called.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use vpc_fabric::fabric::DropReason;
use vpc_fabric::probe::{EchoServer, Vantage};
use vpc_fabric::{DefaultRoute, DeviceSetup, Node, configure_device};
use vpc_sim::ImdsOptions;
use vpc_sim::vpc::Vpc;

use crate::Test;
use crate::node::{SOON, add_pod, device, ec2, element, imds, try_token, wait_until};

pub(crate) const TESTS: &[Test] = &[
    test(
        "nodes_reach_each_other_and_the_internet_by_their_own_addresses",
        nodes_reach_each_other,
    ),
    test(
        "an_eni_made_by_api_calls_carries_packets_and_goes_again",
        an_eni_carries_packets,
    ),
    test(
        "an_address_answers_only_while_it_is_assigned",
        an_address_answers_while_assigned,
    ),
    test("a_foreign_source_is_dropped_and_counted", a_foreign_source_is_dropped),
    test("imds_tells_nodes_apart_and_ignores_strangers", imds_tells_nodes_apart),
    test("a_token_reaches_a_pod_only_with_a_hop_to_spare", a_token_needs_a_hop),
    test(
        "a_terminated_instance_loses_its_devices",
        a_terminated_instance_loses_its_devices,
    ),
    Test {
        config: r#"{"timing_ms": {"attach": 400}}"#,
        ..test(
            "a_device_appears_when_its_delay_is_over",
            a_device_appears_after_its_delay,
        )
    },
    Test {
        config: r#"{"nodes": [{"name": "node-1", "subnet": "subnet-1", "public_address": "198.51.100.7"}]}"#,
        ..test(
            "the_internet_sees_the_public_address_where_there_is_one",
            the_internet_sees_the_public_address,
        )
    },
];

const fn test(name: &'static str, run: fn(&Vpc)) -> Test {
    Test {
        name,
        config: "{}",
        run,
    }
}

const NODE_1: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 10);
const NODE_2: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 10);
const INTERNET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// Long enough for an answer on one machine, short enough to wait for silence.
const SILENCE: Duration = Duration::from_millis(500);

fn node<'a>(vpc: &'a Vpc, name: &str) -> &'a Node {
    vpc.node(name).expect("the default configuration has this node")
}

fn answers(vantage: &Vantage, target: Ipv4Addr) -> bool {
    vantage.ping(&[target]).unwrap()[0].is_some()
}

fn nodes_reach_each_other(vpc: &Vpc) {
    let (one, two) = (
        Vantage::new(node(vpc, "node-1").netns()),
        Vantage::new(node(vpc, "node-2").netns()),
    );
    assert!(answers(&one.clone().within(SOON), NODE_2) && answers(&two.within(SOON), NODE_1));
    let host = vpc.handle().internet_host("internet").unwrap();
    let server = EchoServer::start(&host, SocketAddrV4::new(INTERNET, 7_000)).unwrap();
    let seen = one.within(SOON).ask_tcp(&[server.address()]).unwrap()[0].expect("the internet host answers");
    assert_eq!(*seen.ip(), NODE_1);
    assert_eq!(vpc.handle().drops().unwrap(), []);
}

/// Configures a device of a node as an agent would.
fn configure(node: &Node, device: &str, address: &str, default_route: DefaultRoute) {
    let address: ipnet::Ipv4Net = address.parse().unwrap();
    let gateway = Ipv4Addr::from(u32::from(address.network()) + 1);
    let setup = DeviceSetup {
        device: device.to_owned(),
        address,
        gateway,
        default_route,
    };
    node.run(move || configure_device(&setup)).unwrap().unwrap();
}

fn an_eni_carries_packets(vpc: &Vpc) {
    let one = node(vpc, "node-1");
    let subnet = element(
        &ec2(
            one,
            "Action=DescribeSubnets&Filter.1.Name=cidr-block&Filter.1.Value.1=10.0.1.0/24",
        ),
        "subnetId",
    );
    let created = ec2(
        one,
        &format!("Action=CreateNetworkInterface&SubnetId={subnet}&PrivateIpAddress=10.0.1.50"),
    );
    let (eni, mac) = (element(&created, "networkInterfaceId"), element(&created, "macAddress"));
    assert_eq!(device(one, &mac), None);
    let instance = vpc.handle().instance("node-1").unwrap();
    let attach = format!("Action=AttachNetworkInterface&NetworkInterfaceId={eni}&InstanceId={instance}&DeviceIndex=1");
    let attachment = element(&ec2(one, &attach), "attachmentId");
    let name = wait_until(SOON, || device(one, &mac)).expect("the device appears in the node");
    configure(one, &name, "10.0.1.50/24", DefaultRoute::OwnTable(2));
    let two = Vantage::new(node(vpc, "node-2").netns());
    // The device appears a moment before the fabric delivers to it, and a probe is not repeated.
    let address = "10.0.1.50".parse().unwrap();
    let probe = || answers(&two.clone().within(SILENCE), address).then_some(());
    wait_until(SOON, probe).expect("the new ENI answers");
    let answer = ec2(one, &format!("Action=DetachNetworkInterface&AttachmentId={attachment}"));
    assert_eq!(answer.0, 200, "{answer:?}");
    wait_until(SOON, || device(one, &mac).is_none().then_some(())).expect("the device disappears");
    assert!(!answers(&two.within(SILENCE), address));
    let answer = ec2(one, &format!("Action=DeleteNetworkInterface&NetworkInterfaceId={eni}"));
    assert_eq!(answer.0, 200, "{answer:?}");
}

fn an_address_answers_while_assigned(vpc: &Vpc) {
    let one = node(vpc, "node-1");
    let eni = one_primary(vpc);
    let address: Ipv4Addr = "10.0.1.60".parse().unwrap();
    configure(one, "eth0", "10.0.1.60/24", DefaultRoute::Main);
    let two = Vantage::new(node(vpc, "node-2").netns());
    assert!(
        !answers(&two.clone().within(SILENCE), address),
        "nobody has assigned it yet"
    );
    let form = format!("NetworkInterfaceId={eni}&PrivateIpAddress.1={address}");
    let answer = ec2(one, &format!("Action=AssignPrivateIpAddresses&{form}"));
    assert_eq!(answer.0, 200, "{answer:?}");
    let probe = || answers(&two.clone().within(SILENCE), address).then_some(());
    wait_until(SOON, probe).expect("the address answers once it is assigned");
    let answer = ec2(one, &format!("Action=UnassignPrivateIpAddresses&{form}"));
    assert_eq!(answer.0, 200, "{answer:?}");
    let silent = || (!answers(&two.clone().within(SILENCE), address)).then_some(());
    wait_until(SOON, silent).expect("the address is silent once it is unassigned");
}

fn one_primary(vpc: &Vpc) -> String {
    let instance = vpc.handle().instance("node-1").unwrap();
    vpc.simulator()
        .with_model(|model, _| model.enis_of(instance).next().unwrap().id.to_string())
}

fn a_foreign_source_is_dropped(vpc: &Vpc) {
    let one = node(vpc, "node-1");
    configure(one, "eth0", "10.0.1.99/24", DefaultRoute::Main);
    let source = "10.0.1.99".parse().unwrap();
    let vantage = Vantage::new(one.netns()).from_address(source).within(SILENCE);
    assert!(!answers(&vantage, NODE_2));
    let drops = vpc.handle().drops().unwrap();
    assert_eq!(drops.len(), 1, "{drops:?}");
    assert_eq!(
        (drops[0].reason, drops[0].source, drops[0].destination),
        (DropReason::WrongSource, source, NODE_2)
    );
    assert_eq!(drops[0].eni.to_string(), one_primary(vpc));
    assert_eq!(vpc.handle().drop_totals().unwrap()[&DropReason::WrongSource], 1);
}

fn imds_tells_nodes_apart(vpc: &Vpc) {
    for name in ["node-1", "node-2"] {
        let id = node(vpc, name).run(|| imds("meta-data/instance-id")).unwrap();
        assert_eq!(id, (200, vpc.handle().instance(name).unwrap().to_string()));
    }
    // This thread is in the fabric, whose own addresses belong to no instance.
    assert_eq!(imds("meta-data/instance-id").0, 404);
}

fn a_terminated_instance_loses_its_devices(vpc: &Vpc) {
    let two = node(vpc, "node-2");
    let instance = vpc.handle().instance("node-2").unwrap();
    let mac = vpc
        .simulator()
        .with_model(|model, _| model.enis_of(instance).next().unwrap().mac.to_string());
    assert!(device(two, &mac).is_some());
    vpc.simulator()
        .with_model(|model, now| model.terminate_instance(now, instance))
        .unwrap();
    wait_until(SOON, || device(two, &mac).is_none().then_some(())).expect("the device disappears");
}

fn a_token_needs_a_hop(vpc: &Vpc) {
    let one = node(vpc, "node-1");
    let address: Ipv4Addr = "10.0.1.70".parse().unwrap();
    let answer = ec2(
        one,
        &format!(
            "Action=AssignPrivateIpAddresses&NetworkInterfaceId={}&PrivateIpAddress.1={address}",
            one_primary(vpc)
        ),
    );
    assert_eq!(answer.0, 200, "{answer:?}");
    let pod = add_pod(one, address);
    let token = |hop_limit| {
        vpc.simulator().set_imds_options(ImdsOptions {
            hop_limit,
            ..ImdsOptions::default()
        });
        pod.run(|| try_token(SILENCE * 2)).unwrap()
    };
    // A new link loses packets for a moment.
    wait_until(SOON, || token(2)).expect("two hops reach the pod");
    assert_eq!(token(1), None, "one hop ends at the node");
    assert_eq!(
        one.run(|| imds("meta-data/instance-id")).unwrap().0,
        200,
        "and is enough for the node itself"
    );
}

fn a_device_appears_after_its_delay(vpc: &Vpc) {
    let one = node(vpc, "node-1");
    let subnet = element(&ec2(one, "Action=DescribeSubnets"), "subnetId");
    let created = ec2(one, &format!("Action=CreateNetworkInterface&SubnetId={subnet}"));
    let (eni, mac) = (element(&created, "networkInterfaceId"), element(&created, "macAddress"));
    let instance = vpc.handle().instance("node-1").unwrap();
    let called = Instant::now();
    ec2(
        one,
        &format!("Action=AttachNetworkInterface&NetworkInterfaceId={eni}&InstanceId={instance}&DeviceIndex=1"),
    );
    let described = ec2(
        one,
        &format!("Action=DescribeNetworkInterfaces&NetworkInterfaceId.1={eni}"),
    );
    assert!(described.1.contains("<status>attaching</status>"), "{described:?}");
    wait_until(SOON, || device(one, &mac)).expect("the device appears");
    assert!(called.elapsed() >= Duration::from_millis(400), "{:?}", called.elapsed());
}

fn the_internet_sees_the_public_address(vpc: &Vpc) {
    let host = vpc.handle().internet_host("internet").unwrap();
    let server = EchoServer::start(&host, SocketAddrV4::new(INTERNET, 7_000)).unwrap();
    let one = Vantage::new(node(vpc, "node-1").netns()).within(SOON);
    let seen = one.ask_tcp(&[server.address()]).unwrap()[0].expect("the internet host answers");
    assert_eq!(*seen.ip(), Ipv4Addr::new(198, 51, 100, 7));
}
