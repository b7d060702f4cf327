//! The readers of datagrams, for bytes that no kernel sent. Only with the feature `fuzzing`.

use crate::batch::parse_error;
use crate::dump::RawMessage;
use crate::route::{Messages, NLMSG_DONE, NLMSG_ERROR};

/// The messages of a datagram; errors in it are read too.
pub fn read(datagram: &[u8]) -> Vec<RawMessage> {
    Messages(datagram)
        .map(|frame| {
            if matches!(frame.kind, NLMSG_ERROR | NLMSG_DONE) {
                // Whatever it says.
                let _ = parse_error(frame.flags, frame.payload);
            }
            RawMessage {
                kind: frame.kind,
                payload: frame.payload.to_vec(),
            }
        })
        .collect()
}
