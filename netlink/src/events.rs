//! What others change: multicast notifications, without blocking.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::dump::RawMessage;
use crate::route::Messages;
use crate::socket::{Protocol, RECEIVE_BUFFER, Received, Socket, SocketError};

/// Room for unread notifications. A pod causes about 20 of up to 2 KiB, and 50 pods may start between two reads; the kernel
/// takes memory only for what is queued.
const QUEUE_BYTES: usize = 2 * 1024 * 1024;

/// rtnetlink multicast groups (`RTNLGRP_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Devices.
    Link,
    /// IPv4 addresses.
    Ipv4Address,
    /// IPv4 routes.
    Ipv4Route,
    /// IPv4 rules.
    Ipv4Rule,
    /// IPv6 routes.
    Ipv6Route,
    /// IPv6 rules.
    Ipv6Rule,
}

impl Group {
    fn number(self) -> u32 {
        match self {
            Self::Link => 1,
            Self::Ipv4Address => 5,
            Self::Ipv4Route => 7,
            Self::Ipv4Rule => 8,
            Self::Ipv6Route => 11,
            Self::Ipv6Rule => 19,
        }
    }
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An object was made, changed or removed (`RTM_NEW…`, `RTM_DEL…`).
    Message(RawMessage),
    /// Notifications were lost: look at everything again.
    Overrun,
}

/// A non-blocking source of notifications of one namespace.
#[derive(Debug)]
pub struct EventSocket {
    socket: Socket,
    buffer: Vec<u8>,
    queue: VecDeque<RawMessage>,
}

impl EventSocket {
    /// Subscribes in the current namespace. What happened before is not seen: subscribe first, then dump.
    pub fn subscribe(groups: &[Group]) -> Result<Self, SocketError> {
        let socket = Socket::open(Protocol::Route)?;
        let failed = |source| SocketError::Open {
            protocol: Protocol::Route,
            source,
        };
        socket.reserve_receive_buffer(QUEUE_BYTES).map_err(failed)?;
        for group in groups {
            socket.join(group.number()).map_err(failed)?;
        }
        Ok(Self {
            socket,
            buffer: vec![0; RECEIVE_BUFFER],
            queue: VecDeque::new(),
        })
    }

    /// The next notification, or `None` when nothing is queued: then wait until the descriptor is readable.
    pub fn next_event(&mut self) -> io::Result<Option<Event>> {
        loop {
            if let Some(message) = self.queue.pop_front() {
                return Ok(Some(Event::Message(message)));
            }
            match self.socket.receive_queued(&mut self.buffer)? {
                Received::Nothing => return Ok(None),
                Received::Overrun => return Ok(Some(Event::Overrun)),
                Received::Bytes(len) => self.queue.extend(Messages(&self.buffer[..len]).map(|frame| RawMessage {
                    kind: frame.kind,
                    payload: frame.payload.to_vec(),
                })),
            }
        }
    }
}

impl AsFd for EventSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
