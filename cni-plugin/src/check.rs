//! CHECK: whether an added pod still has what its ADD made. Changes nothing.
//!
//! The kernel is looked at on both sides, and ipamd is asked whether the lease exists. An ipamd that is away, or one that has
//! no such call, is no finding: the pod's traffic does not depend on it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use cni_spec::{CniError, ErrorCode, PodInterface, PrevPod, Sandbox};
use datapath::ids::POD_GATEWAY;
use datapath::{PodExpected, PodSockets};
use proto::agent;
use proto::agent::agent_client::AgentClient;
use tonic::Code;

use crate::attachment::Attachment;
use crate::rpc::{Caller, IPAMD, Patience, Peer, RpcError, chain};
use crate::sandbox;

/// ipamd answers from memory.
const ANSWER: Duration = Duration::from_secs(2);

/// Verifies the sandbox's interface; the error names everything that is missing or different.
pub(crate) fn check(attachment: &Attachment, sandbox: &Sandbox) -> Result<(), CniError> {
    let Some((interface, address)) = remembered(attachment)? else {
        return Ok(());
    };
    let netns = sandbox::open_required(sandbox)?;
    let failed = |error: &dyn std::error::Error| CniError::internal(format!("check cmd: {}", chain(error)));
    let caller = Caller::new(IPAMD).map_err(|error| failed(&error))?;
    let (lease, sockets) = ask(&caller, attachment, || PodSockets::open(&netns));
    let expected = PodExpected {
        host_veth: &interface.host_veth,
        container_if: &interface.container_if,
        address,
        gateway: POD_GATEWAY,
        table: interface.table,
        container_id: attachment.key.container_id(),
    };
    let mut sockets = sockets.map_err(|error| failed(&error))?;
    let in_kernel = datapath::check_pod(&mut sockets, &expected).map_err(|error| failed(&error))?;
    let mut findings: Vec<String> = in_kernel.iter().map(ToString::to_string).collect();
    findings.extend(judge(attachment, lease, address));
    if findings.is_empty() {
        attachment.log.debug("checked", &[("address", &address)]);
        return Ok(());
    }
    Err(CniError::internal(format!("check cmd: {}", findings.join("; "))))
}

/// The pod's first interface and its address, out of the runtime's memory; `None` for pods that this plugin cannot judge.
fn remembered(attachment: &Attachment) -> Result<Option<(PodInterface, Ipv4Addr)>, CniError> {
    let invalid = |text: String| CniError::new(ErrorCode::InvalidConfig, format!("network configuration: {text}"));
    let prev = attachment.conf.prev_result();
    let result = prev
        .map_err(|error| CniError::new(ErrorCode::Decoding, format!("network configuration: {error}")))?
        .ok_or_else(|| invalid("field \"prevResult\" is missing, CHECK needs it".to_owned()))?;
    let dummy = attachment.dummy();
    let pod = PrevPod::decode(&result, &dummy, attachment.key.if_name()).map_err(|error| invalid(error.to_string()))?;
    let interfaces = match pod {
        PrevPod::Plain(interfaces) => interfaces,
        PrevPod::Branch { vlan, .. } => {
            attachment
                .log
                .warn("not checked: a pod with its own security groups", &[("vlan", &vlan)]);
            return Ok(None);
        }
        PrevPod::Unreadable(error) => return Err(invalid(error.to_string())),
        PrevPod::Nothing => {
            return Err(invalid(format!(
                "prevResult has no interface {dummy}: it is of another pod"
            )));
        }
    };
    let if_name = attachment.key.if_name();
    let Some(first) = interfaces.into_iter().find(|one| one.container_if == if_name) else {
        return Err(invalid(format!("prevResult has no interface {if_name}")));
    };
    match first.address {
        IpAddr::V4(address) => Ok(Some((first, address))),
        IpAddr::V6(address) => {
            attachment
                .log
                .warn("not checked: an IPv6 pod", &[("address", &address)]);
            Ok(None)
        }
    }
}

/// `meanwhile` runs while the call is on its way.
fn ask<W>(
    caller: &Caller,
    attachment: &Attachment,
    meanwhile: impl FnOnce() -> W,
) -> (Result<agent::CheckAttachmentReply, RpcError>, W) {
    let peer = Peer {
        name: IPAMD,
        socket: attachment.paths.ipamd_socket(),
        patience: Patience::Once,
        deadline: attachment.deadline.within(ANSWER),
    };
    let request = agent::CheckAttachmentRequest {
        attachment: Some(agent::Attachment {
            network_name: attachment.key.network_name().to_owned(),
            container_id: attachment.key.container_id().to_owned(),
            if_name: attachment.key.if_name().to_owned(),
        }),
    };
    let call = async |connection, origin| {
        AgentClient::with_origin(connection, origin)
            .check_attachment(request.clone())
            .await
    };
    caller.call_and(&peer, call, meanwhile)
}

/// What ipamd's answer says against the pod.
fn judge(
    attachment: &Attachment,
    answer: Result<agent::CheckAttachmentReply, RpcError>,
    address: Ipv4Addr,
) -> Option<String> {
    let key = &attachment.key;
    match answer {
        Ok(reply) => {
            let lease = reply.lease.unwrap_or_default();
            if lease.address != address.to_string() {
                return Some(format!("lease of {key} is {}, expected {address}", lease.address));
            }
            (lease.state == "draining").then(|| format!("lease of {key} is being ended"))
        }
        Err(RpcError::Refused {
            code: Code::NotFound, ..
        }) => Some(format!("lease of {key} is missing")),
        Err(error) => {
            let log = &attachment.log;
            log.warn(
                "the lease was not checked, the kernel alone decides",
                &[("error", &chain(&error))],
            );
            None
        }
    }
}
