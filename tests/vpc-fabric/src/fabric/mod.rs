//! The fabric: one network namespace that stands for a VPC's network, and the links, routes and filters in it.
//!
//! Owns: a veth pair per attached ENI, one route per assigned address or prefix, the addresses of routers and services,
//! route tables, internet hosts, source and destination checks with their counters. Does not own what any of it means
//! in EC2, nor anything inside nodes: a device is born there down and without address, as after a hot-plug.
//!
//! Invariant: **the main routing table of the fabric is the only record of who owns an address.** ARP answers,
//! delivery and both checks derive from it, so they cannot disagree.
//! Called by `vpc-sim` (one task owns it; the methods block for some milliseconds) and by tests.

mod error;
mod settings;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use vpc_types::{EniId, MacAddress};

use crate::place::NetnsRef;

pub use error::FabricError;
pub(crate) use settings::loopback_up;

/// What a caller decides about a VPC's network.
#[derive(Debug, Clone, Default)]
pub struct FabricConfig {
    /// Address ranges of the VPC. Addresses in them that belong to nobody answer nothing.
    pub vpc_cidrs: Vec<Ipv4Net>,
    /// Addresses of the fabric itself: router (`.1`) and resolver (`.2`) of each subnet, link-local services,
    /// endpoints. Servers of the calling process in this namespace can listen on them.
    pub local_addresses: Vec<Ipv4Addr>,
    /// The address that ICMP errors of the routers come from; one of `local_addresses`.
    pub router: Option<Ipv4Addr>,
    /// Machines outside the VPC. The first one also gets what goes to addresses of none of them.
    pub internet: Vec<InternetHostConfig>,
}

/// A machine on the internet.
#[derive(Debug, Clone)]
pub struct InternetHostConfig {
    /// Name in errors.
    pub name: String,
    /// Its public addresses.
    pub addresses: Vec<Ipv4Addr>,
}

/// Whether the fabric checks that packets of an ENI carry addresses of that ENI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SourceDestCheck {
    /// As EC2 creates ENIs.
    #[default]
    On,
    /// For NAT instances and the like.
    Off,
}

/// Number of a VPC route table. Packets of an ENI that leave the VPC's own ranges are routed by its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteTable(pub u16);

impl RouteTable {
    /// Exists from the start, with a default route to the internet.
    pub const INTERNET: Self = Self(0);
    /// Exists from the start, without routes: a subnet whose traffic stays in the VPC.
    pub const ISOLATED: Self = Self(1);
}

/// Where a route of a VPC route table leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteTarget {
    /// The internet gateway.
    Internet,
    /// An attached ENI: a NAT instance, a gateway appliance.
    Eni(EniId),
}

/// An ENI to attach.
#[derive(Debug, Clone)]
pub struct EniPort {
    /// Its id.
    pub eni: EniId,
    /// Its link-layer address, by which the node identifies it.
    pub mac: MacAddress,
    /// Where it appears.
    pub netns: NetnsRef,
    /// Wished name of its device (≤ 15 bytes); another one is chosen if it is taken.
    pub device: String,
    /// See there.
    pub check: SourceDestCheck,
    /// See there.
    pub route_table: RouteTable,
}

/// Why the fabric dropped packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// The source address does not belong to the ENI that sent the packet.
    WrongSource,
    /// Nobody owns the destination, and no route of the ENI's table leads to it.
    NoRoute,
    /// Traffic for the internet from an address without a public one.
    NoPublicAddress,
}

/// Packets dropped for one reason between two addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DropCount {
    /// The ENI that sent them. Stays known after it is detached.
    pub eni: EniId,
    /// Why.
    pub reason: DropReason,
    /// Source address of the packets.
    pub source: Ipv4Addr,
    /// Destination address of the packets.
    pub destination: Ipv4Addr,
    /// How many.
    pub packets: u64,
}

/// See the module's description.
#[derive(Debug)]
pub struct Fabric {
    ports: BTreeMap<EniId, u32>,
}

#[expect(unused_variables, clippy::todo, reason = "signatures first")]
impl Fabric {
    /// Sets up the calling thread's network namespace, which must be empty, as a VPC.
    pub fn create(config: &FabricConfig) -> Result<Self, FabricError> {
        todo!()
    }

    /// Makes the ENI's device appear in the node, down, without address. Returns the device's name there.
    pub fn attach_eni(&mut self, port: &EniPort) -> Result<String, FabricError> {
        todo!()
    }

    /// The device vanishes, and all addresses assigned to the ENI are unassigned.
    pub fn detach_eni(&mut self, eni: &EniId) -> Result<(), FabricError> {
        todo!()
    }

    /// Gives addresses or prefixes (host routes are /32) to an attached ENI. Moving one from another ENI is one step.
    pub fn assign(&mut self, eni: &EniId, nets: &[Ipv4Net]) -> Result<(), FabricError> {
        todo!()
    }

    /// Takes them away. Absent ones are not an error.
    pub fn unassign(&mut self, eni: &EniId, nets: &[Ipv4Net]) -> Result<(), FabricError> {
        todo!()
    }

    /// Lets a private address reach the internet as `public`, and be reached by it; `None` ends that.
    pub fn set_public(&mut self, private: Ipv4Addr, public: Option<Ipv4Addr>) -> Result<(), FabricError> {
        todo!()
    }

    /// See [`SourceDestCheck`].
    pub fn set_source_dest_check(&mut self, eni: &EniId, check: SourceDestCheck) -> Result<(), FabricError> {
        todo!()
    }

    /// Replaces the routes of a VPC route table.
    pub fn set_route_table(&mut self, table: RouteTable, routes: &[(Ipv4Net, RouteTarget)]) -> Result<(), FabricError> {
        todo!()
    }

    /// What was dropped so far, by ENI, reason and pair of addresses.
    pub fn drops(&mut self) -> Result<Vec<DropCount>, FabricError> {
        todo!()
    }

    /// The namespace of an internet host, for probes and echo servers.
    pub fn internet_host(&self, name: &str) -> Option<&NetnsRef> {
        todo!()
    }
}
