//! What has become of ports: whether they pass packets yet, and which are gone.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use netlink::message::{self, LinkRef};
use netlink::packet::RouteNetlinkMessage;
use netlink::{AnswerError, Attributes, DumpError, EventSocket, Group, RouteSocket};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::FabricError;
use super::messages::PortIndex;

/// Length of `struct ifinfomsg`, which precedes the attributes of a link message.
const LINK_HEADER_LEN: usize = 16;
/// `IFLA_OPERSTATE`, and its value `IF_OPER_UP`.
const OPERATIONAL_STATE: u16 = 16;
const UP: u8 = 6;

const OPERATION: &str = "look at a port";

/// Tells when devices of the fabric change.
#[derive(Debug)]
pub(super) struct CarrierWatch(EventSocket);

impl CarrierWatch {
    /// Watches the calling thread's namespace.
    pub(super) fn subscribe() -> Result<Self, FabricError> {
        let events = EventSocket::subscribe(&[Group::Link]);
        events.map(Self).map_err(|source| FabricError::Socket {
            operation: "watch devices",
            source,
        })
    }

    /// See `Fabric::wait_until_carrying`.
    pub(super) fn wait(
        &mut self,
        socket: &mut RouteSocket,
        port: PortIndex,
        deadline: Duration,
    ) -> Result<bool, FabricError> {
        let until = Instant::now() + deadline;
        loop {
            // Older events say nothing about what is seen next; an overrun is as good as an event.
            while self.0.next_event().map_err(watch_failed)?.is_some() {}
            if is_active(socket, port)? {
                return Ok(true);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(watch_failed(errno.into())),
            }
        }
    }
}

fn watch_failed(source: std::io::Error) -> FabricError {
    let operation = OPERATION.to_owned();
    FabricError::Socket {
        operation: "watch devices",
        source: netlink::SocketError::Receive { operation, source },
    }
}

/// All devices of the fabric.
pub(super) fn devices(socket: &mut RouteSocket) -> Result<BTreeSet<PortIndex>, FabricError> {
    let operation = "list ports";
    let found = socket.dump_raw(
        operation,
        &RouteNetlinkMessage::GetLink(message::link(LinkRef::Index(0))),
    );
    let found = found.map_err(|error| match error {
        DumpError::Socket(source) => FabricError::Socket { operation, source },
        DumpError::Refused(source) => FabricError::Refused { operation, source },
        DumpError::Interrupted { .. } => FabricError::Unsettled,
    })?;
    // `ifi_index` follows family, padding and type.
    let index = |payload: &[u8]| payload.get(4..8)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    Ok(found
        .iter()
        .filter_map(|message| index(&message.payload))
        .map(PortIndex)
        .collect())
}

/// The kernel has seen the carrier and activated the device's queue.
fn is_active(socket: &mut RouteSocket, port: PortIndex) -> Result<bool, FabricError> {
    let question = RouteNetlinkMessage::GetLink(message::link(LinkRef::Index(port.0)));
    let answer = socket.look_up(OPERATION, question).map_err(|error| match error {
        AnswerError::Socket(source) => FabricError::Socket {
            operation: OPERATION,
            source,
        },
        AnswerError::Refused(source) => FabricError::Refused {
            operation: OPERATION,
            source,
        },
    })?;
    let state = Attributes::after_header(&answer.payload, LINK_HEADER_LEN).find_value(OPERATIONAL_STATE);
    Ok(state == Some(&[UP]))
}
