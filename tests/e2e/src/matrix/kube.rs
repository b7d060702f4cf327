//! What kube-proxy does about services, in three forms that are on the node at once: rules of iptables-nft, a table of
//! nftables at `dstnat`, and an address of the node's own as with ipvs.
//!
//! Each service has one endpoint and a number of its own, so that each form and each endpoint has its own address and port.
//! Masquerading by mark is restricted to node ports: the foreign mark of [`super::marks`] is the same bit.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Result, ensure};
use vpc_fabric::Node;
use vpc_fabric::fabric::Transport;
use vpc_fabric::node::CommandSpec;

use super::flow::{Actor, Flow, Proxy, Traffic, Way};
use super::stage::ECHO_PORT;

/// Programs that change a ruleset end at once.
const DEADLINE: Duration = Duration::from_secs(20);
const CLUSTER_PORT: u16 = 80;
const FIRST_NODE_PORT: u16 = 30_000;
/// kube-proxy's mark of what it masquerades.
const MASQUERADE: &str = "0x4000/0x4000";

/// The address of the service that is the node's own.
pub(super) const LOCAL_SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(172, 20, 3, 10), ECHO_PORT);

/// Where a client finds the service for `way` and `server`.
pub(super) fn cluster_address(proxy: Proxy, server: Actor) -> SocketAddrV4 {
    SocketAddrV4::new(
        Ipv4Addr::new(172, 20, 1 + proxy as u8, 10 + server.number()),
        CLUSTER_PORT,
    )
}

/// The node port of the service for these.
pub(super) fn node_port(proxy: Proxy, traffic: Traffic, server: Actor) -> u16 {
    FIRST_NODE_PORT + 100 * proxy as u16 + 50 * traffic as u16 + u16::from(server.number())
}

/// How packets to a service are told from others.
enum Matched {
    Address(Ipv4Addr),
    NodePort(u16, Traffic),
}

/// Everything a proxy must know.
#[derive(Debug)]
pub(super) struct Services {
    /// Primary address of the node.
    node: Ipv4Addr,
    /// Addresses of pods on the node, which may be both client and endpoint.
    pods: Vec<Ipv4Addr>,
    /// Each once, with its endpoint.
    services: BTreeMap<(Transport, Way, Actor), SocketAddrV4>,
}

impl Services {
    /// Those that the flows use.
    pub(super) fn new(node: Ipv4Addr, flows: &[Flow], address: impl Fn(Actor) -> Ipv4Addr) -> Self {
        let services = flows.iter().map(|flow| {
            let endpoint = SocketAddrV4::new(address(flow.server), ECHO_PORT);
            ((flow.transport, flow.way, flow.server), endpoint)
        });
        Self {
            node,
            pods: Actor::PODS.map(&address).to_vec(),
            services: services.collect(),
        }
    }

    /// Those that a proxy translates: transport, what packets to it have, and its endpoint.
    fn of(&self, wanted: Proxy) -> impl Iterator<Item = (&'static str, Matched, SocketAddrV4)> {
        self.services
            .iter()
            .filter_map(move |((transport, way, server), target)| {
                let (proxy, matched) = match *way {
                    // Its rule is there for the primary address already.
                    Way::Direct | Way::LocalService | Way::SecondNodePort(_) => return None,
                    Way::ClusterIp(proxy) => (proxy, Matched::Address(*cluster_address(proxy, *server).ip())),
                    Way::NodePort(proxy, traffic) => {
                        (proxy, Matched::NodePort(node_port(proxy, traffic, *server), traffic))
                    }
                };
                (proxy == wanted).then_some((name(*transport), matched, *target))
            })
    }

    /// Input of `iptables-nft-restore --noflush`.
    fn iptables(&self) -> String {
        let mut text = String::from(
            "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-POSTROUTING - [0:0]\n\
             -I PREROUTING -j KUBE-SERVICES\n-I OUTPUT -j KUBE-SERVICES\n-I POSTROUTING -j KUBE-POSTROUTING\n",
        );
        let mut line = |text_of_line: String| {
            let _ = writeln!(text, "{text_of_line}");
        };
        line(format!("-A KUBE-MARK-MASQ -j MARK --set-xmark {MASQUERADE}"));
        line(format!(
            "-A KUBE-POSTROUTING -m conntrack --ctstate DNAT --ctorigdst {} -m mark --mark {MASQUERADE} -j MASQUERADE",
            self.node
        ));
        for pod in &self.pods {
            line(format!(
                "-A KUBE-POSTROUTING -s {pod} -d {pod} -m conntrack --ctstate DNAT -j MASQUERADE"
            ));
        }
        for (transport, matched, target) in self.of(Proxy::Iptables) {
            match matched {
                Matched::Address(address) => line(format!(
                    "-A KUBE-SERVICES -d {address} -p {transport} --dport {CLUSTER_PORT} -j DNAT --to-destination {target}"
                )),
                Matched::NodePort(port, traffic) => {
                    let matched = format!("-p {transport} --dport {port} -m addrtype --dst-type LOCAL");
                    if traffic == Traffic::Cluster {
                        line(format!("-A KUBE-SERVICES {matched} -j KUBE-MARK-MASQ"));
                    }
                    line(format!("-A KUBE-SERVICES {matched} -j DNAT --to-destination {target}"));
                }
            }
        }
        text.push_str("COMMIT\n");
        text
    }

    /// Input of `nft -f -`.
    fn nftables(&self) -> String {
        let mut rules = String::new();
        for (transport, matched, target) in self.of(Proxy::Nftables) {
            let matched = match matched {
                Matched::Address(address) => format!("ip daddr {address} {transport} dport {CLUSTER_PORT}"),
                Matched::NodePort(port, Traffic::Local) => format!("fib daddr type local {transport} dport {port}"),
                Matched::NodePort(port, Traffic::Cluster) => {
                    format!("fib daddr type local {transport} dport {port} meta mark set meta mark or 0x4000")
                }
            };
            let _ = writeln!(rules, "{matched} dnat to {target}");
        }
        let hairpins = self.pods.iter();
        let hairpins: String = hairpins
            .map(|pod| format!("ct status dnat ip saddr {pod} ip daddr {pod} masquerade\n"))
            .collect();
        format!(
            "table ip kube-proxy {{
                chain services {{\n{rules}}}
                chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
                chain nat-output {{ type nat hook output priority -100; jump services; }}
                chain nat-postrouting {{ type nat hook postrouting priority srcnat;
                    ct status dnat ct original ip daddr {} meta mark and 0x4000 == 0x4000 masquerade
                    {hairpins} }}
            }}",
            self.node
        )
    }
}

fn name(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    }
}

/// Puts all three forms on a node.
pub(super) fn install(node: &Node, services: &Services) -> Result<()> {
    feed(node, &["iptables-nft-restore", "--noflush"], &services.iptables())?;
    feed(node, &["nft", "-f", "-"], &services.nftables())?;
    // A bridge without ports: some kernels have no dummy devices, and it only has to hold an address.
    run(node, &["ip", "link", "add", "kube-ipvs0", "type", "bridge"])?;
    let address = format!("{}/32", LOCAL_SERVICE.ip());
    run(node, &["ip", "address", "add", &address, "dev", "kube-ipvs0"])
}

/// Runs a program in a node.
pub(super) fn run(node: &Node, words: &[&str]) -> Result<()> {
    feed(node, words, "").map(drop)
}

/// Runs a program in a node with this input; what it printed.
pub(super) fn feed(node: &Node, words: &[&str], input: &str) -> Result<String> {
    let command = CommandSpec::new(words[0]).args(&words[1..]);
    let output = node.output(&command, input.as_bytes(), DEADLINE)?;
    ensure!(
        output.status.success(),
        "`{}` on {}: {}\n{input}",
        words.join(" "),
        node.name(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
