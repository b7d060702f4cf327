//! A network policy agent for tests, which does with the kernel what the real one needs of it.
//!
//! It serves `rpc.NPBackend` on a socket. For every interface of a pod it looks for the host's device by name, first with the
//! prefix `eni`, then with `vlan`, and attaches the queueing discipline that its filters would hang on (`clsact`); without such a
//! device the pod is refused. At its start it asks ipamd for its configuration, as the real one does, and gives up like it on a
//! mode that it does not know. It filters nothing. Called by the tests of the plugin and by the end-to-end scenarios.

mod device;

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use proto::rpc::config_server_backend_client::ConfigServerBackendClient;
use proto::rpc::np_backend_server::{NpBackend, NpBackendServer};
use proto::rpc::{DeleteNpReply, DeleteNpRequest, EnforceNpReply, EnforceNpRequest, NetworkPolicyAgentConfigReply};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};

/// How long the real one waits for ipamd.
const CONFIG_DEADLINE: Duration = Duration::from_secs(30);
/// Modes with which the real one goes on; others end it.
const MODES: [&str; 3] = ["none", "standard", "strict"];

/// What it was asked, in order.
type Calls = Arc<Mutex<Vec<String>>>;

/// One that serves until it is dropped.
#[derive(Debug)]
pub struct PolicyAgent {
    calls: Calls,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl PolicyAgent {
    /// Serves at `socket`, and looks for devices in the network namespace of the calling thread.
    pub fn start(socket: &Path) -> io::Result<Self> {
        let _ = std::fs::remove_file(socket);
        let listener = StdListener::bind(socket)?;
        listener.set_nonblocking(true)?;
        let calls = Calls::default();
        let service = NpBackendServer::new(Service { calls: calls.clone() });
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = runtime()?;
        // A thread inherits the namespaces of the one that starts it.
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = UnixListener::from_std(listener) else {
                    return;
                };
                let mut server = Server::builder();
                let serving = server
                    .add_service(service)
                    .serve_with_incoming(UnixListenerStream::new(listener));
                tokio::select! {
                    _ = serving => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self {
            calls,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// What it was asked so far, and which devices it found.
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for PolicyAgent {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// What ipamd at `socket` tells an agent that starts. An error is what would end it.
pub fn configuration(socket: &Path) -> io::Result<NetworkPolicyAgentConfigReply> {
    let socket = socket.to_owned();
    let connect = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let asked = async {
        let endpoint = Endpoint::from_static("http://localhost").timeout(CONFIG_DEADLINE);
        let channel = endpoint
            .connect_with_connector(connect)
            .await
            .map_err(io::Error::other)?;
        let reply = ConfigServerBackendClient::new(channel)
            .get_network_policy_configs(())
            .await;
        reply.map(Response::into_inner).map_err(io::Error::other)
    };
    let reply: NetworkPolicyAgentConfigReply = runtime()?.block_on(asked)?;
    let mode = &reply.network_policy_mode;
    if MODES.iter().any(|known| known.eq_ignore_ascii_case(mode)) {
        return Ok(reply);
    }
    Err(io::Error::other(format!("no mode: {mode:?}")))
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

struct Service {
    calls: Calls,
}

impl Service {
    fn note(&self, call: String) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }
}

#[tonic::async_trait]
impl NpBackend for Service {
    async fn enforce_np_to_pod(&self, request: Request<EnforceNpRequest>) -> Result<Response<EnforceNpReply>, Status> {
        let asked = request.into_inner();
        let EnforceNpRequest {
            k8s_pod_name: pod,
            k8s_pod_namespace: namespace,
            network_policy_mode: mode,
            interface_count,
        } = &asked;
        let devices: Result<Vec<String>, io::Error> = (0..*interface_count)
            .map(|index| device::attach(namespace, pod, index))
            .collect();
        let (found, success) = match devices {
            Ok(devices) => (devices.join(","), !devices.is_empty()),
            Err(error) => (error.to_string(), false),
        };
        self.note(format!("enforce {namespace}/{pod} {mode} on {found}"));
        Ok(Response::new(EnforceNpReply { success }))
    }

    async fn delete_pod_np(&self, request: Request<DeleteNpRequest>) -> Result<Response<DeleteNpReply>, Status> {
        let asked = request.into_inner();
        self.note(format!("delete {}/{}", asked.k8s_pod_namespace, asked.k8s_pod_name));
        Ok(Response::new(DeleteNpReply { success: true }))
    }
}
