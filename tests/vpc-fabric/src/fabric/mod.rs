//! The fabric: one network namespace that stands for a VPC's network, and the links, routes and filters in it.
//!
//! Owns: a veth pair per attached ENI, one route per assigned address or prefix, the addresses of routers and services,
//! route tables, internet hosts, source and destination checks with their counters. Does not own what any of it means
//! in EC2, nor anything inside nodes: a device is born there down and without address, as after a hot-plug.
//!
//! Invariant: **the main routing table of the fabric is the only record of who owns an address.** ARP answers,
//! delivery and both checks derive from it, so they cannot disagree.
//! Called by `vpc-sim` (one task owns it; the methods block for some milliseconds) and by tests.

mod carrier;
mod error;
mod filter;
mod filter_state;
mod internet;
mod messages;
mod record;
mod route_tables;
mod settings;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use netlink::{Batch, Errno, RouteSocket};
use vpc_types::{EniId, MacAddress};

use crate::place::NetnsRef;
use carrier::CarrierWatch;
use filter_state::Filter;
use internet::InternetHost;
use messages::PortIndex;
use route_tables::RouteTables;

pub use error::FabricError;
pub use record::{Flow, Transport};
use settings::apply_tolerating;
pub(crate) use settings::{apply, loopback_up, open_socket};

/// Device numbers of ports start here, so that they are told from gateways (and `lo`, which is 1) at a glance.
const FIRST_PORT: u32 = 1001;
/// Names tried in a node before an attach is given up; an instance has at most some fifteen ENIs per card.
const DEVICE_NAME_TRIES: u32 = 64;

/// What a caller decides about a VPC's network.
#[derive(Debug, Clone, Default)]
pub struct FabricConfig {
    /// Address ranges of the VPC. Addresses in them that belong to nobody answer nothing.
    pub vpc_cidrs: Vec<Ipv4Net>,
    /// Addresses of the fabric itself: router (`.1`) and resolver (`.2`) of each subnet, link-local services,
    /// endpoints. Servers of the calling process in this namespace can listen on them. The first one is the source of
    /// ICMP errors, so it should be a router's.
    pub local_addresses: Vec<Ipv4Addr>,
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
    socket: RouteSocket,
    carrier: CarrierWatch,
    filter: Filter,
    tables: RouteTables,
    internet: Vec<InternetHost>,
    ports: BTreeMap<EniId, Port>,
    next_port: u32,
}

/// An attached ENI.
#[derive(Debug)]
struct Port {
    index: PortIndex,
    check: SourceDestCheck,
}

impl Fabric {
    /// Sets up the calling thread's network namespace, which must be empty, as a VPC. The other methods may be called
    /// on any thread; servers of the VPC must be made on one that is in this namespace.
    pub fn create(config: &FabricConfig) -> Result<Self, FabricError> {
        settings::write_sysctls()?;
        loopback_up()?;
        let mut socket = open_socket()?;
        let mut batch = Batch::new();
        messages::push_addresses(&mut batch, messages::LOOPBACK, &config.local_addresses);
        for cidr in &config.vpc_cidrs {
            messages::push_vpc_cidr(&mut batch, cidr.trunc());
        }
        apply(&mut socket, "set up VPC", &batch)?;
        let internet = internet::create_all(&mut socket, &config.internet)?;
        let tables = RouteTables::create(&mut socket, &internet)?;
        let (carrier, filter) = (CarrierWatch::subscribe()?, Filter::load()?);
        Ok(Self {
            socket,
            carrier,
            filter,
            tables,
            internet,
            ports: BTreeMap::new(),
            next_port: FIRST_PORT,
        })
    }

    /// Makes the ENI's device appear in the node, down, without address. Returns the device's name there.
    pub fn attach_eni(&mut self, port: &EniPort) -> Result<String, FabricError> {
        if self.ports.contains_key(&port.eni) {
            return Err(FabricError::AlreadyAttached(port.eni.clone()));
        }
        // A number is never used twice, so drops of detached ENIs stay attributable.
        let index = PortIndex(self.next_port);
        self.next_port += 1;
        // The filter comes first: not one packet passes unchecked.
        self.filter.add_port(index, &port.eni, port.check, port.route_table)?;
        match self.attach_device(index, port) {
            Ok(device) => {
                self.ports.insert(
                    port.eni.clone(),
                    Port {
                        index,
                        check: port.check,
                    },
                );
                self.sync_route_tables()?;
                Ok(device)
            }
            Err(error) => {
                self.filter.remove_port(index)?;
                Err(error)
            }
        }
    }

    fn attach_device(&mut self, index: PortIndex, port: &EniPort) -> Result<String, FabricError> {
        for attempt in 0..DEVICE_NAME_TRIES {
            let device = device_name(&port.device, attempt);
            let mut batch = Batch::new();
            messages::push_attach(&mut batch, index, port, &device);
            let errors = self.socket.apply(&batch);
            let errors = errors.map_err(|source| FabricError::Socket {
                operation: "attach",
                source,
            })?;
            match errors.into_iter().next() {
                None => return Ok(device),
                // Message 0 makes the pair; the index is ours alone, so what exists is the name in the node.
                Some(error) if error.index == 0 && error.errno == Errno::EEXIST => {}
                Some(source) => {
                    self.remove_device(index)?;
                    return Err(FabricError::Refused {
                        operation: "attach",
                        source,
                    });
                }
            }
        }
        Err(FabricError::DeviceName {
            eni: port.eni.clone(),
            wished: port.device.clone(),
        })
    }

    /// Waits until packets can flow to the ENI, which is shortly after the node has brought its device up; false at
    /// the deadline. The kernel activates the fabric's end by deferred work, and what is sent to it before that is
    /// lost: an ARP answer, for instance, which the node asks for again only after a second.
    pub fn wait_until_carrying(&mut self, eni: &EniId, deadline: Duration) -> Result<bool, FabricError> {
        let index = self.port(eni)?.index;
        self.carrier.wait(&mut self.socket, index, deadline)
    }

    /// Attached ENIs whose device is gone, because the node (or something in it) deleted it: a fault of the node.
    /// Detaching such an ENI works as usual.
    pub fn lost_enis(&mut self) -> Result<Vec<EniId>, FabricError> {
        let present = carrier::devices(&mut self.socket)?;
        let lost = self.ports.iter().filter(|(_, port)| !present.contains(&port.index));
        Ok(lost.map(|(eni, _)| eni.clone()).collect())
    }

    /// The device vanishes, and all addresses assigned to the ENI are unassigned.
    pub fn detach_eni(&mut self, eni: &EniId) -> Result<(), FabricError> {
        let index = self.port(eni)?.index;
        self.ports.remove(eni);
        self.sync_route_tables()?;
        self.remove_device(index)?;
        self.filter.remove_port(index)
    }

    /// Removes a port; gone already (its node ended, or deleted its end) is as good.
    fn remove_device(&mut self, index: PortIndex) -> Result<(), FabricError> {
        let mut batch = Batch::new();
        messages::push_removal(&mut batch, index);
        apply_tolerating(&mut self.socket, "detach", &batch, &[Errno::ENODEV])
    }

    /// Gives addresses (/32) or prefixes to an attached ENI. Moving one from another ENI is one step.
    pub fn assign(&mut self, eni: &EniId, nets: &[Ipv4Net]) -> Result<(), FabricError> {
        let index = self.port(eni)?.index;
        let mut batch = Batch::new();
        for net in nets {
            messages::push_assign(&mut batch, index, net.trunc());
        }
        apply(&mut self.socket, "assign", &batch)
    }

    /// Takes them away. Absent ones are not an error.
    pub fn unassign(&mut self, eni: &EniId, nets: &[Ipv4Net]) -> Result<(), FabricError> {
        let index = self.port(eni)?.index;
        let mut batch = Batch::new();
        for net in nets {
            messages::push_unassign(&mut batch, index, net.trunc());
        }
        apply_tolerating(&mut self.socket, "unassign", &batch, &[Errno::ESRCH])
    }

    /// Lets a private address reach the internet as `public`, and be reached by it; `None` ends that for new
    /// connections.
    pub fn set_public(&mut self, private: Ipv4Addr, public: Option<Ipv4Addr>) -> Result<(), FabricError> {
        self.filter.set_public(private, public)
    }

    /// See [`SourceDestCheck`].
    pub fn set_source_dest_check(&mut self, eni: &EniId, check: SourceDestCheck) -> Result<(), FabricError> {
        let port = self
            .ports
            .get_mut(eni)
            .ok_or_else(|| FabricError::NotAttached(eni.clone()))?;
        if port.check != check {
            self.filter.set_check(port.index, check)?;
            port.check = check;
        }
        self.sync_route_tables()
    }

    /// Replaces the routes of a VPC route table, making the table if need be. A route to an ENI that is not attached,
    /// or whose source/destination check is on, delivers nothing until that changes.
    pub fn set_route_table(&mut self, table: RouteTable, routes: &[(Ipv4Net, RouteTarget)]) -> Result<(), FabricError> {
        self.tables.set(&mut self.socket, table, routes)?;
        self.sync_route_tables()
    }

    /// What was dropped so far, by ENI, reason and pair of addresses.
    pub fn drops(&mut self) -> Result<Vec<DropCount>, FabricError> {
        self.filter.drops()
    }

    /// Packets dropped so far for each reason, complete even when there were too many pairs to remember.
    pub fn drop_totals(&mut self) -> Result<BTreeMap<DropReason, u64>, FabricError> {
        self.filter.drop_totals()
    }

    /// Begins a record of all TCP and UDP packets that ENIs send, dropped or not; an earlier record is forgotten. It costs
    /// every packet a look-up, so nobody has it who has not asked.
    pub fn record_flows(&mut self) -> Result<(), FabricError> {
        self.filter.record_flows()
    }

    /// The record so far. An error when it is full: then flows are missing.
    pub fn flows(&mut self) -> Result<Vec<Flow>, FabricError> {
        self.filter.flows()
    }

    /// The namespace of an internet host, for probes and echo servers.
    pub fn internet_host(&self, name: &str) -> Option<&NetnsRef> {
        self.internet
            .iter()
            .find(|host| host.name() == name)
            .map(InternetHost::netns)
    }

    fn port(&self, eni: &EniId) -> Result<&Port, FabricError> {
        self.ports.get(eni).ok_or_else(|| FabricError::NotAttached(eni.clone()))
    }

    fn sync_route_tables(&mut self) -> Result<(), FabricError> {
        let ports = &self.ports;
        let deliverable = |eni: &EniId| {
            let port = ports.get(eni).filter(|port| port.check == SourceDestCheck::Off)?;
            Some(port.index)
        };
        self.tables.sync(&mut self.socket, deliverable)
    }
}

/// The wished name, then the same stem with higher numbers: `eth1`, `eth2`, …
fn device_name(wished: &str, attempt: u32) -> String {
    if attempt == 0 {
        return wished.to_owned();
    }
    let stem = wished.trim_end_matches(|c: char| c.is_ascii_digit());
    let number: u32 = wished[stem.len()..].parse().unwrap_or(0);
    format!("{stem}{}", number + attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_device_name_is_followed_by_the_next_number() {
        assert_eq!([0, 1, 2].map(|n| device_name("ens6", n)), ["ens6", "ens7", "ens8"]);
        assert_eq!(device_name("eth", 1), "eth1");
    }
}
