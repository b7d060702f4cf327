//! Who talks to whom, and how: the connections that are tried under every combination of variables.

use std::fmt;

use vpc_fabric::fabric::Transport;

/// A party of a connection. The node under test is the first one; the others are left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Actor {
    /// A pod on the primary ENI of the node under test.
    PrimaryPod,
    /// A pod on a secondary ENI of it.
    SecondaryPod,
    /// The node under test itself, with its primary address.
    Node,
    /// The node under test, with the address that its secondary ENI has of its own.
    NodeSecond,
    /// A pod on the primary ENI of the other node.
    PeerPrimaryPod,
    /// A pod on a secondary ENI of the other node.
    PeerSecondaryPod,
    /// The other node itself.
    OtherNode,
    /// A machine of the VPC that is no node; a load balancer, too.
    VpcHost,
    /// A machine outside the VPC; through a load balancer that keeps addresses, too.
    Internet,
    /// A machine outside the VPC, in the network that may be excluded from translation.
    Partner,
}

impl Actor {
    pub(super) const ALL: [Self; 10] = [
        Self::PrimaryPod,
        Self::SecondaryPod,
        Self::Node,
        Self::NodeSecond,
        Self::PeerPrimaryPod,
        Self::PeerSecondaryPod,
        Self::OtherNode,
        Self::VpcHost,
        Self::Internet,
        Self::Partner,
    ];
    /// Pods of the node under test.
    pub(super) const PODS: [Self; 2] = [Self::PrimaryPod, Self::SecondaryPod];

    /// Where an actor is, seen from the node under test.
    pub(super) fn place(self) -> Place {
        match self {
            Self::PrimaryPod | Self::SecondaryPod | Self::Node | Self::NodeSecond => Place::Node,
            Self::PeerPrimaryPod | Self::PeerSecondaryPod | Self::OtherNode | Self::VpcHost => Place::Vpc,
            Self::Internet | Self::Partner => Place::Outside,
        }
    }

    /// Its own number; those of ports and addresses derive from it.
    pub(super) fn number(self) -> u8 {
        self as u8
    }
}

/// See [`Actor::place`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// On the node under test.
    Node,
    /// Elsewhere in the VPC.
    Vpc,
    /// Outside it.
    Outside,
}

/// Who translates a service's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Proxy {
    /// Rules of iptables-nft.
    Iptables,
    /// A table of nftables, at `dstnat`.
    Nftables,
}

impl Proxy {
    pub(super) const ALL: [Self; 2] = [Self::Iptables, Self::Nftables];
}

/// `externalTrafficPolicy` of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Traffic {
    /// The pod sees the client.
    Local,
    /// The pod sees the node.
    Cluster,
}

/// How the client addresses the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// By its own address.
    Direct,
    /// By a ClusterIP, on the client's node.
    ClusterIp(Proxy),
    /// By an address that is the node's own, as with ipvs.
    LocalService,
    /// By a port of the node under test.
    NodePort(Proxy, Traffic),
    /// By such a port at the secondary ENI's own address; the pod sees the client.
    SecondNodePort(Proxy),
}

/// A connection to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) client: Actor,
    pub(super) way: Way,
    pub(super) server: Actor,
    pub(super) transport: Transport,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            client,
            way,
            server,
            transport,
        } = self;
        write!(f, "{transport:?} {client:?} → {server:?} ({way:?})")
    }
}

/// Every connection, by both transports.
pub(super) fn all() -> Vec<Flow> {
    let mut all = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp] {
        let mut push = |client, way, server| {
            all.push(Flow {
                client,
                way,
                server,
                transport,
            });
        };
        from_pods(&mut push);
        from_node(&mut push);
        inward(&mut push);
        to_node_ports(&mut push);
    }
    all
}

fn from_pods(push: &mut impl FnMut(Actor, Way, Actor)) {
    for pod in Actor::PODS {
        let others = Actor::ALL.into_iter().filter(|other| *other != pod);
        others.for_each(|server| push(pod, Way::Direct, server));
        for proxy in Proxy::ALL {
            // The pod itself among them.
            let endpoints = Actor::PODS.into_iter();
            let endpoints = endpoints.chain([Actor::PeerSecondaryPod, Actor::Internet, Actor::Partner]);
            endpoints.for_each(|server| push(pod, Way::ClusterIp(proxy), server));
        }
        push(pod, Way::LocalService, Actor::Node);
    }
}

fn from_node(push: &mut impl FnMut(Actor, Way, Actor)) {
    const SELF: [Actor; 2] = [Actor::Node, Actor::NodeSecond];
    for own in SELF {
        let others = Actor::ALL.into_iter().filter(|other| !SELF.contains(other));
        others.for_each(|server| push(own, Way::Direct, server));
    }
    for proxy in Proxy::ALL {
        for server in [Actor::SecondaryPod, Actor::PeerPrimaryPod, Actor::Internet] {
            push(Actor::Node, Way::ClusterIp(proxy), server);
        }
    }
}

/// Also what a load balancer with addresses as targets does, from its own address or with the client's.
fn inward(push: &mut impl FnMut(Actor, Way, Actor)) {
    let clients = [
        Actor::PeerPrimaryPod,
        Actor::PeerSecondaryPod,
        Actor::OtherNode,
        Actor::VpcHost,
        Actor::Internet,
        Actor::Partner,
    ];
    for client in clients {
        let servers = Actor::PODS.into_iter().chain([Actor::Node, Actor::NodeSecond]);
        servers.for_each(|server| push(client, Way::Direct, server));
    }
}

fn to_node_ports(push: &mut impl FnMut(Actor, Way, Actor)) {
    for client in [Actor::Internet, Actor::Partner, Actor::VpcHost] {
        for proxy in Proxy::ALL {
            for pod in Actor::PODS {
                push(client, Way::NodePort(proxy, Traffic::Local), pod);
                push(client, Way::NodePort(proxy, Traffic::Cluster), pod);
            }
            push(client, Way::NodePort(proxy, Traffic::Cluster), Actor::PeerPrimaryPod);
            push(client, Way::SecondNodePort(proxy), Actor::SecondaryPod);
        }
    }
}
