//! What the node under test sent to the VPC in one round, and which of it belongs to which connection.
//!
//! Ports tell connections apart. A port that the node gave to one connection may by chance be another's own: what the server
//! saw of a connection is that one's, and nobody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;
use vpc_fabric::fabric::{Flow as Sent, Transport};

use super::flow::Place;
use super::oracle::Eni;
use super::round::Tried;
use super::stage::Stage;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Record {
    /// By transport and each of the two ports.
    sent: BTreeMap<(Transport, u16), Vec<(Eni, Sent)>>,
    /// Sources as servers saw them, with the servers.
    seen: BTreeSet<(Transport, SocketAddrV4, Ipv4Addr)>,
}

impl Record {
    /// So far.
    pub(super) fn of(stage: &Stage, tried: &[Tried]) -> Result<Self> {
        let mut by_port: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for sent in stage.world.cluster.vpc.handle().flows()? {
            if let Some(eni) = stage.eni(&sent.eni) {
                for port in BTreeSet::from([sent.source.port(), sent.destination.port()]) {
                    let of_port = by_port.entry((sent.transport, port)).or_default();
                    of_port.push((eni, sent.clone()));
                }
            }
        }
        let seen = tried
            .iter()
            .filter_map(|one| Some((one.flow.transport, one.answer?, stage.address(one.flow.server))));
        Ok(Self {
            sent: by_port,
            seen: seen.collect(),
        })
    }

    /// Packets of one connection: requests from the node or its pods, else replies.
    pub(super) fn of_connection(&self, stage: &Stage, one: &Tried) -> Vec<&(Eni, Sent)> {
        let transport = one.flow.transport;
        let client = SocketAddrV4::new(stage.address(one.flow.client), one.question.from_port);
        let server = stage.address(one.flow.server);
        let is_seen = |sent: &Sent| self.seen.contains(&(transport, sent.source, server));
        // From its own port, whatever the address: what should not have left so must show.
        let is_own = |sent: &Sent| sent.source.port() == client.port() && !is_seen(sent);
        let is_ours = |sent: &Sent| match one.flow.client.place() {
            Place::Node => *sent.destination.ip() == server && (Some(sent.source) == one.answer || is_own(sent)),
            Place::Vpc | Place::Outside => sent.destination == client,
        };
        let ports = BTreeSet::from([client.port(), one.answer.unwrap_or(client).port()]);
        let candidates = ports.iter().filter_map(|port| self.sent.get(&(transport, *port)));
        candidates.flatten().filter(|(_, sent)| is_ours(sent)).collect()
    }
}
