//! Who else changes rulesets: one notice per transaction, without the flood of objects in it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink::{Protocol, Received, Socket, SocketError, parse_str};

use crate::numbers::{SUBSYSTEM, attr, msg};
use crate::read::{self, be_u32};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
const EMSGSIZE: i32 = 90;
const HEADER_LEN: usize = 16;
const BUFFER: usize = 4096;

/// A transaction was committed in the namespace, or notices were lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RulesetChange {
    /// Somebody's transaction.
    Committed {
        /// The new generation.
        generation: u32,
        /// Netlink port of the writer: compare with [`crate::NftSocket::port`] to know one's own.
        port: u32,
        /// Name of the writing program.
        program: String,
    },
    /// Notices were lost: compare.
    Overrun,
}

/// A non-blocking source of notices. Needs `CAP_NET_ADMIN`.
#[derive(Debug)]
pub struct NftEvents {
    socket: Socket,
    buffer: Vec<u8>,
}

impl NftEvents {
    /// Subscribes in the current namespace. A filter in the kernel lets only the notices of whole transactions through: a
    /// listener to all objects is overrun by one reload of a large foreign ruleset.
    pub fn subscribe() -> Result<Self, SocketError> {
        let socket = Socket::open(Protocol::Netfilter)?;
        let failed = |source| SocketError::Open {
            protocol: Protocol::Netfilter,
            source,
        };
        socket.accept_only(SUBSYSTEM | msg::NEWGEN).map_err(failed)?;
        socket.join(GROUP).map_err(failed)?;
        Ok(Self {
            socket,
            buffer: vec![0; BUFFER],
        })
    }

    /// The next notice, or `None` when nothing is queued: then wait until the descriptor is readable.
    pub fn next_change(&mut self) -> io::Result<Option<RulesetChange>> {
        loop {
            let len = match self.socket.receive_queued(&mut self.buffer) {
                Ok(Received::Nothing) => return Ok(None),
                Ok(Received::Overrun) => return Ok(Some(RulesetChange::Overrun)),
                Ok(Received::Bytes(len)) => len,
                // It did not fit, so it is lost.
                Err(error) if error.raw_os_error() == Some(EMSGSIZE) => return Ok(Some(RulesetChange::Overrun)),
                Err(error) => return Err(error),
            };
            if let Some(change) = parse(&self.buffer[..len]) {
                return Ok(Some(change));
            }
        }
    }
}

pub(crate) fn parse(datagram: &[u8]) -> Option<RulesetChange> {
    let port = datagram.get(12..HEADER_LEN).and_then(netlink::parse_u32)?;
    let payload = datagram.get(HEADER_LEN..)?;
    let generation = read::attributes(payload).find_value(attr::GEN_ID).and_then(be_u32)?;
    let program = read::attributes(payload)
        .find_value(attr::GEN_PROC_NAME)
        .and_then(parse_str)
        .unwrap_or_default();
    Some(RulesetChange::Committed {
        generation,
        port,
        program: program.to_owned(),
    })
}

impl AsFd for NftEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
