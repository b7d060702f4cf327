//! What must come of a connection, as a pure function of the variables. Written from what the variables promise, not from
//! the rules that keep the promise.
//!
//! Without external SNAT, whatever leaves the VPC from the node or its pods is seen as the node's primary address and leaves
//! by the primary ENI, unless the destination is excluded. Everything else keeps its address and leaves by the ENI that has
//! it. Replies from a pod leave by the pod's ENI; only those to clients of node ports leave by the primary ENI, to which
//! they came. That is what node port support is for: without it the reply of a pod on a secondary ENI leaves by that ENI
//! with the node's address, and the VPC drops it. Nobody can help that but by marking what comes in, which was switched off.

use super::flow::{Actor, Flow, Place, Traffic, Way};
use super::settings::{Exclude, NodePorts, Settings, Snat};

/// An ENI of the node under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Eni {
    /// The primary one.
    Primary,
    /// That of the pod on a secondary one.
    Secondary,
}

/// What must come of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// It is answered.
    Answered(Passage),
    /// The reply leaves by the secondary ENI with the node's address, and is dropped.
    Lost,
}

/// How packets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Passage {
    /// Whose address the server sees.
    pub(super) seen: Actor,
    /// The ENI by which the node under test sends packets of the connection, and whose address is their source; none
    /// when all stays on the node.
    pub(super) leaves: Option<(Eni, Actor)>,
    /// The client's port as the server sees it.
    pub(super) port: Port,
}

/// See [`Passage::port`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    /// As the client chose it.
    Own,
    /// Chosen by the node as `AWS_VPC_K8S_CNI_RANDOMIZESNAT` says.
    Translated,
    /// Chosen by somebody else.
    Any,
}

/// See the module's description.
pub(super) fn expected(settings: Settings, flow: &Flow) -> Expected {
    match flow.way {
        Way::Direct | Way::ClusterIp(_) => Expected::Answered(direct(settings, flow.client, flow.server)),
        Way::LocalService => Expected::Answered(Passage {
            seen: flow.client,
            leaves: None,
            port: Port::Own,
        }),
        Way::NodePort(_, traffic) => node_port(settings, flow, traffic),
        Way::SecondNodePort(_) => Expected::Answered(Passage {
            seen: flow.client,
            leaves: Some((Eni::Secondary, Actor::NodeSecond)),
            port: Port::Own,
        }),
    }
}

/// The server's own address, in whatever way it was found.
fn direct(settings: Settings, client: Actor, server: Actor) -> Passage {
    let own = |leaves| Passage {
        seen: client,
        leaves,
        port: Port::Own,
    };
    match (client.place(), server.place()) {
        // A service whose endpoint is the client: kube-proxy gives the client the node's address.
        _ if client == server => Passage {
            seen: Actor::Node,
            leaves: None,
            port: Port::Any,
        },
        (Place::Node, Place::Node) => own(None),
        (Place::Node, Place::Outside) if is_translated(settings, client, server) => Passage {
            seen: Actor::Node,
            leaves: Some((Eni::Primary, Actor::Node)),
            port: Port::Translated,
        },
        (Place::Node, _) => own(Some((eni_of(client), client))),
        _ => own(Some((eni_of(server), server))),
    }
}

/// A program that uses the secondary ENI's own address leaves by that ENI, where the primary address would be a wrong one.
fn is_translated(settings: Settings, client: Actor, server: Actor) -> bool {
    let is_excluded = server == Actor::Partner && settings.exclude == Exclude::Partner;
    settings.snat == Snat::Node && !is_excluded && client != Actor::NodeSecond
}

fn node_port(settings: Settings, flow: &Flow, traffic: Traffic) -> Expected {
    let is_marked = settings.node_ports == NodePorts::Supported;
    if flow.server.place() == Place::Node && eni_of(flow.server) == Eni::Secondary && !is_marked {
        return Expected::Lost;
    }
    let (seen, port) = match traffic {
        Traffic::Local => (flow.client, Port::Own),
        Traffic::Cluster => (Actor::Node, Port::Any),
    };
    Expected::Answered(Passage {
        seen,
        leaves: Some((Eni::Primary, Actor::Node)),
        port,
    })
}

/// The ENI that has the address of an actor on the node under test.
fn eni_of(actor: Actor) -> Eni {
    if matches!(actor, Actor::SecondaryPod | Actor::NodeSecond) {
        Eni::Secondary
    } else {
        Eni::Primary
    }
}

#[cfg(test)]
mod tests {
    use vpc_fabric::fabric::Transport;

    use super::super::flow::{self, Proxy};
    use super::*;

    fn passage(settings: Settings, client: Actor, way: Way, server: Actor) -> Option<Passage> {
        let flow = Flow {
            client,
            way,
            server,
            transport: Transport::Tcp,
        };
        match expected(settings, &flow) {
            Expected::Answered(passage) => Some(passage),
            Expected::Lost => None,
        }
    }

    fn external() -> Settings {
        Settings {
            snat: Snat::External,
            ..Settings::DEFAULT
        }
    }

    #[test]
    fn outside_a_pod_is_the_node_or_itself() {
        let leaves = |settings, server| {
            let passage = passage(settings, Actor::SecondaryPod, Way::Direct, server);
            passage.and_then(|passage| passage.leaves)
        };
        let (node, pod) = ((Eni::Primary, Actor::Node), (Eni::Secondary, Actor::SecondaryPod));
        let excluding = Settings {
            exclude: Exclude::Partner,
            ..Settings::DEFAULT
        };
        assert_eq!(leaves(Settings::DEFAULT, Actor::Internet), Some(node));
        assert_eq!(leaves(Settings::DEFAULT, Actor::Partner), Some(node));
        assert_eq!(leaves(excluding, Actor::Internet), Some(node));
        assert_eq!(leaves(excluding, Actor::Partner), Some(pod));
        assert_eq!(leaves(external(), Actor::Internet), Some(pod));
        assert_eq!(leaves(Settings::DEFAULT, Actor::VpcHost), Some(pod));
        assert_eq!(leaves(Settings::DEFAULT, Actor::PrimaryPod), None);
    }

    #[test]
    fn only_node_ports_of_pods_on_secondary_enis_need_their_support() {
        let lost = |settings: Settings| {
            let all = flow::all().into_iter();
            let lost = all.filter(|flow| expected(settings, flow) == Expected::Lost);
            lost.collect::<Vec<_>>()
        };
        for with in [Settings::DEFAULT, external()] {
            assert_eq!(lost(with), []);
            let without = Settings {
                node_ports: NodePorts::Unsupported,
                ..with
            };
            let lost = lost(without);
            assert!(!lost.is_empty());
            let is_one = |flow: &Flow| matches!(flow.way, Way::NodePort(..)) && flow.server == Actor::SecondaryPod;
            assert!(lost.iter().all(is_one), "{lost:?}");
        }
    }

    #[test]
    fn replies_to_node_ports_leave_as_the_node_and_others_as_the_pod() {
        let way = Way::NodePort(Proxy::Iptables, Traffic::Local);
        let through_port = passage(Settings::DEFAULT, Actor::Internet, way, Actor::SecondaryPod).unwrap();
        assert_eq!(through_port.leaves, Some((Eni::Primary, Actor::Node)));
        assert_eq!(through_port.seen, Actor::Internet);
        let straight = passage(Settings::DEFAULT, Actor::Internet, Way::Direct, Actor::SecondaryPod).unwrap();
        assert_eq!(straight.leaves, Some((Eni::Secondary, Actor::SecondaryPod)));
    }
}
