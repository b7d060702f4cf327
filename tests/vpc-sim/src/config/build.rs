//! From a configuration to a model. Everything that does not fit together is found here, and named.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::Value;
use vpc_types::limits::InstanceShape;
use vpc_types::{InstanceId, InstanceLimits, SubnetId, VpcId};

use super::{Config, ConfigError, NodeConfig, Policy, Profile, SubnetConfig};
use crate::imds::{ImdsOptions, TokenPolicy};
use crate::kube::Kube;
use crate::kube::objects::{self, NodeFacts};
use crate::model::request::Ipv4Request;
use crate::model::{
    Action, AllocationPolicy, Attachment, Delay, InstanceSpec, Model, Occupancy, Settings, SetupError, SubnetSpec,
    Throttle,
};

/// A model as the configuration says.
#[derive(Debug)]
pub struct Built {
    /// With all instances running; their devices' changes not drained yet.
    pub model: Model,
    /// Nodes in the file's order.
    pub nodes: Vec<BuiltNode>,
    /// How IMDS is to be served.
    pub imds: ImdsOptions,
    /// Objects of the cluster.
    pub objects: Vec<Value>,
}

/// A node and its instance.
#[derive(Debug, Clone)]
pub struct BuiltNode {
    /// From the file.
    pub name: String,
    /// In the model.
    pub instance: InstanceId,
}

impl Config {
    /// Checks the rest and makes the model.
    ///
    /// # Errors
    /// Names the field that does not fit.
    pub fn build(&self) -> Result<Built, ConfigError> {
        let mut model = Model::new(self.settings()?);
        let vpc = model
            .add_vpc(&self.vpc_cidrs, &self.vpc_ipv6_cidrs)
            .map_err(|error| ConfigError::value("vpc_cidrs", error))?;
        let mut subnets = BTreeMap::new();
        for (number, subnet) in self.subnets.iter().enumerate() {
            let id = add_subnet(&mut model, &vpc, number, subnet)?;
            if subnets.insert(subnet.name.as_str(), id).is_some() {
                return Err(taken(format!("subnets[{number}].name"), &subnet.name));
            }
        }
        self.check_endpoints()?;
        self.check_names()?;
        let mut nodes = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let instance = run_node(&mut model, &subnets, number, node)?;
            nodes.push(BuiltNode {
                name: node.name.clone(),
                instance,
            });
        }
        // After the nodes: their addresses may be fixed.
        for (number, subnet) in self.subnets.iter().enumerate() {
            occupy(&mut model, &subnets[subnet.name.as_str()], number, subnet)?;
        }
        let tokens = if self.imds.tokens_required {
            TokenPolicy::Required
        } else {
            TokenPolicy::Optional
        };
        if self.imds.hop_limit == 0 {
            return Err(ConfigError::value("imds.hop_limit", "must be at least 1"));
        }
        Ok(Built {
            objects: self.objects(&model, &nodes)?,
            model,
            nodes,
            imds: ImdsOptions {
                tokens,
                hop_limit: self.imds.hop_limit,
                launch: self.imds.launch,
            },
        })
    }

    fn settings(&self) -> Result<Settings, ConfigError> {
        let mut settings = match self.profile {
            Profile::Demo => Settings::instant(self.seed),
            Profile::Aws => Settings::aws(self.seed),
        };
        for (name, millis) in &self.latency_ms {
            let action = Action::parse(name)
                .ok_or_else(|| ConfigError::value(format!("latency_ms.{name}"), "no action has this name"))?;
            settings.latency.insert(action, Delay::millis(*millis));
        }
        self.timing_ms.set(&mut settings);
        if let Some(factor) = self.throttle_factor {
            if !(factor.is_finite() && factor > 0.0) {
                return Err(ConfigError::value("throttle_factor", "must be greater than 0"));
            }
            settings.throttle = Throttle::Buckets { factor };
        }
        Ok(settings)
    }

    /// No ENI may ever get an endpoint's address.
    fn check_endpoints(&self) -> Result<(), ConfigError> {
        for (field, endpoint) in [
            ("ec2_endpoint", self.ec2_endpoint),
            ("kube_endpoint", self.kube_endpoint),
        ] {
            self.check_endpoint(*endpoint.ip())
                .map_err(|problem| ConfigError::value(field, problem))?;
        }
        if self.ec2_endpoint == self.kube_endpoint {
            return Err(ConfigError::value(
                "kube_endpoint",
                "the EC2 API has this address and port",
            ));
        }
        Ok(())
    }

    fn check_endpoint(&self, address: Ipv4Addr) -> Result<(), String> {
        if !self.vpc_cidrs.iter().any(|cidr| cidr.contains(&address)) {
            return Err(format!("{address} lies outside the VPC"));
        }
        let subnet = self.subnets.iter().find(|subnet| subnet.cidr.contains(&address));
        match subnet.map(|subnet| u32::from(address) - u32::from(subnet.cidr.network())) {
            // Three addresses after the network's own belong to EC2; the first of them is the router's.
            None | Some(2..=3) => Ok(()),
            Some(_) => Err(format!("an ENI could get {address}; take one outside all subnets")),
        }
    }

    /// A node and a CNINode for each instance, then those of the file.
    fn objects(&self, model: &Model, nodes: &[BuiltNode]) -> Result<Vec<Value>, ConfigError> {
        let mut all: Vec<_> = self
            .nodes
            .iter()
            .zip(nodes)
            .flat_map(|(node, built)| {
                [
                    objects::node(&facts_of(model, node, built)),
                    objects::cni_node(&node.name),
                ]
            })
            .collect();
        all.extend(self.objects.iter().cloned());
        // Complaints come before anything is started.
        let trial = Kube::new(self.seed);
        let configured = all.len() - self.objects.len();
        for (number, object) in all.iter().enumerate() {
            let field = number.checked_sub(configured).map_or_else(
                || format!("nodes[{}].name", number / 2),
                |number| format!("objects[{number}]"),
            );
            trial
                .apply(object.clone())
                .map_err(|error| ConfigError::value(field, error))?;
        }
        Ok(all)
    }

    /// Names of nodes and hosts stand in paths and on command lines.
    fn check_names(&self) -> Result<(), ConfigError> {
        let nodes = self
            .nodes
            .iter()
            .enumerate()
            .map(|(n, node)| (format!("nodes[{n}].name"), &node.name));
        let hosts = self
            .internet
            .iter()
            .enumerate()
            .map(|(n, host)| (format!("internet[{n}].name"), &host.name));
        let mut seen = BTreeSet::new();
        for (field, name) in nodes.chain(hosts) {
            let is_good = |c: char| c.is_ascii_alphanumeric() || c == '-';
            if name.is_empty() || !name.chars().all(is_good) || name.starts_with('-') {
                return Err(ConfigError::value(
                    field,
                    format!("{name:?} is no name: letters, digits and dashes only"),
                ));
            }
            if !seen.insert(name) {
                return Err(taken(field, name));
            }
        }
        Ok(())
    }
}

fn facts_of(model: &Model, node: &NodeConfig, built: &BuiltNode) -> NodeFacts {
    let primary = model
        .enis_of(&built.instance)
        .find(|eni| eni.attachment.as_ref().is_some_and(Attachment::is_primary));
    let shape = InstanceShape::of(&node.instance_type);
    let vcpus = shape.and_then(|shape| shape.vcpus).unwrap_or(2);
    NodeFacts {
        name: node.name.clone(),
        instance: built.instance.to_string(),
        instance_type: node.instance_type.clone(),
        zone: model
            .instance(&built.instance)
            .map(|instance| instance.zone.clone())
            .unwrap_or_default(),
        address: primary.map(|eni| eni.primary),
        max_pods: node.max_pods.unwrap_or_else(|| max_pods(&node.instance_type, vcpus)),
        cpus: vcpus,
        labels: node.labels.clone(),
    }
}

/// Pods that the type's secondary addresses suffice for; the two beside them use the host's network. EKS recommends at most 110
/// up to 30 vCPUs, else 250.
fn max_pods(instance_type: &str, vcpus: u16) -> u32 {
    let cap = if vcpus <= 30 { 110 } else { 250 };
    let by_addresses = InstanceLimits::of(instance_type).map_or(cap, |limits| {
        let pods_per_eni = u32::from(limits.ipv4_per_eni).saturating_sub(1);
        u32::from(limits.enis_on_default_card()) * pods_per_eni + 2
    });
    by_addresses.min(cap)
}

fn taken(field: String, name: &str) -> ConfigError {
    ConfigError::value(field, format!("the name {name:?} is taken"))
}

fn add_subnet(model: &mut Model, vpc: &VpcId, number: usize, subnet: &SubnetConfig) -> Result<SubnetId, ConfigError> {
    let mut tags = subnet.tags.clone();
    tags.entry("Name".to_owned()).or_insert_with(|| subnet.name.clone());
    let spec = SubnetSpec {
        vpc: vpc.clone(),
        zone: subnet.zone.clone(),
        cidr: subnet.cidr,
        ipv6_cidr: subnet.ipv6_cidr,
        policy: match subnet.policy {
            Policy::Random => AllocationPolicy::Random,
            Policy::Lowest => AllocationPolicy::Lowest,
            Policy::Worst => AllocationPolicy::Worst,
        },
        tags,
    };
    let is_ipv6 = |error: &SetupError| matches!(error, SetupError::Ipv6Range(_));
    model.add_subnet(spec).map_err(|error| {
        let field = if is_ipv6(&error) { "ipv6_cidr" } else { "cidr" };
        ConfigError::value(format!("subnets[{number}].{field}"), error)
    })
}

fn occupy(model: &mut Model, id: &SubnetId, number: usize, subnet: &SubnetConfig) -> Result<(), ConfigError> {
    let blocks = subnet.fragmented.then_some(("fragmented", Occupancy::OneInEachBlock));
    let addresses = ("occupied", Occupancy::Addresses(subnet.occupied));
    for (field, what) in blocks.into_iter().chain([addresses]) {
        model
            .occupy(Duration::ZERO, id, what)
            .map_err(|error| ConfigError::value(format!("subnets[{number}].{field}"), error))?;
    }
    Ok(())
}

fn run_node(
    model: &mut Model,
    subnets: &BTreeMap<&str, SubnetId>,
    number: usize,
    node: &NodeConfig,
) -> Result<InstanceId, ConfigError> {
    let field = |name: &str| format!("nodes[{number}].{name}");
    let subnet = subnets.get(node.subnet.as_str()).ok_or_else(|| {
        let names: Vec<_> = subnets.keys().copied().collect();
        ConfigError::value(
            field("subnet"),
            format!("there is no subnet {:?}, only {}", node.subnet, names.join(", ")),
        )
    })?;
    let id = node
        .id
        .as_deref()
        .map(InstanceId::parse)
        .transpose()
        .map_err(|error| ConfigError::value(field("id"), error))?;
    let ipv4 = match (node.secondary_addresses, node.prefixes) {
        (0, 0) => None,
        (count, 0) => Some(Ipv4Request::Count(count)),
        (0, count) => Some(Ipv4Request::PrefixCount(count)),
        _ => {
            return Err(ConfigError::value(
                field("prefixes"),
                "cannot be combined with secondary_addresses",
            ));
        }
    };
    let mut tags = node.tags.clone();
    tags.entry("Name".to_owned()).or_insert_with(|| node.name.clone());
    let spec = InstanceSpec {
        id,
        primary: node.address,
        ipv4,
        tags,
        ..InstanceSpec::new(&node.instance_type, subnet.clone())
    };
    model.run_instance(Duration::ZERO, spec).map_err(|error| {
        let name = match &error {
            SetupError::InstanceType(_) => "type",
            SetupError::InstanceExists(_) => "id",
            SetupError::PrimaryEni(_) if node.address.is_some_and(|address| is_unfit(model, subnet, address)) => {
                "address"
            }
            SetupError::PrimaryEni(_) => "secondary_addresses",
            SetupError::NoVpc(_)
            | SetupError::NoSubnet(_)
            | SetupError::NoInstance(_)
            | SetupError::Range(_)
            | SetupError::NoRange
            | SetupError::Outside { .. }
            | SetupError::Overlap { .. }
            | SetupError::Ipv6Range(_) => "subnet",
        };
        let reason = std::error::Error::source(&error)
            .map(|source| format!(": {source}"))
            .unwrap_or_default();
        ConfigError::value(field(name), format!("{error}{reason}"))
    })
}

fn is_unfit(model: &Model, subnet: &SubnetId, address: Ipv4Addr) -> bool {
    model.subnet(subnet).is_none_or(|subnet| !subnet.is_free(address))
}
