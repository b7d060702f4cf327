//! The kubelet's side of the runtime interface: one call at a time, or one for each of many pods at once.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use cri::runtime_service_client::RuntimeServiceClient;
use cri::{
    LinuxPodSandboxConfig, ListPodSandboxRequest, PodSandboxConfig, PodSandboxMetadata, PodSandboxState,
    PodSandboxStatusRequest, RemovePodSandboxRequest, RunPodSandboxRequest, StatusRequest, StopPodSandboxRequest,
    VersionRequest,
};
use serde_json::Value;
use tonic::transport::{Channel, Endpoint};

/// A sandbox takes a fraction of a second, one that waits for an ENI some seconds.
const DEADLINE: Duration = Duration::from_secs(40);

/// A connection to a runtime.
#[derive(Debug)]
pub struct Client {
    tokio: tokio::runtime::Runtime,
    service: RuntimeServiceClient<Channel>,
}

/// What the kubelet asks a sandbox for.
#[derive(Debug, Clone)]
pub struct Order {
    /// Pod's name in namespace `default`.
    pub name: String,
    /// Number of the sandbox among those of this pod.
    pub attempt: u32,
}

impl Order {
    /// The first sandbox of a pod.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            attempt: 0,
        }
    }

    fn config(&self) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: self.name.clone(),
                uid: format!("uid-{}", self.name),
                namespace: "default".to_owned(),
                attempt: self.attempt,
            }),
            hostname: self.name.clone(),
            log_directory: format!("/var/log/pods/default_{}", self.name),
            labels: [("app", self.name.as_str())].map(owned).into(),
            // The network configuration asks for these, so that the plugin is given them.
            annotations: [("example.com/note", "a \"quoted\" note, and\na second line")]
                .map(owned)
                .into(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: "/kubepods".to_owned(),
            }),
        }
    }
}

fn owned((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// What a runtime tells of a sandbox.
#[derive(Debug, Clone)]
pub struct SandboxStatus {
    /// Whether its first process runs.
    pub state: PodSandboxState,
    /// Its address, empty if it has none.
    pub ip: String,
    /// Path of its network namespace, as the node sees it; empty if it is gone.
    pub netns: String,
    /// Its first process, as the sandbox of the VPC sees it; 0 if there is none.
    pub pid: i32,
}

impl Client {
    /// Connects to a runtime's socket.
    pub fn connect(socket: &Path) -> Result<Self> {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let uri = format!("unix://{}", socket.display());
        let channel = tokio.block_on(async { Endpoint::from_shared(uri)?.timeout(DEADLINE).connect().await });
        let channel = channel.with_context(|| format!("no runtime answers at {}", socket.display()))?;
        let service = RuntimeServiceClient::new(channel);
        Ok(Self { tokio, service })
    }

    /// Name and version of the runtime.
    pub fn version(&self) -> Result<String> {
        let mut service = self.service.clone();
        let answer = self.tokio.block_on(service.version(VersionRequest::default()));
        let answer = answer.map_err(|status| refusal("Version", &status))?.into_inner();
        Ok(format!("{} {}", answer.runtime_name, answer.runtime_version))
    }

    /// Whether the runtime has a network for pods, with its reason if not.
    pub fn network(&self) -> Result<Result<(), String>> {
        let mut service = self.service.clone();
        let answer = self.tokio.block_on(service.status(StatusRequest::default()));
        let conditions = answer
            .map_err(|status| refusal("Status", &status))?
            .into_inner()
            .status
            .unwrap_or_default();
        let network = conditions
            .conditions
            .into_iter()
            .find(|one| one.r#type == "NetworkReady");
        let network = network.context("the runtime says nothing about its network")?;
        Ok(if network.status { Ok(()) } else { Err(network.message) })
    }

    /// Makes a sandbox; its id.
    pub fn run(&self, order: &Order) -> Result<String> {
        self.run_all(std::slice::from_ref(order))?
            .pop()
            .context("one order, one answer")?
    }

    /// Makes all of them at once; an id or an error for each.
    pub fn run_all(&self, orders: &[Order]) -> Result<Vec<Result<String>>> {
        self.tokio.block_on(async {
            let calls = orders.iter().map(|order| {
                let mut service = self.service.clone();
                let request = RunPodSandboxRequest {
                    config: Some(order.config()),
                    runtime_handler: String::new(),
                };
                tokio::spawn(async move { service.run_pod_sandbox(request).await })
            });
            let mut answers = Vec::new();
            for call in calls.collect::<Vec<_>>() {
                let answer = call.await.context("a task of the client")?;
                answers.push(
                    answer
                        .map(|answer| answer.into_inner().pod_sandbox_id)
                        .map_err(|status| refusal("RunPodSandbox", &status)),
                );
            }
            Ok(answers)
        })
    }

    /// Ends a sandbox's processes and network.
    pub fn stop(&self, id: &str) -> Result<()> {
        let mut service = self.service.clone();
        let request = StopPodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        let answer = self.tokio.block_on(service.stop_pod_sandbox(request));
        answer.map(drop).map_err(|status| refusal("StopPodSandbox", &status))
    }

    /// Forgets a sandbox.
    pub fn remove(&self, id: &str) -> Result<()> {
        let mut service = self.service.clone();
        let request = RemovePodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        let answer = self.tokio.block_on(service.remove_pod_sandbox(request));
        answer.map(drop).map_err(|status| refusal("RemovePodSandbox", &status))
    }

    /// Ids and states of all sandboxes.
    pub fn list(&self) -> Result<Vec<(String, PodSandboxState)>> {
        let mut service = self.service.clone();
        let answer = self.tokio.block_on(service.list_pod_sandbox(ListPodSandboxRequest {}));
        let items = answer
            .map_err(|status| refusal("ListPodSandbox", &status))?
            .into_inner()
            .items;
        Ok(items.into_iter().map(|item| (item.id.clone(), item.state())).collect())
    }

    /// See [`SandboxStatus`].
    pub fn status(&self, id: &str) -> Result<SandboxStatus> {
        let mut service = self.service.clone();
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: true,
        };
        let answer = self.tokio.block_on(service.pod_sandbox_status(request));
        let answer = answer
            .map_err(|status| refusal("PodSandboxStatus", &status))?
            .into_inner();
        let status = answer.status.context("a status")?;
        let info: Value = serde_json::from_str(answer.info.get("info").map_or("{}", String::as_str))?;
        let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array();
        let netns = namespaces.into_iter().flatten().find(|one| one["type"] == "network");
        let netns = netns.and_then(|one| one["path"].as_str()).unwrap_or_default();
        Ok(SandboxStatus {
            state: status.state(),
            ip: status.network.unwrap_or_default().ip,
            netns: netns.to_owned(),
            pid: info["pid"]
                .as_i64()
                .and_then(|pid| i32::try_from(pid).ok())
                .unwrap_or(0),
        })
    }
}

/// What the kubelet shows of a failed call: its text.
fn refusal(call: &'static str, status: &tonic::Status) -> anyhow::Error {
    anyhow!("{call}: {}", status.message())
}
