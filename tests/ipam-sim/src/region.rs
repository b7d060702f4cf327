//! EC2 as a run finds it: the model with its delays, the subnets with their tags, and the instance.

use std::collections::BTreeMap;
use std::time::Duration;

use ipam_core::SubnetChoice;
use vpc_sim::model::{InstanceSpec, Model, Settings, SubnetSpec};
use vpc_types::{InstanceId, MacAddress, SecurityGroupId, SubnetId, VpcId};

use crate::dice::Dice;
use crate::fault::Fault;
use crate::scenario::Scenario;
use crate::world::World;

/// Tag that makes a subnet usable, or not.
const ROLE_TAG: &str = "kubernetes.io/role/cni";
/// Beginning of the tags that name a cluster.
const CLUSTER_TAG: &str = "cni.networking.k8s.aws/cluster/";
/// The node's cluster.
pub(crate) const CLUSTER: &str = "sim";
/// Where the instance is.
const ZONE: &str = "us-east-1a";

/// The model, and who is who in it.
pub(crate) struct Region {
    pub(crate) ec2: Model,
    pub(crate) instance: InstanceId,
    pub(crate) subnet: SubnetId,
    pub(crate) others: Vec<SubnetId>,
    pub(crate) groups: Vec<SecurityGroupId>,
    pub(crate) primary_mac: MacAddress,
}

impl Region {
    pub(crate) fn new(seed: u64, scenario: &Scenario) -> Self {
        let mut settings = Settings::aws(seed);
        settings.describe_lag = scenario.describe_lag;
        settings.imds_lag = scenario.describe_lag;
        settings.attach = scenario.attach;
        settings.throttle = scenario.throttle;
        settings.fresh_ids = scenario.fresh_ids;
        let mut ec2 = Model::new(settings);
        let range = "10.0.0.0/16".parse().expect("a valid range");
        let vpc = ec2.add_vpc(&[range], &[]).expect("a legal VPC");
        let mut dice = Dice::of(seed, "subnets");
        let many = scenario.has(Fault::ManySubnets);
        let primary_tags = match dice.below(10) {
            _ if !many => BTreeMap::new(),
            0 => tags("0", None),
            1 => tags("1", Some("another")),
            2 | 3 => tags("1", None),
            _ => BTreeMap::new(),
        };
        let mut add =
            |block: u8, length: u8, zone: &str, tags| add_subnet(&mut ec2, &vpc, scenario, (block, length), zone, tags);
        let subnet = add(0, scenario.subnet_prefix, ZONE, primary_tags);
        let mut others = Vec::new();
        let count = if many || scenario.custom { dice.below(3) + 1 } else { 0 };
        for number in 0..count {
            let block = 64 + 16 * u8::try_from(number).expect("a small number");
            let length = dice.pick(&[24, 26, 28]);
            let zone = if dice.chance(200) { "us-east-1b" } else { ZONE };
            let tags = match dice.below(6) {
                0 => BTreeMap::new(),
                1 => tags("0", None),
                2 => tags("1", Some("another")),
                3 => tags("1", Some(CLUSTER)),
                _ => tags("1", None),
            };
            others.push(add(block, length, zone, tags));
        }
        let groups = ["one", "two"].map(|name| ec2.add_security_group(&vpc, name).expect("a new name"));
        let spec = InstanceSpec::new(scenario.instance_type, subnet.clone());
        let instance = ec2.run_instance(Duration::ZERO, spec).expect("a legal instance");
        let primary_mac = ec2.enis_of(&instance).next().map(|eni| eni.mac);
        Self {
            ec2,
            instance,
            subnet,
            others,
            groups: groups.to_vec(),
            primary_mac: primary_mac.expect("an instance has its primary ENI"),
        }
    }
}

fn tags(role: &str, cluster: Option<&str>) -> BTreeMap<String, String> {
    let of_cluster = cluster.map(|name| (format!("{CLUSTER_TAG}{name}"), "shared".to_owned()));
    [(ROLE_TAG.to_owned(), role.to_owned())]
        .into_iter()
        .chain(of_cluster)
        .collect()
}

fn add_subnet(
    ec2: &mut Model,
    vpc: &VpcId,
    scenario: &Scenario,
    (block, length): (u8, u8),
    zone: &str,
    tags: BTreeMap<String, String>,
) -> SubnetId {
    let cidr = format!("10.0.{block}.0/{length}").parse().expect("a valid range");
    let spec = SubnetSpec {
        vpc: vpc.clone(),
        zone: zone.to_owned(),
        cidr,
        ipv6_cidr: None,
        policy: scenario.policy,
        tags,
    };
    ec2.add_subnet(spec).expect("a legal subnet")
}

impl World {
    /// Whether ENIs with pod addresses may be made in a subnet, by its zone and tags.
    pub(crate) fn is_usable(&self, id: &SubnetId) -> bool {
        let Some(subnet) = self.ec2.subnet(id).filter(|subnet| subnet.zone == ZONE) else {
            return false;
        };
        let primary = *id == self.subnet;
        let mut clusters = subnet
            .tags
            .keys()
            .filter_map(|key| key.strip_prefix(CLUSTER_TAG))
            .peekable();
        let ours = self.scenario.cluster.is_none() || clusters.peek().is_none() || clusters.any(|name| name == CLUSTER);
        match (subnet.tags.get(ROLE_TAG).map(String::as_str), self.settings.subnets) {
            (Some("0"), _) => false,
            (_, SubnetChoice::PrimaryOnly) => primary,
            (None | Some(""), SubnetChoice::ByTag) => primary,
            (Some(_), SubnetChoice::ByTag) => ours,
        }
    }

    /// Whether `id` is in the instance's zone, where describes of subnets look.
    pub(crate) fn is_in_zone(&self, id: &SubnetId) -> bool {
        self.ec2.subnet(id).is_some_and(|subnet| subnet.zone == ZONE)
    }
}
