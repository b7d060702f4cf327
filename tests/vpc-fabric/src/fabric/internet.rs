//! Machines outside the VPC: each is a network namespace behind a link of its own to the internet gateway.

use std::net::Ipv4Addr;

use netlink::{Batch, RouteSocket};

use super::messages::{self, PortIndex};
use super::{FabricError, InternetHostConfig, apply, loopback_up, open_socket};
use crate::place::{Isolation, NetnsRef, Place};

/// Device numbers of gateways in the fabric.
const FIRST_GATEWAY: u32 = 501;

/// See the module's description.
#[derive(Debug)]
pub(super) struct InternetHost {
    place: Place,
    pub(super) gateway: PortIndex,
    pub(super) addresses: Vec<Ipv4Addr>,
}

impl InternetHost {
    pub(super) fn name(&self) -> &str {
        self.place.name()
    }

    pub(super) fn netns(&self) -> &NetnsRef {
        self.place.netns()
    }
}

/// Makes all hosts and their links.
pub(super) fn create_all(
    socket: &mut RouteSocket,
    configs: &[InternetHostConfig],
) -> Result<Vec<InternetHost>, FabricError> {
    (FIRST_GATEWAY..)
        .zip(configs)
        .map(|(index, config)| create(socket, PortIndex(index), config))
        .collect()
}

fn create(
    socket: &mut RouteSocket,
    gateway: PortIndex,
    config: &InternetHostConfig,
) -> Result<InternetHost, FabricError> {
    let failed = |source| FabricError::InternetHost {
        name: config.name.clone(),
        source,
    };
    let place = Place::create(&config.name, Isolation::Network).map_err(failed)?;
    let mut batch = Batch::new();
    messages::push_gateway(&mut batch, gateway, place.netns());
    apply(socket, "connect internet host", &batch)?;
    let addresses = config.addresses.clone();
    place.run(move || configure(&addresses)).map_err(failed)??;
    Ok(InternetHost {
        place,
        gateway,
        addresses: config.addresses.clone(),
    })
}

/// Runs in the host.
fn configure(addresses: &[Ipv4Addr]) -> Result<(), FabricError> {
    loopback_up()?;
    let mut socket = open_socket()?;
    let path = "wan";
    let wan = socket
        .device_index(path)
        .map_err(|source| FabricError::Device { device: path, source })?;
    let mut batch = Batch::new();
    messages::push_internet_host(&mut batch, wan, addresses);
    apply(&mut socket, "configure internet host", &batch)
}
