//! gRPC on the Unix socket: the deployed wire, our own interface, health. Health alone also on loopback TCP.
//!
//! Handlers only translate: every answer comes from the owner task.

mod account;
mod agent;
mod backend;
mod health;
mod socket;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipam_core::{AllocationMode, CoreConfig, Provisioning, ReqId, WarmTarget};
use ipnet::Ipv4Net;
use proto::agent::agent_server::AgentServer;
use proto::rpc::cni_backend_server::CniBackendServer;
use proto::rpc::config_server_backend_server::ConfigServerBackendServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::Server;
use tonic_health::pb::health_server::HealthServer;

pub use account::parse_snat;
pub use socket::{SocketError, SocketGuard, bind, lock_file, take_over};

use crate::data_plane::DataPlane;
use crate::observe::Calls;
use crate::owner::Inbox;
use crate::repair::Repairs;

/// Requests in flight per connection; the plugin sends one.
const CONCURRENCY: usize = 256;
/// Messages of this interface are a few hundred bytes; a CollectGarbage of a full node is some tens of kilobytes.
const MESSAGE_MAX: usize = 1 << 20;
/// A connection that says nothing for this long is asked for a sign of life.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// What handlers need.
#[derive(Debug, Clone)]
pub struct Context {
    /// The owner.
    pub inbox: Inbox,
    /// EC2 calls since start.
    pub calls: Calls,
    /// What was put back since start.
    pub repairs: Repairs,
    /// Facts for replies.
    pub node: Arc<NodeReply>,
    /// IPv4 ranges of the VPC.
    pub vpc_cidrs: watch::Receiver<Vec<Ipv4Net>>,
    /// How the node's rules are.
    pub data_plane: DataPlane,
    /// How long an ADD may wait for its address.
    pub add_deadline: Duration,
    /// Numbers requests.
    pub requests: Arc<AtomicU64>,
}

/// What replies say about the node.
#[derive(Debug, Clone)]
pub struct NodeReply {
    /// Passed to the plugin verbatim.
    pub network_policy_mode: String,
    /// Whether SNAT is done elsewhere; deployed plugins ignore it.
    pub external_snat: ExternalSnat,
    /// Ranges that are reached without SNAT.
    pub exclude_cidrs: Vec<Ipv4Net>,
    /// This instance.
    pub instance_id: String,
    /// Its region.
    pub region: String,
    /// Its primary address.
    pub address: std::net::Ipv4Addr,
    /// What its rules follow from; the ranges of the VPC are those at the start.
    pub rules: datapath::NodeConfig,
    /// How its pool is run.
    pub pool: PoolReply,
}

/// What replies say about how the pool is run, in words.
#[derive(Debug, Clone)]
pub struct PoolReply {
    /// What new addresses come as.
    pub mode: &'static str,
    /// The target that counts.
    pub target: String,
    /// What may be changed at EC2.
    pub provisioning: &'static str,
    /// What was wrong with the configuration.
    pub warnings: Vec<String>,
}

impl PoolReply {
    /// In words.
    pub fn new(core: &CoreConfig, warnings: &[String]) -> Self {
        Self {
            mode: match core.mode {
                AllocationMode::Addresses => "addresses",
                AllocationMode::Prefixes => "prefixes",
            },
            target: match core.target {
                WarmTarget::Enis(n) => format!("{n} warm ENIs"),
                WarmTarget::Prefixes(n) => format!("{n} warm prefixes"),
                WarmTarget::Addresses { warm, minimum } => format!("{warm} warm addresses, {minimum} at least"),
                WarmTarget::Adaptive => "adaptive".to_owned(),
            },
            provisioning: match core.provisioning {
                Provisioning::Full => "full",
                Provisioning::Disabled => "disabled",
                Provisioning::ImdsOnly => "imds-only",
            },
            warnings: warnings.to_vec(),
        }
    }
}

/// Who does SNAT, for the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExternalSnat {
    /// A NAT gateway.
    Yes,
    /// This node.
    No,
}

impl Context {
    fn next_request(&self) -> ReqId {
        ReqId(self.requests.fetch_add(1, Ordering::Relaxed))
    }
}

/// Serves on the socket until `stop` changes.
pub async fn serve(
    listener: tokio::net::UnixListener,
    context: Context,
    mut stop: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let health = HealthServer::new(health::OwnerHealth::new(context.inbox.clone()));
    let limit = |context: &Context| context.clone();
    Server::builder()
        .concurrency_limit_per_connection(CONCURRENCY)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .add_service(health)
        .add_service(CniBackendServer::new(limit(&context)).max_decoding_message_size(MESSAGE_MAX))
        .add_service(ConfigServerBackendServer::new(limit(&context)).max_decoding_message_size(MESSAGE_MAX))
        .add_service(AgentServer::new(context).max_decoding_message_size(MESSAGE_MAX))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async move {
            let _ = stop.wait_for(|stop| *stop).await;
        })
        .await
}

/// Health on loopback TCP, for probes that cannot name a socket. A port that is taken is no reason to stop.
pub async fn serve_health(address: SocketAddr, inbox: Inbox, mut stop: watch::Receiver<bool>) {
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%address, %error, "no health service on TCP");
            return;
        }
    };
    let served = Server::builder()
        .add_service(HealthServer::new(health::OwnerHealth::new(inbox)))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async move {
            let _ = stop.wait_for(|stop| *stop).await;
        })
        .await;
    if let Err(error) = served {
        tracing::warn!(%address, error = %crate::observe::Chain(&error), "health service on TCP ended");
    }
}

/// Whether a socket at this path answers; used before binding and by the operator's commands.
pub async fn answers(path: &Path) -> bool {
    tokio::net::UnixStream::connect(path).await.is_ok()
}
