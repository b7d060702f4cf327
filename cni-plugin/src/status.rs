//! STATUS: whether an ADD would be served now.
//!
//! A runtime that hears "no" declares the whole node not ready, and the cluster then moves the node's pods away. So a node that
//! is merely full, or whose refill EC2 refuses, is ready as long as it has pods: they run well, and losing them would help
//! nobody. A node that never had an address to give is not.

use std::time::Duration;

use cni_spec::{CniError, ErrorCode};
use proto::agent::agent_client::AgentClient;
use proto::agent::{GetStatusReply, GetStatusRequest};
use tonic::Code;

use crate::network::Network;
use crate::rpc::{Caller, IPAMD, Patience, Peer, RpcError, chain};

/// For the whole call: runtimes ask every few seconds, and wait for it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(2);
/// ipamd restarts in tenths of a second, which is no news.
const CONNECT: Duration = Duration::from_secs(1);

/// Causes that no address in the pool makes up for: ipamd refuses every ADD.
const NOBODY_IS_SERVED: [&str; 2] = ["CHECKPOINT_FAILING", "DAEMON_STARTING"];
/// Causes that pass by themselves, in less time than an ADD waits, or when a pod goes.
const PASSING_OR_FULL: [&str; 6] = [
    "POOL_EMPTY_GROWING",
    "COOLING",
    "QUEUE_FULL",
    "SANDBOX_BUSY",
    "ENI_LIMIT",
    "IP_PER_ENI_LIMIT",
];

/// Fails with 50 or 51 if containers cannot be added, or those that run may lack connectivity.
pub(crate) fn status(network: &Network) -> Result<(), CniError> {
    let unavailable = |error: &RpcError| {
        let text = format!("status cmd: ipamd does not serve: {}", chain(error));
        CniError::new(ErrorCode::NotAvailable, text)
    };
    let caller = Caller::new(IPAMD).map_err(|error| unavailable(&error))?;
    let peer = Peer {
        name: IPAMD,
        socket: network.paths.ipamd_socket(),
        patience: Patience::Until(network.deadline.within(CONNECT)),
        deadline: network.deadline,
    };
    let reply = caller.call(&peer, async |connection, origin| {
        AgentClient::with_origin(connection, origin)
            .get_status(GetStatusRequest {})
            .await
    });
    match reply {
        Ok(reply) => judge(network, &reply),
        // A daemon of another kind, which says by answering that it serves.
        Err(RpcError::Refused {
            code: Code::Unimplemented,
            ..
        }) => Ok(()),
        Err(error) => Err(unavailable(&error)),
    }
}

fn judge(network: &Network, reply: &GetStatusReply) -> Result<(), CniError> {
    if !reply.data_plane.is_empty() {
        let text = format!("status cmd: the node's rules are not in line: {}", reply.data_plane);
        return Err(CniError::new(ErrorCode::LimitedConnectivity, text));
    }
    if reply.ready {
        return Ok(());
    }
    let (cause, detail) = (reply.cause.as_str(), &reply.detail);
    let has_pods = reply.pool.as_ref().is_some_and(|pool| pool.assigned > 0);
    let is_ready = PASSING_OR_FULL.contains(&cause) || (has_pods && !NOBODY_IS_SERVED.contains(&cause));
    if is_ready {
        network.log.debug("ready, though nothing is free", &[("cause", detail)]);
        return Ok(());
    }
    Err(CniError::new(ErrorCode::NotAvailable, format!("status cmd: {detail}")))
}
