//! Dumps: all objects of a kind, as one consistent view or not at all.
//!
//! The kernel walks its tables in several parts and marks a dump during which they changed. Such a dump may lack objects
//! that existed all the time, so it is repeated, and given up after a few tries instead of being believed. So is one of
//! which parts were lost. One that cannot be read to its end is an error at once.
//!
//! Rules are the exception: the kernel counts how many it has shown, does not notice when that count goes wrong because one
//! of them went, and marks nothing (as of 6.18). While they are dumped the socket listens to changes, and counts those as a mark.

use std::time::Instant;

use nix::errno::Errno;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::batch::{Acknowledge, MessageError, append, parse_error, stamp};
use crate::events::Group;
use crate::route::{Messages, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN, RouteSocket};
use crate::socket::{ANSWER_TIMEOUT, Received, SocketError};

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

/// How a dump came to its end.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Complete(Vec<RawMessage>),
    Interrupted,
}

/// What the parts of one dump gave so far.
struct Parts {
    operation: &'static str,
    sequence: u32,
    /// Ours: what others caused is a notification.
    port: u32,
    found: Vec<RawMessage>,
    is_interrupted: bool,
}

impl Parts {
    /// Takes one datagram; `Some` at the end of the dump.
    fn take(&mut self, datagram: &[u8]) -> Result<Option<Ended>, DumpError> {
        let mut messages = Messages(datagram);
        for message in messages.by_ref() {
            if message.port != self.port {
                self.is_interrupted = true;
                continue;
            }
            if message.sequence != self.sequence {
                // Of an earlier request.
                continue;
            }
            self.is_interrupted |= message.flags & FLAG_INTERRUPTED != 0;
            match message.kind {
                NLMSG_DONE | NLMSG_ERROR => {
                    if let Some((errno, reason)) = parse_error(message.flags, message.payload) {
                        let operation = self.operation.into();
                        return Err(DumpError::Refused(MessageError {
                            index: 0,
                            operation,
                            errno,
                            reason,
                        }));
                    }
                    return Ok(Some(if self.is_interrupted {
                        Ended::Interrupted
                    } else {
                        Ended::Complete(std::mem::take(&mut self.found))
                    }));
                }
                NLMSG_NOOP => {}
                NLMSG_OVERRUN => self.is_interrupted = true,
                kind => self.found.push(RawMessage {
                    kind,
                    payload: message.payload.to_vec(),
                }),
            }
        }
        messages.check_end(self.operation)?;
        Ok(None)
    }
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
        let Some(changes) = unmarked_changes(message) else {
            return self.dump_until_whole(operation, &mut request, Changes::Marked);
        };
        let failed = |source| SocketError::Receive {
            operation: operation.to_owned(),
            source,
        };
        self.socket.join(changes.number()).map_err(failed)?;
        let outcome = self.dump_until_whole(operation, &mut request, Changes::Notified);
        self.socket.leave(changes.number()).map_err(failed)?;
        self.discard_queued(operation)?;
        outcome
    }

    fn dump_until_whole(
        &mut self,
        operation: &'static str,
        request: &mut [u8],
        changes: Changes,
    ) -> Result<Vec<RawMessage>, DumpError> {
        let mut failure = DumpError::Interrupted { operation };
        for _ in 0..DUMP_TRIES {
            match self.dump_once(operation, request) {
                Ok(Ended::Complete(found)) => {
                    if changes == Changes::Marked || !self.discard_queued(operation)? {
                        return Ok(found);
                    }
                    failure = DumpError::Interrupted { operation };
                }
                Ok(Ended::Interrupted) => failure = DumpError::Interrupted { operation },
                Err(error) if is_passing(&error) => {
                    failure = error;
                    self.discard_queued(operation)?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(failure)
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

    fn dump_once(&mut self, operation: &'static str, request: &mut [u8]) -> Result<Ended, DumpError> {
        self.sequence = self.sequence.wrapping_add(1);
        stamp(request, 0, self.sequence, Acknowledge::OnError);
        self.send(request, operation)?;
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut parts = Parts {
            operation,
            sequence: self.sequence,
            port: self.socket.port(),
            found: Vec::new(),
            is_interrupted: false,
        };
        loop {
            let len = self.receive(operation, deadline)?;
            if let Some(ended) = parts.take(&self.buffer[..len])? {
                return Ok(ended);
            }
        }
    }

    /// Reads what is left of an earlier answer: the kernel begins no dump before the last one was read to its end. Whether
    /// there was anything.
    fn discard_queued(&mut self, operation: &'static str) -> Result<bool, SocketError> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut found_any = false;
        while Instant::now() < deadline {
            match self.socket.receive_queued(&mut self.buffer) {
                Ok(Received::Nothing) => break,
                Ok(Received::Bytes(_) | Received::Overrun) => found_any = true,
                Err(source) => {
                    let operation = operation.to_owned();
                    return Err(SocketError::Receive { operation, source });
                }
            }
        }
        Ok(found_any)
    }
}

/// How one learns that objects changed during a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Changes {
    /// The kernel marks the dump.
    Marked,
    /// By notifications on the same socket.
    Notified,
}

/// The notifications to listen to, for dumps that the kernel does not mark.
fn unmarked_changes(message: &RouteNetlinkMessage) -> Option<Group> {
    let RouteNetlinkMessage::GetRule(rule) = message else {
        return None;
    };
    Some(if rule.header.family == AddressFamily::Inet6 {
        Group::Ipv6Rule
    } else {
        Group::Ipv4Rule
    })
}

/// Whether a repetition may go better: parts were lost, or an earlier dump is still being read.
fn is_passing(error: &DumpError) -> bool {
    match error {
        DumpError::Socket(SocketError::Overrun { .. }) => true,
        DumpError::Refused(refused) => refused.errno == Errno::EBUSY,
        DumpError::Socket(_) | DumpError::Interrupted { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEQUENCE: u32 = 7;
    const RULE: u16 = 32;
    const MULTI: u16 = 2;
    const PORT: u32 = 4_711;

    fn frame(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        frame_of(PORT, kind, flags, sequence, payload)
    }

    fn frame_of(port: u32, kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(16 + payload.len()).unwrap();
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(port.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn parts() -> Parts {
        Parts {
            operation: "list rules",
            sequence: SEQUENCE,
            port: PORT,
            found: Vec::new(),
            is_interrupted: false,
        }
    }

    fn rule(n: u8) -> Vec<u8> {
        frame(RULE, MULTI, SEQUENCE, &[n; 12])
    }

    fn done(flags: u16) -> Vec<u8> {
        frame(NLMSG_DONE, MULTI | flags, SEQUENCE, &[0; 4])
    }

    #[test]
    fn a_dump_is_all_its_parts_and_nothing_of_earlier_answers() {
        let mut parts = parts();
        let late = frame(RULE, MULTI, SEQUENCE - 1, &[9; 12]);
        let late_end = frame(NLMSG_DONE, MULTI, SEQUENCE - 1, &[0; 4]);
        assert_eq!(parts.take(&[late, late_end, rule(1)].concat()).unwrap(), None);
        let noop = frame(NLMSG_NOOP, 0, SEQUENCE, &[]);
        let Some(Ended::Complete(found)) = parts.take(&[rule(2), noop, done(0)].concat()).unwrap() else {
            panic!("the dump is complete");
        };
        let payloads: Vec<u8> = found.iter().map(|message| message.payload[0]).collect();
        assert_eq!(payloads, [1, 2]);
    }

    #[test]
    fn one_interrupted_part_spoils_the_dump_also_when_it_is_the_last() {
        for datagrams in [
            [frame(RULE, MULTI | FLAG_INTERRUPTED, SEQUENCE, &[1; 12]), done(0)],
            [rule(1), done(FLAG_INTERRUPTED)],
            [frame(NLMSG_OVERRUN, MULTI, SEQUENCE, &[]), done(0)],
        ] {
            let mut parts = parts();
            assert_eq!(parts.take(&datagrams[0]).unwrap(), None);
            assert_eq!(parts.take(&datagrams[1]).unwrap(), Some(Ended::Interrupted));
        }
    }

    #[test]
    fn what_another_program_causes_meanwhile_is_no_object_and_spoils_the_dump() {
        let mut parts = parts();
        let theirs = frame_of(PORT + 1, RULE, 0, SEQUENCE, &[9; 12]);
        assert_eq!(parts.take(&[rule(1), theirs].concat()).unwrap(), None);
        assert_eq!(parts.found.len(), 1);
        assert_eq!(parts.take(&done(0)).unwrap(), Some(Ended::Interrupted));
    }

    #[test]
    fn an_interruption_of_an_earlier_dump_does_not_matter() {
        let mut parts = parts();
        let late = frame(RULE, MULTI | FLAG_INTERRUPTED, SEQUENCE - 1, &[9; 12]);
        let ended = parts.take(&[late, rule(1), done(0)].concat()).unwrap();
        assert!(matches!(ended, Some(Ended::Complete(found)) if found.len() == 1));
    }

    #[test]
    fn a_dump_that_cannot_be_read_to_its_end_is_an_error() {
        let whole = [rule(1), rule(2)].concat();
        for len in [whole.len() - 1, whole.len() - 13, rule(1).len() + 3] {
            let error = parts().take(&whole[..len]).unwrap_err();
            assert!(
                matches!(error, DumpError::Socket(SocketError::Malformed { .. })),
                "{len}: {error:?}"
            );
        }
        let mut short = rule(1);
        short[0] = 15;
        assert!(parts().take(&short).is_err());
    }

    /// The kernel's own behaviour, without which none of this were needed: the dump lacks a rule that was there all the time.
    #[test]
    fn a_rule_that_goes_between_two_parts_costs_another_one_and_the_dump_is_known_to_be_spoilt() {
        crate::testing::in_namespace(|| {
            let rule = |priority| crate::message::Rule {
                priority,
                table: Some(77),
                ..crate::message::Rule::default()
            };
            let (mut socket, mut other) = (RouteSocket::open().unwrap(), RouteSocket::open().unwrap());
            let mut batch = crate::Batch::new();
            for priority in 1..=3_000 {
                batch.push("rule", 0x400, RouteNetlinkMessage::NewRule(rule(priority).message()));
            }
            assert_eq!(other.apply(&batch).unwrap(), []);
            let mut all = netlink_packet_route::rule::RuleMessage::default();
            all.header.family = AddressFamily::Inet;
            let mut request = Vec::new();
            append(
                &mut request,
                NLM_F_REQUEST | NLM_F_DUMP,
                RouteNetlinkMessage::GetRule(all),
            );
            stamp(&mut request, 0, SEQUENCE, Acknowledge::OnError);
            let mut parts = parts();
            parts.port = socket.socket.port();
            socket.socket.join(Group::Ipv4Rule.number()).unwrap();
            socket.send(&request, "list rules").unwrap();
            let deadline = Instant::now() + ANSWER_TIMEOUT;
            let mut ended = None;
            while ended.is_none() {
                let len = socket.receive("list rules", deadline).unwrap();
                ended = parts.take(&socket.buffer[..len]).unwrap();
                if !parts.is_interrupted && ended.is_none() {
                    let gone = RouteNetlinkMessage::DelRule(rule(1).message());
                    let _ = other.request("delete the first", 0, gone);
                }
            }
            assert_eq!(ended, Some(Ended::Interrupted));
            assert!(parts.found.len() < 3_003, "{} rules", parts.found.len());
        });
    }

    #[test]
    fn the_kernels_refusal_comes_with_either_end() {
        let busy = (-16i32).to_ne_bytes();
        for kind in [NLMSG_ERROR, NLMSG_DONE] {
            let error = parts().take(&frame(kind, 0, SEQUENCE, &busy)).unwrap_err();
            assert!(is_passing(&error), "{error:?}");
        }
        let refused = parts().take(&frame(NLMSG_ERROR, 0, SEQUENCE, &[0; 2])).unwrap_err();
        assert!(!is_passing(&refused), "{refused:?}");
    }
}
