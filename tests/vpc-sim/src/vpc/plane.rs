//! The data plane follows the model: each change becomes one call of the fabric.

use std::time::Duration;

use ipnet::Ipv4Net;
use vpc_fabric::fabric::{EniPort, RouteTable, SourceDestCheck as Check};
use vpc_fabric::{DefaultRoute, DeviceSetup, configure_device};
use vpc_types::{Allocation, DeviceNumber, EniId, InstanceId, NetworkCard};

use super::{VpcError, VpcHandle, VpcNode, lock};
use crate::model::{Change, Eni, SourceDestCheck};

/// The kernel defers the moment from which a new link carries packets by up to a second.
const CARRIER_DEADLINE: Duration = Duration::from_secs(2);

/// Applies changes; the fabric is asked one after another.
#[derive(Debug, Clone)]
pub(super) struct Plane(VpcHandle);

impl Plane {
    pub(super) fn new(handle: VpcHandle) -> Self {
        Self(handle)
    }

    /// Stops at the first failure: for the start, when every failure is fatal.
    pub(super) fn apply_all(&self, changes: &[Change]) -> Result<(), VpcError> {
        changes.iter().try_for_each(|change| self.apply(change))
    }

    /// Goes on after failures, noting them: for the run, when a node may have broken its own network.
    pub(super) fn follow(&self, changes: &[Change]) {
        for change in changes {
            if let Err(error) = self.apply(change) {
                let reason = std::error::Error::source(&error)
                    .map(|source| format!(": {source}"))
                    .unwrap_or_default();
                self.0.note_error(format!("{error}{reason}"));
            }
        }
    }

    /// Notes that something beside the fabric failed.
    pub(super) fn fail(&self, text: &str) {
        self.0.note_error(text.to_owned());
    }

    fn apply(&self, change: &Change) -> Result<(), VpcError> {
        match change {
            Change::Attached {
                eni,
                instance,
                device,
                card,
            } => self.attach(eni, instance, *device, *card),
            Change::Detached { eni, instance } => self.detach(eni, instance),
            Change::Assigned { eni, allocation } => {
                let failed = |source| VpcError::Change {
                    operation: "assign to",
                    eni: eni.clone(),
                    source: Box::new(source),
                };
                lock(&self.0.0.fabric)
                    .assign(eni, &[net_of(*allocation)])
                    .map_err(failed)
            }
            Change::Unassigned { eni, allocation } => {
                let failed = |source| VpcError::Change {
                    operation: "unassign from",
                    eni: eni.clone(),
                    source: Box::new(source),
                };
                lock(&self.0.0.fabric)
                    .unassign(eni, &[net_of(*allocation)])
                    .map_err(failed)
            }
            Change::SourceDestCheck { eni, check } => {
                let failed = |source| VpcError::Change {
                    operation: "switch the check of",
                    eni: eni.clone(),
                    source: Box::new(source),
                };
                lock(&self.0.0.fabric)
                    .set_source_dest_check(eni, check_of(*check))
                    .map_err(failed)
            }
            // The fabric carries IPv4 only; a terminated instance's devices were reported one by one.
            Change::Ipv6Assigned { .. } | Change::Ipv6Unassigned { .. } | Change::Terminated { .. } => Ok(()),
        }
    }

    /// Instances without a node (made behind the configuration's back) have no place for a device.
    fn node_of(&self, instance: &InstanceId) -> Option<&VpcNode> {
        self.0.0.nodes.values().find(|entry| entry.instance == *instance)
    }

    fn attach(
        &self,
        eni: &Eni,
        instance: &InstanceId,
        number: DeviceNumber,
        card: NetworkCard,
    ) -> Result<(), VpcError> {
        let Some(entry) = self.node_of(instance) else {
            return Ok(());
        };
        let failed = |operation| {
            move |source| VpcError::Change {
                operation,
                eni: eni.id.clone(),
                source: Box::new(source),
            }
        };
        // Linux names by order of appearance; agents must go by the MAC anyway.
        let wished = if card == NetworkCard::DEFAULT {
            format!("eth{number}")
        } else {
            format!("card{}eth{number}", card.0)
        };
        let port = EniPort {
            eni: eni.id.clone(),
            mac: eni.mac,
            netns: entry.node.netns().clone(),
            device: wished,
            check: check_of(eni.source_dest_check),
            route_table: RouteTable::INTERNET,
        };
        let mut fabric = lock(&self.0.0.fabric);
        let device = fabric.attach_eni(&port).map_err(failed("attach"))?;
        let held: Vec<_> = std::iter::once(Ipv4Net::from(eni.primary))
            .chain(eni.allocations().map(net_of))
            .collect();
        fabric.assign(&eni.id, &held).map_err(failed("assign to"))?;
        if eni
            .attachment
            .as_ref()
            .is_some_and(crate::model::Attachment::is_primary)
        {
            let public = entry.public.unwrap_or(eni.primary);
            fabric
                .set_public(eni.primary, Some(public))
                .map_err(failed("publish the address of"))?;
            drop(fabric);
            self.configure_primary(entry, eni, device)?;
        }
        Ok(())
    }

    /// What a DHCP client does at boot. Secondary devices stay down and bare: they are the agent's business.
    fn configure_primary(&self, entry: &VpcNode, eni: &Eni, device: String) -> Result<(), VpcError> {
        let node = entry.node.name();
        let subnet = self
            .0
            .simulator()
            .with_model(|model, _| model.subnet(&eni.subnet).map(|one| (one.cidr, one.router())));
        let (cidr, router) = subnet.expect("subnets are never deleted, so an ENI's exists");
        let address = Ipv4Net::new_assert(eni.primary, cidr.prefix_len());
        let setup = DeviceSetup {
            device,
            address,
            gateway: router,
            default_route: DefaultRoute::Main,
        };
        let configured = entry.node.run(move || configure_device(&setup));
        configured
            .map_err(|source| VpcError::Node {
                node: node.to_owned(),
                source: Box::new(source),
            })?
            .map_err(|source| VpcError::Device {
                node: node.to_owned(),
                source: Box::new(source),
            })?;
        let failed = |source| VpcError::Change {
            operation: "wait for",
            eni: eni.id.clone(),
            source: Box::new(source),
        };
        // At the deadline something else is wrong, which packets will tell.
        lock(&self.0.0.fabric)
            .wait_until_carrying(&eni.id, CARRIER_DEADLINE)
            .map(drop)
            .map_err(failed)
    }

    fn detach(&self, eni: &EniId, instance: &InstanceId) -> Result<(), VpcError> {
        if self.node_of(instance).is_none() {
            return Ok(());
        }
        let failed = |source| VpcError::Change {
            operation: "detach",
            eni: eni.clone(),
            source: Box::new(source),
        };
        lock(&self.0.0.fabric).detach_eni(eni).map_err(failed)
    }
}

fn net_of(allocation: Allocation) -> Ipv4Net {
    match allocation {
        Allocation::Ip(address) => Ipv4Net::from(address),
        Allocation::Prefix(prefix) => prefix.net(),
    }
}

fn check_of(check: SourceDestCheck) -> Check {
    match check {
        SourceDestCheck::On => Check::On,
        SourceDestCheck::Off => Check::Off,
    }
}
