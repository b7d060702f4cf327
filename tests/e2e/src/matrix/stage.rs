//! The world of the matrix, made once: two nodes with pods on primary and secondary ENIs, a machine of the VPC, two outside.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use vpc_fabric::NetnsRef;
use vpc_fabric::probe::EchoServer;
use vpc_sim::config::{Config, InternetConfig, NodeConfig};
use vpc_types::EniId;

use super::flow::{self, Actor};
use super::kube::{self, LOCAL_SERVICE, Services};
use super::marks;
use super::oracle::Eni;
use super::settings::Settings;
use crate::runtime::Pod;
use crate::scenarios::Bench;
use crate::scenarios::world::{NODE, OTHER, SMALL, World, vpc_of};

/// Port of all servers.
pub(super) const ECHO_PORT: u16 = 7;
/// The machine of the VPC that is no node.
const VPC_HOST: &str = "vpc-host";
const PARTNER: &str = "partner";
const PARTNER_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 20);
/// Enough for pods on two ENIs.
const PODS: usize = 4;

/// Where the actors are, with their addresses.
type Places = BTreeMap<Actor, (Ipv4Addr, NetnsRef)>;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) world: World,
    places: Places,
    /// ENIs of the node under test.
    enis: BTreeMap<EniId, Eni>,
    _servers: Vec<EchoServer>,
}

/// The usual two nodes, a third machine without a daemon, and a second machine outside.
fn config() -> Config {
    let mut config = vpc_of(2, SMALL);
    let host = NodeConfig {
        name: VPC_HOST.to_owned(),
        address: Some(Ipv4Addr::new(10, 0, 2, 20)),
        ..config.nodes[1].clone()
    };
    config.nodes.push(host);
    config.internet.push(InternetConfig {
        name: PARTNER.to_owned(),
        addresses: vec![PARTNER_ADDRESS],
    });
    config
}

impl Stage {
    /// Daemons with these variables, pods, servers, services and foreign marks.
    pub(super) fn set(bench: &Bench, settings: Settings) -> Result<Self> {
        let mut world = World::prepare(bench, config(), &[], &settings.variables())?;
        let mut pods = Vec::new();
        for node in [NODE, OTHER] {
            world.cluster.start_daemon(node)?;
            world.wait_for_pool(node, "the first addresses are there", |pool| {
                pool["free"].as_u64() > Some(0)
            })?;
            pods.extend(world.add(node, &format!("{node}-pod"), PODS)?);
        }
        world.wait_for_carrier(&pods)?;
        let mut places = places(&world, &pods)?;
        let (enis, second) = enis(&world, &places)?;
        let node = places[&Actor::Node].1.clone();
        places.insert(Actor::NodeSecond, (second, node));
        let mut stage = Self {
            enis,
            world,
            places,
            _servers: Vec::new(),
        };
        stage.publish()?;
        stage.install_services()?;
        stage._servers = stage.servers()?;
        Ok(stage)
    }

    pub(super) fn address(&self, actor: Actor) -> Ipv4Addr {
        self.places[&actor].0
    }

    pub(super) fn netns(&self, actor: Actor) -> &NetnsRef {
        &self.places[&actor].1
    }

    /// None for ENIs that the matrix does not judge.
    pub(super) fn eni(&self, id: &EniId) -> Option<Eni> {
        self.enis.get(id).copied()
    }

    pub(super) fn node(&self) -> Result<&vpc_fabric::Node> {
        self.world.node(NODE)
    }

    /// The daemon of the node under test starts again with other variables. It has its rules in before it serves.
    pub(super) fn restart(&mut self, settings: Settings) -> Result<()> {
        let daemon = self.world.cluster.daemon(NODE)?;
        if daemon.child().is_some() {
            daemon.stop(Signal::SIGTERM)?;
        }
        for (name, value) in settings.variables() {
            daemon.set(name, value);
        }
        self.world.cluster.start_daemon(NODE)?;
        Ok(())
    }

    /// Addresses of pods and of the secondary ENI may pass the edge of the VPC, as if something there translated them: what comes through shows which
    /// address the node sent.
    fn publish(&self) -> Result<()> {
        for actor in [Actor::PrimaryPod, Actor::SecondaryPod, Actor::NodeSecond] {
            self.world.cluster.vpc.handle().publish(self.address(actor))?;
        }
        Ok(())
    }

    fn install_services(&self) -> Result<()> {
        let node = self.node()?;
        let address = self.address(Actor::Node);
        let services = Services::new(address, &flow::all(), |actor| self.address(actor));
        kube::install(node, &services)?;
        marks::install(node, address)
    }

    fn servers(&self) -> Result<Vec<EchoServer>> {
        let mut servers = Vec::new();
        for (address, netns) in self.places.values() {
            servers.push(EchoServer::start(netns, SocketAddrV4::new(*address, ECHO_PORT))?);
        }
        servers.push(EchoServer::start(self.netns(Actor::Node), LOCAL_SERVICE)?);
        Ok(servers)
    }
}

fn places(world: &World, pods: &[Pod]) -> Result<Places> {
    let mut places = BTreeMap::new();
    for (node, primary, secondary) in [
        (NODE, Actor::PrimaryPod, Actor::SecondaryPod),
        (OTHER, Actor::PeerPrimaryPod, Actor::PeerSecondaryPod),
    ] {
        let mut pods = pods.iter().filter(|pod| pod.node == node);
        let first = pods.clone().find(|pod| pod.device == 0);
        let first = first.with_context(|| format!("{node} has no pod on its primary ENI"))?;
        let second = pods.find(|pod| pod.device > 0);
        let second = second.with_context(|| format!("{node} has no pod on a secondary ENI"))?;
        for (actor, pod) in [(primary, first), (secondary, second)] {
            places.insert(actor, (pod.address, pod.netns.netns.clone()));
        }
    }
    for (name, actor) in [
        (NODE, Actor::Node),
        (OTHER, Actor::OtherNode),
        (VPC_HOST, Actor::VpcHost),
    ] {
        places.insert(actor, (world.primary(name)?, world.node(name)?.netns().clone()));
    }
    for (host, actor) in world.config.internet.iter().zip([Actor::Internet, Actor::Partner]) {
        let netns = world.cluster.vpc.handle().internet_host(&host.name);
        places.insert(actor, (host.addresses[0], netns.context("internet hosts are up")?));
    }
    Ok(places)
}

/// By the addresses they have; also the secondary one's own address.
fn enis(world: &World, places: &Places) -> Result<(BTreeMap<EniId, Eni>, Ipv4Addr)> {
    let handle = world.cluster.vpc.handle();
    let instance = handle.instance(NODE).context("nodes are instances")?;
    let with = |address| {
        handle.simulator().with_model(|model, _| {
            let eni = model.enis_of(instance).find(|eni| eni.holds(address));
            eni.map(|eni| (eni.id.clone(), eni.primary))
        })
    };
    let primary = with(places[&Actor::Node].0).context("the node has a primary ENI")?;
    let secondary = with(places[&Actor::SecondaryPod].0).context("the pod's address is on an ENI")?;
    ensure!(primary.0 != secondary.0, "both pods are on {}", primary.0);
    let enis = [(primary.0, Eni::Primary), (secondary.0, Eni::Secondary)];
    Ok((enis.into(), secondary.1))
}
