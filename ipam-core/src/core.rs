//! The core itself: its state, and the order in which one event is digested.
//!
//! Each event runs the same steps: apply what happened, end rests that are over, serve the line, plan, write, set the
//! alarm. The steps live in their own modules; this one only knows their order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use vpc_types::{EniId, IpamKey, MacAddress, PodName, SecurityGroupId};

use crate::action::{Action, Note, Work};
use crate::backoff::{Backoffs, Jitter};
use crate::config::{CoreConfig, StartMode, SubnetChoice};
use crate::eni::{Eni, EniPhase};
use crate::event::{EniRole, Event, KernelView, NodeCondition, Placement, Scope};
use crate::groups::GroupWatch;
use crate::imds::Hints;
use crate::invariant::Violation;
use crate::ipam_file::EntryFault;
use crate::leaks::LeakWatch;
use crate::mutant::Defect;
#[cfg(feature = "mutants")]
use crate::mutant::Mutant;
use crate::outbox::Outbox;
use crate::pool::{Pool, Supply};
use crate::subnets::{SubnetStatus, Subnets};
use crate::sweep::Suspicion;
use crate::usage::{Arrivals, UsagePeak};
use crate::{BootTime, Now, OpId, ReqId};

/// An ADD in line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiter {
    pub(crate) req: ReqId,
    pub(crate) key: IpamKey,
    pub(crate) pod: Option<PodName>,
    pub(crate) since: BootTime,
    pub(crate) deadline: BootTime,
}

/// An operation that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpRecord {
    pub(crate) work: Work,
    pub(crate) state: OpState,
    pub(crate) history: OpHistory,
    /// Begin of its last call: an answer tells of EC2 at some moment after that, however late it arrives.
    pub(crate) called_at: BootTime,
}

/// What a refusal proves: of a first try that nothing happened, of a repetition only that it did nothing itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpHistory {
    FirstTry,
    MayHaveTakenEffect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpState {
    InFlight,
    /// Nobody knows its outcome since then.
    Unresolved {
        since: BootTime,
    },
}

/// When a view is wanted, and whether one is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ViewWish {
    pub(crate) in_flight: bool,
    pub(crate) wanted_at: Option<BootTime>,
    /// When the newest view that came began.
    pub(crate) newest: Option<BootTime>,
}

impl ViewWish {
    /// Whether a view is to come.
    pub(crate) fn is_open(self) -> bool {
        self.in_flight || self.wanted_at.is_some()
    }

    /// When it may tell something: at once while it is under way.
    pub(crate) fn next(self, now: BootTime) -> Option<BootTime> {
        if self.in_flight { Some(now) } else { self.wanted_at }
    }

    /// Wants a view that starts at `at` or later; an earlier wish stays.
    pub(crate) fn want(&mut self, at: BootTime) {
        self.wanted_at = Some(self.wanted_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// The pool of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Core {
    pub(crate) config: CoreConfig,
    pub(crate) started_at: BootTime,
    /// Time of the event that is being digested.
    pub(crate) clock: BootTime,
    pub(crate) pool: Pool,
    pub(crate) ops: BTreeMap<OpId, OpRecord>,
    pub(crate) next_op: u64,
    pub(crate) waiting: VecDeque<Waiter>,
    /// Allocations in `ipam.json` that belong to another family, written back as they were read.
    pub(crate) others: Vec<serde_json::Value>,
    /// Entries of `ipam.json` that made no sense.
    pub(crate) file_faults: Vec<EntryFault>,
    pub(crate) outbox: Outbox,
    pub(crate) jitter: Jitter,
    pub(crate) backoffs: Backoffs,
    pub(crate) links: BTreeSet<MacAddress>,
    pub(crate) kernel: ViewWish,
    pub(crate) last_kernel: Option<KernelView>,
    /// Since when dumps have lost most sandboxes.
    pub(crate) suspicion: Option<Suspicion>,
    /// What IMDS said against what we believe.
    pub(crate) hints: Hints,
    pub(crate) describe: BTreeMap<Scope, ViewWish>,
    /// Whether any view of attached ENIs came since the start.
    pub(crate) seen_ec2: bool,
    /// When EC2 was last asked only because a pod waited, where others bring the addresses.
    pub(crate) looked_for_waiting: Option<BootTime>,
    /// Whether the first fill at start is still under way: refills have no delay until then.
    pub(crate) first_fill: bool,
    pub(crate) short_since: Option<BootTime>,
    /// No refill before this: nodes that start together spread theirs.
    pub(crate) refill_not_before: BootTime,
    /// Since when pods wait or are announced for whom there is no address.
    pub(crate) pressed_since: Option<BootTime>,
    pub(crate) usage: UsagePeak,
    pub(crate) arrivals: Arrivals,
    /// Rests of addresses that are in no ENI's view right now.
    pub(crate) resting_elsewhere: BTreeMap<Ipv4Addr, BootTime>,
    /// ENIs that are deleted, and when: older views may still show them.
    pub(crate) deleted: BTreeMap<EniId, BootTime>,
    /// Half-made ENIs that are still too young to be deleted, and when a view first showed each.
    pub(crate) half_made: BTreeMap<EniId, BootTime>,
    /// How long addresses rest that are found on ENIs for the first time: a run without our files may have used them.
    pub(crate) rest_unknown: Option<Duration>,
    /// When whatever a former run had on addresses has rested: a short view may have hidden some from those that ended the above.
    pub(crate) unknown_until: BootTime,
    /// ENIs that EC2 let this instance have, when it refused more than the table says.
    pub(crate) max_enis: u16,
    /// Until when EC2's limit counts as lower than the table's, and how often it refused.
    pub(crate) slots_doubted_until: Option<BootTime>,
    pub(crate) slot_refusals: u32,
    /// What is known of the subnets.
    pub(crate) subnets: Subnets,
    /// Security groups of the primary ENI, as last seen.
    pub(crate) groups: BTreeSet<SecurityGroupId>,
    pub(crate) group_watch: GroupWatch,
    /// The search for ENIs of nodes that are gone.
    pub(crate) leaks: LeakWatch,
    /// Where pods' addresses come from.
    pub(crate) placement: Placement,
    /// Cordon, or the end of the instance is near.
    pub(crate) condition: NodeCondition,
    /// Pods bound to this node whose ADD has not come.
    pub(crate) demand: u32,
    /// Leftovers without lease or veth that are being removed, and when to try again.
    pub(crate) clearing: BTreeMap<Ipv4Addr, BootTime>,
    pub(crate) alarm: Option<BootTime>,
    pub(crate) wake: Option<BootTime>,
    pub(crate) defect: Defect,
}

/// What readers may know: a copy of the pool and the sums over it.
#[derive(Debug, Clone)]
pub struct Status {
    /// ENIs and leases.
    pub pool: Pool,
    /// Sums.
    pub supply: Supply,
    /// Requests in line.
    pub waiting: usize,
    /// ENIs the node may have.
    pub max_enis: u16,
    /// Why an ADD would be refused now; `None` when one would be served.
    pub cause: Option<crate::Cause>,
    /// Operations that have not ended.
    pub open_ops: usize,
    /// ENIs that something is being done to, or was so lately that EC2's views may lag behind.
    pub in_motion: BTreeSet<EniId>,
    /// Whether any view of attached ENIs came since the start.
    pub seen_ec2: bool,
    /// Whether this run gives things back.
    pub start: StartMode,
    /// The subnets of the zone; none before the first reading.
    pub subnets: Vec<SubnetStatus>,
}

impl Core {
    /// A core for a node without files: everything is learnt from EC2 and the kernel.
    pub fn new(config: CoreConfig, now: Now) -> Self {
        let mut jitter = Jitter::new(config.nonce);
        let spread = crate::budget::refill_spread(&config.node, &mut jitter);
        let mut core = Self {
            jitter,
            max_enis: config.node.max_enis,
            groups: config.node.groups.clone(),
            config,
            started_at: now.boot,
            clock: now.boot,
            pool: Pool::default(),
            ops: BTreeMap::new(),
            next_op: 1,
            waiting: VecDeque::new(),
            others: Vec::new(),
            file_faults: Vec::new(),
            outbox: Outbox::default(),
            backoffs: Backoffs::default(),
            links: BTreeSet::new(),
            kernel: ViewWish::default(),
            last_kernel: None,
            suspicion: None,
            hints: Hints::default(),
            describe: BTreeMap::new(),
            seen_ec2: false,
            looked_for_waiting: None,
            first_fill: true,
            short_since: None,
            refill_not_before: now.boot.after(spread),
            pressed_since: None,
            usage: UsagePeak::default(),
            arrivals: Arrivals::default(),
            resting_elsewhere: BTreeMap::new(),
            deleted: BTreeMap::new(),
            half_made: BTreeMap::new(),
            rest_unknown: None,
            unknown_until: BootTime::default(),
            slots_doubted_until: None,
            slot_refusals: 0,
            subnets: Subnets::default(),
            group_watch: GroupWatch::default(),
            leaks: LeakWatch::default(),
            placement: Placement::default(),
            condition: NodeCondition::default(),
            demand: 0,
            clearing: BTreeMap::new(),
            alarm: None,
            wake: None,
            defect: Defect::None,
        };
        if core.config.start == StartMode::Safe {
            core.outbox.note(Note::SafeMode);
        }
        core.kernel.want(now.boot);
        core.wish(Scope::Attached).want(now.boot);
        if core.config.subnets == SubnetChoice::ByTag && core.may_view(Scope::Subnets) {
            core.wish(Scope::Subnets).want(now.boot);
        }
        core
    }

    /// Builds in a defect.
    #[cfg(feature = "mutants")]
    pub fn mutate(&mut self, mutant: Mutant) {
        self.defect = Defect::Built(mutant);
        if mutant == Mutant::ReplyBeforePersist {
            self.outbox.skip_gate = crate::outbox::Gate::Open;
        }
        if mutant == Mutant::NoBackoff {
            self.config.timers.backoff_start = Duration::ZERO;
        }
    }

    /// Digests one event. The actions are to be run in order.
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Action> {
        self.clock = now.boot;
        self.apply(event, now);
        self.wake = None;
        self.pool.keep_tallies();
        self.pass_subnets();
        self.end_rests(now.boot);
        self.serve_line(now);
        self.plan(now);
        self.give_up_hung_write(now.boot);
        self.refuse_hopeless(now.boot);
        if let Some(at) = self.outbox.flush(now.boot) {
            self.wake_at(at);
        }
        self.set_alarm(now.boot);
        if let Err(violation) = self.check() {
            panic!("broken invariant: {violation}");
        }
        self.outbox.take()
    }

    fn apply(&mut self, event: Event, now: Now) {
        match event {
            Event::AddRequested {
                req,
                key,
                pod,
                deadline,
            } => {
                self.arrivals.record(now.boot);
                self.add_requested(Waiter {
                    req,
                    key,
                    pod,
                    since: now.boot,
                    deadline,
                });
            }
            Event::AddAbandoned { req } => self.waiting.retain(|waiter| waiter.req != req),
            Event::DelRequested { req, key } => self.del_requested(req, &key, now.boot),
            Event::OpDone { op, outcome } => self.op_done(op, outcome, now),
            Event::CheckpointDurable { generation } => self.outbox.durable(generation),
            Event::CheckpointFailed { .. } => self.checkpoint_failed(now.boot),
            Event::Ec2Viewed(view) => self.ec2_viewed(&view, now),
            Event::DescribeFailed { scope, refusal } => self.describe_failed(scope, refusal, now.boot),
            Event::KernelViewed(view) => self.kernel_viewed(view, now.boot),
            Event::KernelViewFailed => self.kernel_view_failed(now.boot),
            Event::KernelChanged => self.kernel.want(now.boot),
            Event::LinkAppeared { mac } => self.link_appeared(mac, now.boot),
            Event::LinkGone { mac } => self.link_gone(mac, now.boot),
            Event::SubnetsViewed(view) => self.subnets_viewed(view),
            Event::ImdsViewed(view) => self.imds_viewed(view, now.boot),
            Event::NodeConditionChanged(condition) => self.condition = condition,
            Event::PlacementChanged(placement) => self.placement_changed(placement, now.boot),
            Event::Demand { pods } => self.demand = pods,
            Event::Tick => {}
        }
    }

    fn link_appeared(&mut self, mac: MacAddress, now: BootTime) {
        self.links.insert(mac);
        if self.kernel.in_flight {
            // The dump under way may have passed the links already.
            self.kernel.want(now);
        }
    }

    /// The device of an ENI in service went without our doing: EC2 knows why.
    fn link_gone(&mut self, mac: MacAddress, now: BootTime) {
        self.links.remove(&mac);
        for eni in self.pool.enis.values_mut().filter(|eni| eni.mac == mac) {
            if eni.phase == EniPhase::Ready && eni.role != EniRole::Primary {
                // Its routes went with the device: no grants until it is back and set up again.
                eni.phase = EniPhase::Attached;
            }
        }
        if self
            .pool
            .enis()
            .any(|eni| eni.mac == mac && eni.phase.is_arriving_or_ready())
        {
            let at = now.after(self.config.timers.settle);
            self.wish(Scope::Attached).want(at);
        }
    }

    /// What should happen next, most urgent first. The same for a fresh start, after a crash, and on any ordinary day.
    fn plan(&mut self, now: Now) {
        self.plan_clears(now.boot);
        self.plan_repeats(now.boot);
        self.plan_lifecycles(now);
        self.plan_growth(now);
        self.plan_shrink(now.boot);
        self.plan_groups(now.boot);
        self.plan_subnets(now.boot);
        self.plan_leaks(now.boot);
        self.plan_views(now.boot);
    }

    /// The copy for readers.
    pub fn status(&self, now: Now) -> Status {
        let supply = self.pool.supply();
        let cause = (supply.free == 0 || !self.may_grant()).then(|| self.cause(now.boot));
        Status {
            pool: self.pool.clone(),
            supply,
            waiting: self.waiting.len(),
            max_enis: self.max_enis,
            cause,
            open_ops: self.ops.len(),
            in_motion: self.in_motion(now.boot),
            seen_ec2: self.seen_ec2,
            start: self.config.start,
            subnets: self.subnet_statuses(),
        }
    }

    /// One that stays on its way because its device or its set-up keeps failing is a state, not a motion.
    fn in_motion(&self, now: BootTime) -> BTreeSet<EniId> {
        let moves = |eni: &&Eni| {
            let is_going = match eni.phase {
                EniPhase::Ready => false,
                EniPhase::Available | EniPhase::Attached => eni.is_arriving(),
                EniPhase::Retiring | EniPhase::TornDown | EniPhase::Detached => true,
            };
            is_going || eni.kernel_op.is_some() || !eni.settled(now, self.config.timers.settle)
        };
        self.pool.enis().filter(moves).map(|eni| eni.id.clone()).collect()
    }

    /// Entries of `ipam.json` that made no sense when it was read; a copy of that file is worth keeping.
    pub fn file_faults(&self) -> &[EntryFault] {
        &self.file_faults
    }

    /// ENIs and leases.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Checks every invariant that one state can show.
    pub fn check(&self) -> Result<(), Violation> {
        crate::invariant::check(self)
    }

    pub(crate) fn wish(&mut self, scope: Scope) -> &mut ViewWish {
        self.describe.entry(scope).or_default()
    }

    /// Asks to be woken at `at` or earlier.
    pub(crate) fn wake_at(&mut self, at: BootTime) {
        self.wake = Some(self.wake.map_or(at, |earlier| earlier.min(at)));
    }

    /// Whether `at` has come; if not, asks to be woken then.
    pub(crate) fn due(&mut self, at: BootTime, now: BootTime) -> bool {
        if at > now {
            self.wake_at(at);
        }
        at <= now
    }

    fn set_alarm(&mut self, now: BootTime) {
        if let Some(at) = self.wake
            && (self.alarm != Some(at) || at <= now)
        {
            self.outbox.now(Action::WakeAt { at });
        }
        self.alarm = self.wake;
    }
}
