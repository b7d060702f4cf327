//! A small VPC: two nodes (the first with a secondary ENI), one internet host, configured by hand as a good node
//! agent would.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use ipnet::Ipv4Net;
use vpc_fabric::fabric::{EniPort, InternetHostConfig, RouteTable, SourceDestCheck};
use vpc_fabric::probe::Vantage;
use vpc_fabric::{DefaultRoute, DeviceSetup, Fabric, FabricConfig, NetnsRef, Node, NodeConfig};
use vpc_types::{EniId, MacAddress};

pub(crate) const N1_PRIMARY: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 10);
pub(crate) const N1_SECONDARY: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 20);
pub(crate) const N2_PRIMARY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 10);
pub(crate) const ROUTER_1: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
pub(crate) const ROUTER_2: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);
pub(crate) const IMDS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
pub(crate) const WEB: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
pub(crate) const OTHER_WEB: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);
/// Nobody has it.
pub(crate) const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 99);
/// Of the secondary ENI on the first node.
pub(crate) const SECONDARY_TABLE: u32 = 2;
/// Long enough for any answer on one machine, short enough to wait for silence.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);

pub(crate) struct Vpc {
    pub(crate) fabric: Fabric,
    pub(crate) n1: Node,
    pub(crate) n2: Node,
}

pub(crate) fn eni(n: u8) -> EniId {
    EniId::parse(&format!("eni-{n:017x}")).expect("hexadecimal digits")
}

pub(crate) fn mac(n: u8) -> MacAddress {
    MacAddress([0x02, 0, 0, 0, 0, n])
}

pub(crate) fn port(n: u8, netns: &NetnsRef, device: &str) -> EniPort {
    EniPort {
        eni: eni(n),
        mac: mac(n),
        netns: netns.clone(),
        device: device.to_owned(),
        check: SourceDestCheck::On,
        route_table: RouteTable::INTERNET,
    }
}

pub(crate) fn only(address: Ipv4Addr) -> [Ipv4Net; 1] {
    [Ipv4Net::from(address)]
}

pub(crate) fn device_setup(
    device: &str,
    address: Ipv4Addr,
    gateway: Ipv4Addr,
    default_route: DefaultRoute,
) -> DeviceSetup {
    let address = Ipv4Net::new(address, 24).expect("24 is a length");
    DeviceSetup {
        device: device.to_owned(),
        address,
        gateway,
        default_route,
    }
}

pub(crate) fn empty_fabric() -> Fabric {
    Fabric::create(&FabricConfig {
        vpc_cidrs: vec!["10.0.0.0/16".parse().expect("a network")],
        local_addresses: vec![ROUTER_1, ROUTER_2, IMDS],
        internet: vec![
            InternetHostConfig {
                name: "web".into(),
                addresses: vec![WEB],
            },
            InternetHostConfig {
                name: "other-web".into(),
                addresses: vec![OTHER_WEB],
            },
        ],
    })
    .expect("a fabric can be made in an empty namespace")
}

/// ENI 1 = first node's eth0, ENI 2 = its eth1, ENI 3 = second node's eth0.
pub(crate) fn vpc() -> Vpc {
    let mut fabric = empty_fabric();
    let n1 = Node::create(&NodeConfig::new("n1")).expect("a node can be made");
    let n2 = Node::create(&NodeConfig::new("n2")).expect("a node can be made");
    for (n, node, device, address) in [
        (1, &n1, "eth0", N1_PRIMARY),
        (2, &n1, "eth1", N1_SECONDARY),
        (3, &n2, "eth0", N2_PRIMARY),
    ] {
        assert_eq!(
            fabric
                .attach_eni(&port(n, node.netns(), device))
                .expect("an ENI can be attached"),
            device
        );
        fabric
            .assign(&eni(n), &only(address))
            .expect("an address can be assigned");
    }
    configure(&n1, &device_setup("eth0", N1_PRIMARY, ROUTER_1, DefaultRoute::Main));
    configure(
        &n1,
        &device_setup("eth1", N1_SECONDARY, ROUTER_1, DefaultRoute::OwnTable(SECONDARY_TABLE)),
    );
    configure(&n2, &device_setup("eth0", N2_PRIMARY, ROUTER_2, DefaultRoute::Main));
    (1..=3).for_each(|n| wait(&mut fabric, n));
    Vpc { fabric, n1, n2 }
}

pub(crate) fn wait(fabric: &mut Fabric, n: u8) {
    assert!(
        fabric
            .wait_until_carrying(&eni(n), Duration::from_secs(5))
            .expect("the port can be looked at")
    );
}

pub(crate) fn configure(node: &Node, setup: &DeviceSetup) {
    node.configure_device(setup).expect("the device can be configured");
}

/// Whether one ping is answered.
pub(crate) fn pings(from: &NetnsRef, source: Ipv4Addr, target: Ipv4Addr) -> bool {
    let answers = Vantage::new(from).from_address(source).within(SILENCE).ping(&[target]);
    answers.expect("a ping can be sent")[0].is_some()
}

/// The address that a UDP server sees.
pub(crate) fn seen_by_udp(from: &NetnsRef, source: Option<Ipv4Addr>, server: SocketAddrV4) -> Option<Ipv4Addr> {
    let mut vantage = Vantage::new(from).within(SILENCE);
    vantage.source = source;
    vantage.ask_udp(&[server]).expect("a question can be sent")[0].map(|seen| *seen.ip())
}

/// The address that a TCP server sees.
pub(crate) fn seen_by_tcp(from: &NetnsRef, source: Option<Ipv4Addr>, server: SocketAddrV4) -> Option<Ipv4Addr> {
    let mut vantage = Vantage::new(from).within(SILENCE);
    vantage.source = source;
    vantage.ask_tcp(&[server]).expect("a question can be sent")[0].map(|seen| *seen.ip())
}
