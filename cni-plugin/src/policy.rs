//! The network policy agent: told of a pod before the runtime starts it, and when it goes.

use std::time::Duration;

use datapath::RouteSocket;
use proto::rpc::np_backend_client::NpBackendClient;
use proto::rpc::{DeleteNpRequest, EnforceNpRequest};
use vpc_types::PodName;

use crate::attachment::Attachment;
use crate::clock::Deadline;
use crate::log::Log;
use crate::paths::Paths;
use crate::rpc::{Caller, Patience, Peer, RpcError, chain};

const AGENT: &str = "the network policy agent";
/// How long the agent may be absent, as in the reference.
const CONNECT: Duration = Duration::from_secs(2);
/// For the whole call. The agent attaches programs to the pod's device, which takes tenths of a second.
const ANSWER: Duration = Duration::from_secs(7);

/// The agent did not do its part.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PolicyError {
    /// No answer, or a refusal.
    #[error("call the network policy agent")]
    Call(#[from] RpcError),
    /// It answered that it failed.
    #[error("the network policy agent could not set up the pod (it answered Success=false)")]
    Failed,
}

/// Has the policies of `pod` enforced before it runs.
pub(crate) fn enforce(caller: &Caller, attachment: &Attachment, pod: &PodName, mode: &str) -> Result<(), PolicyError> {
    let request = EnforceNpRequest {
        k8s_pod_name: pod.name.to_string(),
        k8s_pod_namespace: pod.namespace.to_string(),
        network_policy_mode: mode.to_owned(),
        interface_count: 1,
    };
    let reply = caller.call(
        &agent(&attachment.paths, attachment.deadline),
        async |connection, origin| {
            NpBackendClient::with_origin(connection, origin)
                .enforce_np_to_pod(request.clone())
                .await
        },
    )?;
    if reply.success {
        Ok(())
    } else {
        Err(PolicyError::Failed)
    }
}

/// Who is to forget a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agent {
    /// ipamd says that there is one, so its absence is a restart.
    Running,
    /// ipamd did not say; where there is one, there is its socket.
    Perhaps,
}

/// A container that goes, as far as the agent is concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gone<'a> {
    /// All that the agent knows it by.
    pub(crate) pod: &'a PodName,
    /// Its id.
    pub(crate) container_id: &'a str,
    /// Name of the host's end of its link, which the pod's next container has too.
    pub(crate) host_veth: &'a str,
}

/// Has the agent forget a container, and says in the log what came of it: no DEL fails by it, for a repeated one would find
/// ipamd without the pod, and the agent as it is now. The agent hears nothing once the pod's name has another container: it would
/// forget that one.
pub(crate) fn tell(
    caller: &Caller,
    (paths, log): (&Paths, &Log),
    gone: Gone<'_>,
    who: Agent,
    deadline: Deadline,
) -> Told {
    let container = RouteSocket::open()
        .ok()
        .and_then(|mut socket| datapath::container_of(&mut socket, gone.host_veth).ok()?);
    if let Some(next) = container.filter(|container| container != gone.container_id) {
        log.info("network policy is left to the pod's next container", &[("next", &next)]);
        return Told::Yes;
    }
    match forget(caller, paths, gone.pod, who, deadline) {
        Ok(()) => return Told::Yes,
        Err(PolicyError::Call(RpcError::Absent { .. })) if who == Agent::Perhaps => {}
        Err(error) => log.warn(
            "the network policy agent was not told",
            &[("gone", gone.pod), ("error", &chain(&error))],
        ),
    }
    Told::No
}

/// Whether the agent knows what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// It does.
    Yes,
    /// It is away, or failed.
    No,
}

/// Has the agent forget `pod`, by `deadline`.
pub(crate) fn forget(
    caller: &Caller,
    paths: &Paths,
    pod: &PodName,
    who: Agent,
    deadline: Deadline,
) -> Result<(), PolicyError> {
    let request = DeleteNpRequest {
        k8s_pod_name: pod.name.to_string(),
        k8s_pod_namespace: pod.namespace.to_string(),
    };
    let mut peer = agent(paths, deadline);
    if who == Agent::Perhaps {
        peer.patience = Patience::Once;
    }
    let reply = caller.call(&peer, async |connection, origin| {
        NpBackendClient::with_origin(connection, origin)
            .delete_pod_np(request.clone())
            .await
    })?;
    if reply.success {
        Ok(())
    } else {
        Err(PolicyError::Failed)
    }
}

fn agent(paths: &Paths, deadline: Deadline) -> Peer {
    Peer {
        name: AGENT,
        socket: paths.policy_socket(),
        patience: Patience::Until(deadline.within(CONNECT)),
        deadline: deadline.within(ANSWER),
    }
}
