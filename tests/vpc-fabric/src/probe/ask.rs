//! Clients of echo servers. They run on a thread that is in the right namespace already.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};

use super::{ProbeError, failed, failed_call};

/// Longest answer: `255.255.255.255:65535`.
const ANSWER_MAX: usize = 32;

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
    let calls = servers.iter().map(|server| Call::start(source, *server));
    let mut calls: Vec<Call> = calls.collect::<Result<_, _>>()?;
    while calls.iter().any(|call| call.stream.is_some()) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        wait(&calls, left)?;
        calls.iter_mut().for_each(Call::listen);
    }
    Ok(calls
        .into_iter()
        .map(|call| if call.stream.is_none() { parse(&call.text) } else { None })
        .collect())
}

/// A connection under way; without a stream it has ended.
struct Call {
    stream: Option<TcpStream>,
    text: Vec<u8>,
}

impl Call {
    fn start(source: Option<Ipv4Addr>, server: SocketAddrV4) -> Result<Self, ProbeError> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd: OwnedFd = socket(AddressFamily::Inet, SockType::Stream, flags, None).map_err(failed_call("socket"))?;
        if let Some(source) = source {
            let address = SockaddrIn::from(SocketAddrV4::new(source, 0));
            bind(fd.as_raw_fd(), &address).map_err(failed_call("bind"))?;
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

    /// Takes what has come; the server closes after its answer.
    fn listen(&mut self) {
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

fn wait(calls: &[Call], left: Duration) -> Result<(), ProbeError> {
    let streams = calls.iter().filter_map(|call| call.stream.as_ref());
    let mut fds: Vec<PollFd<'_>> = streams
        .map(|stream| PollFd::new(stream.as_fd(), PollFlags::POLLIN))
        .collect();
    let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(failed_call("poll")(errno)),
    }
}

fn parse(text: &[u8]) -> Option<SocketAddrV4> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
