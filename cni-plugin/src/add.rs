//! ADD: an address from ipamd, the pod's wiring, the answer.
//!
//! Everything that can be wrong with the input is found before ipamd is asked, and nothing is changed after the deadline:
//! ipamd may have given the address to somebody else by then. What this run made it also undoes, newest first; what an
//! earlier run made for the same container stays, because that pod may be alive.

use std::net::Ipv4Addr;
use std::time::Duration;

use cni_spec::{CniError, PodInterface, PodResult, Sandbox};
use datapath::ids::POD_GATEWAY;
use datapath::{Ipv6Settings, PodSockets, PodWiring, RouteSocket, WireError, Wired};
use proto::convert::{AddOutcome, AddReply, ConvertError, DelReason, NO_ADDRESS};
use proto::rpc::AddNetworkReply;
use proto::rpc::cni_backend_client::CniBackendClient;
use vpc_types::{DeviceNumber, PodName, RouteTableId};

use crate::attachment::Attachment;
use crate::clock::Deadline;
use crate::policy::{self, Agent, PolicyError};
use crate::rpc::{Caller, IPAMD, Patience, Peer, RpcError, chain};
use crate::sandbox;

/// For telling the daemons that the ADD came to nothing, which must work even when the ADD's own time is up.
const UNDO: Duration = Duration::from_secs(5);

/// What ipamd granted, as far as this plugin can wire it.
struct Granted {
    address: Ipv4Addr,
    table: RouteTableId,
    device: DeviceNumber,
    policy_mode: String,
}

/// Why a pod with an address could not be connected.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("ipamd's reply is invalid")]
    Reply(#[from] ConvertError),
    #[error("ipamd granted VLAN {0}, but pods with their own security groups are not supported")]
    Branch(i32),
    #[error("ipamd granted {0} addresses, but several interfaces per pod are not supported")]
    Several(usize),
    #[error("ipamd granted an IPv6 address, which is not supported")]
    Ipv6,
    #[error("prepare to wire the pod")]
    Sockets(#[source] WireError),
    #[error("wire the pod")]
    Wire(#[source] WireError),
    #[error("the time is up, ipamd may take the address {0} back")]
    Late(Ipv4Addr),
    #[error("set up network policy")]
    Policy(#[source] PolicyError),
}

/// What this run made.
#[derive(Default)]
struct Made {
    wired: Option<(PodSockets, Wired)>,
    told_agent: Option<PodName>,
}

/// Connects the sandbox and returns the result's text.
pub(crate) fn add(attachment: &Attachment, sandbox: &Sandbox) -> Result<String, CniError> {
    let netns = sandbox::open_required(sandbox)?;
    let caller = Caller::new(IPAMD).map_err(|error| not_received(&error))?;
    let (reply, sockets) = ask(&caller, attachment, || PodSockets::open(&netns));
    let outcome = AddOutcome::try_from(reply.map_err(|error| not_received(&error))?);
    if outcome == Ok(AddOutcome::Refused) {
        return Err(CniError::internal(format!("add cmd: {NO_ADDRESS}")));
    }
    let mut made = Made::default();
    let connected = outcome
        .map_err(ConnectError::from)
        .and_then(only_ipv4)
        .and_then(|granted| {
            let sockets = sockets.map_err(ConnectError::Sockets)?;
            connect(&caller, attachment, &granted, sockets, &mut made)?;
            Ok(granted)
        });
    match connected {
        Ok(granted) => Ok(answer(attachment, &granted, &made)),
        Err(error) => {
            undo(&caller, attachment, made, &error);
            Err(failure(&error))
        }
    }
}

/// The call to ipamd; `meanwhile` runs while it is on its way.
fn ask<W>(
    caller: &Caller,
    attachment: &Attachment,
    meanwhile: impl FnOnce() -> W,
) -> (Result<AddNetworkReply, RpcError>, W) {
    let request = attachment.add_request();
    let deadline = attachment.deadline;
    let peer = Peer {
        name: IPAMD,
        socket: attachment.paths.ipamd_socket(),
        patience: Patience::Until(deadline),
        deadline,
    };
    let call = async |connection, origin| {
        CniBackendClient::with_origin(connection, origin)
            .add_network(request.clone())
            .await
    };
    caller.call_and(&peer, call, meanwhile)
}

fn only_ipv4(outcome: AddOutcome) -> Result<Granted, ConnectError> {
    let AddReply {
        interfaces,
        network_policy_mode: policy_mode,
    } = match outcome {
        AddOutcome::Granted(reply) => reply,
        AddOutcome::Branch { vlan_id } => return Err(ConnectError::Branch(vlan_id)),
        AddOutcome::Refused => return Err(ConvertError::NoAddress.into()),
    };
    let [only] = interfaces.as_slice() else {
        return Err(ConnectError::Several(interfaces.len()));
    };
    let address = only.ipv4().ok_or(ConnectError::Ipv6)?;
    Ok(Granted {
        address,
        table: only.table,
        device: only.device,
        policy_mode,
    })
}

/// From here on the machine changes; `made` says what must be undone if this fails.
fn connect(
    caller: &Caller,
    attachment: &Attachment,
    granted: &Granted,
    mut sockets: PodSockets,
    made: &mut Made,
) -> Result<(), ConnectError> {
    let in_time = || {
        if attachment.deadline.has_passed() {
            Err(ConnectError::Late(granted.address))
        } else {
            Ok(())
        }
    };
    let wiring = PodWiring {
        host_veth: attachment.host_veth.clone(),
        container_if: attachment.key.if_name().to_owned(),
        address: granted.address,
        gateway: POD_GATEWAY,
        table: granted.table,
        mtu: attachment.conf.mtu.get(),
        alias: attachment.key.container_id().to_owned(),
    };
    in_time()?;
    let wired = datapath::wire(&mut sockets, &wiring).map_err(ConnectError::Wire)?;
    if wired.ipv6_settings == Ipv6Settings::NotWritable {
        attachment.log.warn(
            "the host takes router advertisements from this pod: /proc/sys cannot be written",
            &[("veth", &attachment.host_veth)],
        );
    }
    made.wired = Some((sockets, wired));
    if !granted.policy_mode.is_empty() {
        enforce(caller, attachment, &granted.policy_mode, made)?;
    }
    in_time()
}

/// The agent knows pods by name only, so a container without one is not its business.
fn enforce(caller: &Caller, attachment: &Attachment, mode: &str, made: &mut Made) -> Result<(), ConnectError> {
    let Some(pod) = &attachment.pod else {
        attachment.log.warn(
            "no network policy for a container without a pod name",
            &[("mode", &mode)],
        );
        return Ok(());
    };
    // Noted before the call: one that fails may still have done something.
    made.told_agent = Some(pod.clone());
    policy::enforce(caller, attachment, pod, mode).map_err(ConnectError::Policy)
}

fn answer(attachment: &Attachment, granted: &Granted, made: &Made) -> String {
    attachment.log.info(
        "added",
        &[
            ("address", &granted.address),
            ("veth", &attachment.host_veth),
            ("device", &granted.device),
            ("table", &granted.table),
        ],
    );
    let mac = made.wired.as_ref().map(|(_, wired)| wired.container_mac);
    let pod = PodResult {
        dummy: attachment.dummy(),
        device: granted.device,
        sandbox: attachment.netns.clone(),
        interfaces: vec![PodInterface {
            host_veth: attachment.host_veth.clone(),
            container_if: attachment.key.if_name().to_owned(),
            address: granted.address.into(),
            table: granted.table,
        }],
        mac: mac.filter(|_| attachment.pod.is_none()),
    };
    pod.encode().encode(attachment.conf.version)
}

/// Newest first; each step is tried whatever becomes of the others, and the runtime's DEL will come, too.
fn undo(caller: &Caller, attachment: &Attachment, made: Made, error: &ConnectError) {
    let log = &attachment.log;
    if matches!(error, ConnectError::Wire(WireError::AlreadyWired { .. }))
        || (made.wired.is_none() && belongs_to_earlier_run(attachment))
    {
        // The address and the device belong to a pod that may be alive.
        log.warn("undo: nothing, an earlier ADD has wired this container", &[]);
        return;
    }
    let deadline = Deadline::after(UNDO);
    // Not waited for: the runtime's DEL tells it again.
    if let Some(pod) = made.told_agent
        && let Err(error) = policy::forget(caller, &attachment.paths, &pod, Agent::Perhaps, deadline)
    {
        log.warn("undo: network policy stays", &[("error", &chain(&error))]);
    }
    if let Some((mut sockets, wired)) = made.wired
        && let Err(left) = datapath::undo(&mut sockets, &wired)
    {
        log.warn("undo: wiring stays", &[("left", &left.join(", "))]);
    }
    let request = attachment.del_request(DelReason::SetupFailed);
    let socket = attachment.paths.ipamd_socket();
    let peer = Peer {
        name: IPAMD,
        socket,
        patience: Patience::Until(deadline),
        deadline,
    };
    let released = caller.call(&peer, async |connection, origin| {
        CniBackendClient::with_origin(connection, origin)
            .del_network(request.clone())
            .await
    });
    if let Err(error) = released {
        log.warn("undo: address stays leased until DEL", &[("error", &chain(&error))]);
    }
}

/// Whether the container is wired already, though not by this run. When in doubt it is: a lease too many is found later, a
/// lease too few costs a live pod its address.
fn belongs_to_earlier_run(attachment: &Attachment) -> bool {
    let Ok(mut socket) = RouteSocket::open() else {
        return true;
    };
    datapath::is_wired(&mut socket, &attachment.host_veth, attachment.key.container_id()).unwrap_or(true)
}

fn failure(error: &ConnectError) -> CniError {
    if let ConnectError::Policy(cause) = error {
        return CniError::internal(format!("add cmd: failed to setup network policy: {}", chain(cause)));
    }
    CniError::internal(format!("add command: failed to setup network: {}", chain(error)))
}

fn not_received(error: &RpcError) -> CniError {
    CniError::internal(format!(
        "add cmd: Error received from AddNetwork gRPC call: {}",
        chain(error)
    ))
}
