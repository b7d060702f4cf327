//! The operator's commands: they ask the running daemon over its socket, all but `cleanup`, which wants none to run.

mod audit;
mod cleanup;
mod question;
mod table;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use proto::agent::agent_client::AgentClient;
use proto::agent::{GetStatusReply, GetStatusRequest, Lease, ListLeasesRequest};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

pub use audit::{Ec2Wish, audit};
pub use cleanup::{Force, Mode, cleanup};
pub use question::Question;

/// The daemon answers from memory.
const DEADLINE: Duration = Duration::from_secs(5);

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What a command prints, and its exit status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// For stdout.
    pub text: String,
    /// 0 when all is well.
    pub status: u8,
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self { text, status: 0 }
    }
}

async fn connect(socket: &Path) -> Result<AgentClient<Channel>> {
    let path = socket.to_owned();
    let connector = service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://ipamd").timeout(DEADLINE);
    let channel = endpoint.connect_with_connector(connector).await;
    let channel = channel.with_context(|| format!("no daemon answers at {}", socket.display()))?;
    Ok(AgentClient::new(channel))
}

/// Pool, ENIs, EC2 calls, and whether an ADD would be served.
pub async fn status(socket: &Path, output: Output) -> Result<String> {
    let status = connect(socket)
        .await?
        .get_status(GetStatusRequest {})
        .await?
        .into_inner();
    Ok(match output {
        Output::Json => pretty(&status_json(&status)),
        Output::Text => table::status(&status),
    })
}

/// All leases.
pub async fn leases(socket: &Path, output: Output) -> Result<String> {
    let leases = connect(socket)
        .await?
        .list_leases(ListLeasesRequest {})
        .await?
        .into_inner()
        .leases;
    Ok(match output {
        Output::Json => pretty(&json!({"leases": leases.iter().map(lease_json).collect::<Vec<_>>()})),
        Output::Text => table::leases(&leases),
    })
}

fn pretty(value: &Value) -> String {
    format!("{value:#}")
}

fn status_json(status: &GetStatusReply) -> Value {
    let pool = status.pool.unwrap_or_default();
    let eni = |eni: &proto::agent::Eni| {
        json!({
            "id": eni.id, "mac": eni.mac, "deviceNumber": eni.device_number, "routeTable": eni.route_table,
            "primaryAddress": eni.primary_address, "total": eni.total, "assigned": eni.assigned, "state": eni.state,
            "role": eni.role, "subnet": eni.subnet, "prefixes": eni.prefixes, "securityGroups": eni.security_groups,
        })
    };
    let subnet = |subnet: &proto::agent::Subnet| json!({"id": subnet.id, "free": subnet.free, "access": subnet.access});
    json!({
        "ready": status.ready,
        "cause": status.cause,
        "detail": status.detail,
        "mode": status.mode,
        "target": status.target,
        "provisioning": status.provisioning,
        "safeMode": status.safe_mode,
        "warnings": status.warnings,
        "subnets": status.subnets.iter().map(subnet).collect::<Vec<_>>(),
        "pool": {
            "total": pool.total, "assigned": pool.assigned, "cooling": pool.cooling, "free": pool.free,
            "waiting": pool.waiting, "enisMax": pool.enis_max, "orphans": pool.orphans,
            "prefixes": pool.prefixes,
        },
        "enis": status.enis.iter().map(eni).collect::<Vec<_>>(),
        "repairs": status.repairs.iter().collect::<std::collections::BTreeMap<_, _>>(),
        "ec2Calls": status.ec2_calls.iter().collect::<std::collections::BTreeMap<_, _>>(),
    })
}

fn lease_json(lease: &Lease) -> Value {
    let attachment = lease.attachment.clone().unwrap_or_default();
    json!({
        "namespace": lease.pod_namespace, "pod": lease.pod_name, "address": lease.address, "eni": lease.eni_id,
        "deviceNumber": lease.device_number, "routeTable": lease.route_table, "state": lease.state,
        "networkName": attachment.network_name, "containerID": attachment.container_id, "ifName": attachment.if_name,
    })
}
