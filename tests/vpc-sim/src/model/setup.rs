//! Building the region: VPCs, subnets, groups, instances. These are not API calls, cost nothing and take no time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use vpc_types::{DeviceNumber, EniId, InstanceId, InstanceLimits, NetworkCard, SecurityGroupId, SubnetId, VpcId};

use super::change::Change;
use super::ops::new_eni;
use super::record::{Attachment, AttachmentStatus, Instance, InstanceState, OnTermination, SecurityGroup, Vpc};
use super::request::{CreateNetworkInterface, Ipv4Request};
use super::subnet::Subnet;
use super::{AllocationPolicy, Ec2Error, Model};

/// Why the region cannot be built as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// No such VPC.
    #[error("there is no VPC {0}")]
    NoVpc(VpcId),
    /// No such subnet.
    #[error("there is no subnet {0}")]
    NoSubnet(SubnetId),
    /// No such instance.
    #[error("there is no instance {0}")]
    NoInstance(InstanceId),
    /// EC2 takes /16 to /28.
    #[error("{0} is no range EC2 takes: it must be /16 to /28 without host bits")]
    Range(Ipv4Net),
    /// A VPC needs a range.
    #[error("a VPC needs at least one IPv4 range")]
    NoRange,
    /// The subnet lies outside its VPC.
    #[error("subnet {subnet} lies in none of the ranges of {vpc}")]
    Outside {
        /// The subnet's range.
        subnet: Ipv4Net,
        /// The VPC.
        vpc: VpcId,
    },
    /// Two subnets share addresses.
    #[error("subnet {new} overlaps with {old}")]
    Overlap {
        /// The new range.
        new: Ipv4Net,
        /// The range that is there.
        old: Ipv4Net,
    },
    /// EC2 takes only /64 here.
    #[error("{0} is no /64")]
    Ipv6Range(Ipv6Net),
    /// Not in the table.
    #[error("instance type {0:?} is unknown")]
    InstanceType(String),
    /// The id is taken.
    #[error("instance {0} exists already")]
    InstanceExists(InstanceId),
    /// The primary ENI cannot be made.
    #[error("the primary ENI cannot be made")]
    PrimaryEni(#[source] Ec2Error),
}

/// A subnet to make.
#[derive(Debug, Clone)]
pub struct SubnetSpec {
    /// The VPC.
    pub vpc: VpcId,
    /// Availability zone.
    pub zone: String,
    /// IPv4 range.
    pub cidr: Ipv4Net,
    /// IPv6 range, a /64.
    pub ipv6_cidr: Option<Ipv6Net>,
    /// How free addresses are chosen.
    pub policy: AllocationPolicy,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// An instance to run.
#[derive(Debug, Clone)]
pub struct InstanceSpec {
    /// Its id; made up when absent.
    pub id: Option<InstanceId>,
    /// For instance `m5.large`.
    pub instance_type: String,
    /// Subnet of the primary ENI.
    pub subnet: SubnetId,
    /// Primary address; EC2's choice when absent.
    pub primary: Option<Ipv4Addr>,
    /// Addresses or prefixes of the primary ENI from the start, as a launch template gives.
    pub ipv4: Option<Ipv4Request>,
    /// Groups of the primary ENI; the VPC's default one when empty.
    pub groups: Vec<SecurityGroupId>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

impl InstanceSpec {
    /// An instance with nothing special.
    pub fn new(instance_type: &str, subnet: SubnetId) -> Self {
        Self {
            id: None,
            instance_type: instance_type.to_owned(),
            subnet,
            primary: None,
            ipv4: None,
            groups: Vec::new(),
            tags: BTreeMap::new(),
        }
    }
}

impl Model {
    /// Makes a VPC with its default security group.
    pub fn add_vpc(&mut self, cidrs: &[Ipv4Net], ipv6_cidrs: &[Ipv6Net]) -> Result<VpcId, SetupError> {
        if cidrs.is_empty() {
            return Err(SetupError::NoRange);
        }
        if let Some(bad) = cidrs.iter().find(|cidr| !Subnet::is_legal_range(**cidr)) {
            return Err(SetupError::Range(*bad));
        }
        let id: VpcId = self
            .world
            .new_id("vpc-")
            .parse()
            .expect("generated ids are well formed");
        let default_group = self.insert_group(&id, "default", "default VPC security group");
        let (cidrs, ipv6_cidrs) = (cidrs.to_vec(), ipv6_cidrs.to_vec());
        let vpc = Vpc {
            id: id.clone(),
            cidrs,
            ipv6_cidrs,
            tags: BTreeMap::new(),
            default_group,
        };
        self.world.vpcs.insert(id.clone(), vpc);
        Ok(id)
    }

    /// Makes a security group.
    pub fn add_security_group(&mut self, vpc: &VpcId, name: &str) -> Result<SecurityGroupId, SetupError> {
        if !self.world.vpcs.contains_key(vpc) {
            return Err(SetupError::NoVpc(vpc.clone()));
        }
        Ok(self.insert_group(vpc, name, name))
    }

    fn insert_group(&mut self, vpc: &VpcId, name: &str, description: &str) -> SecurityGroupId {
        let id: SecurityGroupId = self.world.new_id("sg-").parse().expect("generated ids are well formed");
        let group = SecurityGroup {
            id: id.clone(),
            vpc: vpc.clone(),
            name: name.to_owned(),
            description: description.to_owned(),
            tags: BTreeMap::new(),
        };
        self.world.groups.insert(id.clone(), group);
        id
    }

    /// Makes a subnet.
    pub fn add_subnet(&mut self, spec: SubnetSpec) -> Result<SubnetId, SetupError> {
        let vpc = self
            .world
            .vpcs
            .get(&spec.vpc)
            .ok_or_else(|| SetupError::NoVpc(spec.vpc.clone()))?;
        if !Subnet::is_legal_range(spec.cidr) {
            return Err(SetupError::Range(spec.cidr));
        }
        if !vpc.cidrs.iter().any(|cidr| cidr.contains(&spec.cidr)) {
            return Err(SetupError::Outside {
                subnet: spec.cidr,
                vpc: spec.vpc,
            });
        }
        if let Some(bad) = spec
            .ipv6_cidr
            .filter(|cidr| cidr.prefix_len() != 64 || cidr.trunc() != *cidr)
        {
            return Err(SetupError::Ipv6Range(bad));
        }
        let touches =
            |old: &&Subnet| old.vpc == spec.vpc && (old.cidr.contains(&spec.cidr) || spec.cidr.contains(&old.cidr));
        if let Some(old) = self.world.subnets.values().find(touches) {
            return Err(SetupError::Overlap {
                new: spec.cidr,
                old: old.cidr,
            });
        }
        let id: SubnetId = self
            .world
            .new_id("subnet-")
            .parse()
            .expect("generated ids are well formed");
        let mut subnet = Subnet::new(id.clone(), spec.vpc, spec.zone, spec.cidr, spec.policy);
        (subnet.ipv6_cidr, subnet.tags) = (spec.ipv6_cidr, spec.tags);
        self.world.subnets.insert(id.clone(), subnet);
        Ok(id)
    }

    /// Runs an instance. Its primary ENI is attached at once and goes with it.
    pub fn run_instance(&mut self, now: Duration, spec: InstanceSpec) -> Result<InstanceId, SetupError> {
        self.world.advance(now);
        let limits = InstanceLimits::of(&spec.instance_type)
            .ok_or_else(|| SetupError::InstanceType(spec.instance_type.clone()))?;
        if let Some(id) = spec.id.as_ref().filter(|id| self.world.instances.contains_key(*id)) {
            return Err(SetupError::InstanceExists(id.clone()));
        }
        let subnet = self
            .world
            .subnets
            .get(&spec.subnet)
            .ok_or_else(|| SetupError::NoSubnet(spec.subnet.clone()))?;
        let (vpc, zone) = (subnet.vpc.clone(), subnet.zone.clone());
        let request = CreateNetworkInterface {
            primary: spec.primary,
            ipv4: spec.ipv4,
            groups: spec.groups,
            ..CreateNetworkInterface::new(spec.subnet.clone())
        };
        let eni = new_eni(&mut self.world, now, &request).map_err(SetupError::PrimaryEni)?;
        let id = spec
            .id
            .unwrap_or_else(|| self.world.new_id("i-").parse().expect("generated ids are well formed"));
        let instance = Instance {
            id: id.clone(),
            instance_type: spec.instance_type,
            limits,
            subnet: spec.subnet,
            vpc,
            zone,
            state: InstanceState::Running,
            tags: spec.tags,
            launched_at: now,
            enis: BTreeSet::new(),
        };
        self.world.instances.insert(id.clone(), instance);
        self.attach_primary(now, &eni.id, &id);
        Ok(id)
    }

    fn attach_primary(&mut self, now: Duration, eni: &EniId, instance: &InstanceId) {
        let attachment = Attachment {
            id: self
                .world
                .new_id("eni-attach-")
                .parse()
                .expect("generated ids are well formed"),
            instance: instance.clone(),
            device: DeviceNumber::PRIMARY,
            card: NetworkCard::DEFAULT,
            status: AttachmentStatus::Attaching,
            attached_at: now,
            on_termination: OnTermination::Delete,
        };
        let id = attachment.id.clone();
        super::ops::tie(&mut self.world, now, eni, attachment);
        self.world.plug(now, &id);
        // An instance does not run before its metadata and descriptions have the ENI that it was launched with.
        self.world.reveal(now, eni);
    }

    /// Terminates an instance: its ENIs go or become available, as each says.
    pub fn terminate_instance(&mut self, now: Duration, id: &InstanceId) -> Result<(), SetupError> {
        self.world.advance(now);
        let instance = self
            .world
            .instances
            .get_mut(id)
            .ok_or_else(|| SetupError::NoInstance(id.clone()))?;
        instance.state = InstanceState::Terminated;
        for eni in std::mem::take(&mut instance.enis) {
            let Some(tie) = self.world.find_eni(&eni).and_then(|eni| eni.attachment.clone()) else {
                continue;
            };
            self.world.finish_detach(now, &tie.id);
            if tie.on_termination == OnTermination::Delete {
                let eni = self.world.find_eni(&eni).expect("it was found above").clone();
                self.world.remove_eni(now, &eni);
            }
        }
        self.world.push_change(Change::Terminated { instance: id.clone() });
        Ok(())
    }

    /// Stops or starts an instance; its ENIs stay.
    pub fn set_instance_state(&mut self, id: &InstanceId, state: InstanceState) -> Result<(), SetupError> {
        let instance = self
            .world
            .instances
            .get_mut(id)
            .ok_or_else(|| SetupError::NoInstance(id.clone()))?;
        instance.state = state;
        Ok(())
    }
}
