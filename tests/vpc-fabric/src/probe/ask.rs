//! Clients of echo servers. They run on a thread that is in the right namespace already.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::ReuseAddr;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket};

use super::{ProbeError, failed, failed_call};

/// Longest answer: `255.255.255.255:65535`.
pub(super) const ANSWER_MAX: usize = 32;

/// See `Vantage::ask_udp`.
pub(super) fn udp(
    source: Option<Ipv4Addr>,
    servers: &[SocketAddrV4],
    deadline: Duration,
) -> Result<Vec<Option<SocketAddrV4>>, ProbeError> {
    let until = Instant::now() + deadline;
    let socket = UdpSocket::bind((source.unwrap_or(Ipv4Addr::UNSPECIFIED), 0)).map_err(failed("bind"))?;
    for server in servers {
        // No route, or an answer to an earlier question was an ICMP error: the server's silence is the result.
        let _ = socket.send_to(b"?", server);
    }
    let mut answers = vec![None; servers.len()];
    let mut text = [0; ANSWER_MAX];
    while answers.contains(&None) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        socket.set_read_timeout(Some(left)).map_err(failed("setsockopt"))?;
        // Errors are the time-out, and ICMP errors that the socket reports for one of the servers.
        if let Ok((len, SocketAddr::V4(from))) = socket.recv_from(&mut text)
            && let Some(index) = servers.iter().position(|server| *server == from)
        {
            answers[index] = parse(&text[..len]);
        }
    }
    Ok(answers)
}

/// See `Vantage::ask_tcp`.
pub(super) fn tcp(
    source: Option<Ipv4Addr>,
    servers: &[SocketAddrV4],
    deadline: Duration,
) -> Result<Vec<Option<SocketAddrV4>>, ProbeError> {
    let until = Instant::now() + deadline;
    let source = source.map(|address| SocketAddrV4::new(address, 0));
    let calls = servers.iter().map(|server| Call::start(source, *server));
    let mut calls: Vec<Call> = calls.collect::<Result<_, _>>()?;
    while calls.iter().any(|call| call.stream.is_some()) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let open: Vec<BorrowedFd<'_>> = calls.iter().filter_map(Call::open).collect();
        wait(&open, left)?;
        calls.iter_mut().for_each(Call::listen);
    }
    Ok(calls.iter().map(Call::answer).collect())
}

/// A connection under way; without a stream it has ended.
pub(super) struct Call {
    stream: Option<TcpStream>,
    text: Vec<u8>,
}

impl Call {
    pub(super) fn start(source: Option<SocketAddrV4>, server: SocketAddrV4) -> Result<Self, ProbeError> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd: OwnedFd = socket(AddressFamily::Inet, SockType::Stream, flags, None).map_err(failed_call("socket"))?;
        if let Some(source) = source {
            // A connection of before that is not forgotten yet may have had the port.
            setsockopt(&fd, ReuseAddr, &true).map_err(failed_call("setsockopt"))?;
            bind(fd.as_raw_fd(), &SockaddrIn::from(source)).map_err(failed_call("bind"))?;
        }
        let connected = match connect(fd.as_raw_fd(), &SockaddrIn::from(server)) {
            Ok(()) | Err(Errno::EINPROGRESS) => true,
            // No route, say: the same as no answer.
            Err(_) => false,
        };
        Ok(Self {
            stream: connected.then(|| TcpStream::from(fd)),
            text: Vec::new(),
        })
    }

    /// While it has not ended.
    pub(super) fn open(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(AsFd::as_fd)
    }

    /// Of a connection that has ended.
    pub(super) fn answer(&self) -> Option<SocketAddrV4> {
        if self.stream.is_none() { parse(&self.text) } else { None }
    }

    /// Takes what has come; the server closes after its answer.
    pub(super) fn listen(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        let mut part = [0; ANSWER_MAX];
        match stream.read(&mut part) {
            Ok(len) if len > 0 => self.text.extend_from_slice(&part[..len]),
            // Before the connection stands, reading gives ENOTCONN on some paths and EAGAIN on others.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {}
            Ok(_) | Err(_) => self.stream = None,
        }
    }
}

pub(super) fn wait(open: &[BorrowedFd<'_>], left: Duration) -> Result<(), ProbeError> {
    let mut fds: Vec<PollFd<'_>> = open.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(failed_call("poll")(errno)),
    }
}

pub(super) fn parse(text: &[u8]) -> Option<SocketAddrV4> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
