//! The network policy agent: told of a pod before the runtime starts it, and when it goes.

use std::time::Duration;

use proto::rpc::np_backend_client::NpBackendClient;
use proto::rpc::{DeleteNpRequest, EnforceNpRequest};
use vpc_types::PodName;

use crate::attachment::Attachment;
use crate::clock::Deadline;
use crate::rpc::{Caller, Patience, Peer, RpcError};

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
    let reply = caller.call(&agent(attachment, attachment.deadline), async |connection, origin| {
        NpBackendClient::with_origin(connection, origin)
            .enforce_np_to_pod(request.clone())
            .await
    })?;
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

/// Has the agent forget `pod`, by `deadline`.
pub(crate) fn forget(
    caller: &Caller,
    attachment: &Attachment,
    pod: &PodName,
    who: Agent,
    deadline: Deadline,
) -> Result<(), PolicyError> {
    let request = DeleteNpRequest {
        k8s_pod_name: pod.name.to_string(),
        k8s_pod_namespace: pod.namespace.to_string(),
    };
    let mut peer = agent(attachment, deadline);
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

fn agent(attachment: &Attachment, deadline: Deadline) -> Peer {
    Peer {
        name: AGENT,
        socket: attachment.paths.policy_socket(),
        patience: Patience::Until(deadline.within(CONNECT)),
        deadline: deadline.within(ANSWER),
    }
}
