//! The simulator's configuration file: JSON, every field optional, unknown fields refused by name.
//!
//! Owns the file's form and its checks; [`Config::build`] turns a checked file into a model. The defaults are the
//! demo's: one VPC, two subnets, two `m5.large` nodes and one internet host, without any delay.

mod build;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::Deserialize;

use crate::ctl::Timing;
use crate::imds::Launch;
pub use build::{Built, BuiltNode};

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not JSON, or a field of the wrong type, or an unknown one.
    #[error("configuration field {field}")]
    Form {
        /// Path of the field, for instance `nodes[1].type`; `.` for the file as a whole.
        field: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A field whose value does not fit the others.
    #[error("configuration field {field}: {problem}")]
    Value {
        /// Path of the field.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl ConfigError {
    fn value(field: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self::Value {
            field: field.into(),
            problem: problem.to_string(),
        }
    }
}

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Ids, MACs, addresses and delays derive from it.
    pub seed: u64,
    /// Where the other timing fields start from.
    pub profile: Profile,
    /// IPv4 ranges of the VPC.
    pub vpc_cidrs: Vec<Ipv4Net>,
    /// IPv6 ranges of the VPC.
    pub vpc_ipv6_cidrs: Vec<Ipv6Net>,
    /// Subnets.
    pub subnets: Vec<SubnetConfig>,
    /// Nodes: instances, each a network namespace when there is a data plane.
    pub nodes: Vec<NodeConfig>,
    /// Machines outside the VPC.
    pub internet: Vec<InternetConfig>,
    /// Where nodes reach the EC2 API, an address of the VPC that no ENI can get.
    pub ec2_endpoint: SocketAddrV4,
    /// Where nodes reach the Kubernetes API, likewise.
    pub kube_endpoint: SocketAddrV4,
    /// Objects in the cluster from the start, besides nodes and CNINodes.
    pub objects: Vec<serde_json::Value>,
    /// Instance metadata.
    pub imds: ImdsConfig,
    /// Latency per action in milliseconds.
    pub latency_ms: BTreeMap<String, u64>,
    /// Delays of devices and views.
    pub timing_ms: Timing,
    /// 1 is what an AWS account has; absent leaves it to the profile.
    pub throttle_factor: Option<f64>,
}

/// Ready-made timings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Everything at once, no throttling.
    #[default]
    Demo,
    /// Assumed latencies and lags of AWS, and its token buckets.
    Aws,
}

/// A subnet.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubnetConfig {
    /// What nodes call it.
    pub name: String,
    /// IPv4 range.
    pub cidr: Ipv4Net,
    /// IPv6 range, a /64.
    pub ipv6_cidr: Option<Ipv6Net>,
    /// Availability zone.
    #[serde(default = "default_zone")]
    pub zone: String,
    /// `random`, `lowest` or `worst`.
    #[serde(default)]
    pub policy: Policy,
    /// Tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Addresses that somebody else has from the start.
    #[serde(default)]
    pub occupied: u32,
    /// Whether somebody else has one address in each /28, so that no prefix is left.
    #[serde(default)]
    pub fragmented: bool,
}

/// How a subnet chooses addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Pseudo-random.
    #[default]
    Random,
    /// Lowest free one.
    Lowest,
    /// Spread over all /28 blocks.
    Worst,
}

/// A node.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Name for `vpc-sim exec`, and its tag `Name`.
    pub name: String,
    /// Instance type.
    #[serde(rename = "type", default = "default_type")]
    pub instance_type: String,
    /// Name of its subnet.
    pub subnet: String,
    /// Instance id; made up when absent.
    pub id: Option<String>,
    /// Primary address; EC2's choice when absent.
    pub address: Option<Ipv4Addr>,
    /// Secondary addresses of the primary ENI from the start.
    #[serde(default)]
    pub secondary_addresses: u32,
    /// Prefixes of the primary ENI from the start.
    #[serde(default)]
    pub prefixes: u32,
    /// The address the internet sees; the primary address itself when absent.
    pub public_address: Option<Ipv4Addr>,
    /// Tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Most pods that kubelet takes; what the type's ENIs have addresses for, within EKS's caps, when absent.
    pub max_pods: Option<u32>,
    /// Labels of the node object, besides the usual ones.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Absolute directories the node gets for itself, empty at first, besides `/run` and `/var/log`. `/host` if none is named: agents
    /// that think they run in a container look for the host's files there.
    #[serde(default = "default_dirs")]
    pub private_dirs: Vec<PathBuf>,
}

/// A machine on the internet.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InternetConfig {
    /// Name for `vpc-sim exec`.
    pub name: String,
    /// Its public addresses.
    pub addresses: Vec<Ipv4Addr>,
}

/// Instance metadata.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImdsConfig {
    /// Whether version 1 is refused.
    pub tokens_required: bool,
    /// IP TTL of token answers.
    pub hop_limit: u8,
    /// What the identity documents say of the launch.
    pub launch: Launch,
}

fn default_zone() -> String {
    "us-east-1a".to_owned()
}

fn default_type() -> String {
    "m5.large".to_owned()
}

fn default_dirs() -> Vec<PathBuf> {
    vec![PathBuf::from("/host")]
}

impl Default for ImdsConfig {
    fn default() -> Self {
        Self {
            tokens_required: true,
            hop_limit: 2,
            launch: Launch::default(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let subnet = |name: &str, third| SubnetConfig {
            name: name.to_owned(),
            cidr: Ipv4Net::new_assert(Ipv4Addr::new(10, 0, third, 0), 24),
            ipv6_cidr: None,
            zone: default_zone(),
            policy: Policy::Random,
            tags: BTreeMap::new(),
            occupied: 0,
            fragmented: false,
        };
        let node = |name: &str, subnet: &str, third| NodeConfig {
            name: name.to_owned(),
            instance_type: default_type(),
            subnet: subnet.to_owned(),
            id: None,
            address: Some(Ipv4Addr::new(10, 0, third, 10)),
            secondary_addresses: 0,
            prefixes: 0,
            public_address: None,
            tags: BTreeMap::new(),
            max_pods: None,
            labels: BTreeMap::new(),
            private_dirs: default_dirs(),
        };
        Self {
            seed: 1,
            profile: Profile::Demo,
            vpc_cidrs: vec![Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 16)],
            vpc_ipv6_cidrs: Vec::new(),
            subnets: vec![subnet("subnet-1", 1), subnet("subnet-2", 2)],
            nodes: vec![node("node-1", "subnet-1", 1), node("node-2", "subnet-2", 2)],
            internet: vec![InternetConfig {
                name: "internet".to_owned(),
                addresses: vec![Ipv4Addr::new(203, 0, 113, 10)],
            }],
            ec2_endpoint: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 80),
            kube_endpoint: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 6443),
            objects: Vec::new(),
            imds: ImdsConfig::default(),
            latency_ms: BTreeMap::new(),
            timing_ms: Timing::default(),
            throttle_factor: None,
        }
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Names the file or the field.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text)
    }

    /// Reads a text. [`Config::build`] does the checks that need more than one field.
    ///
    /// # Errors
    /// Names the field.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut json = serde_json::Deserializer::from_str(text);
        let config = serde_path_to_error::deserialize(&mut json).map_err(|error| ConfigError::Form {
            field: error.path().to_string(),
            source: error.into_inner(),
        })?;
        json.end().map_err(|source| ConfigError::Form {
            field: ".".to_owned(),
            source,
        })?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        let error = Config::parse(text)
            .and_then(|config| config.build().map(drop))
            .unwrap_err();
        let source = std::error::Error::source(&error)
            .map(|source| format!(": {source}"))
            .unwrap_or_default();
        format!("{error}{source}")
    }

    #[test]
    fn an_empty_file_is_the_demo() {
        let built = Config::parse("{}").unwrap().build().unwrap();
        assert_eq!(built.nodes.len(), 2);
        assert_eq!(built.nodes[0].name, "node-1");
        assert!(built.model.instance(&built.nodes[1].instance).is_some());
    }

    #[test]
    fn the_example_spells_out_the_defaults() {
        let example = Config::parse(include_str!("../../examples/demo.json")).unwrap();
        assert_eq!(format!("{example:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn every_complaint_names_its_field() {
        for (text, field) in [
            (r#"{"sed": 1}"#, "`sed`"),
            (
                r#"{"subnets": [{"name": "a", "cidr": "10.0.1.0/99"}]}"#,
                "subnets[0].cidr",
            ),
            (
                r#"{"nodes": [], "subnets": [{"name": "a", "cidr": "10.0.1.0/24", "occupied": 999}]}"#,
                "subnets[0].occupied",
            ),
            (r#"{"nodes": [{"name": "n", "subnet": "nowhere"}]}"#, "nodes[0].subnet"),
            (
                r#"{"nodes": [{"name": "n", "subnet": "subnet-1", "type": "m5.huge"}]}"#,
                "nodes[0].type",
            ),
            (
                r#"{"nodes": [{"name": "n", "subnet": "subnet-1", "address": "10.0.2.9"}]}"#,
                "nodes[0].address",
            ),
            (r#"{"nodes": [{"name": "n/1", "subnet": "subnet-1"}]}"#, "nodes[0].name"),
            (
                r#"{"nodes": [{"name": "n", "subnet": "subnet-1", "id": "x"}]}"#,
                "nodes[0].id",
            ),
            (
                r#"{"nodes": [{"name": "n", "subnet": "subnet-1"}, {"name": "n", "subnet": "subnet-1"}]}"#,
                "nodes[1].name",
            ),
            (
                r#"{"subnets": [{"name": "subnet-1", "cidr": "10.9.0.0/24"}]}"#,
                "subnets[0].cidr",
            ),
            (r#"{"latency_ms": {"CreateWorld": 1}}"#, "latency_ms.CreateWorld"),
            (r#"{"throttle_factor": 0}"#, "throttle_factor"),
            (r#"{"ec2_endpoint": "10.0.1.77:80"}"#, "ec2_endpoint"),
            (r#"{"kube_endpoint": "10.1.0.2:80"}"#, "kube_endpoint"),
            (r#"{"kube_endpoint": "10.0.0.2:80"}"#, "kube_endpoint"),
            (r#"{"objects": [{"kind": "Deployment"}]}"#, "objects[0]"),
            (
                r#"{"nodes": [{"name": "n", "subnet": "subnet-1", "labels": {"a": 1}}]}"#,
                "nodes[0].labels",
            ),
            (r#"{"vpc_cidrs": []}"#, "vpc_cidrs"),
            ("{", "EOF"),
        ] {
            let problem = problem(text);
            assert!(problem.contains(field), "{text}\n  gives: {problem}");
        }
    }
}
