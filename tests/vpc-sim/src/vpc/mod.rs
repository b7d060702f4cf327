//! A whole VPC on this machine: model, servers, nodes and the fabric between them.
//!
//! Owns the order in which they start and how the data plane follows the model. The calling process has entered a
//! [`vpc_fabric::Sandbox`] before; its network namespace becomes the fabric.
//! Invariant: what the fabric knows of ENIs and addresses was told by the model's changes, in their order.
//! Called by `vpc-sim up`, the demo and the end-to-end tests.

mod error;
mod files;
mod outpost;
mod plane;
mod serve;

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vpc_fabric::fabric::{DropCount, DropReason, FabricConfig, Flow, InternetHostConfig};
use vpc_fabric::{Fabric, FabricError, NetnsRef, Node, NodeConfig, Sandbox};
use vpc_types::{EniId, InstanceId};

pub use error::VpcError;
pub use files::{ENVIRONMENT_FILE, KUBECONFIG_FILE};

use crate::Simulator;
use crate::config::{Built, Config};
use crate::kube::Kube;
use outpost::Outpost;
use plane::Plane;
use serve::{Endpoints, Servers};

/// Where IMDS answers.
pub const IMDS_ENDPOINT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(169, 254, 169, 254), 80);

/// Addresses of link-local services besides IMDS that are the fabric's own: resolver and time.
const LINK_LOCAL_SERVICES: [Ipv4Addr; 2] = [Ipv4Addr::new(169, 254, 169, 253), Ipv4Addr::new(169, 254, 169, 123)];

/// Messages about the data plane that are kept; older ones go first.
const ERRORS_MAX: usize = 100;

/// A running VPC. Dropping it stops the servers and ends the nodes' processes.
#[derive(Debug)]
pub struct Vpc {
    handle: VpcHandle,
    endpoints: Endpoints,
    // Dropped first: no change may be applied to nodes that go away.
    _servers: Servers,
}

/// What can be asked of a running VPC from anywhere. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct VpcHandle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    simulator: Simulator,
    host_init_pid: i32,
    nodes: BTreeMap<String, VpcNode>,
    outposts: BTreeMap<String, Outpost>,
    fabric: Mutex<Fabric>,
    errors: Mutex<VecDeque<String>>,
}

#[derive(Debug)]
struct VpcNode {
    node: Node,
    instance: InstanceId,
    /// What the internet sees instead of the primary address.
    public: Option<Ipv4Addr>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Vpc {
    /// Starts everything; when it returns, the nodes have their primary device configured and both endpoints answer.
    ///
    /// # Errors
    /// Names the part that could not be started. What was started before is gone again.
    pub fn start(config: &Config, sandbox: &Sandbox) -> Result<Self, VpcError> {
        let built = config.build()?;
        let fabric =
            Fabric::create(&fabric_config(config, &built)).map_err(|source| VpcError::Fabric(Box::new(source)))?;
        let nodes = create_nodes(config, &built)?;
        let outposts = create_outposts(config, &fabric)?;
        let simulator = Simulator::of(built);
        let handle = VpcHandle(Arc::new(Inner {
            simulator,
            host_init_pid: sandbox.host_init_pid().as_raw(),
            nodes,
            outposts,
            fabric: Mutex::new(fabric),
            errors: Mutex::default(),
        }));
        let plane = Plane::new(handle.clone());
        let first = handle.simulator().with_model(|model, _| model.drain_changes());
        plane.apply_all(&first)?;
        let endpoints = Endpoints {
            ec2: config.ec2_endpoint,
            kube: config.kube_endpoint,
        };
        let servers = Servers::start(handle.simulator().clone(), plane, endpoints)?;
        let vpc = Self {
            handle,
            endpoints,
            _servers: servers,
        };
        vpc.write_files()?;
        Ok(vpc)
    }

    /// For other threads and tasks.
    pub fn handle(&self) -> &VpcHandle {
        &self.handle
    }

    /// The API, its counts and faults.
    pub fn simulator(&self) -> &Simulator {
        self.handle.simulator()
    }

    /// A node, to run programs in.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.handle.0.nodes.get(name).map(|entry| &entry.node)
    }

    /// URL of the EC2 API, as nodes reach it (`AWS_ENDPOINT_URL_EC2`).
    pub fn ec2_url(&self) -> String {
        format!("http://{}", self.endpoints.ec2)
    }

    /// URL of the Kubernetes API, as nodes reach it.
    pub fn kube_url(&self) -> String {
        format!("http://{}", self.endpoints.kube)
    }

    /// The cluster: its objects, and faults of its API.
    pub fn kube(&self) -> &Kube {
        self.simulator().kube()
    }

    /// URL of instance metadata, which is also every SDK's default.
    pub fn imds_url(&self) -> String {
        format!("http://{}", IMDS_ENDPOINT.ip())
    }
}

impl VpcHandle {
    /// The API, its counts and faults.
    pub fn simulator(&self) -> &Simulator {
        &self.0.simulator
    }

    /// Names and instances of the nodes.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &InstanceId)> {
        self.0
            .nodes
            .iter()
            .map(|(name, entry)| (name.as_str(), &entry.instance))
    }

    /// The instance that a node is.
    pub fn instance(&self, node: &str) -> Option<&InstanceId> {
        self.0.nodes.get(node).map(|entry| &entry.instance)
    }

    /// For `exec`: a thread of the node or internet host, as the sandbox sees it.
    pub fn thread_in(&self, name: &str) -> Option<i32> {
        let node = self.0.nodes.get(name).map(|entry| entry.node.pid().as_raw());
        node.or_else(|| self.0.outposts.get(name).map(Outpost::tid))
    }

    /// For `exec`: the sandbox's init, as processes outside see it.
    pub fn host_init_pid(&self) -> i32 {
        self.0.host_init_pid
    }

    /// Packets dropped so far, by ENI, reason and addresses.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn drops(&self) -> Result<Vec<DropCount>, FabricError> {
        lock(&self.0.fabric).drops()
    }

    /// Packets dropped so far, by reason.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn drop_totals(&self) -> Result<BTreeMap<DropReason, u64>, FabricError> {
        lock(&self.0.fabric).drop_totals()
    }

    /// Begins a record of what ENIs send; an earlier one is forgotten.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn record_flows(&self) -> Result<(), FabricError> {
        lock(&self.0.fabric).record_flows()
    }

    /// The record so far.
    ///
    /// # Errors
    /// When the kernel does not tell, or the record is full.
    pub fn flows(&self) -> Result<Vec<Flow>, FabricError> {
        lock(&self.0.fabric).flows()
    }

    /// Lets an address of the VPC reach the internet as itself, as if a device outside translated it one to one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn publish(&self, address: Ipv4Addr) -> Result<(), FabricError> {
        lock(&self.0.fabric).set_public(address, Some(address))
    }

    /// The namespace of an internet host, for probes and echo servers.
    pub fn internet_host(&self, name: &str) -> Option<NetnsRef> {
        lock(&self.0.fabric).internet_host(name).cloned()
    }

    /// ENIs that are attached, but whose device the node (or something in it) has deleted.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn lost_enis(&self) -> Result<Vec<EniId>, FabricError> {
        lock(&self.0.fabric).lost_enis()
    }

    /// What went wrong in the data plane; empty when all is well.
    pub fn errors(&self) -> Vec<String> {
        lock(&self.0.errors).iter().cloned().collect()
    }

    fn note_error(&self, text: String) {
        let mut errors = lock(&self.0.errors);
        if errors.len() == ERRORS_MAX {
            errors.pop_front();
        }
        errors.push_back(text);
    }
}

/// How a reason is called in texts and JSON.
pub fn reason_name(reason: DropReason) -> &'static str {
    match reason {
        DropReason::WrongSource => "wrong-source",
        DropReason::NoRoute => "no-route",
        DropReason::NoPublicAddress => "no-public-address",
    }
}

/// Routers first: the first address is the source of ICMP errors.
fn fabric_config(config: &Config, built: &Built) -> FabricConfig {
    let mut local: Vec<_> = built.model.subnets().map(crate::model::Subnet::router).collect();
    local.extend(built.model.subnets().map(crate::model::Subnet::resolver));
    local.push(*IMDS_ENDPOINT.ip());
    local.extend(LINK_LOCAL_SERVICES);
    for endpoint in [config.ec2_endpoint, config.kube_endpoint] {
        if !local.contains(endpoint.ip()) {
            local.push(*endpoint.ip());
        }
    }
    let internet = config.internet.iter();
    FabricConfig {
        vpc_cidrs: config.vpc_cidrs.clone(),
        local_addresses: local,
        internet: internet
            .map(|host| InternetHostConfig {
                name: host.name.clone(),
                addresses: host.addresses.clone(),
            })
            .collect(),
    }
}

fn create_nodes(config: &Config, built: &Built) -> Result<BTreeMap<String, VpcNode>, VpcError> {
    let mut nodes = BTreeMap::new();
    for (node, running) in config.nodes.iter().zip(&built.nodes) {
        let mut settings = NodeConfig::new(&node.name);
        settings.private_dirs.clone_from(&node.private_dirs);
        let created = Node::create(&settings).map_err(|source| VpcError::Node {
            node: node.name.clone(),
            source: Box::new(source),
        })?;
        let entry = VpcNode {
            node: created,
            instance: running.instance.clone(),
            public: node.public_address,
        };
        nodes.insert(node.name.clone(), entry);
    }
    Ok(nodes)
}

fn create_outposts(config: &Config, fabric: &Fabric) -> Result<BTreeMap<String, Outpost>, VpcError> {
    let mut outposts = BTreeMap::new();
    for host in &config.internet {
        let Some(netns) = fabric.internet_host(&host.name) else {
            continue;
        };
        let failed = |source| VpcError::InternetHost {
            host: host.name.clone(),
            source,
        };
        outposts.insert(
            host.name.clone(),
            Outpost::start(&host.name, netns.clone()).map_err(failed)?,
        );
    }
    Ok(outposts)
}
