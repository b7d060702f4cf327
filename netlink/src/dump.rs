//! Dumps: all objects of a kind, as one consistent view or not at all.
//!
//! The kernel walks its tables in several parts and marks a dump during which they changed. Such a dump may lack objects
//! that existed all the time, so it is repeated, and given up after a few tries instead of being believed.

use std::time::Instant;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader};
use netlink_packet_route::RouteNetlinkMessage;

use crate::batch::{Acknowledge, MessageError, append, parse_error, stamp};
use crate::route::{Messages, NLMSG_DONE, NLMSG_ERROR, RouteSocket};
use crate::socket::{ANSWER_TIMEOUT, SocketError};

/// Tries before a dump that is always interrupted is given up. One repetition suffices in practice.
const DUMP_TRIES: usize = 8;
/// `NLM_F_DUMP_INTR` of `linux/netlink.h`.
const FLAG_INTERRUPTED: u16 = 0x10;

/// A message as the kernel sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawMessage {
    /// `RTM_NEW…`.
    pub kind: u16,
    /// The family's header and the attributes.
    pub payload: Vec<u8>,
}

impl RawMessage {
    /// Parses all of it. Readers that need few attributes should use `Attributes` instead: that cannot fail on attributes
    /// which newer kernels or foreign drivers add.
    pub fn parse(&self, operation: &str) -> Result<RouteNetlinkMessage, SocketError> {
        let mut header = NetlinkHeader::default();
        header.message_type = self.kind;
        RouteNetlinkMessage::deserialize(&header, &self.payload).map_err(|error| SocketError::Malformed {
            operation: operation.to_owned(),
            reason: error.to_string(),
        })
    }
}

/// A dump that gave no view.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// No usable answer.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The kernel refused.
    #[error(transparent)]
    Refused(#[from] MessageError),
    /// The tables changed during every try.
    #[error("{operation}: tables changed during each of {DUMP_TRIES} dumps")]
    Interrupted {
        /// What was dumped.
        operation: &'static str,
    },
}

enum Ended {
    Complete,
    Interrupted,
}

impl RouteSocket {
    /// Dumps what `message` asks for, unparsed.
    pub fn dump_raw(
        &mut self,
        operation: &'static str,
        message: &RouteNetlinkMessage,
    ) -> Result<Vec<RawMessage>, DumpError> {
        let mut request = Vec::new();
        append(&mut request, NLM_F_REQUEST | NLM_F_DUMP, message.clone());
        for _ in 0..DUMP_TRIES {
            let mut found = Vec::new();
            if let Ended::Complete = self.dump_once(operation, &mut request, &mut found)? {
                return Ok(found);
            }
        }
        Err(DumpError::Interrupted { operation })
    }

    /// Dumps what `message` asks for.
    pub fn dump(
        &mut self,
        operation: &'static str,
        message: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, DumpError> {
        let raw = self.dump_raw(operation, message)?;
        raw.iter()
            .map(|message| message.parse(operation).map_err(DumpError::from))
            .collect()
    }

    fn dump_once(
        &mut self,
        operation: &'static str,
        request: &mut [u8],
        found: &mut Vec<RawMessage>,
    ) -> Result<Ended, DumpError> {
        self.sequence = self.sequence.wrapping_add(1);
        stamp(request, 0, self.sequence, Acknowledge::OnError);
        self.send(request, operation)?;
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut ended = Ended::Complete;
        loop {
            let len = self.receive(operation, deadline)?;
            for message in Messages(&self.buffer[..len]) {
                if message.sequence != self.sequence {
                    continue;
                }
                if message.flags & FLAG_INTERRUPTED != 0 {
                    ended = Ended::Interrupted;
                }
                match message.kind {
                    NLMSG_DONE | NLMSG_ERROR => {
                        return match parse_error(message.flags, message.payload) {
                            None => Ok(ended),
                            Some((errno, reason)) => Err(MessageError {
                                index: 0,
                                operation: operation.into(),
                                errno,
                                reason,
                            }
                            .into()),
                        };
                    }
                    kind => found.push(RawMessage {
                        kind,
                        payload: message.payload.to_vec(),
                    }),
                }
            }
        }
    }
}
