//! Probes: what a program inside a namespace sees of the network.
//!
//! Owns echo servers that tell a client which address it came from, and clients for ICMP, UDP and TCP that ask many
//! targets at once. Judges nothing: what the answers should be is the caller's business. No packet is repeated (TCP
//! apart), so a lost one shows.
//!
//! Invariant: a probe ends at its deadline, and leaves no thread, socket or setting behind.
//! Called by the end-to-end tests and the demo.

mod ask;
mod each;
mod echo;
mod icmp;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use nix::errno::Errno;

use crate::place::{NetnsRef, PlaceError};

pub use each::Question;
pub use echo::EchoServer;

/// A probe that could not be made; silence of the target is no error.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The namespace could not be entered.
    #[error("cannot enter the namespace to probe from")]
    Place(#[from] PlaceError),
    /// A socket call failed.
    #[error("{operation} failed")]
    Socket {
        /// Which.
        operation: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

pub(crate) fn failed(operation: &'static str) -> impl FnOnce(std::io::Error) -> ProbeError {
    move |source| ProbeError::Socket { operation, source }
}

pub(crate) fn failed_call(operation: &'static str) -> impl FnOnce(Errno) -> ProbeError {
    move |errno| ProbeError::Socket {
        operation,
        source: errno.into(),
    }
}

/// From where, and for how long, to ask.
#[derive(Debug, Clone)]
pub struct Vantage {
    /// Namespace of the asking program.
    pub netns: NetnsRef,
    /// Source address; `None` leaves the choice to the kernel.
    pub source: Option<Ipv4Addr>,
    /// How long to wait for all answers together.
    pub deadline: Duration,
}

impl Vantage {
    /// A program in `netns` that leaves the choice of its address to the kernel and waits 2 s.
    pub fn new(netns: &NetnsRef) -> Self {
        Self {
            netns: netns.clone(),
            source: None,
            deadline: Duration::from_secs(2),
        }
    }

    /// With this source address.
    #[must_use]
    pub fn from_address(mut self, source: Ipv4Addr) -> Self {
        self.source = Some(source);
        self
    }

    /// With this deadline.
    #[must_use]
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Pings every target once, all at once. Per target, in order: the time to its answer, or `None`.
    pub fn ping(&self, targets: &[Ipv4Addr]) -> Result<Vec<Option<Duration>>, ProbeError> {
        self.netns.run(|| icmp::ping(self.source, targets, self.deadline))?
    }

    /// Asks UDP echo servers, all at once. Per server: the address which it saw the question come from.
    pub fn ask_udp(&self, servers: &[SocketAddrV4]) -> Result<Vec<Option<SocketAddrV4>>, ProbeError> {
        self.netns.run(|| ask::udp(self.source, servers, self.deadline))?
    }

    /// Asks echo servers, all at once, each question from its own port. Per question: the address which the server saw it
    /// come from.
    pub fn ask_each(&self, questions: &[Question]) -> Result<Vec<Option<SocketAddrV4>>, ProbeError> {
        self.netns.run(|| each::each(self.source, questions, self.deadline))?
    }

    /// Asks TCP echo servers, all at once. Per server: the address which it saw the connection come from.
    pub fn ask_tcp(&self, servers: &[SocketAddrV4]) -> Result<Vec<Option<SocketAddrV4>>, ProbeError> {
        self.netns.run(|| ask::tcp(self.source, servers, self.deadline))?
    }
}

/// A member of a mesh.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Name for the report.
    pub name: String,
    /// Its namespace.
    pub netns: NetnsRef,
    /// The address the others reach it by.
    pub address: Ipv4Addr,
}

/// How a pair was probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// ICMP echo.
    Icmp,
    /// One datagram and its answer.
    Udp,
    /// A connection with data.
    Tcp,
}

/// One probe of a mesh that did not go as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshFault {
    /// Who asked.
    pub from: String,
    /// Who was asked.
    pub to: String,
    /// How.
    pub protocol: Protocol,
    /// The address the asked one saw instead of the asker's own; `None` if there was no answer.
    pub seen: Option<Ipv4Addr>,
}

/// Result of [`mesh`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshReport {
    /// Ordered pairs of different peers.
    pub pairs: usize,
    /// Pairs that answered in all three protocols and saw each other's own addresses.
    pub good_pairs: usize,
    /// Everything else.
    pub faults: Vec<MeshFault>,
}

/// Every peer asks every other one by ICMP, UDP and TCP; `deadline` is for each peer's questions of one protocol.
pub fn mesh(peers: &[Peer], port: u16, deadline: Duration) -> Result<MeshReport, ProbeError> {
    let servers = peers
        .iter()
        .map(|peer| EchoServer::start(&peer.netns, SocketAddrV4::new(peer.address, port)));
    let servers: Vec<EchoServer> = servers.collect::<Result<_, _>>()?;
    let faults: Result<Vec<Vec<MeshFault>>, ProbeError> = std::thread::scope(|scope| {
        let askers = peers
            .iter()
            .map(|peer| scope.spawn(move || ask_all(peer, peers, port, deadline)));
        let askers: Vec<_> = askers.collect();
        askers
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    drop(servers);
    let faults: Vec<MeshFault> = faults?.into_iter().flatten().collect();
    let pairs = peers.len() * peers.len().saturating_sub(1);
    let bad: std::collections::BTreeSet<_> = faults.iter().map(|fault| (&fault.from, &fault.to)).collect();
    Ok(MeshReport {
        pairs,
        good_pairs: pairs - bad.len(),
        faults,
    })
}

fn ask_all(asker: &Peer, peers: &[Peer], port: u16, deadline: Duration) -> Result<Vec<MeshFault>, ProbeError> {
    let others: Vec<&Peer> = peers.iter().filter(|peer| peer.name != asker.name).collect();
    let addresses: Vec<Ipv4Addr> = others.iter().map(|peer| peer.address).collect();
    let servers: Vec<SocketAddrV4> = addresses
        .iter()
        .map(|address| SocketAddrV4::new(*address, port))
        .collect();
    let (pings, udp, tcp) = asker.netns.run(|| -> Result<_, ProbeError> {
        let pings = icmp::ping(None, &addresses, deadline)?;
        Ok((
            pings,
            ask::udp(None, &servers, deadline)?,
            ask::tcp(None, &servers, deadline)?,
        ))
    })??;
    let own = |answer: Option<SocketAddrV4>| answer.map(|seen| *seen.ip());
    // An ICMP answer carries no report; that it came back to the asker is all it says.
    let by_icmp = pings.into_iter().map(|answer| answer.map(|_| asker.address));
    let rounds: [(Protocol, Vec<Option<Ipv4Addr>>); 3] = [
        (Protocol::Icmp, by_icmp.collect()),
        (Protocol::Udp, udp.into_iter().map(own).collect()),
        (Protocol::Tcp, tcp.into_iter().map(own).collect()),
    ];
    let mut faults = Vec::new();
    for (protocol, answers) in rounds {
        let wrong = others
            .iter()
            .zip(answers)
            .filter(|(_, seen)| *seen != Some(asker.address));
        faults.extend(wrong.map(|(to, seen)| MeshFault {
            from: asker.name.clone(),
            to: to.name.clone(),
            protocol,
            seen,
        }));
    }
    Ok(faults)
}
