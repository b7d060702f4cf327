//! A server that tells each client the address it saw: text `address:port`, by UDP and TCP.

use std::io::{PipeWriter, Write};
use std::net::{SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{ProbeError, failed};
use crate::place::NetnsRef;

/// The answer fits into any socket's buffer, so a write that lasts longer means a broken client.
const WRITE_TIMEOUT: Duration = Duration::from_millis(100);

/// Runs until dropped, on a thread of its own.
#[derive(Debug)]
pub struct EchoServer {
    address: SocketAddrV4,
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl EchoServer {
    /// Listens on one address of a namespace, so that answers come from that address. A port of 0 is not useful: UDP
    /// and TCP would get different ones.
    pub fn start(netns: &NetnsRef, address: SocketAddrV4) -> Result<Self, ProbeError> {
        let (udp, tcp) = netns.run(|| -> Result<_, ProbeError> {
            let udp = UdpSocket::bind(address).map_err(failed("bind of a UDP echo server"))?;
            Ok((
                udp,
                TcpListener::bind(address).map_err(failed("bind of a TCP echo server"))?,
            ))
        })??;
        udp.set_nonblocking(true).map_err(failed("fcntl"))?;
        tcp.set_nonblocking(true).map_err(failed("fcntl"))?;
        let (stopped, stop) = std::io::pipe().map_err(failed("pipe"))?;
        let serve = move || {
            while wait([stopped.as_fd(), udp.as_fd(), tcp.as_fd()]) {
                answer_datagrams(&udp);
                answer_connections(&tcp);
            }
        };
        let thread = std::thread::Builder::new()
            .name("echo".into())
            .spawn(serve)
            .map_err(failed("start of a thread"))?;
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits for a question; false when the first descriptor, the end of a pipe, was closed.
fn wait(fds: [std::os::fd::BorrowedFd<'_>; 3]) -> bool {
    let mut fds = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) => fds[0].revents().is_some_and(|events| events.is_empty()),
        Err(errno) => errno == Errno::EINTR,
    }
}

/// Errors are the client's: it gets no answer and says so.
fn answer_datagrams(socket: &UdpSocket) {
    let mut question = [0; 64];
    while let Ok((_, client)) = socket.recv_from(&mut question) {
        let _ = socket.send_to(client.to_string().as_bytes(), client);
    }
}

fn answer_connections(listener: &TcpListener) {
    while let Ok((mut stream, client)) = listener.accept() {
        let _ = stream.set_write_timeout(Some(WRITE_TIMEOUT));
        let _ = stream.write_all(client.to_string().as_bytes());
    }
}
