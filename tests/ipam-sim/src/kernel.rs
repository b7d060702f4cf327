//! The node's kernel: devices, host veths with their aliases, pod routes and rules, tables of ENIs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipam_core::{Owner, Signs};
use vpc_types::{EniId, MacAddress};

/// State of the kernel. It dies with a reboot, veths die with their sandbox, routes with their device.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kernel {
    pub(crate) links: BTreeMap<EniId, MacAddress>,
    /// Host veth → container id of the sandbox it belongs to.
    pub(crate) veths: BTreeMap<String, String>,
    pub(crate) routes: BTreeMap<Ipv4Addr, String>,
    pub(crate) rules: BTreeMap<Ipv4Addr, usize>,
    /// ENIs whose table and rule are there.
    pub(crate) tables: BTreeSet<EniId>,
}

impl Kernel {
    pub(crate) fn delete_veth(&mut self, name: &str) {
        self.veths.remove(name);
        self.routes.retain(|_, device| device != name);
    }

    /// The network namespace of a container is gone, and its veths with it.
    pub(crate) fn kill_sandbox(&mut self, container: &str) {
        let names: Vec<String> = self
            .veths
            .iter()
            .filter(|(_, alias)| *alias == container)
            .map(|(name, _)| name.clone())
            .collect();
        names.iter().for_each(|name| self.delete_veth(name));
    }

    pub(crate) fn unplug(&mut self, eni: &EniId) {
        self.links.remove(eni);
        self.tables.remove(eni);
    }

    pub(crate) fn signs(&self) -> BTreeMap<Ipv4Addr, Signs> {
        let mut signs: BTreeMap<Ipv4Addr, Signs> = BTreeMap::new();
        for (address, device) in &self.routes {
            signs.entry(*address).or_default().route_device = Some(device.clone());
        }
        for (address, rules) in &self.rules {
            signs.entry(*address).or_default().rules = *rules;
        }
        signs
    }

    pub(crate) fn has_life(&self, address: Ipv4Addr) -> bool {
        self.routes.contains_key(&address) || self.rules.contains_key(&address)
    }

    /// Removes rules and route, unless the route leads to somebody else's veth.
    pub(crate) fn clear(&mut self, address: Ipv4Addr, owner: Option<&Owner>) {
        let foreign = self.routes.get(&address).and_then(|device| self.veths.get(device));
        let foreign = foreign.is_some_and(|alias| owner.is_none_or(|owner| owner.container_id != *alias));
        if !foreign {
            self.routes.remove(&address);
            self.rules.remove(&address);
        }
    }
}
