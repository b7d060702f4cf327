//! What was found from the outside: kernel and EC2, reduced to what is compared.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use cloud::{AttachmentStatus, EniView};
use datapath::Inspection;
use vpc_types::{EniId, IfIndex, MacAddress, RouteTableId, VethPrefix};

/// The kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KernelLook {
    /// Host veths of pods: name, and alias where there is one.
    pub veths: BTreeMap<String, Option<String>>,
    /// /32 routes of table main to devices.
    pub routes: BTreeMap<Ipv4Addr, String>,
    /// Tables of rules 512.
    pub to_pod: BTreeMap<Ipv4Addr, Vec<RouteTableId>>,
    /// Tables of rules 1536.
    pub from_pod: BTreeMap<Ipv4Addr, Vec<RouteTableId>>,
    /// Tables of rules 32765.
    pub from_eni: BTreeMap<Ipv4Addr, Vec<RouteTableId>>,
    /// Priorities of rules among ours that are not ours.
    pub odd_rules: Vec<u32>,
    /// ENI devices by MAC.
    pub devices: BTreeMap<MacAddress, String>,
    /// Devices of the default routes of ENI tables.
    pub ways_out: BTreeMap<RouteTableId, Vec<String>>,
}

/// Node rules that are not as they should be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeLook {
    /// Whether the mark rule is right.
    pub mark_rule: Judgement,
    /// Whether the rules for external services are right.
    pub service_rules: Judgement,
    /// What is wrong with the nftables table.
    pub table: Option<String>,
}

/// Rules that the reference left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftoverLook {
    /// The program that shows them.
    pub program: &'static str,
    /// How many, those within its chains included.
    pub rules: usize,
}

/// Right or wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Judgement {
    /// As it should be.
    #[default]
    Right,
    /// Not so.
    Wrong,
}

/// One ENI as EC2 shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EniLook {
    /// Attaching or detaching.
    pub in_motion: bool,
    /// Addresses for pods.
    pub addresses: BTreeSet<Ipv4Addr>,
}

/// EC2: the ENIs of this instance that have an IPv4 address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ec2Look {
    /// By id.
    pub enis: BTreeMap<EniId, EniLook>,
}

impl KernelLook {
    /// Reduces an inspection.
    pub fn of(found: &Inspection, veth_prefix: &VethPrefix) -> Self {
        let name = |index: Option<&IfIndex>| {
            index
                .and_then(|index| found.view.links.get(index))
                .map(|l| l.name.clone())
        };
        let links = found.view.links.values();
        let veths = links.clone().filter(|link| link.name.starts_with(veth_prefix.as_str()));
        let mut look = Self {
            veths: veths.map(|link| (link.name.clone(), link.alias.clone())).collect(),
            odd_rules: found.odd_rules.clone(),
            ..Self::default()
        };
        for (address, device) in &found.view.pod_routes {
            look.routes.extend(name(Some(device)).map(|device| (*address, device)));
        }
        for (address, rules) in &found.view.rules {
            let lists = [
                (&mut look.to_pod, &rules.to_pod),
                (&mut look.from_pod, &rules.from_pod),
                (&mut look.from_eni, &rules.from_eni),
            ];
            for (into, tables) in lists.into_iter().filter(|(_, tables)| !tables.is_empty()) {
                into.insert(*address, tables.clone());
            }
        }
        for mac in links.filter_map(|link| link.mac) {
            look.devices
                .extend(found.view.find_eni(mac).map(|link| (mac, link.name.clone())));
        }
        for (table, routes) in &found.tables {
            let devices = routes.defaults.iter().filter_map(|(_, device)| name(device.as_ref()));
            look.ways_out.insert(*table, devices.collect());
        }
        look
    }
}

impl Ec2Look {
    /// Reduces what EC2 listed. An ENI without an IPv4 address can carry no pod, and the daemon ignores it.
    pub fn of(views: &[EniView]) -> Self {
        let with_ipv4 = views.iter().filter(|view| view.primary.is_some());
        let look = |view: &EniView| EniLook {
            in_motion: !view
                .attachment
                .as_ref()
                .is_some_and(|attachment| attachment.status == AttachmentStatus::Attached),
            addresses: view
                .allocations()
                .flat_map(|allocation| allocation.addresses().collect::<Vec<_>>())
                .collect(),
        };
        Self {
            enis: with_ipv4.map(|view| (view.id.clone(), look(view))).collect(),
        }
    }
}
