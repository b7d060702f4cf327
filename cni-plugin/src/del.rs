//! DEL: the address goes back to ipamd, and what the host has of the pod goes away.
//!
//! ipamd removes rules and route before it answers, and says so. The plugin removes them only if ipamd is away, does not know
//! the pod, or is one that leaves this to the plugin; always after making sure that the address still belongs to this container.
//! Without ipamd's word that the address was this container's until now, only the route to its own device is proof.
//! The host's end of the link is never removed by name: names derive from the pod's, and the device may be that of the
//! pod's next incarnation. It dies with the sandbox's namespace. A DEL that comes late, twice, or for nothing succeeds, and so
//! does one whose network policy agent is away.

use std::net::{IpAddr, Ipv4Addr};

use cni_spec::{CniError, PodInterface, PrevPod, Sandbox};
use datapath::{ClearError, Cleared, Owner, RouteSocket, SocketError};
use proto::convert::{CLEARED, DelReason, PodAddress, UNKNOWN_POD};
use proto::rpc::DelNetworkReply;
use proto::rpc::cni_backend_client::CniBackendClient;
use tonic::Response;

use crate::attachment::Attachment;
use crate::policy::{self, Agent, Gone};
use crate::rpc::{Caller, IPAMD, Patience, Peer, RpcError, chain};
use crate::sandbox;

/// Why the host still has something of the pod.
#[derive(Debug, thiserror::Error)]
enum ClearUpError {
    #[error("open a netlink socket")]
    Socket(#[source] SocketError),
    #[error("remove rules and route of {address}")]
    Clear {
        address: Ipv4Addr,
        #[source]
        source: ClearError,
    },
    #[error("the time is up, {0} may have a new owner")]
    Late(Ipv4Addr),
}

/// Disconnects the sandbox.
pub(crate) fn del(attachment: &Attachment, sandbox: &Sandbox) -> Result<(), CniError> {
    sandbox::check_if_there(sandbox)?;
    let remembered = match remembered(attachment)? {
        PrevPod::Plain(interfaces) => interfaces,
        PrevPod::Branch { .. } if sandbox.netns.is_none() => return Ok(()),
        PrevPod::Branch { vlan, .. } => return Err(branch(vlan.into())),
        PrevPod::Unreadable(error) => {
            attachment.log.warn("prevResult is of no use", &[("error", &error)]);
            Vec::new()
        }
        PrevPod::Nothing => Vec::new(),
    };
    let caller = Caller::new(IPAMD).map_err(|error| CniError::internal(format!("del cmd: {}", chain(&error))))?;
    match release(&caller, attachment) {
        Ok((reply, _)) if !reply.success => Err(CniError::internal(
            "del cmd: failed to process delete request: ipamd answered Success=false",
        )),
        Ok((reply, _)) if reply.pod_vlan_id != 0 => match sandbox.netns {
            // Late and duplicate: the VLAN may be that of the pod's next incarnation.
            None => Ok(()),
            Some(_) => Err(branch(reply.pod_vlan_id)),
        },
        Ok((reply, host)) => released(&caller, attachment, &reply, host, &remembered),
        Err(error) => {
            without_ipamd(attachment, &error, &remembered);
            forget_policies(&caller, attachment, Agent::Perhaps);
            Ok(())
        }
    }
}

/// What the runtime kept of the ADD.
fn remembered(attachment: &Attachment) -> Result<PrevPod, CniError> {
    let prev = attachment.conf.prev_result();
    let prev = prev.map_err(|error| CniError::internal(format!("del cmd: network configuration: {error}")))?;
    let Some(result) = prev else {
        return Ok(PrevPod::Nothing);
    };
    PrevPod::decode(&result, &attachment.dummy(), attachment.key.if_name())
        .map_err(|error| CniError::internal(format!("del cmd: network configuration: {error}")))
}

/// What the host has of the pod when ipamd has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    /// Nothing more: ipamd says so.
    Cleared,
    /// Unknown, so the plugin looks.
    Unknown,
}

impl Host {
    fn of<T>(response: &Response<T>) -> Self {
        match response.metadata().get(CLEARED) {
            Some(_) => Self::Cleared,
            None => Self::Unknown,
        }
    }
}

/// An absent ipamd is not waited for: there is another way, and kubelet waits for this DEL.
fn release(caller: &Caller, attachment: &Attachment) -> Result<(DelNetworkReply, Host), RpcError> {
    let request = attachment.del_request(DelReason::PodDeleted);
    let peer = Peer {
        name: IPAMD,
        socket: attachment.paths.ipamd_socket(),
        patience: Patience::Once,
        deadline: attachment.deadline.within(attachment.deadline.remaining() / 2),
    };
    caller.call(&peer, async |connection, origin| {
        let mut ipamd = CniBackendClient::with_origin(connection, origin);
        let response = ipamd.del_network(request.clone()).await?;
        let host = Host::of(&response);
        Ok(response.map(|reply| (reply, host)))
    })
}

fn released(
    caller: &Caller,
    attachment: &Attachment,
    reply: &DelNetworkReply,
    host: Host,
    remembered: &[PodInterface],
) -> Result<(), CniError> {
    let log = &attachment.log;
    for entry in &reply.ip_allocation_metadata {
        match PodAddress::try_from(entry).map(|pod| pod.address) {
            Ok(IpAddr::V4(address)) if host == Host::Cleared => log.info("deleted", &[("address", &address)]),
            Ok(IpAddr::V4(address)) => {
                let named = remembered.iter().find(|pod_if| pod_if.address == address);
                let cleared = clear(attachment, address, named, datapath::clear)
                    .map_err(|error| CniError::internal(format!("del cmd: failed to tear down: {}", chain(&error))))?;
                tell(attachment, address, &cleared, "deleted");
            }
            Ok(IpAddr::V6(address)) => log.warn("cannot remove an IPv6 pod", &[("address", &address)]),
            Err(error) => log.warn("ipamd released no usable address", &[("error", &error)]),
        }
    }
    if !reply.network_policy_mode.is_empty() {
        forget_policies(caller, attachment, Agent::Running);
    }
    Ok(())
}

/// Of a container without a pod name the agent knows nothing.
fn forget_policies(caller: &Caller, attachment: &Attachment, who: Agent) {
    let Some(pod) = &attachment.pod else { return };
    let gone = Gone {
        pod,
        container_id: attachment.key.container_id(),
        host_veth: &attachment.host_veth,
    };
    let here = (&attachment.paths, &attachment.log);
    policy::tell(caller, here, gone, who, attachment.deadline);
}

/// ipamd finds the lease without a sandbox at its next start; the pod must not hang in Terminating until then.
fn without_ipamd(attachment: &Attachment, error: &RpcError, remembered: &[PodInterface]) {
    let log = &attachment.log;
    // The daemon's only way to say so, for as long as old plugins are deployed.
    let unknown = matches!(error, RpcError::Refused { message, .. } if message.contains(UNKNOWN_POD));
    if unknown {
        log.info("ipamd does not know this pod", &[]);
    } else {
        log.warn("ipamd did not release the address", &[("error", &chain(error))]);
    }
    for pod_if in remembered {
        let IpAddr::V4(address) = pod_if.address else { continue };
        match clear(attachment, address, Some(pod_if), datapath::clear_own) {
            Ok(cleared) => tell(attachment, address, &cleared, "deleted by prevResult"),
            Err(error) => log.warn("rules or route may stay", &[("error", &chain(&error))]),
        }
    }
}

type Clear = fn(&mut RouteSocket, Ipv4Addr, &Owner<'_>) -> Result<Cleared, ClearError>;

/// Removes rules and route of `address`, if it still belongs to this container.
fn clear(
    attachment: &Attachment,
    address: Ipv4Addr,
    remembered: Option<&PodInterface>,
    how: Clear,
) -> Result<Cleared, ClearUpError> {
    if attachment.deadline.has_passed() {
        return Err(ClearUpError::Late(address));
    }
    let owner = Owner {
        container_id: attachment.key.container_id(),
        host_veth: Some(remembered.map_or(&attachment.host_veth, |pod_if| &pod_if.host_veth)),
    };
    let mut socket = RouteSocket::open().map_err(ClearUpError::Socket)?;
    how(&mut socket, address, &owner).map_err(|source| ClearUpError::Clear { address, source })
}

/// `deleted` only where that is true: who looks for a leak reads this log.
fn tell(attachment: &Attachment, address: Ipv4Addr, cleared: &Cleared, deleted: &str) {
    let log = &attachment.log;
    match cleared {
        Cleared::Removed => {
            log.debug("removed rules and route", &[("address", &address)]);
            log.info(deleted, &[("address", &address)]);
        }
        Cleared::NothingThere => {
            log.debug("no rules and no route", &[("address", &address)]);
            log.info(deleted, &[("address", &address)]);
        }
        Cleared::OwnerUnknown => log.info(
            "no route proves whose it is: rules, if any, are left to ipamd",
            &[("address", &address)],
        ),
        Cleared::NewOwner { device } => log.info("left to its new owner", &[("address", &address), ("device", device)]),
    }
}

fn branch(vlan: i32) -> CniError {
    CniError::internal(format!(
        "del cmd: the pod has VLAN {vlan}; pods with their own security groups are not supported"
    ))
}
