//! Runs kernel work on one thread with one netlink socket: orders are few and short, and stay in order.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use datapath::takeover::{SettledRules, settle_pod_rules};
use datapath::{
    Devices, EniError, EniWiring, Link, NodeConfig, Repairer, RouteSocket, apply_node, apply_ruleset, clear, observe,
    setup_eni, teardown_eni,
};
use ipam_core::{Applied, BootTime, Event, KernelView, OpId, OpOutcome, Owner, Refusal, Signs, Work};
use ipnet::Ipv4Net;
use tokio::sync::Notify;
use vpc_types::{RouteTableId, SubnetId, VethPrefix};

use super::refused::Refused;
use crate::clock;
use crate::data_plane::DataPlane;
use crate::observe::Chain;
use crate::owner::{Inbox, Input};
use crate::repair::{EniOfPods, Reach, RepairOrder, Repairs};

/// An order for the thread.
#[derive(Debug)]
enum Order {
    Run(OpId, Work),
    View,
    Node(Box<NodeConfig>),
    Subnet(SubnetId, Ipv4Net),
    Repair(Box<RepairOrder>),
    Ruleset,
    Settle(BTreeMap<Ipv4Addr, RouteTableId>),
}

/// The node's rules as they were last applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// What they follow from.
    pub config: NodeConfig,
    /// The devices that the table names.
    pub devices: Devices,
}

/// Hands orders to the thread.
#[derive(Debug, Clone)]
pub struct KernelExecutor {
    orders: mpsc::Sender<Order>,
    veth_prefix: VethPrefix,
}

impl KernelExecutor {
    /// Starts the thread on an open socket, after the node's rules were applied. `subnets` are the ranges known so far, for the
    /// masks of ENIs; `unknown_subnet` is told when one is missing, `data_plane` how the node's rules are.
    pub fn start(
        socket: RouteSocket,
        subnets: BTreeMap<SubnetId, Ipv4Net>,
        node: NodeState,
        inbox: Inbox,
        unknown_subnet: Arc<Notify>,
        data_plane: DataPlane,
        repairs: Repairs,
    ) -> std::io::Result<Self> {
        let (orders, queue) = mpsc::channel();
        let veth_prefix = node.config.veth_prefix.clone();
        let mut worker = Worker {
            socket,
            subnets,
            node,
            refused: None,
            inbox,
            unknown_subnet,
            data_plane,
            repairer: Repairer::default(),
            repairs,
        };
        thread::Builder::new().name("kernel".to_owned()).spawn(move || {
            while let Some(order) = worker.next(&queue) {
                worker.take(order);
            }
        })?;
        Ok(Self { orders, veth_prefix })
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

    pub(crate) fn repair(&self, order: RepairOrder) {
        self.order(Order::Repair(Box::new(order)));
    }

    /// Compares the nf_tables table and loads it again where it differs.
    pub(crate) fn repair_ruleset(&self) {
        self.order(Order::Ruleset);
    }

    /// Makes one rule of those that older releases made for a pod.
    pub(crate) fn settle(&self, pods: BTreeMap<Ipv4Addr, RouteTableId>) {
        self.order(Order::Settle(pods));
    }

    pub(crate) fn veth_prefix(&self) -> &VethPrefix {
        &self.veth_prefix
    }

    fn order(&self, order: Order) {
        self.orders
            .send(order)
            .expect("the kernel thread lives as long as its executor");
    }
}

struct Worker {
    socket: RouteSocket,
    subnets: BTreeMap<SubnetId, Ipv4Net>,
    node: NodeState,
    refused: Option<Refused>,
    inbox: Inbox,
    unknown_subnet: Arc<Notify>,
    data_plane: DataPlane,
    repairer: Repairer,
    repairs: Repairs,
}

impl Worker {
    /// The next order, or node rules that were refused and are due again; `None` when nobody is left to give any.
    fn next(&self, queue: &mpsc::Receiver<Order>) -> Option<Order> {
        let Some(refused) = &self.refused else {
            return queue.recv().ok();
        };
        match queue.recv_timeout(refused.again_at.saturating_duration_since(Instant::now())) {
            Ok(order) => Some(order),
            Err(mpsc::RecvTimeoutError::Timeout) => Some(Order::Node(Box::new(refused.config.clone()))),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
        }
    }

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
            Order::Node(config) => self.apply_node(*config),
            Order::Repair(order) => self.repair(&order),
            Order::Ruleset if self.refused.is_some() => self.apply_node(self.wanted()),
            Order::Ruleset => match apply_ruleset(&self.node.config, &self.node.devices) {
                Ok(Some(difference)) => self.repairs.done_ruleset(&difference),
                Ok(None) => {}
                Err(error) => self.repairs.failed_ruleset(&error),
            },
            Order::Settle(pods) => match settle_pod_rules(&mut self.socket, &pods) {
                Ok(done) if done == SettledRules::default() => {}
                Ok(done) => tracing::info!(
                    added = done.added,
                    deleted = done.deleted,
                    "settled rules of running pods"
                ),
                Err(error) => tracing::warn!(error = %Chain(&error), "rules of running pods not settled"),
            },
            Order::Subnet(subnet, range) => {
                self.subnets.insert(subnet, range);
            }
        }
    }

    /// Where the configuration is as before, whatever has to be done was undone by somebody.
    fn apply_node(&mut self, config: NodeConfig) {
        match apply_node(&mut self.socket, &config) {
            Ok(applied) => {
                self.data_plane.is_in_line();
                if config == self.node.config && applied.devices == self.node.devices {
                    self.repairs.done_node(&applied);
                }
                self.node = NodeState {
                    config,
                    devices: applied.devices,
                };
                self.refused = None;
            }
            Err(error) => {
                let refused = Refused::after(self.refused.as_ref(), config, Instant::now());
                tracing::warn!(error = %Chain(&error), pause = ?refused.pause, "node rules not in line; trying again");
                self.data_plane.is_not_in_line(&Chain(&error));
                self.refused = Some(refused);
            }
        }
    }

    /// The node's rules as they should be, applied or not.
    fn wanted(&self) -> NodeConfig {
        let refused = self.refused.as_ref().map(|refused| &refused.config);
        refused.unwrap_or(&self.node.config).clone()
    }

    fn repair(&mut self, order: &RepairOrder) {
        let started = Instant::now();
        let enis: Vec<EniWiring> = order.enis.iter().filter_map(|eni| self.wiring(eni)).collect();
        match self.repairer.repair(&mut self.socket, &order.pods, &enis) {
            Ok(repaired) => self.repairs.done(&repaired, started.elapsed()),
            Err(error) => self.repairs.failed(&error),
        }
        if order.reach != Reach::Named {
            self.apply_node(self.wanted());
        }
    }

    /// None while the range of its subnet is unknown.
    fn wiring(&self, eni: &EniOfPods) -> Option<EniWiring> {
        Some(EniWiring {
            mac: eni.mac,
            table: eni.table,
            address: eni.address,
            subnet: self.subnets.get(&eni.subnet).copied()?,
            mtu: self.node.config.mtu,
        })
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
                let eni = EniOfPods {
                    mac: *mac,
                    table: *table,
                    address: *address,
                    subnet: subnet.clone(),
                };
                let Some(wiring) = self.wiring(&eni) else {
                    tracing::warn!(%subnet, "range of the ENI's subnet is not known yet");
                    self.unknown_subnet.notify_one();
                    return OpOutcome::Refused(Refusal::LinkMissing);
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
            Ok(view) => Event::KernelViewed(translate(&view, &self.node.config.veth_prefix, started_at)),
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
