//! Questions from chosen ports, to tell connections apart afterwards. Runs on a thread that is in the right namespace already.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::ask::{ANSWER_MAX, Call, parse, wait};
use super::{ProbeError, failed};
use crate::fabric::Transport;

/// Datagrams each way: the first of a connection is treated by other rules than those after it.
const ROUNDS: usize = 2;

/// One question to an echo server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// TCP or UDP. By UDP it is asked twice, the second time when the first answer has come.
    pub transport: Transport,
    /// The client's port; nothing else in the namespace may use it with this transport.
    pub from_port: u16,
    /// The echo server.
    pub server: SocketAddrV4,
}

/// See `Vantage::ask_each`.
pub(super) fn each(
    source: Option<Ipv4Addr>,
    questions: &[Question],
    deadline: Duration,
) -> Result<Vec<Option<SocketAddrV4>>, ProbeError> {
    let until = Instant::now() + deadline;
    let source = source.unwrap_or(Ipv4Addr::UNSPECIFIED);
    let asked = questions.iter().map(|question| Asked::start(source, question));
    let mut asked: Vec<Asked> = asked.collect::<Result<_, _>>()?;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let open: Vec<BorrowedFd<'_>> = asked.iter().filter_map(Asked::open).collect();
        if open.is_empty() || left.is_zero() {
            break;
        }
        wait(&open, left)?;
        asked.iter_mut().for_each(Asked::listen);
    }
    Ok(asked.iter().map(Asked::answer).collect())
}

enum Asked {
    Tcp(Call),
    Udp(Datagrams),
}

impl Asked {
    fn start(source: Ipv4Addr, question: &Question) -> Result<Self, ProbeError> {
        let source = SocketAddrV4::new(source, question.from_port);
        Ok(match question.transport {
            Transport::Tcp => Self::Tcp(Call::start(Some(source), question.server)?),
            Transport::Udp => Self::Udp(Datagrams::start(source, question.server)?),
        })
    }

    fn open(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(call) => call.open(),
            Self::Udp(datagrams) => datagrams.is_open.then(|| datagrams.socket.as_fd()),
        }
    }

    fn listen(&mut self) {
        match self {
            Self::Tcp(call) => call.listen(),
            Self::Udp(datagrams) => datagrams.listen(),
        }
    }

    fn answer(&self) -> Option<SocketAddrV4> {
        match self {
            Self::Tcp(call) => call.answer(),
            Self::Udp(datagrams) => datagrams.answer(),
        }
    }
}

struct Datagrams {
    socket: UdpSocket,
    answers: Vec<SocketAddrV4>,
    is_open: bool,
}

impl Datagrams {
    fn start(source: SocketAddrV4, server: SocketAddrV4) -> Result<Self, ProbeError> {
        let socket = UdpSocket::bind(source).map_err(failed("bind"))?;
        socket.set_nonblocking(true).map_err(failed("fcntl"))?;
        // No route: silence is the result.
        let is_open = socket.connect(server).is_ok() && socket.send(b"?").is_ok();
        Ok(Self {
            socket,
            answers: Vec::new(),
            is_open,
        })
    }

    fn listen(&mut self) {
        let mut text = [0; ANSWER_MAX];
        // Errors are ICMP errors that the socket reports, and that nothing has come yet.
        while self.is_open
            && let Ok(len) = self.socket.recv(&mut text)
        {
            self.answers.extend(parse(&text[..len]));
            self.is_open = self.answers.len() < ROUNDS && self.socket.send(b"?").is_ok();
        }
    }

    /// The same one each time, or it is none.
    fn answer(&self) -> Option<SocketAddrV4> {
        let first = self.answers.first()?;
        let is_whole = self.answers.len() == ROUNDS && self.answers.iter().all(|answer| answer == first);
        is_whole.then_some(*first)
    }
}
