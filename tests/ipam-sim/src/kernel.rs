//! The node's kernel: devices, host veths with their aliases, pod routes and rules, tables of ENIs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipam_core::{Owner, Signs};
use vpc_types::{EniId, MacAddress};

/// State of the kernel. It dies with a reboot, veths die with their sandbox, routes with their device.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kernel {
    pub(crate) links: BTreeMap<EniId, MacAddress>,
    /// Host veth → container id of the sandbox it belongs to; the reference's veths have no such mark.
    pub(crate) veths: BTreeMap<String, Option<String>>,
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

    /// The network namespace of a container is gone, and its veths with it: those with its mark, and this one if it has
    /// none.
    pub(crate) fn kill_sandbox(&mut self, container: &str, veth: &str) {
        let dies = |(name, alias): &(&String, &Option<String>)| match alias {
            Some(alias) => alias == container,
            None => *name == veth,
        };
        let names: Vec<String> = self.veths.iter().filter(dies).map(|(name, _)| name.clone()).collect();
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
        let device = self.routes.get(&address);
        let alias = device.and_then(|device| Some((device, self.veths.get(device)?)));
        let foreign = alias.is_some_and(|(device, alias)| {
            let own = |owner: &Owner| {
                alias
                    .as_ref()
                    .map_or(owner.host_veth == *device, |alias| owner.container_id == *alias)
            };
            !owner.is_some_and(own)
        });
        if !foreign {
            self.routes.remove(&address);
            self.rules.remove(&address);
        }
    }
}
