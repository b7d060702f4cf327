//! The rtnetlink socket: batches, and single look-ups. Dumps are in `dump.rs`.

use std::io;
use std::time::Instant;

use netlink_packet_core::NLM_F_REQUEST;
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;

use crate::batch::{Acknowledge, Batch, HEADER_LEN, MessageError, append, parse_error, stamp};
use crate::dump::RawMessage;
use crate::netns::NetNs;
use crate::socket::{ANSWER_TIMEOUT, Protocol, RECEIVE_BUFFER, Received, Socket, SocketError};
use crate::sys;

/// Messages per datagram. If all of them fail, each sends an answer before the first can be read, and the default receive
/// buffer of a socket holds 256 of those.
const CHUNK_MESSAGES: usize = 128;
/// Bytes per datagram, well below the default send buffer (212,992 with overhead).
const CHUNK_BYTES: usize = 64 * 1024;

pub(crate) const NLMSG_NOOP: u16 = 1;
pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
/// "Data lost"; kernels do not send it any more, and it would be no news of a complete answer.
pub(crate) const NLMSG_OVERRUN: u16 = 4;

/// A blocking rtnetlink socket of one namespace.
#[derive(Debug)]
pub struct RouteSocket {
    pub(crate) socket: Socket,
    pub(crate) sequence: u32,
    pub(crate) buffer: Vec<u8>,
}

/// A single request that failed.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// No usable answer: the outcome is unknown.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The kernel refused.
    #[error(transparent)]
    Refused(#[from] MessageError),
}

impl AnswerError {
    /// The kernel's error code, when it is the kernel that refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused(error) => Some(error.errno),
            Self::Socket(_) => None,
        }
    }
}

impl RouteSocket {
    /// Opens a socket in the current namespace.
    pub fn open() -> Result<Self, SocketError> {
        let socket = Socket::open(Protocol::Route)?;
        // Kernels before 4.20 lack it; dumps are filtered again by their readers.
        let _ = socket.set_strict_checking();
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; RECEIVE_BUFFER],
        })
    }

    /// Opens a socket in another namespace. The thread is back in its own when this returns.
    pub fn open_in(netns: &NetNs) -> Result<Self, SocketError> {
        netns.run(Self::open)?
    }

    /// Sends the requests in order and returns those that the kernel refused, in order. The others are done.
    pub fn apply(&mut self, batch: &Batch) -> Result<Vec<MessageError>, SocketError> {
        let mut errors = Vec::new();
        let mut first = 0;
        while first < batch.len() {
            let end = chunk_end(batch, first);
            self.apply_chunk(batch, first, end, &mut errors)?;
            first = end;
        }
        Ok(errors)
    }

    fn apply_chunk(
        &mut self,
        batch: &Batch,
        first: usize,
        end: usize,
        errors: &mut Vec<MessageError>,
    ) -> Result<(), SocketError> {
        let offset = batch.entries[first].start;
        let mut bytes = batch.buffer[offset..batch.end_of(end - 1)].to_vec();
        let sequence_of_first = self.sequence.wrapping_add(1);
        for index in first..end {
            self.sequence = self.sequence.wrapping_add(1);
            let ack = if index + 1 == end {
                Acknowledge::Always
            } else {
                Acknowledge::OnError
            };
            stamp(&mut bytes, batch.entries[index].start - offset, self.sequence, ack);
        }
        let last = batch.entries[end - 1].operation.as_ref();
        self.send(&bytes, last)?;
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let chunk = Chunk {
            batch,
            first,
            end,
            sequence_of_first,
        };
        loop {
            let len = self.receive(last, deadline)?;
            if let Answered::All = chunk.take(&self.buffer[..len], errors)? {
                return Ok(());
            }
        }
    }

    /// Sends one request that changes something and waits for its acknowledgement.
    pub fn request(
        &mut self,
        operation: &'static str,
        flags: u16,
        message: RouteNetlinkMessage,
    ) -> Result<(), AnswerError> {
        let mut batch = Batch::new();
        batch.push(operation, flags, message);
        self.apply(&batch)?.pop().map_or(Ok(()), |error| Err(error.into()))
    }

    /// Sends one look-up (`RTM_GET…` without `NLM_F_DUMP`) and returns its answer.
    pub fn look_up(
        &mut self,
        operation: &'static str,
        message: RouteNetlinkMessage,
    ) -> Result<RawMessage, AnswerError> {
        let mut bytes = Vec::new();
        append(&mut bytes, NLM_F_REQUEST, message);
        self.sequence = self.sequence.wrapping_add(1);
        stamp(&mut bytes, 0, self.sequence, Acknowledge::OnError);
        self.send(&bytes, operation)?;
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            let len = self.receive(operation, deadline)?;
            for message in Messages(&self.buffer[..len]) {
                if message.sequence != self.sequence {
                    continue;
                }
                if message.kind != NLMSG_ERROR {
                    return Ok(RawMessage {
                        kind: message.kind,
                        payload: message.payload.to_vec(),
                    });
                }
                if let Some((errno, reason)) = parse_error(message.flags, message.payload) {
                    return Err(MessageError {
                        index: 0,
                        operation: operation.into(),
                        errno,
                        reason,
                    }
                    .into());
                }
            }
        }
    }

    /// Index of a device by its name, without the rtnl lock. ENODEV if there is none.
    pub fn device_index(&self, name: &str) -> io::Result<u32> {
        use std::os::fd::AsFd as _;
        sys::device_index(self.socket.as_fd(), name)
    }

    /// Leaves so little room for answers that some are lost.
    #[cfg(feature = "testing")]
    pub fn limit_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        self.socket.limit_receive_buffer(bytes)
    }

    pub(crate) fn send(&self, bytes: &[u8], operation: &str) -> Result<(), SocketError> {
        self.socket.send(bytes).map_err(|source| SocketError::Send {
            operation: operation.to_owned(),
            source,
        })
    }

    pub(crate) fn receive(&mut self, operation: &str, deadline: Instant) -> Result<usize, SocketError> {
        let operation = || operation.to_owned();
        if Instant::now() > deadline {
            return Err(SocketError::TimedOut {
                operation: operation(),
                timeout: ANSWER_TIMEOUT,
            });
        }
        match self.socket.receive(&mut self.buffer) {
            Ok(Received::Bytes(len)) => Ok(len),
            Ok(Received::Nothing) => Err(SocketError::TimedOut {
                operation: operation(),
                timeout: ANSWER_TIMEOUT,
            }),
            Ok(Received::Overrun) => Err(SocketError::Overrun { operation: operation() }),
            Err(source) => Err(SocketError::Receive {
                operation: operation(),
                source,
            }),
        }
    }
}

/// Part of a batch that was sent and is being answered.
struct Chunk<'a> {
    batch: &'a Batch,
    first: usize,
    end: usize,
    sequence_of_first: u32,
}

/// Whether more answers are to come.
#[derive(Debug, PartialEq, Eq)]
enum Answered {
    Some,
    /// The last request always answers, and answers come in order.
    All,
}

impl Chunk<'_> {
    /// Takes one datagram of answers.
    fn take(&self, datagram: &[u8], errors: &mut Vec<MessageError>) -> Result<Answered, SocketError> {
        let mut messages = Messages(datagram);
        for message in messages.by_ref() {
            let position = message.sequence.wrapping_sub(self.sequence_of_first);
            let position = usize::try_from(position).unwrap_or(usize::MAX);
            if message.kind != NLMSG_ERROR || position >= self.end - self.first {
                // An answer to a request that timed out earlier.
                continue;
            }
            let index = self.first + position;
            let operation = &self.batch.entries[index].operation;
            if let Some((errno, reason)) = parse_error(message.flags, message.payload) {
                errors.push(MessageError {
                    index,
                    operation: operation.clone(),
                    errno,
                    reason,
                });
            }
            if index + 1 == self.end {
                return Ok(Answered::All);
            }
        }
        messages.check_end(&self.batch.entries[self.end - 1].operation)?;
        Ok(Answered::Some)
    }
}

fn chunk_end(batch: &Batch, first: usize) -> usize {
    let start = batch.entries[first].start;
    let fits = |index: &usize| index - first < CHUNK_MESSAGES && batch.end_of(*index) - start <= CHUNK_BYTES;
    (first + 1..batch.len())
        .take_while(fits)
        .last()
        .map_or(first + 1, |last| last + 1)
}

/// One message of a datagram, borrowed.
pub(crate) struct Frame<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// Of whom asked, also in notifications of what they caused.
    pub(crate) port: u32,
    pub(crate) payload: &'a [u8],
}

/// The messages of a datagram. A malformed header ends it; see [`Messages::check_end`].
pub(crate) struct Messages<'a>(pub(crate) &'a [u8]);

impl Messages<'_> {
    /// An error where what is left is no message: something may be missing.
    pub(crate) fn check_end(&self, operation: &str) -> Result<(), SocketError> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(SocketError::Malformed {
            operation: operation.to_owned(),
            reason: format!("{} bytes that are no message", self.0.len()),
        })
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let header = self.0.first_chunk::<HEADER_LEN>()?;
        let len = usize::try_from(u32::from_ne_bytes([header[0], header[1], header[2], header[3]])).ok()?;
        let payload = self.0.get(HEADER_LEN..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Frame {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            port: u32::from_ne_bytes([header[12], header[13], header[14], header[15]]),
            payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Rule;

    const FIRST: u32 = 100;

    fn batch() -> Batch {
        let mut batch = Batch::new();
        for operation in ["one", "two", "three", "four"] {
            batch.push(operation, 0, RouteNetlinkMessage::NewRule(Rule::default().message()));
        }
        batch
    }

    fn answer(sequence: u32, code: i32) -> Vec<u8> {
        let mut bytes = 36u32.to_ne_bytes().to_vec();
        bytes.extend(NLMSG_ERROR.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(code.to_ne_bytes());
        bytes.extend([0; 16]);
        bytes
    }

    type Seen = Vec<(usize, String, Errno)>;

    fn take(datagrams: &[Vec<u8>]) -> (Seen, Result<Answered, SocketError>) {
        let batch = batch();
        let chunk = Chunk {
            batch: &batch,
            first: 0,
            end: 4,
            sequence_of_first: FIRST,
        };
        let (mut errors, mut last) = (Vec::new(), Ok(Answered::Some));
        for datagram in datagrams {
            last = chunk.take(datagram, &mut errors);
        }
        let seen = errors
            .into_iter()
            .map(|error| (error.index, error.operation.into_owned(), error.errno));
        (seen.collect(), last)
    }

    #[test]
    fn a_refusal_in_the_middle_belongs_to_its_message_and_the_last_answer_ends_the_batch() {
        let (errors, last) = take(&[answer(FIRST + 1, -17), answer(FIRST + 2, -2), answer(FIRST + 3, 0)]);
        let expected = [
            (1, "two".to_owned(), Errno::EEXIST),
            (2, "three".to_owned(), Errno::ENOENT),
        ];
        assert_eq!(errors, expected);
        assert_eq!(last.unwrap(), Answered::All);
        // All in one datagram, and the last one refused.
        let all = [answer(FIRST, -1), answer(FIRST + 3, -2)].concat();
        let (errors, last) = take(&[all]);
        assert_eq!(errors.iter().map(|error| error.0).collect::<Vec<_>>(), [0, 3]);
        assert_eq!(last.unwrap(), Answered::All);
    }

    #[test]
    fn answers_to_other_requests_are_nobodys() {
        let (errors, last) = take(&[answer(FIRST - 1, -17), answer(FIRST + 4, -17)]);
        assert_eq!((errors.len(), last.unwrap()), (0, Answered::Some));
    }

    #[test]
    fn an_answer_that_is_cut_off_is_no_success() {
        let whole = [answer(FIRST + 1, -17), answer(FIRST + 3, 0)].concat();
        let (errors, last) = take(&[whole[..whole.len() - 20].to_vec()]);
        assert_eq!(errors.len(), 1);
        assert!(matches!(last, Err(SocketError::Malformed { .. })));
    }
}
