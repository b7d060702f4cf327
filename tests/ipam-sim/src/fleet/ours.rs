//! The shell around a core: actions become calls, kernel work and replies; nothing here goes wrong.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipam_core::{
    Action, Applied, BootKind, BootTime, Core, CoreConfig, Ec2View, Event, NodeFacts, Now, OpId, OpOutcome, Outcome,
    Provisioning, Refusal, ReqId, Scope, StartMode, SubnetChoice, SubnetsView, Timers, TrunkSlot, ViewSource, WallTime,
    Work,
};
use vpc_sim::model::request::{
    AssignPrivateIpAddresses, AttachNetworkInterface, CreateNetworkInterface, DeleteNetworkInterface,
    DescribeNetworkInterfaces, DetachMode, DetachNetworkInterface, EniAttribute, Filter,
    ModifyNetworkInterfaceAttribute, Query,
};
use vpc_sim::model::{self, Ec2Error};
use vpc_types::{Allocation, InstanceLimits, IpamKey, PodName, VethPrefix, host_veth_name};

use super::node::{Agent, Ours, PodState};
use super::plan::{Knowledge, Plan};
use super::queue::{Happening, NodeId, PodId};
use super::targets;
use super::world::Fleet;
use crate::ec2::{asked, class, fact, release};

/// Writing both files of a checkpoint.
const DISK: Duration = Duration::from_millis(1);
/// A dump, or one change in the kernel.
const KERNEL: Duration = Duration::from_millis(2);
/// How long an ADD may wait.
const DEADLINE: Duration = Duration::from_secs(30);
/// Wall-clock time at the start of a run.
const EPOCH: Duration = Duration::from_secs(1_800_000_000);
/// Pause of a kubelet after a refused ADD.
pub(crate) const REFUSED: Duration = Duration::from_secs(1);
const INSTANCE_TAG: &str = "node.k8s.amazonaws.com/instance_id";
const CREATED_TAG: &str = "node.k8s.amazonaws.com/createdAt";

/// A request's handle says whose it is: pod, sandbox, verb.
fn add_request(pod: PodId, attempt: u32) -> ReqId {
    ReqId(((pod.0 as u64) << 20) | u64::from(attempt) << 1)
}

fn del_request(pod: PodId, attempt: u32) -> ReqId {
    ReqId(add_request(pod, attempt).0 | 1)
}

fn pod_of(req: ReqId) -> PodId {
    PodId(usize::try_from(req.0 >> 20).expect("it was a usize"))
}

pub(crate) fn container(pod: PodId, attempt: u32) -> String {
    format!("c{}-{attempt}", pod.0)
}

fn key(pod: PodId, attempt: u32) -> IpamKey {
    IpamKey::new("aws-cni", &container(pod, attempt), "eth0").expect("the parts are not empty")
}

fn name(pod: PodId) -> Option<PodName> {
    PodName::new("default", &format!("pod-{}", pod.0))
}

pub(crate) fn veth(pod: PodId, attempt: u32) -> String {
    host_veth_name(&VethPrefix::default(), name(pod).as_ref(), &key(pod, attempt))
}

fn core_config(plan: &Plan, fleet: &Fleet, node: NodeId) -> CoreConfig {
    let limits = InstanceLimits::of(plan.instance_type).expect("plans name known types");
    let node_state = &fleet.nodes[node.0];
    let mode = targets::mode(plan.policy.mode, &limits);
    let primary = fleet.account.model.enis_of(&node_state.instance).next();
    CoreConfig {
        target: targets::warm_target(plan.policy.targets, mode),
        mode,
        provisioning: Provisioning::Full,
        subnets: SubnetChoice::ByTag,
        leak_sweep: plan.leak_sweep,
        start: StartMode::Normal,
        cluster: None,
        timers: Timers::default(),
        node: NodeFacts {
            instance: node_state.instance.clone(),
            primary_mac: node_state.primary_mac,
            subnet: node_state.subnet.clone(),
            max_enis: limits.enis_on_default_card(),
            slots_per_eni: limits.ipv4_per_eni - 1,
            groups: primary
                .map(|eni| eni.groups.iter().cloned().collect())
                .unwrap_or_default(),
            trunk: TrunkSlot::NotWanted,
            max_pods: Some(plan.max_pods),
            cluster_nodes: Some(plan.nodes),
            boot: BootKind::Launch,
        },
        veth_prefix: VethPrefix::default(),
        max_waiting: 1_000,
        boot_id: "boot-1".to_owned(),
        nonce: plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (node.0 as u64).wrapping_mul(0xd1b5_4a32_d192_ed03),
    }
}

impl Fleet {
    fn times(&self) -> Now {
        Now {
            boot: BootTime(self.now),
            wall: WallTime(EPOCH + self.now),
        }
    }

    pub(crate) fn start_ours(&mut self, node: NodeId, knowledge: Knowledge) {
        let config = core_config(&self.plan, self, node);
        let core = Core::new(config, self.times());
        let ours = Ours {
            core,
            alarm: None,
            knowledge,
            told: 0,
        };
        self.nodes[node.0].agent = Agent::Ours(Box::new(ours));
        self.deliver(node, Event::Tick);
    }

    /// Tells a core now.
    pub(crate) fn deliver(&mut self, node: NodeId, event: Event) {
        let now = self.times();
        let Agent::Ours(ours) = &mut self.nodes[node.0].agent else {
            return;
        };
        self.core_events += 1;
        for action in ours.core.handle(event, now) {
            self.act(node, action);
        }
    }

    fn tell(&mut self, node: NodeId, after: Duration, event: Event) {
        self.after(after, Happening::Deliver(node, Box::new(event)));
    }

    fn act(&mut self, node: NodeId, action: Action) {
        match action {
            Action::Persist { generation } => self.tell(node, DISK, Event::CheckpointDurable { generation }),
            Action::Reply { req, outcome } => self.replied(req, &outcome),
            Action::Describe { scope } => self.describe(node, scope),
            Action::ViewKernel => {
                let one = &self.nodes[node.0];
                let view = one.kernel.view(BootTime(self.now), one.primary_mac);
                self.tell(node, KERNEL, Event::KernelViewed(view));
            }
            Action::WakeAt { at } => self.set_alarm(node, at.0.max(self.now)),
            Action::Run { op, work } => self.run_work(node, op, &work),
            Action::Note(_) => {}
        }
    }

    fn set_alarm(&mut self, node: NodeId, at: Duration) {
        if let Agent::Ours(ours) = &mut self.nodes[node.0].agent {
            ours.alarm = Some(at);
        }
        self.queue.plan(at, Happening::Alarm(node));
    }

    /// An alarm that was replaced does nothing.
    pub(crate) fn alarm(&mut self, node: NodeId) {
        let Agent::Ours(ours) = &mut self.nodes[node.0].agent else {
            return;
        };
        if ours.alarm == Some(self.now) {
            ours.alarm = None;
            self.deliver(node, Event::Tick);
        }
    }

    pub(crate) fn ask_ours(&mut self, pod: PodId) {
        let one = &mut self.pods[pod.0];
        one.attempt += 1;
        let (node, attempt) = (one.node, one.attempt);
        let event = Event::AddRequested {
            req: add_request(pod, attempt),
            key: key(pod, attempt),
            pod: name(pod),
            deadline: BootTime(self.now + DEADLINE),
        };
        self.deliver(node, event);
    }

    pub(crate) fn end_ours(&mut self, pod: PodId) {
        let one = &self.pods[pod.0];
        let (node, attempt) = (one.node, one.attempt);
        let event = Event::DelRequested {
            req: del_request(pod, attempt),
            key: key(pod, attempt),
        };
        self.deliver(node, event);
    }

    fn replied(&mut self, req: ReqId, outcome: &Outcome) {
        let pod = pod_of(req);
        let (node, attempt) = (self.pods[pod.0].node, self.pods[pod.0].attempt);
        match outcome {
            Outcome::Granted(grant) => {
                let kernel = &mut self.nodes[node.0].kernel;
                kernel.wire(grant.address, &veth(pod, attempt), &container(pod, attempt));
                self.tell(node, KERNEL, Event::KernelChanged);
                self.pod_served(pod, grant.address);
            }
            Outcome::Refused(_) => self.refused(pod),
            Outcome::Deleted(_) | Outcome::UnknownPod => {
                self.after(KERNEL, Happening::SandboxGone(pod, veth(pod, attempt)));
                self.pod_ended(pod);
            }
            Outcome::NotCleared { .. } => unreachable!("nothing goes wrong in this kernel"),
        }
    }

    /// The kubelet makes a new sandbox soon; until then the pod is only bound.
    fn refused(&mut self, pod: PodId) {
        let node = self.pods[pod.0].node;
        self.pods[pod.0].state = PodState::Bound;
        self.nodes[node.0].bound += 1;
        self.tell_demand(node);
        self.after(REFUSED, Happening::PodAdds(pod));
    }

    fn clear(&mut self, node: NodeId, address: Ipv4Addr) {
        self.nodes[node.0].kernel.clear(address);
        self.tell(node, KERNEL, Event::KernelChanged);
    }

    fn run_work(&mut self, node: NodeId, op: OpId, work: &Work) {
        let (latency, outcome) = match work {
            Work::ClearPodState { address, .. } => {
                self.clear(node, *address);
                (KERNEL, OpOutcome::Applied(Applied::Done))
            }
            Work::SetupEni { eni, .. } if !self.nodes[node.0].kernel.links.contains_key(eni) => {
                (KERNEL, OpOutcome::Refused(Refusal::LinkMissing))
            }
            Work::SetupEni { .. } | Work::TeardownEni { .. } => (KERNEL, OpOutcome::Applied(Applied::Done)),
            Work::CreateEni { .. }
            | Work::Attach { .. }
            | Work::DeleteOnTermination { .. }
            | Work::SetGroups { .. }
            | Work::AllocateAddresses { .. }
            | Work::ReleaseAddresses { .. }
            | Work::Detach { .. }
            | Work::DeleteEni { .. } => self.call(node, work),
        };
        self.tell(node, latency, Event::OpDone { op, outcome });
    }

    fn call(&mut self, node: NodeId, work: &Work) -> (Duration, OpOutcome) {
        let now = self.now;
        let instance = self.nodes[node.0].instance.clone();
        let account = &mut self.account;
        let result = match work {
            Work::CreateEni { .. } => outcome(account.call(now, &creation(work, &instance)), |created| {
                Applied::Created(fact(&created.eni, &instance))
            }),
            Work::Attach { eni, device, card } => {
                let request = AttachNetworkInterface {
                    eni: eni.clone(),
                    instance,
                    device: *device,
                    card: Some(*card),
                };
                outcome(account.attach(now, &request), Applied::Attached)
            }
            Work::SetGroups { eni, groups } => {
                let request = ModifyNetworkInterfaceAttribute {
                    eni: eni.clone(),
                    attribute: EniAttribute::Groups(groups.iter().cloned().collect()),
                };
                outcome(account.call(now, &request), |()| Applied::Done)
            }
            Work::DeleteOnTermination { eni, attachment } => {
                let attribute = EniAttribute::OnTermination(attachment.clone(), model::OnTermination::Delete);
                let request = ModifyNetworkInterfaceAttribute {
                    eni: eni.clone(),
                    attribute,
                };
                outcome(account.call(now, &request), |()| Applied::Done)
            }
            Work::AllocateAddresses { eni, want } => {
                let request = AssignPrivateIpAddresses::new(eni.clone(), asked(*want));
                outcome(account.call(now, &request), |assigned| {
                    Applied::Allocated(allocations(assigned))
                })
            }
            Work::ReleaseAddresses { eni, allocations } => {
                outcome(account.call(now, &release(eni, allocations)), |()| Applied::Done)
            }
            Work::Detach { attachment, .. } => {
                let request = DetachNetworkInterface {
                    attachment: attachment.clone(),
                    mode: DetachMode::Orderly,
                };
                outcome(account.call(now, &request), |()| Applied::Done)
            }
            Work::DeleteEni { eni } => outcome(account.call(now, &DeleteNetworkInterface { eni: eni.clone() }), |()| {
                Applied::Done
            }),
            Work::SetupEni { .. } | Work::TeardownEni { .. } | Work::ClearPodState { .. } => {
                unreachable!("the kernel's work does not come here")
            }
        };
        self.follow_devices();
        result
    }

    fn describe(&mut self, node: NodeId, scope: Scope) {
        let started_at = BootTime(self.now);
        let instance = self.nodes[node.0].instance.clone();
        let filters = match scope {
            Scope::Attached => vec![Filter::new("attachment.instance-id", instance.as_str())],
            Scope::OwnAvailable => vec![
                Filter::new(&format!("tag:{INSTANCE_TAG}"), instance.as_str()),
                Filter::new("status", "available"),
            ],
            Scope::Leaked => vec![Filter::new("tag-key", INSTANCE_TAG), Filter::new("status", "available")],
            Scope::Subnets => return self.describe_subnets(node),
        };
        let request = DescribeNetworkInterfaces::from(Query {
            filters,
            ..Query::default()
        });
        let (latency, result) = self.account.call(self.now, &request);
        let event = match result {
            Ok(page) => Event::Ec2Viewed(Ec2View {
                started_at,
                scope,
                source: ViewSource::Ec2,
                enis: page.items.iter().map(|eni| fact(eni, &instance)).collect(),
            }),
            Err(error) => describe_failed(scope, &error),
        };
        self.tell(node, latency, event);
    }

    fn describe_subnets(&mut self, node: NodeId) {
        let started_at = BootTime(self.now);
        let (latency, result) = self.account.subnets_of_zone(self.now);
        let event = match result {
            Ok(subnets) => Event::SubnetsViewed(SubnetsView { started_at, subnets }),
            Err(error) => describe_failed(Scope::Subnets, &error),
        };
        self.tell(node, latency, event);
    }

    /// Tells a core that knows of bound pods how many have no address and no ADD under way, when that changed.
    pub(crate) fn tell_demand(&mut self, node: NodeId) {
        let bound = self.nodes[node.0].bound;
        let Agent::Ours(ours) = &mut self.nodes[node.0].agent else {
            return;
        };
        if ours.knowledge == Knowledge::Binding && ours.told != bound {
            ours.told = bound;
            self.deliver(node, Event::Demand { pods: bound });
        }
    }
}

fn creation(work: &Work, instance: &vpc_types::InstanceId) -> CreateNetworkInterface {
    let Work::CreateEni {
        token,
        subnet,
        groups,
        want,
        requested_at,
    } = work
    else {
        unreachable!("the caller matched it")
    };
    CreateNetworkInterface {
        groups: groups.iter().cloned().collect(),
        ipv4: (want.slots() > 0).then(|| asked(*want)),
        client_token: Some(token.clone()),
        tags: [
            (INSTANCE_TAG.to_owned(), instance.to_string()),
            (CREATED_TAG.to_owned(), requested_at.as_nanos().to_string()),
        ]
        .into(),
        ..CreateNetworkInterface::new(subnet.clone())
    }
}

fn describe_failed(scope: Scope, error: &Ec2Error) -> Event {
    Event::DescribeFailed {
        scope,
        refusal: class(error),
    }
}

fn outcome<T>(
    (latency, result): (Duration, Result<T, Ec2Error>),
    applied: impl FnOnce(T) -> Applied,
) -> (Duration, OpOutcome) {
    let outcome = match result {
        Ok(output) => OpOutcome::Applied(applied(output)),
        Err(error) => OpOutcome::Refused(class(&error)),
    };
    (latency, outcome)
}

fn allocations(assigned: model::AssignedIpv4) -> Vec<Allocation> {
    let singles = assigned.addresses.into_iter().map(Allocation::Ip);
    singles
        .chain(assigned.prefixes.into_iter().map(Allocation::Prefix))
        .collect()
}
