//! Configuration: read once from the environment, validated together, immutable.
//!
//! All mistakes are gathered, so that an operator sees every one at once. Where the reference daemon falls back silently,
//! the fallback stays and a warning names the variable.

mod parse;
mod pool;
pub mod raw;
mod timers;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use cloud::CloudConfig;
use datapath::{NodePorts, SnatPolicy};
use ipam_core::Timers;
use ipnet::Ipv4Net;
use vpc_types::{FwMark, VethPrefix};

use self::parse::Reader;
pub use self::pool::{CordonUse, LeakedEnis, PoolConfig, UntaggedEnis};
use crate::paths::Paths;

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
}

/// Everything the operator decided.
#[derive(Debug, Clone)]
pub struct Config {
    /// Targets, and what may be changed at EC2.
    pub pool: PoolConfig,
    /// Most ENIs; `None`: the instance's limit.
    pub max_eni: Option<u16>,
    /// Durations of the pool.
    pub timers: Timers,
    /// How often IMDS is read.
    pub imds: ImdsTimers,
    /// Longest wait of an AddNetwork. Below the plugin's 35 s, so that the refusal and its reason arrive.
    pub add_deadline: Duration,
    /// MTU of ENIs.
    pub mtu: u16,
    /// Beginning of host veth names.
    pub veth_prefix: VethPrefix,
    /// Mark of connections that leave by the primary ENI.
    pub mark: FwMark,
    /// Who does SNAT.
    pub snat: SnatPolicy,
    /// Ranges reached without SNAT.
    pub exclude_cidrs: Vec<Ipv4Net>,
    /// Ranges reached through the primary ENI, from whatever ENI a pod is on.
    pub service_cidrs: Vec<Ipv4Net>,
    /// Whether NodePort replies stay on the primary ENI.
    pub node_ports: NodePorts,
    /// For ENI tags.
    pub cluster_name: Option<String>,
    /// For ENI tags.
    pub additional_tags: BTreeMap<String, String>,
    /// Passed to the plugin verbatim; empty: no agent.
    pub network_policy_mode: String,
    /// Files and sockets.
    pub paths: Paths,
    /// TCP address of the health service.
    pub health_address: Option<SocketAddr>,
    /// Lowest level that is logged.
    pub log_level: tracing::Level,
    /// Where log lines go.
    pub log_target: LogTarget,
    /// EC2 and IMDS.
    pub cloud: CloudConfig,
    /// What was wrong and what is used instead; to be logged once logging works.
    pub warnings: Vec<String>,
}

/// The configuration cannot be used; one line per mistake.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigErrors(pub Vec<String>);

impl Config {
    /// Reads every variable of the table from `environment`.
    pub fn from_environment(environment: &BTreeMap<String, String>) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(environment);
        reader.refuse_what_is_not_there_yet();
        let mut timers = timers::parse(&mut reader);
        if let Some(cooldown) = reader.seconds("IP_COOLDOWN_PERIOD") {
            timers.pool.cooldown = cooldown;
            let least = timers.pool.hold();
            if least > cooldown {
                reader.warn(format!(
                    "IP_COOLDOWN_PERIOD={}: {} s are kept, for late plugins' sake",
                    cooldown.as_secs(),
                    least.as_secs()
                ));
            }
        }
        let cloud = CloudConfig::from_lookup(|name| environment.get(name).cloned());
        let cloud = cloud.unwrap_or_else(|error| {
            reader.error(error.to_string());
            CloudConfig::default()
        });
        let snat = snat_policy(&mut reader);
        let paths = Paths::new(
            &reader.text("VPC_CNI_ROOT"),
            &reader.text("AWS_VPC_K8S_CNI_BACKING_STORE"),
        );
        let config = Self {
            pool: PoolConfig::parse(&mut reader),
            max_eni: reader.limit("MAX_ENI"),
            timers: timers.pool,
            imds: timers.imds,
            add_deadline: timers.add_deadline,
            mtu: reader.mtu("AWS_VPC_ENI_MTU"),
            veth_prefix: reader.veth_prefix("AWS_VPC_K8S_CNI_VETHPREFIX"),
            mark: reader.mark("AWS_VPC_K8S_CNI_CONNMARK"),
            snat,
            exclude_cidrs: exclude_cidrs(&mut reader, snat),
            service_cidrs: reader.cidrs("AWS_EXTERNAL_SERVICE_CIDRS"),
            node_ports: node_ports(&mut reader),
            cluster_name: Some(reader.text("CLUSTER_NAME")).filter(|name| !name.is_empty()),
            additional_tags: reader.tags("ADDITIONAL_ENI_TAGS"),
            network_policy_mode: reader.policy_mode("NETWORK_POLICY_ENFORCING_MODE"),
            health_address: reader.socket_address("VPC_CNI_HEALTH_ADDRESS"),
            log_level: reader.level("AWS_VPC_K8S_CNI_LOGLEVEL"),
            log_target: log_target(&reader.text("AWS_VPC_K8S_CNI_LOG_FILE"), &paths),
            paths,
            cloud,
            warnings: Vec::new(),
        };
        let (warnings, errors) = reader.finish();
        if errors.is_empty() {
            Ok(Self { warnings, ..config })
        } else {
            Err(ConfigErrors(errors))
        }
    }
}

fn snat_policy(reader: &mut Reader<'_>) -> SnatPolicy {
    let random = reader.random("AWS_VPC_K8S_CNI_RANDOMIZESNAT");
    if reader.boolean("AWS_VPC_K8S_CNI_EXTERNALSNAT") {
        SnatPolicy::External
    } else {
        SnatPolicy::ToPrimary { random }
    }
}

/// They only shape our own SNAT.
fn exclude_cidrs(reader: &mut Reader<'_>, snat: SnatPolicy) -> Vec<Ipv4Net> {
    const NAME: &str = "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS";
    let cidrs = reader.cidrs(NAME);
    if snat != SnatPolicy::External || cidrs.is_empty() {
        return cidrs;
    }
    reader.warn(format!(
        "{NAME} has no effect where AWS_VPC_K8S_CNI_EXTERNALSNAT is true"
    ));
    Vec::new()
}

fn node_ports(reader: &mut Reader<'_>) -> NodePorts {
    if reader.boolean("AWS_VPC_CNI_NODE_PORT_SUPPORT") {
        NodePorts::Supported
    } else {
        NodePorts::Unsupported
    }
}

fn log_target(text: &str, paths: &Paths) -> LogTarget {
    match text {
        "stdout" => LogTarget::Stdout,
        "stderr" => LogTarget::Stderr,
        path => LogTarget::File(paths.under_root(path)),
    }
}

/// Used by [`timers`] for its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AllTimers {
    pub(crate) pool: Timers,
    pub(crate) add_deadline: Duration,
    pub(crate) imds: ImdsTimers,
}

/// How often IMDS is read. Each pause varies by a tenth, so that nodes that started together do not ask together for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImdsTimers {
    /// Ranges of the VPC, and whether the instance is about to end. A spot notice comes two minutes before the end.
    pub notices: Duration,
    /// ENIs, addresses and security groups; the reference compares them as often.
    pub enis: Duration,
}

impl Default for ImdsTimers {
    fn default() -> Self {
        Self {
            notices: Duration::from_secs(30),
            enis: Duration::from_secs(60),
        }
    }
}

#[cfg(test)]
mod tests;
