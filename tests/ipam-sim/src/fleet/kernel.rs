//! The kernel of one node, as far as a pool can notice it: devices, host veths, signs of pods.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipam_core::{BootTime, KernelView, Signs};
use vpc_types::{EniId, MacAddress};

/// Rules of one pod: to it and from it.
const RULES: usize = 2;

/// State of the kernel.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kernel {
    pub(crate) links: BTreeMap<EniId, MacAddress>,
    /// Host veth → container id.
    veths: BTreeMap<String, String>,
    signs: BTreeMap<Ipv4Addr, Signs>,
}

impl Kernel {
    pub(crate) fn wire(&mut self, address: Ipv4Addr, veth: &str, container: &str) {
        self.veths.insert(veth.to_owned(), container.to_owned());
        let signs = Signs {
            route_device: Some(veth.to_owned()),
            rules: RULES,
        };
        self.signs.insert(address, signs);
    }

    pub(crate) fn clear(&mut self, address: Ipv4Addr) {
        self.signs.remove(&address);
    }

    pub(crate) fn delete_veth(&mut self, veth: &str) {
        self.veths.remove(veth);
    }

    pub(crate) fn view(&self, started_at: BootTime, primary: MacAddress) -> KernelView {
        let mut macs: BTreeSet<MacAddress> = self.links.values().copied().collect();
        macs.insert(primary);
        let veths = self.veths.iter();
        KernelView {
            started_at,
            macs,
            veths: veths.map(|(name, alias)| (name.clone(), Some(alias.clone()))).collect(),
            signs: self.signs.clone(),
        }
    }
}
