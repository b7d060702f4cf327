//! rtnetlink with bytes: a buffer of messages, one send, answers until the last.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

use crate::sys;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const ERROR: u16 = 2;
/// `struct nlmsghdr`.
const HEADER: usize = 16;

/// Requests that are sent together.
#[derive(Debug, Default)]
pub struct Messages {
    bytes: Vec<u8>,
    last: usize,
    count: u32,
}

impl Messages {
    /// Appends a message: type, flags besides `NLM_F_REQUEST`, the family's header.
    pub fn push(&mut self, kind: u16, flags: u16, header: &[u8]) -> &mut Self {
        self.last = self.bytes.len();
        self.count += 1;
        self.bytes.extend(0_u32.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | REQUEST).to_ne_bytes());
        self.bytes.extend(self.count.to_ne_bytes());
        self.bytes.extend(0_u32.to_ne_bytes());
        self.bytes.extend_from_slice(header);
        self.close();
        self
    }

    /// Appends an attribute to the last message.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        attribute(&mut self.bytes, kind, value);
        self.close();
        self
    }

    fn close(&mut self) {
        let len = u32::try_from(self.bytes.len() - self.last).unwrap_or(u32::MAX);
        self.bytes[self.last..self.last + 4].copy_from_slice(&len.to_ne_bytes());
    }
}

/// Appends an attribute, padded, for nests.
pub fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend(u16::try_from(value.len() + 4).unwrap_or(u16::MAX).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// A socket in the namespace in which it was made.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Opens one in the thread's namespace. The kernel binds it with the first request.
    pub fn open() -> io::Result<Self> {
        let protocol = SockProtocol::NetlinkRoute;
        Ok(Self(socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )?))
    }

    /// Sends all messages and reads answers until that of the last. Returns the number of refused ones.
    pub fn apply(&self, messages: &mut Messages) -> io::Result<u32> {
        let flags = messages.last + 6;
        messages.bytes[flags] |= ACK.to_ne_bytes()[0];
        sendto(
            self.0.as_raw_fd(),
            &messages.bytes,
            &NetlinkAddr::new(0, 0),
            MsgFlags::empty(),
        )?;
        let mut refused = 0;
        let mut buffer = [0; 1024];
        loop {
            let len = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let answer = buffer.get(..len.min(buffer.len())).unwrap_or_default();
            let number = |at: usize| {
                let bytes = answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
                bytes.map_or(0, u32::from_ne_bytes)
            };
            if answer.get(4..6) != Some(&ERROR.to_ne_bytes()) {
                return Err(io::Error::other("the kernel answers with something else"));
            }
            refused += u32::from(number(HEADER) != 0);
            if number(8) == messages.count {
                return Ok(refused);
            }
        }
    }

    /// Index of a device, without the rtnl lock.
    pub fn device_index(&self, name: &str) -> io::Result<i32> {
        sys::device_index(self.0.as_fd(), name)
    }
}
