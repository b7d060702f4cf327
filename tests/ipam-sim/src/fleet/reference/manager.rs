//! The one loop of the reference's pool manager: every five seconds it may add, give back, and remove one ENI, and it
//! waits for each call before it goes on.

use std::time::Duration;

use vpc_types::{Allocation, AttachmentId, DeviceNumber, EniId, InstanceId, InstanceLimits, SubnetId};

use super::super::account::Account;
use super::super::plan::{Mode, Policy};
use super::calls::{Call, Caller, Got};
use super::formulas::Formulas;
use super::store::Store;

const PASS: Duration = Duration::from_secs(5);
/// No further try after a subnet without addresses.
const SUBNET_PAUSE: Duration = Duration::from_secs(120);
const SHRINK_GAP: Duration = Duration::from_secs(30);
/// Metadata is compared with the store when nothing happened for so long.
const RECONCILE: Duration = Duration::from_secs(60);
/// From the start of the process to its first call.
const PROCESS_START: Duration = Duration::from_secs(1);
/// Tries around one call, each with the client's own three.
const TRIES: u32 = 12;
const CLIENT_TRIES: u32 = 3;
/// Retries that a client may make before it has to succeed, and what one costs.
const RETRY_TOKENS: u32 = 500;
const RETRY_COST: u32 = 5;
/// From the answer to Attach until metadata and kernel show the device.
const DEVICE_LAG: Duration = Duration::from_millis(1_500);

/// What makes the manager go on.
#[derive(Debug)]
pub(crate) enum Wake {
    /// The next pass, or the end of a pause.
    Turn,
    /// A call's answer.
    Answer(Got),
}

/// What the manager is in the middle of.
#[derive(Debug, Clone)]
enum Task {
    BootView(u32),
    BootTag(u32),
    BootSubnets,
    BootGroups,
    /// Fill the first of these, asking for so many slots; a refusal is repeated with one.
    Fill(Vec<EniId>, u32, Ask),
    /// The ENI had no room: look what it holds.
    ReadBack(EniId),
    NewSubnets(u32),
    /// In the first of these, else in the next.
    NewCreate(Vec<SubnetId>, u32),
    NewIndex(Fresh),
    NewAttach(Fresh),
    NewKeep(Fresh, AttachmentId, Duration),
    NewDevice(Fresh, AttachmentId),
    NewExclusion(Fresh, AttachmentId),
    Shrink(Vec<(EniId, Vec<Allocation>)>),
    Free(EniId, AttachmentId, u32),
    Detach(EniId, AttachmentId, u32),
    Delete(EniId, u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    All,
    One,
}

/// An ENI just created.
#[derive(Debug, Clone)]
struct Fresh {
    eni: EniId,
    allocations: Vec<Allocation>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Boot,
    Scale,
    Remove,
}

enum Next {
    Now(Task),
    After(Duration, Task),
    Over,
    Crash,
}

/// The pool manager of one node.
#[derive(Debug)]
pub(crate) struct Manager {
    caller: Caller,
    formulas: Formulas,
    max_enis: u32,
    pub(crate) store: Store,
    /// Whether its socket is open.
    pub(crate) serving: bool,
    stage: Stage,
    task: Option<Task>,
    attempt: u32,
    tokens: u32,
    crashes: u32,
    blocked_until: Duration,
    last_shrink: Duration,
    last_action: Duration,
    /// ENIs whose set-up failed half-way: known, but without their addresses until the comparison with metadata.
    unfinished: Vec<Fresh>,
    pub(crate) rng: fastrand::Rng,
}

impl Manager {
    /// A manager for an instance, within the limits of its type and of its pods.
    pub(crate) fn new(
        policy: Policy,
        instance: InstanceId,
        (limits, max_pods): (&InstanceLimits, u32),
        seed: u64,
    ) -> Self {
        let slots = u32::from(limits.ipv4_per_eni - 1);
        Self {
            caller: Caller {
                instance,
                mode: policy.mode,
            },
            formulas: Formulas::new(policy.targets, policy.mode, slots, max_pods),
            max_enis: u32::from(limits.enis_on_default_card()),
            store: Store::default(),
            serving: false,
            stage: Stage::Boot,
            task: None,
            attempt: 0,
            tokens: RETRY_TOKENS,
            crashes: 0,
            blocked_until: Duration::ZERO,
            last_shrink: Duration::ZERO,
            last_action: Duration::ZERO,
            unfinished: Vec::new(),
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// The process starts: the first wake.
    pub(crate) fn start(&mut self, account: &Account, now: Duration) -> (Duration, Wake) {
        self.stage = Stage::Boot;
        self.store = Store::default();
        for eni in account.model.enis_of(&self.caller.instance) {
            let tie = eni.attachment.as_ref().filter(|tie| !tie.is_primary());
            self.store.add_eni(now, eni.id.clone(), tie.map(|tie| tie.id.clone()));
            let allocations: Vec<Allocation> = eni.allocations().collect();
            self.store.add(&eni.id, &allocations);
        }
        self.task = Some(Task::BootView(0));
        (now + PROCESS_START, Wake::Turn)
    }

    /// An address for a pod, if one is free.
    pub(crate) fn assign(&mut self, now: Duration) -> Option<std::net::Ipv4Addr> {
        self.store.assign(now, &mut self.rng)
    }

    fn primary(&self) -> EniId {
        self.store
            .enis
            .first()
            .expect("every instance has its primary ENI")
            .id
            .clone()
    }

    /// Goes on; says when to go on next.
    pub(crate) fn wake(&mut self, wake: Wake, account: &mut Account, now: Duration) -> (Duration, Wake) {
        match wake {
            Wake::Turn => match self.task.clone() {
                Some(task) => self.perform(task, account, now),
                None => self.pass(account, now),
            },
            Wake::Answer(Got::Throttled) if self.attempt + 1 < CLIENT_TRIES && self.tokens >= RETRY_COST => {
                self.attempt += 1;
                self.tokens -= RETRY_COST;
                let pause = self.rng.f64() * f64::from(1_u32 << self.attempt);
                (now + Duration::from_secs_f64(pause), Wake::Turn)
            }
            Wake::Answer(got) => {
                self.attempt = 0;
                if got != Got::Throttled {
                    self.tokens = (self.tokens + RETRY_COST).min(RETRY_TOKENS);
                }
                let task = self.task.take().expect("an answer belongs to a task");
                let next = self.answered(task, got, now);
                self.go_on(next, account, now)
            }
        }
    }

    fn go_on(&mut self, next: Next, account: &mut Account, now: Duration) -> (Duration, Wake) {
        match next {
            Next::Now(task) => self.perform(task, account, now),
            Next::After(pause, task) => {
                self.task = Some(task);
                (now + pause, Wake::Turn)
            }
            Next::Crash => {
                let pause = Duration::from_secs(10 << self.crashes.min(5)).min(Duration::from_secs(300));
                self.crashes += 1;
                let (at, wake) = self.start(account, now);
                (at + pause, wake)
            }
            Next::Over => self.stage_over(account, now),
        }
    }

    fn stage_over(&mut self, account: &mut Account, now: Duration) -> (Duration, Wake) {
        match self.stage {
            Stage::Scale => {
                self.stage = Stage::Remove;
                let next = self.removal(now);
                self.go_on(next, account, now)
            }
            Stage::Boot | Stage::Remove => {
                self.serving = true;
                self.stage = Stage::Scale;
                (now + PASS, Wake::Turn)
            }
        }
    }

    fn pass(&mut self, account: &mut Account, now: Duration) -> (Duration, Wake) {
        if !self.unfinished.is_empty() && now >= self.last_action + RECONCILE {
            for fresh in std::mem::take(&mut self.unfinished) {
                self.store.add(&fresh.eni, &fresh.allocations);
            }
            self.last_action = now;
        }
        let next = self.scaling(now);
        self.go_on(next, account, now)
    }

    fn scaling(&mut self, now: Duration) -> Next {
        let sums = self.store.sums();
        if self.formulas.is_low(sums) {
            return self.increase(now);
        }
        let over = self.formulas.give_back(sums);
        if over == 0 || now < self.last_shrink + SHRINK_GAP {
            return Next::Over;
        }
        self.last_shrink = now;
        let lots = self.store.take_freeable(over, self.formulas.mode == Mode::Prefixes);
        if lots.is_empty() {
            Next::Over
        } else {
            Next::Now(Task::Shrink(lots))
        }
    }

    fn increase(&mut self, now: Duration) -> Next {
        if now < self.blocked_until {
            return Next::Over;
        }
        let enis = self.store.allocatable(self.formulas.slots, &mut self.rng);
        self.fill(enis)
    }

    fn fill(&mut self, enis: Vec<EniId>) -> Next {
        let sums = self.store.sums();
        let Some(first) = enis.first() else {
            return self.new_eni();
        };
        let room = self.formulas.slots - self.store.slots_used(first);
        let slots = self.formulas.fill(sums).min(room);
        if slots == 0 {
            return Next::Over;
        }
        Next::Now(Task::Fill(enis, slots, Ask::All))
    }

    fn new_eni(&mut self) -> Next {
        let there = u32::try_from(self.store.enis.len()).expect("an instance has at most 64 ENIs");
        if there >= self.max_enis {
            return Next::Over;
        }
        let sums = self.store.sums();
        let slots = match self.formulas.mode {
            Mode::Addresses if !self.formulas.has_targets() => self.formulas.slots,
            Mode::Addresses | Mode::Prefixes => self.formulas.fill(sums).min(self.formulas.slots),
        };
        Next::Now(Task::NewSubnets(slots))
    }

    fn removal(&mut self, now: Duration) -> Next {
        if !self.formulas.wants_fewer_enis(self.store.sums()) {
            return Next::Over;
        }
        let found = self.store.take_deletable(now, &self.formulas, &mut self.rng);
        match found.and_then(|eni| Some((eni.id, eni.attachment?))) {
            Some((eni, attachment)) => Next::Now(Task::Free(eni, attachment, 0)),
            None => Next::Over,
        }
    }

    /// Makes the call of a task, or ends a pause that was all there was to it.
    fn perform(&mut self, task: Task, account: &mut Account, now: Duration) -> (Duration, Wake) {
        let call = match &task {
            Task::BootView(_) => Call::View(self.primary()),
            Task::BootTag(_) => Call::Tag(self.primary()),
            Task::BootSubnets | Task::NewSubnets(_) | Task::NewExclusion(..) => Call::Subnets,
            Task::BootGroups => Call::Groups(self.primary()),
            Task::Fill(enis, slots, ask) => {
                let slots = if *ask == Ask::One { 1 } else { *slots };
                Call::Assign(enis[0].clone(), slots)
            }
            Task::NewCreate(subnets, slots) => Call::Create(subnets[0].clone(), *slots),
            Task::NewIndex(_) => Call::Index,
            Task::NewAttach(fresh) => Call::Attach(fresh.eni.clone(), self.free_device(account)),
            Task::NewKeep(fresh, attachment, _) => Call::KeepWithInstance(fresh.eni.clone(), attachment.clone()),
            Task::NewDevice(fresh, attachment) => {
                let next = Next::Now(Task::NewExclusion(fresh.clone(), attachment.clone()));
                return self.go_on(next, account, now);
            }
            Task::Shrink(lots) => Call::Unassign(lots[0].0.clone(), lots[0].1.clone()),
            Task::Free(eni, ..) | Task::ReadBack(eni) => Call::View(eni.clone()),
            Task::Detach(_, attachment, _) => Call::Detach(attachment.clone()),
            Task::Delete(eni, _) => Call::Delete(eni.clone()),
        };
        self.task = Some(task);
        let (latency, got) = self.caller.make(account, now, &call);
        (now + latency, Wake::Answer(got))
    }

    fn free_device(&self, account: &Account) -> DeviceNumber {
        let taken: Vec<DeviceNumber> = account
            .model
            .enis_of(&self.caller.instance)
            .filter_map(|eni| Some(eni.attachment.as_ref()?.device))
            .collect();
        let free = (1..).map(DeviceNumber).find(|device| !taken.contains(device));
        free.expect("an instance has far fewer ENIs than numbers")
    }

    fn answered(&mut self, task: Task, got: Got, now: Duration) -> Next {
        let failed = matches!(got, Got::Throttled | Got::Insufficient | Got::Full | Got::Refused);
        match task {
            Task::BootView(tries) if failed => retry(tries, Duration::from_millis(10), Task::BootView),
            Task::BootView(_) => Next::Now(Task::BootTag(0)),
            Task::BootTag(tries) if failed && tries < 5 => retry(tries, Duration::from_millis(500), Task::BootTag),
            Task::BootTag(_) if failed => Next::Crash,
            Task::BootTag(_) => Next::Now(Task::BootSubnets),
            Task::BootSubnets if failed => Next::After(Duration::from_secs(10), Task::BootSubnets),
            Task::BootSubnets => Next::Now(Task::BootGroups),
            Task::BootGroups if self.formulas.is_low(self.store.sums()) => self.increase(now),
            Task::BootGroups => Next::Over,
            Task::Fill(enis, slots, ask) => self.filled(enis, slots, ask, got, now),
            Task::NewSubnets(_) if failed => Next::Over,
            Task::NewSubnets(slots) => {
                if let Got::Subnets(subnets) = got {
                    Next::Now(Task::NewCreate(subnets, slots))
                } else {
                    Next::Over
                }
            }
            Task::NewCreate(subnets, slots) => self.created(subnets, slots, got, now),
            Task::NewIndex(fresh) if failed => Next::Now(Task::Delete(fresh.eni, 0)),
            Task::NewIndex(fresh) => Next::Now(Task::NewAttach(fresh)),
            Task::NewAttach(fresh) => {
                if let Got::Attached(attachment) = got {
                    Next::Now(Task::NewKeep(fresh, attachment, now + DEVICE_LAG))
                } else {
                    Next::Now(Task::Delete(fresh.eni, 0))
                }
            }
            Task::NewKeep(fresh, attachment, _) if failed => Next::Now(Task::Free(fresh.eni, attachment, 0)),
            Task::NewKeep(fresh, attachment, visible) => Next::After(
                until_seen(visible.saturating_sub(now)),
                Task::NewDevice(fresh, attachment),
            ),
            Task::NewDevice(..) => Next::Over,
            Task::NewExclusion(fresh, attachment) => {
                self.store.add_eni(now, fresh.eni.clone(), Some(attachment));
                if failed {
                    self.unfinished.push(fresh);
                } else {
                    self.store.add(&fresh.eni, &fresh.allocations);
                    self.last_action = now;
                }
                Next::Over
            }
            Task::ReadBack(eni) => self.read_back(&eni, failed),
            Task::Shrink(lots) => self.shrunk(lots, failed),
            Task::Free(eni, attachment, tries) if failed => retry(tries, Duration::from_millis(200), |tries| {
                Task::Free(eni, attachment, tries)
            }),
            Task::Free(eni, attachment, _) => Next::Now(Task::Detach(eni, attachment, 0)),
            Task::Detach(eni, attachment, tries) if failed => retry(tries, Duration::from_millis(200), |tries| {
                Task::Detach(eni, attachment, tries)
            }),
            Task::Detach(eni, ..) => Next::After(Duration::from_secs(2), Task::Delete(eni, 0)),
            Task::Delete(eni, tries) if failed => {
                retry(tries, Duration::from_millis(500), |tries| Task::Delete(eni, tries))
            }
            Task::Delete(..) => Next::Over,
        }
    }

    fn created(&mut self, mut subnets: Vec<SubnetId>, slots: u32, got: Got, now: Duration) -> Next {
        if let Got::Created(eni, allocations) = got {
            return Next::Now(Task::NewIndex(Fresh { eni, allocations }));
        }
        subnets.remove(0);
        if !subnets.is_empty() {
            return Next::Now(Task::NewCreate(subnets, slots));
        }
        if got == Got::Insufficient {
            self.block(now)
        } else {
            Next::Over
        }
    }

    fn filled(&mut self, mut enis: Vec<EniId>, slots: u32, ask: Ask, got: Got, now: Duration) -> Next {
        match got {
            Got::Allocated(allocations) => {
                self.store.add(&enis[0], &allocations);
                self.last_action = now;
                Next::Over
            }
            Got::Full => Next::Now(Task::ReadBack(enis.remove(0))),
            Got::Throttled | Got::Insufficient | Got::Refused if ask == Ask::All => {
                Next::Now(Task::Fill(enis, slots, Ask::One))
            }
            Got::Insufficient => {
                enis.remove(0);
                self.fill(enis)
            }
            Got::Throttled | Got::Refused if self.stage == Stage::Boot => Next::Crash,
            Got::Throttled | Got::Refused | Got::Done | Got::Created(..) | Got::Attached(_) | Got::Subnets(_) => {
                Next::Over
            }
        }
    }

    fn read_back(&mut self, eni: &EniId, failed: bool) -> Next {
        let found = self.unfinished.iter().position(|fresh| fresh.eni == *eni);
        if let Some(index) = found.filter(|_| !failed) {
            let fresh = self.unfinished.remove(index);
            self.store.add(&fresh.eni, &fresh.allocations);
        }
        Next::Over
    }

    /// A refused release is noticed by the comparison with metadata; nobody else has the addresses.
    fn shrunk(&mut self, mut lots: Vec<(EniId, Vec<Allocation>)>, failed: bool) -> Next {
        let (eni, allocations) = lots.remove(0);
        if failed {
            self.store.add(&eni, &allocations);
        }
        if lots.is_empty() {
            Next::Over
        } else {
            Next::Now(Task::Shrink(lots))
        }
    }

    fn block(&mut self, now: Duration) -> Next {
        self.blocked_until = now + SUBNET_PAUSE;
        Next::Over
    }
}

/// Twelve tries with pauses that double up to a minute, then it is given up.
fn retry(tries: u32, first: Duration, task: impl FnOnce(u32) -> Task) -> Next {
    if tries + 1 >= TRIES {
        return Next::Over;
    }
    let pause = first.saturating_mul(1 << tries).min(Duration::from_secs(60));
    Next::After(pause, task(tries + 1))
}

/// Metadata is read at once, then after pauses that double from a tenth of a second.
fn until_seen(visible_in: Duration) -> Duration {
    let mut at = Duration::ZERO;
    let mut pause = Duration::from_millis(100);
    while at < visible_in {
        at += pause;
        pause *= 2;
    }
    at
}
