//! From a configuration to a model. Everything that does not fit together is found here, and named.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use vpc_types::{InstanceId, SubnetId, VpcId};

use super::{Config, ConfigError, NodeConfig, Policy, Profile, SubnetConfig};
use crate::imds::{ImdsOptions, TokenPolicy};
use crate::model::request::Ipv4Request;
use crate::model::{Action, AllocationPolicy, Delay, InstanceSpec, Model, Settings, SetupError, SubnetSpec, Throttle};

/// A model as the configuration says.
#[derive(Debug)]
pub struct Built {
    /// With all instances running; their devices' changes not drained yet.
    pub model: Model,
    /// Nodes in the file's order.
    pub nodes: Vec<BuiltNode>,
    /// How IMDS is to be served.
    pub imds: ImdsOptions,
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
        self.check_endpoint()?;
        self.check_names()?;
        let mut nodes = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let instance = run_node(&mut model, &subnets, number, node)?;
            nodes.push(BuiltNode {
                name: node.name.clone(),
                instance,
            });
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
            model,
            nodes,
            imds: ImdsOptions {
                tokens,
                hop_limit: self.imds.hop_limit,
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

    /// No ENI may ever get the endpoint's address.
    fn check_endpoint(&self) -> Result<(), ConfigError> {
        let address = *self.ec2_endpoint.ip();
        let problem = |text: String| Err(ConfigError::value("ec2_endpoint", text));
        if !self.vpc_cidrs.iter().any(|cidr| cidr.contains(&address)) {
            return problem(format!("{address} lies outside the VPC"));
        }
        let subnet = self.subnets.iter().find(|subnet| subnet.cidr.contains(&address));
        match subnet.map(|subnet| u32::from(address) - u32::from(subnet.cidr.network())) {
            // Three addresses after the network's own belong to EC2; the first of them is the router's.
            None | Some(2..=3) => Ok(()),
            Some(_) => problem(format!("an ENI could get {address}; take one outside all subnets")),
        }
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
