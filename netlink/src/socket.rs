//! One netlink socket of any protocol: bytes out, datagrams of the kernel in, with a time limit.
//!
//! It serves the network namespace in which it was made, wherever the thread goes later.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname, getsockopt, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::netns::NetNsError;
use crate::sys;

/// How long one answer may take. The kernel answers within the system call unless it waits for the rtnl lock; five seconds
/// outlast the longest hold seen (thousands of devices torn down at once) and stay below every deadline of our callers.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A dump is delivered in parts of at most this size; larger buffers are not used by the kernel.
pub(crate) const RECEIVE_BUFFER: usize = 32 * 1024;

/// The netlink families we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes, rules, neighbours.
    Route,
    /// nf_tables.
    Netfilter,
}

/// What a receive gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// A datagram of this many bytes at the start of the buffer.
    Bytes(usize),
    /// Nothing is queued at the moment.
    Nothing,
    /// The kernel dropped messages because nobody read them in time.
    Overrun,
}

/// A netlink socket that cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The socket cannot be made.
    #[error("open netlink socket ({protocol:?})")]
    Open {
        /// Family of the socket.
        protocol: Protocol,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The namespace for which it is meant cannot be entered.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// Nothing was sent.
    #[error("send netlink request: {operation}")]
    Send {
        /// What the caller was doing.
        operation: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The answer cannot be read: the outcome is unknown.
    #[error("read netlink answer: {operation}")]
    Receive {
        /// What the caller was doing.
        operation: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No answer came in time: the outcome is unknown.
    #[error("no netlink answer within {timeout:?}: {operation}")]
    TimedOut {
        /// What the caller was doing.
        operation: String,
        /// The limit that passed.
        timeout: Duration,
    },
    /// Answers were lost: the outcome is unknown.
    #[error("netlink answers were lost: {operation}")]
    Overrun {
        /// What the caller was doing.
        operation: String,
    },
    /// The kernel sent what we cannot read.
    #[error("malformed netlink answer: {operation}: {reason}")]
    Malformed {
        /// What the caller was doing.
        operation: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A blocking netlink socket.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    port: u32,
}

impl Socket {
    /// Opens and binds a socket in the current namespace, with readable errors and short error frames.
    pub fn open(protocol: Protocol) -> Result<Self, SocketError> {
        Self::try_open(protocol).map_err(|source| SocketError::Open { protocol, source })
    }

    fn try_open(protocol: Protocol) -> io::Result<Self> {
        let number = match protocol {
            Protocol::Route => SockProtocol::NetlinkRoute,
            Protocol::Netfilter => SockProtocol::NetlinkNetFilter,
        };
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, number)?;
        sys::set_netlink_option(fd.as_fd(), libc::NETLINK_EXT_ACK, 1)?;
        sys::set_netlink_option(fd.as_fd(), libc::NETLINK_CAP_ACK, 1)?;
        let seconds = i64::try_from(ANSWER_TIMEOUT.as_secs()).unwrap_or(i64::MAX);
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(seconds, 0))?;
        setsockopt(&fd, sockopt::SendTimeout, &TimeVal::new(seconds, 0))?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let port = getsockname::<NetlinkAddr>(fd.as_raw_fd())?.pid();
        Ok(Self { fd, port })
    }

    /// The port id the kernel gave us: the header pid of events we caused.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Sends one datagram to the kernel.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        loop {
            match sendto(self.fd.as_raw_fd(), bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty()) {
                Ok(sent) if sent == bytes.len() => return Ok(()),
                Ok(_) => return Err(io::Error::from_raw_os_error(libc::EMSGSIZE)),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Waits for one datagram, at most five seconds; `Nothing` means the time has passed.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.receive_with(buffer, MsgFlags::empty())
    }

    /// Takes one queued datagram without waiting.
    pub fn receive_queued(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.receive_with(buffer, MsgFlags::MSG_DONTWAIT)
    }

    fn receive_with(&self, buffer: &mut [u8], flags: MsgFlags) -> io::Result<Received> {
        loop {
            match sys::receive_from(self.fd.as_fd(), buffer, flags.bits()) {
                Ok((len, _)) if len > buffer.len() => return Err(io::Error::from_raw_os_error(libc::EMSGSIZE)),
                // Only the kernel (port 0) is believed.
                Ok((_, sender)) if sender != 0 => {}
                Ok((len, _)) => return Ok(Received::Bytes(len)),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN) => return Ok(Received::Nothing),
                    Some(libc::ENOBUFS) => return Ok(Received::Overrun),
                    _ => return Err(error),
                },
            }
        }
    }

    /// Makes room for one datagram of `bytes`. Beyond the system's limit this needs `CAP_NET_ADMIN` in the initial user
    /// namespace; without it the limit is what one gets, and `send` says EMSGSIZE if that is too little.
    pub fn reserve_send_buffer(&self, bytes: usize) -> io::Result<()> {
        // The kernel doubles what is asked for, and of the result a datagram may fill all but 32 bytes.
        if getsockopt(&self.fd, sockopt::SndBuf)? >= bytes.saturating_add(32) {
            return Ok(());
        }
        setsockopt(&self.fd, sockopt::SndBufForce, &bytes)
            .or_else(|_| setsockopt(&self.fd, sockopt::SndBuf, &bytes))?;
        Ok(())
    }

    /// Makes filters in dump requests binding (kernel ≥ 4.20); without it the kernel ignores most of them.
    pub(crate) fn set_strict_checking(&self) -> io::Result<()> {
        sys::set_netlink_option(self.fd.as_fd(), libc::NETLINK_GET_STRICT_CHK, 1)
    }

    /// Makes room for this many bytes of unread datagrams, as far as the system allows.
    pub fn reserve_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        setsockopt(&self.fd, sockopt::RcvBufForce, &bytes)
            .or_else(|_| setsockopt(&self.fd, sockopt::RcvBuf, &bytes))?;
        Ok(())
    }

    /// Leaves as little room for unread datagrams as the kernel allows for a wish of this many bytes.
    #[cfg(feature = "testing")]
    pub(crate) fn limit_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        Ok(setsockopt(&self.fd, sockopt::RcvBuf, &bytes)?)
    }

    /// Lets only datagrams through whose first message has this type. The kernel drops the others before they are queued.
    pub fn accept_only(&self, message_type: u16) -> io::Result<()> {
        sys::filter_by_type(self.fd.as_fd(), message_type)
    }

    /// Leaves a multicast group. What came from it stays queued.
    pub(crate) fn leave(&self, group: u32) -> io::Result<()> {
        let group = i32::try_from(group).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        sys::set_netlink_option(self.fd.as_fd(), libc::NETLINK_DROP_MEMBERSHIP, group)
    }

    /// Joins a multicast group by its number.
    pub fn join(&self, group: u32) -> io::Result<()> {
        let group = i32::try_from(group).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        sys::set_netlink_option(self.fd.as_fd(), libc::NETLINK_ADD_MEMBERSHIP, group)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
