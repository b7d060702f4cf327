//! Looking into the model from outside the API: the truth, for checks and drivers; and what IMDS shows.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use vpc_types::{EniId, InstanceId, SubnetId, VpcId};

use super::Model;
use super::fault::ImdsFault;
use super::history::Viewer;
use super::record::{AttachmentStatus, Eni, Instance, SecurityGroup, Vpc};
use super::subnet::Subnet;

/// One ENI as IMDS lists it.
#[derive(Debug, Clone)]
pub struct ImdsEni {
    /// As old as IMDS's lag makes it.
    pub eni: Arc<Eni>,
    /// `interface-id` and `device-number` are missing.
    pub is_half: bool,
}

/// What IMDS has for an instance.
#[derive(Debug, Clone)]
pub enum ImdsAnswer {
    /// No answer at all.
    Gone,
    /// 403 to everything.
    Disabled,
    /// The ENIs it lists, by card and device.
    Enis(Vec<ImdsEni>),
}

impl Model {
    /// An ENI, in truth.
    pub fn eni(&self, id: &EniId) -> Option<&Arc<Eni>> {
        self.world.find_eni(id)
    }

    /// All ENIs, in truth, by id.
    pub fn enis(&self) -> impl Iterator<Item = &Arc<Eni>> {
        self.world.live_enis()
    }

    /// ENIs of an instance, in truth.
    pub fn enis_of<'a>(&'a self, instance: &'a InstanceId) -> impl Iterator<Item = &'a Arc<Eni>> {
        self.world
            .instances
            .get(instance)
            .into_iter()
            .flat_map(|one| &one.enis)
            .filter_map(|id| self.world.find_eni(id))
    }

    /// Whether the ENI's device is on its instance.
    pub fn is_plugged(&self, eni: &Eni) -> bool {
        eni.attachment
            .as_ref()
            .is_some_and(|tie| self.world.plugged.contains(&tie.id))
    }

    /// An instance.
    pub fn instance(&self, id: &InstanceId) -> Option<&Instance> {
        self.world.instances.get(id)
    }

    /// All instances by id, terminated ones too.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.world.instances.values()
    }

    /// A subnet.
    pub fn subnet(&self, id: &SubnetId) -> Option<&Subnet> {
        self.world.subnets.get(id)
    }

    /// All subnets by id.
    pub fn subnets(&self) -> impl Iterator<Item = &Subnet> {
        self.world.subnets.values()
    }

    /// A VPC.
    pub fn vpc(&self, id: &VpcId) -> Option<&Vpc> {
        self.world.vpcs.get(id)
    }

    /// All VPCs by id.
    pub fn vpcs(&self) -> impl Iterator<Item = &Vpc> {
        self.world.vpcs.values()
    }

    /// A security group's record.
    pub fn security_group(&self, id: &vpc_types::SecurityGroupId) -> Option<&SecurityGroup> {
        self.world.groups.get(id)
    }

    /// The instance that sends packets with this source address, if the address is on a device.
    pub fn instance_at(&self, address: IpAddr) -> Option<&InstanceId> {
        let holds = |eni: &&Arc<Eni>| match address {
            IpAddr::V4(address) => eni.holds(address),
            IpAddr::V6(address) => eni.holds_ipv6(address),
        };
        let eni = self.enis().filter(|eni| self.is_plugged(eni)).find(holds)?;
        eni.attachment.as_ref().map(|tie| &tie.instance)
    }

    /// What IMDS shows to an instance at `now`.
    pub fn imds(&mut self, now: Duration, instance: &InstanceId) -> ImdsAnswer {
        self.world.advance(now);
        if self.faults.gone.contains(instance) {
            return ImdsAnswer::Gone;
        }
        if self.faults.disabled.contains(instance) {
            return ImdsAnswer::Disabled;
        }
        let is_listed = |eni: &&Arc<Eni>| {
            eni.attachment
                .as_ref()
                .is_some_and(|tie| tie.status != AttachmentStatus::Attaching)
        };
        let seen = self.world.view_enis_of(Viewer::Imds, now, instance);
        let mut enis: Vec<_> = seen.filter(is_listed).cloned().collect();
        enis.sort_by_key(|eni| eni.attachment.as_ref().map(|tie| (tie.card, tie.device)));
        ImdsAnswer::Enis(enis.into_iter().map(|eni| self.imds_entry(eni)).collect())
    }

    fn imds_entry(&self, mut eni: Arc<Eni>) -> ImdsEni {
        let is_half = self.faults.half_entries.contains(&eni.id);
        if self.faults.no_secondaries.contains(&eni.id) {
            let bare = Arc::make_mut(&mut eni);
            bare.secondary.clear();
            bare.prefixes.clear();
        }
        ImdsEni { eni, is_half }
    }

    /// Makes IMDS wrong until [`Model::heal_imds`].
    pub fn break_imds(&mut self, fault: ImdsFault) {
        match fault {
            ImdsFault::Gone(instance) => self.faults.gone.insert(instance),
            ImdsFault::Disabled(instance) => self.faults.disabled.insert(instance),
            ImdsFault::HalfEntry(eni) => self.faults.half_entries.insert(eni),
            ImdsFault::NoSecondaries(eni) => self.faults.no_secondaries.insert(eni),
            ImdsFault::StaleForever(eni) => self.world.imds_stale.insert(eni),
        };
    }

    /// IMDS is right again, but for changes already hidden by [`ImdsFault::StaleForever`].
    pub fn heal_imds(&mut self) {
        self.faults.gone.clear();
        self.faults.disabled.clear();
        self.faults.half_entries.clear();
        self.faults.no_secondaries.clear();
        self.world.imds_stale.clear();
    }
}
