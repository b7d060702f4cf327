//! Stand-ins for ipamd and the network policy agent.

use std::future::pending;
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proto::rpc::cni_backend_server::{CniBackend, CniBackendServer};
use proto::rpc::np_backend_server::{NpBackend, NpBackendServer};
use proto::rpc::*;
use tokio::sync::oneshot;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status};

/// How a stand-in answers.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// Success with this address, device number and table; the mode for the network policy agent.
    Grant(&'static str, i32, i32, &'static str),
    /// As `Grant`, and the host is cleared already, as our daemon says.
    Cleared(&'static str),
    /// Success=false.
    No,
    /// A gRPC status.
    Status(tonic::Code, &'static str),
    /// Never.
    Silence,
    /// As `Grant`, but the caller is stopped before the answer reaches it, and goes on after this many milliseconds.
    Stall(&'static str, u64),
}

impl Answer {
    async fn give(&self) -> Result<(bool, Vec<IpAllocationMetadata>, String), Status> {
        match *self {
            Self::Grant(address, device_number, route_table_id, mode) => {
                let entry = IpAllocationMetadata {
                    i_pv4_addr: address.to_owned(),
                    i_pv6_addr: String::new(),
                    device_number,
                    route_table_id,
                };
                Ok((true, vec![entry], mode.to_owned()))
            }
            Self::Cleared(address) => Box::pin(Self::Grant(address, 2, 3, "").give()).await,
            Self::No => Ok((false, Vec::new(), String::new())),
            Self::Status(code, message) => Err(Status::new(code, message)),
            Self::Silence => pending().await,
            Self::Stall(address, _) => Box::pin(Self::Grant(address, 2, 3, "").give()).await,
        }
    }
}

/// What a stand-in was asked, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calls(Arc<Mutex<Vec<String>>>);

impl Calls {
    pub(crate) fn note(&self, call: String) {
        self.0.lock().unwrap().push(call);
    }

    pub(crate) fn list(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// A stand-in that serves until it is dropped.
pub(crate) struct Daemon {
    pub(crate) calls: Calls,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Daemon {
    /// Serves ipamd's interface under `root`.
    pub(crate) fn ipamd(root: &Path, add: Answer, del: Answer) -> Self {
        let calls = Calls::default();
        let service = CniBackendServer::new(Ipamd {
            add,
            del,
            calls: calls.clone(),
        });
        Self::serve(&socket(root, "ipamd.sock"), calls, move |router| {
            router.add_service(service)
        })
    }

    /// Serves the agent's interface under `root`.
    pub(crate) fn agent(root: &Path, enforce: Answer) -> Self {
        let calls = Calls::default();
        let service = NpBackendServer::new(Agent {
            enforce,
            calls: calls.clone(),
        });
        Self::serve(&socket(root, "npa.sock"), calls, move |router| {
            router.add_service(service)
        })
    }

    pub(crate) fn serve(
        socket: &Path,
        calls: Calls,
        add: impl FnOnce(&mut Server) -> tonic::transport::server::Router + Send + 'static,
    ) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = StdListener::bind(socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let _ = runtime.block_on(async {
                let listener = tokio::net::UnixListener::from_std(listener).unwrap();
                let serving = add(&mut Server::builder()).serve_with_incoming(UnixListenerStream::new(listener));
                tokio::select! {
                    served = serving => served,
                    _ = stopped => Ok(()),
                }
            });
        });
        Self {
            calls,
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// Path of a socket, with its directory.
pub(crate) fn socket(root: &Path, name: &str) -> std::path::PathBuf {
    let dir = root.join("var/run/aws-node");
    std::fs::create_dir_all(&dir).unwrap();
    dir.join(name)
}

struct Ipamd {
    add: Answer,
    del: Answer,
    calls: Calls,
}

#[tonic::async_trait]
impl CniBackend for Ipamd {
    async fn add_network(&self, request: Request<AddNetworkRequest>) -> Result<Response<AddNetworkReply>, Status> {
        if let Answer::Stall(_, millis) = self.add {
            stall(&request, Duration::from_millis(millis));
        }
        let asked = request.into_inner();
        assert_eq!(asked.client_version, "", "deployed daemons refuse any other");
        self.calls.note(format!(
            "add {}/{} {} {} {}",
            asked.k8s_pod_namespace, asked.k8s_pod_name, asked.network_name, asked.container_id, asked.if_name
        ));
        let (success, ip_allocation_metadata, network_policy_mode) = self.add.give().await?;
        let reply = AddNetworkReply {
            success,
            ip_allocation_metadata,
            network_policy_mode,
            ..Default::default()
        };
        Ok(Response::new(reply))
    }

    async fn del_network(&self, request: Request<DelNetworkRequest>) -> Result<Response<DelNetworkReply>, Status> {
        let asked = request.into_inner();
        self.calls.note(format!(
            "del {} {} uid={}",
            asked.container_id, asked.reason, asked.k8s_pod_uid
        ));
        let (success, ip_allocation_metadata, network_policy_mode) = self.del.give().await?;
        let reply = DelNetworkReply {
            success,
            ip_allocation_metadata,
            network_policy_mode,
            ..Default::default()
        };
        let mut response = Response::new(reply);
        if matches!(self.del, Answer::Cleared(_)) {
            let headers = response.metadata_mut();
            headers.insert(
                proto::convert::CLEARED,
                tonic::metadata::MetadataValue::from_static("yes"),
            );
        }
        Ok(response)
    }
}

/// Stops the calling process and has it continued later.
fn stall<T>(request: &Request<T>, time: Duration) {
    let caller = request
        .extensions()
        .get::<UdsConnectInfo>()
        .unwrap()
        .peer_cred
        .unwrap()
        .pid()
        .unwrap();
    let caller = Pid::from_raw(caller);
    kill(caller, Signal::SIGSTOP).unwrap();
    thread::spawn(move || {
        let (_sender, nothing) = mpsc::channel::<()>();
        let _ = nothing.recv_timeout(time);
        kill(caller, Signal::SIGCONT).unwrap();
    });
}

struct Agent {
    enforce: Answer,
    calls: Calls,
}

#[tonic::async_trait]
impl NpBackend for Agent {
    async fn enforce_np_to_pod(&self, request: Request<EnforceNpRequest>) -> Result<Response<EnforceNpReply>, Status> {
        let asked = request.into_inner();
        self.calls.note(format!(
            "enforce {}/{} {} {}",
            asked.k8s_pod_namespace, asked.k8s_pod_name, asked.network_policy_mode, asked.interface_count
        ));
        let (success, ..) = self.enforce.give().await?;
        Ok(Response::new(EnforceNpReply { success }))
    }

    async fn delete_pod_np(&self, request: Request<DeleteNpRequest>) -> Result<Response<DeleteNpReply>, Status> {
        let asked = request.into_inner();
        self.calls
            .note(format!("delete {}/{}", asked.k8s_pod_namespace, asked.k8s_pod_name));
        Ok(Response::new(DeleteNpReply { success: true }))
    }
}
