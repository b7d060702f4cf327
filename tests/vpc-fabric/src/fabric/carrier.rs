//! Whether a port passes packets yet.

use netlink::message::{self, LinkRef};
use netlink::packet::RouteNetlinkMessage;
use netlink::{AnswerError, Attributes, RouteSocket};
use nix::poll::{PollTimeout, poll};

use super::FabricError;
use super::messages::PortIndex;

/// Length of `struct ifinfomsg`, which precedes the attributes of a link message.
const LINK_HEADER_LEN: usize = 16;
/// `IFLA_OPERSTATE`, and its value `IF_OPER_UP`.
const OPERATIONAL_STATE: u16 = 16;
const UP: u8 = 6;

/// The kernel has seen the carrier and activated the device's queue.
pub(super) fn is_active(socket: &mut RouteSocket, port: PortIndex) -> Result<bool, FabricError> {
    let operation = "look at a port";
    let question = RouteNetlinkMessage::GetLink(message::link(LinkRef::Index(port.0)));
    let answer = socket.look_up(operation, question).map_err(|error| match error {
        AnswerError::Socket(source) => FabricError::Socket { operation, source },
        AnswerError::Refused(source) => FabricError::Refused { operation, source },
    })?;
    let state = Attributes::after_header(&answer.payload, LINK_HEADER_LEN).find_value(OPERATIONAL_STATE);
    Ok(state == Some(&[UP]))
}

/// One millisecond, the time in which the kernel's deferred work usually runs.
pub(super) fn pause() {
    // Interrupted is as good as passed.
    let _ = poll(&mut [], PollTimeout::from(1u8));
}
