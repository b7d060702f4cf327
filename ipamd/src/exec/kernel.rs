//! Runs kernel work on one thread with one netlink socket: orders are few and short, and stay in order.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, mpsc};
use std::thread;

use datapath::{
    EniError, EniWiring, Link, NodeConfig, RouteSocket, apply_node, clear, observe, setup_eni, teardown_eni,
};
use ipam_core::{Applied, BootTime, Event, KernelView, OpId, OpOutcome, Owner, Refusal, Signs, Work};
use ipnet::Ipv4Net;
use tokio::sync::Notify;
use vpc_types::{SubnetId, VethPrefix};

use crate::clock;
use crate::data_plane::DataPlane;
use crate::observe::Chain;
use crate::owner::{Inbox, Input};

/// An order for the thread.
#[derive(Debug)]
enum Order {
    Run(OpId, Work),
    View,
    Node(Box<NodeConfig>),
    Subnet(SubnetId, Ipv4Net),
}

/// Hands orders to the thread.
#[derive(Debug, Clone)]
pub struct KernelExecutor(mpsc::Sender<Order>);

impl KernelExecutor {
    /// Starts the thread on an open socket. `subnets` are the ranges known so far, for the masks of ENIs; `mtu` is theirs.
    /// `unknown_subnet` is told when one is missing, `data_plane` how the node's rules are.
    pub fn start(
        socket: RouteSocket,
        subnets: BTreeMap<SubnetId, Ipv4Net>,
        mtu: u16,
        veth_prefix: VethPrefix,
        inbox: Inbox,
        unknown_subnet: Arc<Notify>,
        data_plane: DataPlane,
    ) -> std::io::Result<Self> {
        let (orders, queue) = mpsc::channel();
        let mut worker = Worker {
            socket,
            subnets,
            mtu,
            veth_prefix,
            inbox,
            unknown_subnet,
            data_plane,
        };
        thread::Builder::new().name("kernel".to_owned()).spawn(move || {
            for order in queue {
                worker.take(order);
            }
        })?;
        Ok(Self(orders))
    }

    pub(crate) fn run(&self, op: OpId, work: Work) {
        self.order(Order::Run(op, work));
    }

    pub(crate) fn view(&self) {
        self.order(Order::View);
    }

    /// Brings node rules and SNAT in line.
    pub fn apply_node(&self, config: NodeConfig) {
        self.order(Order::Node(Box::new(config)));
    }

    /// Learns the range of a subnet.
    pub fn learn_subnet(&self, subnet: SubnetId, range: Ipv4Net) {
        self.order(Order::Subnet(subnet, range));
    }

    fn order(&self, order: Order) {
        self.0
            .send(order)
            .expect("the kernel thread lives as long as its executor");
    }
}

struct Worker {
    socket: RouteSocket,
    subnets: BTreeMap<SubnetId, Ipv4Net>,
    mtu: u16,
    veth_prefix: VethPrefix,
    inbox: Inbox,
    unknown_subnet: Arc<Notify>,
    data_plane: DataPlane,
}

impl Worker {
    fn take(&mut self, order: Order) {
        match order {
            Order::Run(op, work) => {
                let outcome = self.run(&work);
                self.inbox.blocking_send(Input::Event(Event::OpDone { op, outcome }));
            }
            Order::View => {
                let event = self.view();
                self.inbox.blocking_send(Input::Event(event));
            }
            Order::Node(config) => match apply_node(&mut self.socket, &config) {
                Ok(_) => self.data_plane.is_in_line(),
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "node rules not in line; trying again later");
                    self.data_plane.is_not_in_line(&Chain(&error));
                }
            },
            Order::Subnet(subnet, range) => {
                self.subnets.insert(subnet, range);
            }
        }
    }

    fn run(&mut self, work: &Work) -> OpOutcome {
        let result = match work {
            Work::SetupEni {
                mac,
                table,
                address,
                subnet,
                ..
            } => {
                let Some(range) = self.subnets.get(subnet).copied() else {
                    tracing::warn!(%subnet, "range of the ENI's subnet is not known yet");
                    self.unknown_subnet.notify_one();
                    return OpOutcome::Refused(Refusal::LinkMissing);
                };
                let wiring = EniWiring {
                    mac: *mac,
                    table: *table,
                    address: *address,
                    subnet: range,
                    mtu: u32::from(self.mtu),
                };
                setup_eni(&mut self.socket, &wiring)
                    .map(|_| ())
                    .map_err(|error| eni_refusal(&error))
            }
            Work::TeardownEni { address, table, .. } => teardown_eni(&mut self.socket, *address, *table)
                .map(|_| ())
                .map_err(|error| eni_refusal(&error)),
            Work::ClearPodState { address, owner } => self.clear(*address, owner.as_ref()),
            Work::CreateEni { .. }
            | Work::Attach { .. }
            | Work::DeleteOnTermination { .. }
            | Work::SetGroups { .. }
            | Work::AllocateAddresses { .. }
            | Work::ReleaseAddresses { .. }
            | Work::Detach { .. }
            | Work::DeleteEni { .. } => unreachable!("EC2 work goes to the EC2 executor"),
        };
        result.map_or_else(OpOutcome::Refused, |()| OpOutcome::Applied(Applied::Done))
    }

    /// Without an owner only leftovers whose device is gone may be removed, so no device can match.
    fn clear(&mut self, address: Ipv4Addr, owner: Option<&Owner>) -> Result<(), Refusal> {
        let owner = datapath::Owner {
            container_id: owner.map_or("", |owner| owner.container_id.as_str()),
            host_veth: owner.map(|owner| owner.host_veth.as_str()),
        };
        match clear(&mut self.socket, address, &owner) {
            Ok(cleared) => {
                tracing::debug!(%address, ?cleared, "pod state");
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%address, error = %Chain(&error), "pod state not removed");
                Err(Refusal::Kernel)
            }
        }
    }

    fn view(&mut self) -> Event {
        let started_at = clock::now().boot;
        match observe(&mut self.socket) {
            Ok(view) => Event::KernelViewed(translate(&view, &self.veth_prefix, started_at)),
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "kernel dump failed");
                Event::KernelViewFailed
            }
        }
    }
}

fn eni_refusal(error: &EniError) -> Refusal {
    tracing::info!(error = %Chain(error), "ENI routes not in line yet");
    if matches!(error, EniError::LinkMissing { .. }) {
        Refusal::LinkMissing
    } else {
        Refusal::Kernel
    }
}

/// Host veths are told by their alias, which the plugin sets, or by the beginning of their name.
fn translate(view: &datapath::KernelView, veth_prefix: &VethPrefix, started_at: BootTime) -> KernelView {
    let is_veth = |link: &&Link| link.alias.is_some() || link.name.starts_with(veth_prefix.as_str());
    let veths = view
        .links
        .values()
        .filter(is_veth)
        .map(|link| (link.name.clone(), link.alias.clone()))
        .collect();
    let mut signs: BTreeMap<Ipv4Addr, Signs> = BTreeMap::new();
    for address in view.pod_routes.keys() {
        signs.entry(*address).or_default().route_device = view.find_pod_link(*address).map(|link| link.name.clone());
    }
    for (address, rules) in &view.rules {
        let of_pod = rules.to_pod.len() + rules.from_pod.len();
        if of_pod > 0 {
            signs.entry(*address).or_default().rules = of_pod;
        }
    }
    let macs = view.links.values().filter_map(|link| link.mac).collect();
    KernelView {
        started_at,
        macs,
        veths,
        signs,
    }
}
