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
    pub(crate) fn number(self) -> u32 {
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
            match self.socket.receive_queued(&mut self.buffer) {
                Ok(Received::Nothing) => return Ok(None),
                Ok(Received::Overrun) => return Ok(Some(Event::Overrun)),
                Ok(Received::Bytes(len)) => self.queue.extend(Messages(&self.buffer[..len]).map(|frame| RawMessage {
                    kind: frame.kind,
                    payload: frame.payload.to_vec(),
                })),
                // A notification that does not fit: a device with hundreds of virtual functions. It is lost, like others.
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => return Ok(Some(Event::Overrun)),
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for EventSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Rule;
    use crate::packet::RouteNetlinkMessage;
    use crate::testing::in_namespace;
    use crate::{Batch, RouteSocket};

    const CREATE: u16 = 0x400;

    fn change_rules(times: usize) {
        let mut batch = Batch::new();
        let rule = Rule {
            priority: 512,
            table: Some(254),
            ..Rule::default()
        };
        for _ in 0..times {
            batch
                .push("rule", CREATE, RouteNetlinkMessage::NewRule(rule.message()))
                .push("gone", 0, RouteNetlinkMessage::DelRule(rule.message()));
        }
        assert_eq!(RouteSocket::open().unwrap().apply(&batch).unwrap(), []);
    }

    #[test]
    fn a_notification_that_does_not_fit_counts_as_lost_and_the_next_one_is_read() {
        in_namespace(|| {
            let mut events = EventSocket::subscribe(&[Group::Ipv4Rule]).unwrap();
            events.buffer = vec![0; 24];
            change_rules(1);
            assert_eq!(events.next_event().unwrap(), Some(Event::Overrun));
            events.buffer = vec![0; RECEIVE_BUFFER];
            assert!(matches!(events.next_event().unwrap(), Some(Event::Message(_))));
            assert_eq!(events.next_event().unwrap(), None);
        });
    }

    #[test]
    fn a_small_queue_that_runs_over_says_so_once_and_later_notifications_come() {
        in_namespace(|| {
            let mut events = EventSocket::subscribe(&[Group::Ipv4Rule]).unwrap();
            events.socket.limit_receive_buffer(1).unwrap();
            change_rules(100);
            let mut overruns = 0;
            while let Some(event) = events.next_event().unwrap() {
                overruns += usize::from(event == Event::Overrun);
            }
            assert_eq!(overruns, 1);
            change_rules(1);
            assert!(matches!(events.next_event().unwrap(), Some(Event::Message(_))));
        });
    }
}
