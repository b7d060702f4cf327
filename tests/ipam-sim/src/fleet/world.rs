//! The world of one run: nodes, pods, one account, and the order in which things happen.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipam_core::Event;
use vpc_sim::model::Change;
use vpc_types::InstanceLimits;

use super::account::Account;
use super::figures::{Figures, Recorder};
use super::kernel::Kernel;
use super::node::{Agent, Node, Pod, PodState};
use super::plan::{Plan, Program, Retry, Workload};
use super::queue::{Happening, NodeId, PodId, Queue};
use super::reference::{Manager, Wake};
use super::workload;

/// Between two readings of what nodes hold.
const SAMPLE: Duration = Duration::from_secs(30);
/// The plugin's own work.
const WIRING: Duration = Duration::from_millis(10);

/// Everything.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) plan: Plan,
    pub(crate) now: Duration,
    pub(crate) queue: Queue,
    pub(crate) account: Account,
    pub(crate) nodes: Vec<Node>,
    pub(crate) pods: Vec<Pod>,
    pub(crate) rng: fastrand::Rng,
    pub(crate) recorder: Recorder,
    pub(crate) core_events: u64,
    /// When the model's next transition is planned.
    transition: Option<Duration>,
    /// Node of an instance.
    numbers: std::collections::BTreeMap<vpc_types::InstanceId, NodeId>,
}

/// Runs a plan to its end.
pub fn run(plan: &Plan) -> Figures {
    let mut fleet = Fleet::new(plan);
    workload::begin(&mut fleet);
    fleet.run_until(plan.warm_up);
    fleet.begin_to_measure();
    workload::measured(&mut fleet);
    let end = plan.warm_up + plan.span;
    while fleet.now < end && !workload::is_over(&fleet) {
        let until = (fleet.now + Duration::from_secs(1)).min(end);
        fleet.run_until(until);
    }
    fleet.figures()
}

impl Fleet {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut account = Account::new(plan);
        let mut nodes = Vec::new();
        let mut numbers = std::collections::BTreeMap::new();
        for number in 0..plan.nodes as usize {
            let (instance, subnet, primary_mac) = account.launch(plan, number);
            numbers.insert(instance.clone(), NodeId(number));
            nodes.push(Node {
                instance,
                subnet,
                primary_mac,
                agent: Agent::Asleep,
                kernel: Kernel::default(),
                pods: Default::default(),
                retrying: Default::default(),
                bound: 0,
            });
        }
        let mut fleet = Self {
            plan: *plan,
            now: Duration::ZERO,
            queue: Queue::default(),
            account,
            nodes,
            pods: Vec::new(),
            rng: fastrand::Rng::with_seed(plan.seed ^ 0x7573_6572),
            recorder: Recorder::default(),
            core_events: 0,
            transition: None,
            numbers,
        };
        fleet.account.model.drain_changes();
        fleet
    }

    pub(crate) fn after(&mut self, delay: Duration, happening: Happening) {
        self.queue.plan(self.now + delay, happening);
    }

    pub(crate) fn run_until(&mut self, until: Duration) {
        while let Some((at, happening)) = self.queue.next(until) {
            self.now = at;
            self.happen(happening);
        }
        self.now = until;
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::NodeStarts(node) => self.start(node),
            Happening::PodBound { node, life } => {
                self.bind(node, life);
            }
            Happening::PodAdds(pod) => self.add(pod),
            Happening::PodEnds(pod) => self.end(pod),
            Happening::SandboxGone(pod, veth) => {
                let node = self.pods[pod.0].node;
                self.nodes[node.0].kernel.delete_veth(&veth);
                self.deliver(node, Event::KernelChanged);
            }
            Happening::Deliver(node, event) => self.deliver(node, *event),
            Happening::Alarm(node) => self.alarm(node),
            Happening::Manager(node, wake) => self.manage(node, *wake),
            Happening::Supply(node) => self.wake_retries(node),
            Happening::Transition => {
                if self.transition == Some(self.now) {
                    self.transition = None;
                    self.account.model.advance(self.now);
                    self.follow_devices();
                }
            }
            Happening::Users => workload::go_on(self),
            Happening::Sample => {
                self.sample();
                self.after(SAMPLE, Happening::Sample);
            }
        }
    }

    fn start(&mut self, node: NodeId) {
        match self.plan.policy.program {
            Program::Ours(knowledge) => self.start_ours(node, knowledge),
            Program::Reference => self.start_reference(node),
        }
        self.tell_demand(node);
    }

    fn start_reference(&mut self, node: NodeId) {
        let limits = InstanceLimits::of(self.plan.instance_type).expect("plans name known types");
        let one = &self.nodes[node.0];
        let seed = self.plan.seed ^ (node.0 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut manager = Manager::new(
            self.plan.policy,
            one.instance.clone(),
            (&limits, self.plan.max_pods),
            seed,
        );
        let (at, wake) = manager.start(&self.account, self.now);
        self.nodes[node.0].agent = Agent::Reference(Box::new(manager));
        self.queue.plan(at, Happening::Manager(node, Box::new(wake)));
    }

    fn manage(&mut self, node: NodeId, wake: Wake) {
        let Agent::Reference(manager) = &mut self.nodes[node.0].agent else {
            return;
        };
        let (at, wake) = manager.wake(wake, &mut self.account, self.now);
        self.queue.plan(at, Happening::Manager(node, Box::new(wake)));
        self.wake_retries(node);
        self.follow_devices();
    }

    /// Pods whose ADD failed try again at their own next moment, now that it may help.
    fn wake_retries(&mut self, node: NodeId) {
        let gap = match self.plan.retry {
            Retry::Second => Duration::from_secs(1),
            Retry::Slow => Duration::from_millis(self.rng.u64(10_000..15_000)),
        };
        let Agent::Reference(manager) = &self.nodes[node.0].agent else {
            return;
        };
        let sums = manager.store.sums();
        if !manager.serving || sums.total == sums.assigned {
            return;
        }
        for (pod, since) in std::mem::take(&mut self.nodes[node.0].retrying) {
            let waited = self.now.saturating_sub(since).as_micros();
            let rounds = waited / gap.as_micros() + 1;
            let next = since + gap * u32::try_from(rounds).expect("runs are shorter than years");
            self.queue.plan(next, Happening::PodAdds(pod));
        }
    }

    /// Puts a pod on a node; its ADD comes one to two seconds later.
    pub(crate) fn bind(&mut self, node: NodeId, life: Option<Duration>) -> PodId {
        let pod = PodId(self.pods.len());
        self.pods.push(Pod {
            node,
            state: PodState::Bound,
            life,
            first_add: None,
            served_at: None,
            attempt: 0,
            unwanted: false,
        });
        self.nodes[node.0].pods.insert(pod);
        self.nodes[node.0].bound += 1;
        let lead = match self.plan.workload {
            Workload::Burst { .. } => workload::LEAD,
            Workload::Churn { .. }
            | Workload::Rolling { .. }
            | Workload::Cron { .. }
            | Workload::Batch { .. }
            | Workload::Day { .. }
            | Workload::Join { .. }
            | Workload::Steady { .. }
            | Workload::None => Duration::from_millis(self.rng.u64(1_000..2_000)),
        };
        self.after(lead, Happening::PodAdds(pod));
        self.tell_demand(node);
        pod
    }

    fn add(&mut self, pod: PodId) {
        let one = &mut self.pods[pod.0];
        let node = one.node;
        if one.unwanted {
            let was = one.state;
            self.unbind(node, was);
            self.pod_ended(pod);
            return;
        }
        one.first_add.get_or_insert(self.now);
        let was = std::mem::replace(&mut one.state, PodState::Asking);
        self.unbind(node, was);
        match &mut self.nodes[node.0].agent {
            Agent::Asleep => self.after(Duration::from_secs(1), Happening::PodAdds(pod)),
            Agent::Ours(_) => self.ask_ours(pod),
            Agent::Reference(manager) => {
                let address = manager.serving.then(|| manager.assign(self.now)).flatten();
                match address {
                    Some(address) => self.pod_served(pod, address),
                    None => {
                        self.nodes[node.0].retrying.insert(pod, self.now);
                    }
                }
            }
        }
    }

    fn unbind(&mut self, node: NodeId, was: PodState) {
        self.nodes[node.0].bound -= u32::from(was == PodState::Bound);
        self.tell_demand(node);
    }

    pub(crate) fn pod_served(&mut self, pod: PodId, address: Ipv4Addr) {
        let one = &mut self.pods[pod.0];
        one.state = PodState::Running(address);
        one.served_at = Some(self.now);
        let wait = self.now - one.first_add.expect("it asked before it was served");
        let (first_add, accepted) = (one.first_add.unwrap_or_default(), self.account.accepted());
        self.recorder.served(first_add, wait, self.now, accepted);
        if self.pods[pod.0].unwanted {
            self.after(WIRING, Happening::PodEnds(pod));
        } else if let Some(life) = self.pods[pod.0].life {
            self.after(WIRING + life, Happening::PodEnds(pod));
        }
    }

    /// Ends a pod; one that waits ends when its ADD does.
    pub(crate) fn end(&mut self, pod: PodId) {
        let one = &mut self.pods[pod.0];
        let node = one.node;
        match one.state {
            PodState::Bound | PodState::Asking => {
                one.unwanted = true;
                if self.nodes[node.0].retrying.remove(&pod).is_some() {
                    self.pod_ended(pod);
                }
            }
            PodState::Running(address) => {
                one.state = PodState::Ending;
                match &mut self.nodes[node.0].agent {
                    Agent::Asleep => {}
                    Agent::Ours(_) => self.end_ours(pod),
                    Agent::Reference(manager) => {
                        let free_at = manager.store.unassign(self.now, address);
                        if let Some(at) = free_at {
                            self.queue.plan(at, Happening::Supply(node));
                        }
                        self.pod_ended(pod);
                    }
                }
            }
            PodState::Ending | PodState::Ended => {}
        }
    }

    pub(crate) fn pod_ended(&mut self, pod: PodId) {
        if self.pods[pod.0].state == PodState::Ended {
            return;
        }
        self.pods[pod.0].state = PodState::Ended;
        let node = self.pods[pod.0].node;
        self.nodes[node.0].pods.remove(&pod);
        self.tell_demand(node);
        workload::pod_ended(self, node);
    }

    /// Devices that came or went reach the kernels; the next ones are planned.
    pub(crate) fn follow_devices(&mut self) {
        for change in self.account.model.drain_changes() {
            match change {
                Change::Attached { eni, instance, .. } => {
                    let node = self.numbers[&instance];
                    self.nodes[node.0].kernel.links.insert(eni.id.clone(), eni.mac);
                    self.after(
                        Duration::ZERO,
                        Happening::Deliver(node, Box::new(Event::LinkAppeared { mac: eni.mac })),
                    );
                }
                Change::Detached { eni, instance } => {
                    let node = self.numbers[&instance];
                    if let Some(mac) = self.nodes[node.0].kernel.links.remove(&eni) {
                        self.after(
                            Duration::ZERO,
                            Happening::Deliver(node, Box::new(Event::LinkGone { mac })),
                        );
                    }
                }
                Change::Assigned { .. }
                | Change::Unassigned { .. }
                | Change::Ipv6Assigned { .. }
                | Change::Ipv6Unassigned { .. }
                | Change::SourceDestCheck { .. }
                | Change::Terminated { .. } => {}
            }
        }
        let next = self.account.model.next_transition();
        if let Some(at) = next.filter(|at| self.transition.is_none_or(|planned| *at < planned)) {
            let at = at.max(self.now);
            self.transition = Some(at);
            self.queue.plan(at, Happening::Transition);
        }
    }

    fn begin_to_measure(&mut self) {
        let first = match self.plan.workload {
            Workload::Burst { .. } => self.now + workload::LEAD,
            Workload::Churn { .. }
            | Workload::Rolling { .. }
            | Workload::Cron { .. }
            | Workload::Batch { .. }
            | Workload::Day { .. }
            | Workload::Join { .. }
            | Workload::Steady { .. }
            | Workload::None => self.now,
        };
        self.recorder.begin(first, self.account.calls());
    }

    fn sample(&mut self) {
        for node in &self.nodes {
            let (held, enis) = self.account.held(&node.instance);
            let running = |pod: &&PodId| matches!(self.pods[pod.0].state, PodState::Running(_));
            let used = node.pods.iter().filter(running).count();
            self.recorder.sample(held, used, enis);
        }
    }

    fn figures(&self) -> Figures {
        let waiting = self
            .pods
            .iter()
            .filter(|pod| pod.state == PodState::Asking && !pod.unwanted);
        let since: Vec<Duration> = waiting.filter_map(|pod| pod.first_add).collect();
        self.recorder
            .figures(&self.plan, self.now, &self.account.calls(), &since)
    }
}
