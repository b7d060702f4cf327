//! People and other controllers who change this instance's ENIs without a word.

use std::net::Ipv4Addr;
use std::sync::Arc;

use vpc_sim::model::request::{
    AssignPrivateIpAddresses, AttachNetworkInterface, CreateNetworkInterface, DeleteNetworkInterface, DetachMode,
    DetachNetworkInterface, EniAttribute, Ipv4Request, ModifyNetworkInterfaceAttribute, UnassignPrivateIpAddresses,
};
use vpc_sim::model::{Eni, InterfaceType};
use vpc_types::{Allocation, DeviceNumber, EniId};

use crate::fault::Fault;
use crate::queue::Happening;
use crate::world::World;

/// An edit that found nothing to change.
const NOTHING: &str = "nothing";

impl World {
    /// One edit by hand.
    pub(crate) fn foreign_edit(&mut self) {
        self.foreign_edits += 1;
        let enis: Vec<_> = self.ec2.enis_of(&self.instance).cloned().collect();
        let eni = &enis[self.luck.below(enis.len())];
        let what = match self.luck.below(10) {
            0..=2 if !eni.secondary.is_empty() => self.somebody_takes_an_address(eni),
            0..=3 if !eni.prefixes.is_empty() => self.somebody_takes_a_prefix(eni),
            4 => self.somebody_assigns(eni),
            5 => self.somebody_changes_groups(eni),
            6 => self.somebody_detaches(eni),
            7 => self.somebody_deletes_one_that_waits(),
            _ => self.foreign_attach(),
        };
        self.fate.was(what);
        if what != NOTHING {
            self.coverage.hit("edit", what);
        }
    }

    fn somebody_takes_an_address(&mut self, eni: &Arc<Eni>) -> &'static str {
        let address = eni.secondary[self.luck.below(eni.secondary.len())];
        let request = UnassignPrivateIpAddresses {
            eni: eni.id.clone(),
            addresses: vec![address],
            prefixes: Vec::new(),
        };
        let done = self.ec2.call_directly(self.now, &request).is_ok();
        self.note(|| format!("somebody takes {address} off {}: {done}", eni.id));
        self.foreign.insert(address);
        let regret = self.luck.millis(1_000, 90_000);
        let eni = eni.id.clone();
        self.after(regret, Happening::ForeignRegret { eni, address });
        "takes-address"
    }

    fn somebody_takes_a_prefix(&mut self, eni: &Arc<Eni>) -> &'static str {
        let prefix = eni.prefixes[self.luck.below(eni.prefixes.len())];
        let request = UnassignPrivateIpAddresses {
            eni: eni.id.clone(),
            addresses: Vec::new(),
            prefixes: vec![prefix],
        };
        let done = self.ec2.call_directly(self.now, &request).is_ok();
        let taken = Allocation::Prefix(prefix);
        self.note(|| format!("somebody takes {taken} off {}: {done}", eni.id));
        self.foreign.extend(taken.addresses());
        "takes-prefix"
    }

    fn somebody_assigns(&mut self, eni: &Arc<Eni>) -> &'static str {
        let wanted = match self.luck.below(3) {
            0 if self.scenario.may(Fault::PrefixMode) => Ipv4Request::PrefixCount(1),
            _ => Ipv4Request::Count(self.luck.number(1, 3)),
        };
        let request = AssignPrivateIpAddresses::new(eni.id.clone(), wanted);
        let done = self.ec2.call_directly(self.now, &request).is_ok();
        self.note(|| format!("somebody assigns to {}: {done}", eni.id));
        "assigns"
    }

    fn somebody_changes_groups(&mut self, eni: &Arc<Eni>) -> &'static str {
        let groups = self.groups[..self.luck.below(2) + 1].to_vec();
        let request = ModifyNetworkInterfaceAttribute {
            eni: eni.id.clone(),
            attribute: EniAttribute::Groups(groups),
        };
        let done = self.ec2.call_directly(self.now, &request).is_ok();
        self.note(|| format!("somebody changes the groups of {}: {done}", eni.id));
        "groups"
    }

    fn somebody_detaches(&mut self, eni: &Arc<Eni>) -> &'static str {
        let tie = eni.attachment.as_ref().filter(|tie| !tie.is_primary());
        let Some(attachment) = tie.map(|tie| tie.id.clone()) else {
            return NOTHING;
        };
        self.foreign.extend(addresses_of(eni));
        let mode = DetachMode::Force;
        let request = DetachNetworkInterface { attachment, mode };
        let done = self.ec2.call_directly(self.now, &request).is_ok();
        self.note(|| format!("somebody detaches {}: {done}", eni.id));
        // One that this boot's views have not shown yet is nobody's from now on, until a sweep of what was left behind.
        let known = |core: &ipam_core::Core| core.pool().enis().any(|one| one.id == eni.id);
        if done && !self.core.as_ref().is_some_and(known) {
            self.detached_unseen.insert(eni.id.clone());
        }
        "detaches"
    }

    fn somebody_deletes_one_that_waits(&mut self) -> &'static str {
        let waits = |eni: &&Arc<Eni>| eni.attachment.is_none() && eni.tags.contains_key(crate::ec2::INSTANCE_TAG);
        let Some(eni) = self.ec2.enis().find(waits).map(|eni| eni.id.clone()) else {
            return NOTHING;
        };
        let request = DeleteNetworkInterface { eni };
        let done = self.ec2.call_directly(self.now, &request).is_ok();
        self.note(|| format!("somebody deletes {}: {done}", request.eni));
        "deletes"
    }

    /// Somebody attaches an ENI of their own to our instance: marked as such, or of a kind that is left alone.
    fn foreign_attach(&mut self) -> &'static str {
        let mut request = CreateNetworkInterface::new(self.subnet.clone());
        let (kind, what) = self.luck.pick(&[
            (InterfaceType::Interface, "attaches"),
            (InterfaceType::Trunk, "attaches-trunk"),
            (InterfaceType::Efa, "attaches-efa"),
        ]);
        request.interface_type = kind;
        if kind == InterfaceType::Interface {
            let tag = crate::ec2::FOREIGN_TAG.to_owned();
            request.tags.insert(tag, "true".to_owned());
        }
        let Ok(created) = self.ec2.call_directly(self.now, &request) else {
            return NOTHING;
        };
        let id = created.eni.id.clone();
        let device = DeviceNumber(20 + u16::try_from(self.foreign_enis.len()).unwrap_or(0));
        let request = AttachNetworkInterface {
            eni: id.clone(),
            instance: self.instance.clone(),
            device,
            card: None,
        };
        if self.ec2.call_directly(self.now, &request).is_ok() {
            self.note(|| format!("somebody {what} {id}"));
            self.foreign_enis.insert(id);
            what
        } else {
            let _ = self.ec2.call_directly(self.now, &DeleteNetworkInterface { eni: id });
            NOTHING
        }
    }

    pub(crate) fn foreign_regret(&mut self, eni: &EniId, address: Ipv4Addr) {
        let request = AssignPrivateIpAddresses::new(eni.clone(), Ipv4Request::Addresses(vec![address]));
        let done = self.ec2.call_directly(self.now, &request).is_ok();
        self.note(|| format!("somebody gives {address} back to {eni}: {done}"));
    }
}

/// All pod addresses of an ENI.
pub(crate) fn addresses_of(eni: &Eni) -> Vec<Ipv4Addr> {
    eni.allocations()
        .flat_map(|one| one.addresses().collect::<Vec<_>>())
        .collect()
}
