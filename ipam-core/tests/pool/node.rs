//! A node for tests: it plays disk, kernel and EC2's describes at once, and leaves EC2's mutations to the test.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipam_core::{
    Action, AllocationMode, Applied, AttachmentFact, AttachmentState, BootKind, BootTime, Checkpoint, Core, CoreConfig,
    Ec2View, EniFact, EniRole, Event, KernelView, LeakSweep, LeaseState, NodeFacts, Now, OnTermination, OpId,
    OpOutcome, Outcome, Provisioning, Refusal, ReqId, Scope, Signs, StartMode, StoredFiles, SubnetChoice, SubnetFact,
    SubnetsView, Timers, TrunkSlot, ViewSource, WallTime, WarmTarget, Work,
};
use vpc_types::{
    Allocation, DeviceNumber, IpamKey, MacAddress, NetworkCard, PodName, Prefix28, VethPrefix, host_veth_name,
};

pub(crate) const PRIMARY_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

/// Whether checkpoints can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    Works,
    Fails,
    /// A write begins and does not end.
    Hangs,
}

/// Whether EC2 lists ENIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ec2 {
    Answers,
    Unavailable,
}

pub(crate) struct Node {
    pub(crate) core: Core,
    pub(crate) now: Duration,
    pub(crate) disk: Disk,
    pub(crate) ec2: Ec2,
    pub(crate) source: ViewSource,
    /// The write that hangs.
    pub(crate) hanging: Option<Checkpoint>,
    /// Describes that were asked for.
    pub(crate) described: usize,
    /// What was described, and when.
    pub(crate) looks: Vec<(Duration, Scope)>,
    /// What EC2 denies to describe.
    pub(crate) forbidden: BTreeSet<Scope>,
    /// Looks that EC2 never answers.
    pub(crate) unanswered: BTreeSet<Scope>,
    pub(crate) subnets: Vec<SubnetFact>,
    /// Detached ENIs of other nodes.
    pub(crate) left_behind: Vec<EniFact>,
    pub(crate) files: StoredFiles,
    pub(crate) kernel: KernelView,
    pub(crate) enis: Vec<EniFact>,
    pub(crate) runs: Vec<(OpId, Work)>,
    pub(crate) replies: Vec<(ReqId, Outcome)>,
    /// Events told, and the time that the core took for each.
    pub(crate) events: usize,
    pub(crate) costs: Vec<Duration>,
    alarm: Option<Duration>,
    next_req: u64,
}

pub(crate) fn config(target: WarmTarget) -> CoreConfig {
    CoreConfig {
        target,
        mode: AllocationMode::Addresses,
        provisioning: Provisioning::Full,
        subnets: SubnetChoice::PrimaryOnly,
        leak_sweep: LeakSweep::Off,
        start: StartMode::Normal,
        cluster: None,
        timers: Timers::default(),
        node: NodeFacts {
            instance: "i-0123456789abcdef0".parse().unwrap(),
            primary_mac: PRIMARY_MAC,
            subnet: "subnet-0123".parse().unwrap(),
            max_enis: 3,
            slots_per_eni: 9,
            groups: BTreeSet::new(),
            trunk: TrunkSlot::NotWanted,
            max_pods: None,
            cluster_nodes: None,
            boot: BootKind::Later,
        },
        veth_prefix: VethPrefix::default(),
        max_waiting: 100,
        boot_id: "boot".to_owned(),
        nonce: 7,
    }
}

pub(crate) fn warm(warm: u32) -> WarmTarget {
    WarmTarget::Addresses { warm, minimum: 0 }
}

pub(crate) fn key(container: &str) -> IpamKey {
    IpamKey::new("aws-cni", container, "eth0").unwrap()
}

pub(crate) fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

/// Block `block` of 10.0.`third`.0/24.
pub(crate) fn prefix(third: u8, block: u8) -> Allocation {
    let net = ipnet::Ipv4Net::new([10, 0, third, block * 16].into(), 28).unwrap();
    Allocation::Prefix(Prefix28::new(net).unwrap())
}

/// An ENI of this instance; number 0 is the primary one.
pub(crate) fn eni(number: u16, addresses: &[u8]) -> EniFact {
    let low = u8::try_from(number).unwrap();
    EniFact {
        id: format!("eni-{number:017x}").parse().unwrap(),
        mac: MacAddress([2, 0, 0, 0, 0, low + 1]),
        subnet: "subnet-0123".parse().unwrap(),
        primary_address: ip(200 + low),
        allocations: addresses.iter().map(|last| Allocation::Ip(ip(*last))).collect(),
        groups: BTreeSet::new(),
        role: if number == 0 {
            EniRole::Primary
        } else {
            EniRole::Managed
        },
        attachment: Some(AttachmentFact {
            id: format!("eni-attach-{number:017x}").parse().unwrap(),
            device: DeviceNumber(number),
            card: NetworkCard::DEFAULT,
            on_termination: OnTermination::Delete,
            state: AttachmentState::Attached,
        }),
        created_at: None,
        owner: None,
    }
}

impl Node {
    /// A node that has started on empty files and has seen kernel and EC2.
    pub(crate) fn started(config: CoreConfig, enis: Vec<EniFact>) -> Self {
        let start = Duration::from_secs(1_000);
        let core = Core::new(config, times(start));
        let mut node = Self::with(core, enis, start);
        node.tell(Event::Tick);
        node
    }

    /// The same with a core of the test's making, nothing told yet.
    pub(crate) fn with(core: Core, enis: Vec<EniFact>, start: Duration) -> Self {
        let macs = enis.iter().map(|eni| eni.mac).chain([PRIMARY_MAC]).collect();
        Self {
            core,
            now: start,
            disk: Disk::Works,
            ec2: Ec2::Answers,
            source: ViewSource::Ec2,
            hanging: None,
            described: 0,
            looks: Vec::new(),
            forbidden: BTreeSet::new(),
            unanswered: BTreeSet::new(),
            subnets: Vec::new(),
            left_behind: Vec::new(),
            files: StoredFiles::default(),
            kernel: KernelView {
                macs,
                ..KernelView::default()
            },
            enis,
            runs: Vec::new(),
            replies: Vec::new(),
            events: 0,
            costs: Vec::new(),
            alarm: None,
            next_req: 1,
        }
    }

    /// The daemon dies and starts again from `files`.
    pub(crate) fn restarted(mut self, config: CoreConfig, files: &StoredFiles, pause: Duration) -> Self {
        self.now += pause;
        self.core = Core::restore(config, files, times(self.now)).unwrap().0;
        (self.alarm, self.runs, self.replies) = (None, Vec::new(), Vec::new());
        self.tell(Event::Tick);
        self
    }

    pub(crate) fn tell(&mut self, event: Event) {
        let mut events = std::collections::VecDeque::from([event]);
        let mut rounds = 0;
        while let Some(event) = events.pop_front() {
            rounds += 1;
            assert!(rounds < 10_000, "the core and the node talk for ever");
            #[expect(clippy::disallowed_methods, reason = "the cost of an event is measured in real time")]
            let begin = std::time::Instant::now();
            let actions = self.core.handle(event, times(self.now));
            self.events += 1;
            self.costs.push(begin.elapsed());
            for action in actions {
                events.extend(self.act(action));
            }
        }
    }

    fn describe(&mut self, scope: Scope) -> Event {
        let started_at = BootTime(self.now);
        self.described += 1;
        self.looks.push((self.now, scope));
        let refusal = match self.ec2 {
            _ if self.forbidden.contains(&scope) => Some(Refusal::Denied),
            Ec2::Unavailable => Some(Refusal::Unavailable),
            Ec2::Answers => None,
        };
        let enis = match scope {
            Scope::Attached => self.enis.clone(),
            Scope::Leaked => self.left_behind.clone(),
            Scope::OwnAvailable | Scope::Subnets => Vec::new(),
        };
        match (refusal, scope) {
            (Some(refusal), _) => Event::DescribeFailed { scope, refusal },
            (None, Scope::Subnets) => Event::SubnetsViewed(SubnetsView {
                started_at,
                subnets: self.subnets.clone(),
            }),
            (None, _) => Event::Ec2Viewed(Ec2View {
                started_at,
                scope,
                source: self.source,
                enis,
            }),
        }
    }

    fn act(&mut self, action: Action) -> Option<Event> {
        let started_at = BootTime(self.now);
        match action {
            Action::Persist { generation } if self.disk == Disk::Fails => Some(Event::CheckpointFailed { generation }),
            Action::Persist { .. } if self.disk == Disk::Hangs => {
                self.hanging = Some(self.core.checkpoint());
                None
            }
            Action::Persist { .. } => {
                let checkpoint = self.core.checkpoint();
                self.files.ipam_json = Some(checkpoint.ipam_json);
                self.files.side_file = Some(checkpoint.side_file);
                Some(Event::CheckpointDurable {
                    generation: checkpoint.generation,
                })
            }
            Action::Reply { req, outcome } => {
                self.replies.push((req, outcome));
                None
            }
            Action::Describe { scope } if self.unanswered.contains(&scope) => None,
            Action::Describe { scope } => Some(self.describe(scope)),
            Action::ViewKernel => Some(Event::KernelViewed(KernelView {
                started_at,
                ..self.kernel.clone()
            })),
            Action::WakeAt { at } => {
                self.alarm = Some(at.0.max(self.now));
                None
            }
            Action::Run {
                op,
                work: work @ Work::ClearPodState { .. },
            } => {
                if let Work::ClearPodState { address, .. } = work {
                    self.kernel.signs.remove(&address);
                }
                Some(done(op, Applied::Done))
            }
            Action::Run {
                op,
                work: Work::SetupEni { .. } | Work::TeardownEni { .. },
            } => Some(done(op, Applied::Done)),
            Action::Run { op, work } => {
                self.runs.push((op, work));
                None
            }
            Action::Note(_) => None,
        }
    }

    /// Lets time pass, with all the moments that the core asked for.
    pub(crate) fn pass(&mut self, secs: f64) {
        let end = self.now + Duration::from_secs_f64(secs);
        let mut ticks = 0;
        while let Some(at) = self.alarm.filter(|at| *at <= end) {
            ticks += 1;
            assert!(ticks < 10_000, "the core asks to be woken for ever");
            self.now = self.now.max(at);
            self.alarm = None;
            self.tell(Event::Tick);
        }
        self.now = end;
    }

    /// Something makes the core look at EC2.
    pub(crate) fn look(&mut self) {
        self.tell(Event::LinkGone { mac: PRIMARY_MAC });
        self.tell(Event::LinkAppeared { mac: PRIMARY_MAC });
        self.pass(6.0);
    }

    /// State and address of a lease.
    pub(crate) fn lease(&self, container: &str) -> Option<(LeaseState, Ipv4Addr)> {
        let lease = self.core.pool().lease(&key(container))?;
        Some((lease.state, lease.address))
    }

    pub(crate) fn add(&mut self, container: &str) -> ReqId {
        let req = ReqId(self.next_req);
        self.next_req += 1;
        let deadline = BootTime(self.now + Duration::from_secs(30));
        let pod = PodName::new("default", container);
        self.tell(Event::AddRequested {
            req,
            key: key(container),
            pod,
            deadline,
        });
        req
    }

    pub(crate) fn del(&mut self, container: &str) -> ReqId {
        let req = ReqId(self.next_req);
        self.next_req += 1;
        self.tell(Event::DelRequested {
            req,
            key: key(container),
        });
        req
    }

    pub(crate) fn reply(&self, req: ReqId) -> Option<&Outcome> {
        self.replies
            .iter()
            .find(|(answered, _)| *answered == req)
            .map(|(_, outcome)| outcome)
    }

    /// The address that a request was granted.
    pub(crate) fn granted(&self, req: ReqId) -> Option<Ipv4Addr> {
        match self.reply(req) {
            Some(Outcome::Granted(grant)) => Some(grant.address),
            _ => None,
        }
    }

    /// The sandbox is wired: its veth, route and rules appear.
    pub(crate) fn wire(&mut self, container: &str, address: Ipv4Addr) {
        let pod = PodName::new("default", container);
        let veth = host_veth_name(&VethPrefix::default(), pod.as_ref(), &key(container));
        self.kernel.veths.insert(veth.clone(), Some(container.to_owned()));
        self.kernel.signs.insert(
            address,
            Signs {
                route_device: Some(veth),
                rules: 2,
            },
        );
        self.tell(Event::KernelChanged);
        self.pass(2.0);
    }

    /// The sandbox's namespace dies: veth and route go, rules stay.
    pub(crate) fn kill(&mut self, container: &str, address: Ipv4Addr) {
        self.kernel.veths.retain(|_, alias| alias.as_deref() != Some(container));
        self.kernel.signs.insert(
            address,
            Signs {
                route_device: None,
                rules: 2,
            },
        );
        self.tell(Event::KernelChanged);
    }

    pub(crate) fn finish(&mut self, op: OpId, applied: Applied) {
        self.tell(done(op, applied));
    }

    pub(crate) fn outcome(&mut self, op: OpId, outcome: OpOutcome) {
        self.tell(Event::OpDone { op, outcome });
    }

    /// Takes the only call to EC2 that is under way.
    pub(crate) fn only_run(&mut self) -> (OpId, Work) {
        assert_eq!(self.runs.len(), 1, "{:?}", self.runs);
        self.runs.remove(0)
    }

    /// Gives addresses to the primary ENI, as EC2 would for `op`.
    pub(crate) fn allocate(&mut self, op: OpId, addresses: &[u8]) {
        let new: BTreeSet<Allocation> = addresses.iter().map(|last| Allocation::Ip(ip(*last))).collect();
        self.enis[0].allocations.extend(new.iter().copied());
        self.finish(op, Applied::Allocated(new.into_iter().collect()));
    }
}

fn done(op: OpId, applied: Applied) -> Event {
    Event::OpDone {
        op,
        outcome: OpOutcome::Applied(applied),
    }
}

pub(crate) fn times(now: Duration) -> Now {
    Now {
        boot: BootTime(now),
        wall: WallTime(Duration::from_secs(1_800_000_000) + now),
    }
}
