//! Ordinary machines: configuring a device as DHCP and an administrator do, and plain hosts without a node's files.
//!
//! Owns nothing in the fabric: the addresses given here must be assigned to the ENI there. Called by `vpc-sim` (a
//! node's boot), tests and the demo.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlink::Batch;
use netlink::message::{self, LinkRef, LinkState, Route, Rule};
use netlink::packet::RouteNetlinkMessage;

use crate::fabric::{FabricError, apply, loopback_up, open_socket};
use crate::place::{Isolation, NetnsRef, Place, PlaceError};

/// `NLM_F_REPLACE | NLM_F_CREATE`.
const CREATE_OR_REPLACE: u16 = 0x500;
const MAIN_TABLE: u32 = 254;

/// How to configure one device.
#[derive(Debug, Clone)]
pub struct DeviceSetup {
    /// Its name.
    pub device: String,
    /// Address with the length of its subnet.
    pub address: Ipv4Net,
    /// Router of the subnet.
    pub gateway: Ipv4Addr,
    /// Where the default route goes.
    pub default_route: DefaultRoute,
}

/// See [`DeviceSetup`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultRoute {
    /// Into the main table: the primary ENI.
    Main,
    /// Into a table of its own, used by traffic *from* the device's address: a secondary ENI.
    OwnTable(u32),
}

/// A host that could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The device is not there.
    #[error("no device {device}")]
    Device {
        /// Its name.
        device: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The kernel refused something.
    #[error("cannot configure {device}")]
    Configure {
        /// Which device.
        device: String,
        /// Why.
        #[source]
        source: FabricError,
    },
    /// No namespace.
    #[error("host {name}")]
    Place {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: PlaceError,
    },
}

/// Configures a device of the calling thread's namespace: up, address, default route. Can be repeated.
pub fn configure_device(setup: &DeviceSetup) -> Result<(), HostError> {
    let failed = |source| HostError::Configure {
        device: setup.device.clone(),
        source,
    };
    let mut socket = open_socket().map_err(failed)?;
    let index = socket.device_index(&setup.device);
    let index = index.map_err(|source| HostError::Device {
        device: setup.device.clone(),
        source,
    })?;
    let mut batch = Batch::new();
    batch.push(
        "set device up",
        0,
        message::set_link_state(LinkRef::Index(index), LinkState::Up),
    );
    let address = message::address(index, setup.address.addr(), setup.address.prefix_len());
    batch.push(
        "add address",
        CREATE_OR_REPLACE,
        RouteNetlinkMessage::NewAddress(address),
    );
    let table = match setup.default_route {
        DefaultRoute::Main => MAIN_TABLE,
        DefaultRoute::OwnTable(table) => table,
    };
    if table != MAIN_TABLE {
        push_own_table(&mut batch, index, table, setup);
    }
    push_route(
        &mut batch,
        Route {
            destination: Ipv4Addr::UNSPECIFIED,
            prefix_len: 0,
            table,
            device: index,
            gateway: Some(setup.gateway),
        },
    );
    apply(&mut socket, "configure device", &batch).map_err(failed)
}

/// The gateway is on the link in the device's own table too, and the address leads into that table.
fn push_own_table(batch: &mut Batch, device: u32, table: u32, setup: &DeviceSetup) {
    push_route(
        batch,
        Route {
            destination: setup.gateway,
            prefix_len: 32,
            table,
            device,
            gateway: None,
        },
    );
    let from = Some(setup.address.addr());
    let rule = Rule {
        priority: 1024,
        from,
        table: Some(table),
        ..Rule::default()
    };
    batch.push(
        "add rule",
        CREATE_OR_REPLACE,
        RouteNetlinkMessage::NewRule(rule.message()),
    );
}

fn push_route(batch: &mut Batch, route: Route) {
    batch.push(
        "add route",
        CREATE_OR_REPLACE,
        RouteNetlinkMessage::NewRoute(route.message()),
    );
}

/// A machine of the VPC that is no node: a client, a load balancer, a NAT instance.
#[derive(Debug)]
pub struct Host {
    place: Place,
}

impl Host {
    /// An empty network namespace with `lo` up; ENIs are attached to its [`Host::netns`].
    pub fn create(name: &str) -> Result<Self, HostError> {
        let failed = |source| HostError::Place {
            name: name.to_owned(),
            source,
        };
        let place = Place::create(name, Isolation::Network).map_err(failed)?;
        let up = place.run(loopback_up).map_err(failed)?;
        up.map_err(|source| HostError::Configure {
            device: "lo".into(),
            source,
        })?;
        Ok(Self { place })
    }

    /// The name given at creation.
    pub fn name(&self) -> &str {
        self.place.name()
    }

    /// Its network namespace.
    pub fn netns(&self) -> &NetnsRef {
        self.place.netns()
    }

    /// See [`configure_device`].
    pub fn configure_device(&self, setup: &DeviceSetup) -> Result<(), HostError> {
        let setup = setup.clone();
        let failed = |source| HostError::Place {
            name: self.name().to_owned(),
            source,
        };
        self.place.run(move || configure_device(&setup)).map_err(failed)?
    }
}
