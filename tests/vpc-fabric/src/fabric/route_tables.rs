//! VPC route tables: what they should say, and what of it is installed in the kernel.
//!
//! Invariant: a route to an ENI is installed only while that ENI is attached and its destination check is off, since
//! EC2 delivers packets with foreign destinations to no other ENI.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use netlink::{Batch, Errno, RouteSocket};
use vpc_types::EniId;

use super::internet::InternetHost;
use super::messages::{self, PortIndex};
use super::settings::{apply, apply_tolerating};
use super::{FabricError, RouteTable, RouteTarget};

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct RouteTables {
    wanted: BTreeMap<RouteTable, BTreeMap<Ipv4Net, RouteTarget>>,
    installed: BTreeMap<(RouteTable, Ipv4Net), PortIndex>,
    /// What "the internet" is in routes: hosts' own addresses, and the first host for all others.
    internet: Vec<(Ipv4Net, PortIndex)>,
}

impl RouteTables {
    /// The two tables that exist from the start.
    pub(super) fn create(socket: &mut RouteSocket, hosts: &[InternetHost]) -> Result<Self, FabricError> {
        let own = hosts
            .iter()
            .flat_map(|host| host.addresses.iter().map(|a| (Ipv4Net::from(*a), host.gateway)));
        let others = hosts.first().map(|host| (Ipv4Net::default(), host.gateway));
        let mut tables = Self {
            internet: own.chain(others).collect(),
            ..Self::default()
        };
        tables.set(socket, RouteTable::ISOLATED, &[])?;
        tables.set(
            socket,
            RouteTable::INTERNET,
            &[(Ipv4Net::default(), RouteTarget::Internet)],
        )?;
        tables.sync(socket, |_| None)?;
        Ok(tables)
    }

    /// Notes the wanted routes; `sync` installs them. A new table gets its policy rule at once.
    pub(super) fn set(
        &mut self,
        socket: &mut RouteSocket,
        table: RouteTable,
        routes: &[(Ipv4Net, RouteTarget)],
    ) -> Result<(), FabricError> {
        if !self.wanted.contains_key(&table) {
            let mut batch = Batch::new();
            messages::push_table_rule(&mut batch, table);
            apply(socket, "add route table", &batch)?;
        }
        let routes = routes
            .iter()
            .map(|(net, target)| (net.trunc(), target.clone()))
            .collect();
        self.wanted.insert(table, routes);
        Ok(())
    }

    /// Brings the kernel to what is wanted; `deliverable` gives the port of an ENI that accepts foreign destinations.
    pub(super) fn sync(
        &mut self,
        socket: &mut RouteSocket,
        deliverable: impl Fn(&EniId) -> Option<PortIndex>,
    ) -> Result<(), FabricError> {
        let wanted = self.resolve(deliverable);
        let mut batch = Batch::new();
        for (table, net) in self.installed.keys().filter(|key| !wanted.contains_key(key)) {
            messages::push_table_route_removal(&mut batch, *table, *net);
        }
        for ((table, net), port) in wanted
            .iter()
            .filter(|(key, port)| self.installed.get(key) != Some(port))
        {
            messages::push_table_route(&mut batch, *table, *net, *port);
        }
        // A route is gone already when the node has deleted the device it led through.
        apply_tolerating(socket, "change route tables", &batch, &[Errno::ESRCH])?;
        self.installed = wanted;
        Ok(())
    }

    fn resolve(&self, deliverable: impl Fn(&EniId) -> Option<PortIndex>) -> BTreeMap<(RouteTable, Ipv4Net), PortIndex> {
        let mut resolved = BTreeMap::new();
        for (table, routes) in &self.wanted {
            for (net, target) in routes {
                match target {
                    RouteTarget::Eni(eni) => {
                        resolved.extend(deliverable(eni).map(|port| ((*table, *net), port)));
                    }
                    RouteTarget::Internet => {
                        let inside = self.internet.iter().filter(|(host, _)| net.contains(host));
                        resolved.extend(inside.map(|(host, gateway)| ((*table, *host), *gateway)));
                        let others = self.internet.last();
                        resolved.extend(others.map(|(_, gateway)| ((*table, *net), *gateway)));
                    }
                }
            }
        }
        resolved
    }
}
