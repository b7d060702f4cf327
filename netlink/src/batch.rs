//! Many requests in one datagram, and what the kernel answered to each.
//!
//! The kernel handles the messages in order and **does not stop at an error**: a batch is no transaction. Whoever sends one
//! looks at every error and undoes what must not stay.

use std::borrow::Cow;
use std::fmt;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;

use crate::attr::{Attributes, parse_str};

/// Length of `struct nlmsghdr`.
pub(crate) const HEADER_LEN: usize = 16;
/// `NLM_F_CAPPED` and `NLM_F_ACK_TLVS` of `linux/netlink.h`.
const FLAG_CAPPED: u16 = 0x100;
const FLAG_ACK_TLVS: u16 = 0x200;
const EXTACK_TEXT: u16 = 1;

/// Requests that are sent together.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) buffer: Vec<u8>,
    pub(crate) entries: Vec<Entry>,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) operation: Cow<'static, str>,
    pub(crate) start: usize,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a request. `operation` names it in errors; `flags` are those besides `NLM_F_REQUEST`, e.g. `NLM_F_CREATE`.
    pub fn push(
        &mut self,
        operation: impl Into<Cow<'static, str>>,
        flags: u16,
        message: RouteNetlinkMessage,
    ) -> &mut Self {
        let start = self.buffer.len();
        append(&mut self.buffer, flags | NLM_F_REQUEST, message);
        self.entries.push(Entry {
            operation: operation.into(),
            start,
        });
        self
    }

    /// Number of requests.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Nothing to send.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn end_of(&self, index: usize) -> usize {
        self.entries.get(index + 1).map_or(self.buffer.len(), |next| next.start)
    }
}

/// One request that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageError {
    /// Position in the batch.
    pub index: usize,
    /// The name given to it.
    pub operation: Cow<'static, str>,
    /// The kernel's error.
    pub errno: Errno,
    /// The kernel's own words, where it had any.
    pub reason: Option<String>,
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.errno)?;
        self.reason.as_ref().map_or(Ok(()), |reason| write!(f, " ({reason})"))
    }
}

impl std::error::Error for MessageError {}

/// Serialises a message behind `buffer`, padded to four bytes, with sequence number 0.
pub(crate) fn append(buffer: &mut Vec<u8>, flags: u16, message: RouteNetlinkMessage) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let start = buffer.len();
    let len = message.buffer_len();
    buffer.resize(start + len.next_multiple_of(4), 0);
    message.serialize(&mut buffer[start..start + len]);
}

/// Numbers the message at `start`, and asks for an acknowledgement if it is the last one.
pub(crate) fn stamp(buffer: &mut [u8], start: usize, sequence: u32, ack: Acknowledge) {
    if ack == Acknowledge::Always {
        let flags = u16::from_ne_bytes([buffer[start + 6], buffer[start + 7]]) | NLM_F_ACK;
        buffer[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
    }
    buffer[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acknowledge {
    Always,
    OnError,
}

/// Reads an `NLMSG_ERROR` payload: `None` is success.
pub(crate) fn parse_error(flags: u16, payload: &[u8]) -> Option<(Errno, Option<String>)> {
    let code = payload
        .first_chunk::<4>()
        .map_or(-libc::EPROTO, |bytes| i32::from_ne_bytes(*bytes));
    if code == 0 {
        return None;
    }
    Some((Errno::from_raw(code.saturating_neg()), find_reason(flags, payload)))
}

/// The extack text, which follows the echoed request: its header only when capped, all of it otherwise.
fn find_reason(flags: u16, payload: &[u8]) -> Option<String> {
    if flags & FLAG_ACK_TLVS == 0 {
        return None;
    }
    let echoed = payload
        .get(4..8)
        .and_then(crate::attr::parse_u32)
        .and_then(|len| usize::try_from(len).ok())?;
    let skip = if flags & FLAG_CAPPED == 0 {
        echoed.next_multiple_of(4)
    } else {
        HEADER_LEN
    };
    let text = Attributes::after_header(payload, 4 + skip).find_value(EXTACK_TEXT)?;
    parse_str(text).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_frame_gives_errno_and_reason() {
        let mut frame = (-17i32).to_ne_bytes().to_vec();
        frame.extend([0; 16]);
        frame[4] = 40;
        frame.extend([9, 0, 1, 0, b'b', b'u', b's', b'y', 0, 0, 0, 0]);
        assert_eq!(
            parse_error(FLAG_CAPPED | FLAG_ACK_TLVS, &frame),
            Some((Errno::EEXIST, Some("busy".into())))
        );
        assert_eq!(parse_error(0, &frame), Some((Errno::EEXIST, None)));
    }

    #[test]
    fn a_short_error_frame_is_not_success() {
        assert!(parse_error(0, &[0, 0]).is_some());
        assert_eq!(parse_error(0, &[0; 4]), None);
    }
}
