//! GC: the runtime names the attachments that are in use, and ipamd ends all other leases of this network.
//!
//! The whole of it is ipamd's: it alone knows whose the leases are, removes rules and routes before an address rests, and keeps
//! what is so young that its ADD may not have ended. Without ipamd nothing is done, and the runtime asks again.

use cni_spec::{CniError, ValidAttachment};
use proto::agent::agent_client::AgentClient;
use proto::agent::{Attachment, CollectGarbageRequest};

use crate::network::Network;
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
    Ok(())
}

fn named(network: &Network, one: &ValidAttachment) -> Attachment {
    Attachment {
        network_name: network.name.clone(),
        container_id: one.container_id.clone(),
        if_name: one.if_name.clone(),
    }
}
