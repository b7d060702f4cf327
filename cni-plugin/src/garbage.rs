//! GC: the runtime names the attachments that are in use, and ipamd ends all other leases of this network.
//!
//! The whole of it is ipamd's: it alone knows whose the leases are, removes rules and routes before an address rests, and keeps
//! what is so young that its ADD may not have ended. Without ipamd nothing is done, and the runtime asks again. The network policy
//! agent is told of the pods that went, as by their DELs.

use cni_spec::{CniError, ValidAttachment};
use proto::agent::agent_client::AgentClient;
use proto::agent::{Attachment, CollectGarbageReply, CollectGarbageRequest, Lease};
use vpc_types::{IpamKey, PodName, host_veth_name};

use crate::network::Network;
use crate::policy::{self, Agent, Gone, Told};
use crate::rpc::{Caller, IPAMD, Patience, Peer, RpcError, chain};

/// Has everything ended that is not in the list.
pub(crate) fn collect(network: &Network, valid: &[ValidAttachment]) -> Result<(), CniError> {
    let failed = |error: &RpcError| CniError::internal(format!("gc cmd: {}", chain(error)));
    let caller = Caller::new(IPAMD).map_err(|error| failed(&error))?;
    let peer = Peer {
        name: IPAMD,
        socket: network.paths.ipamd_socket(),
        // Nobody waits for a pod here, and runtimes ask again.
        patience: Patience::Once,
        deadline: network.deadline,
    };
    let request = CollectGarbageRequest {
        network_name: network.name.clone(),
        valid: valid.iter().map(|one| named(network, one)).collect(),
    };
    let reply = caller
        .call(&peer, async |connection, origin| {
            AgentClient::with_origin(connection, origin)
                .collect_garbage(request.clone())
                .await
        })
        .map_err(|error| failed(&error))?;
    let (released, young) = (reply.released.join(","), reply.young.join(","));
    let in_use = valid.len();
    network.log.info(
        "collected garbage",
        &[("in_use", &in_use), ("released", &released), ("young", &young)],
    );
    forget_policies(&caller, network, &reply);
    if reply.left.is_empty() {
        return Ok(());
    }
    let left = reply.left.join(", ");
    Err(CniError::internal(format!(
        "gc cmd: rules and routes of {left} could not be removed"
    )))
}

/// An agent that was away for one pod is away for all.
fn forget_policies(caller: &Caller, network: &Network, reply: &CollectGarbageReply) {
    if reply.network_policy_mode.is_empty() {
        return;
    }
    for lease in &reply.ended {
        if forget_policy(caller, network, lease) == Told::No {
            return;
        }
    }
}

fn forget_policy(caller: &Caller, network: &Network, lease: &Lease) -> Told {
    let attachment = lease.attachment.clone().unwrap_or_default();
    let key = IpamKey::new(&network.name, &attachment.container_id, &attachment.if_name);
    let (Some(pod), Ok(key)) = (PodName::new(&lease.pod_namespace, &lease.pod_name), key) else {
        return Told::Yes;
    };
    let gone = Gone {
        pod: &pod,
        container_id: key.container_id(),
        host_veth: &host_veth_name(&network.veth_prefix, Some(&pod), &key),
    };
    let here = (&network.paths, &network.log);
    policy::tell(caller, here, gone, Agent::Running, network.deadline)
}

fn named(network: &Network, one: &ValidAttachment) -> Attachment {
    Attachment {
        network_name: network.name.clone(),
        container_id: one.container_id.clone(),
        if_name: one.if_name.clone(),
    }
}
