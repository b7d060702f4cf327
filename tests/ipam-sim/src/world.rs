//! The world of one run, and the order in which it moves: one happening at a time, then the invariants.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use ipam_core::{BootTime, Core, NodeCondition, Now, OpId, Placement, ReqId, StoredFiles, WallTime};
use vpc_sim::model::{Change, Model};
use vpc_types::{EniId, InstanceId, IpamKey, MacAddress, SecurityGroupId, SubnetId};

use crate::coverage::Coverage;
use crate::dice::Dice;
use crate::fate::{Fate, Origin};
use crate::fault::Fault;
use crate::kernel::Kernel;
use crate::load::Load;
use crate::outage::Outage;
use crate::plugin::Plugin;
use crate::queue::{Happening, Life, Pid, Queue};
use crate::region::Region;
use crate::run::Plan;
use crate::sandbox::Sandbox;
use crate::scenario::Scenario;
use crate::settings::NodeSettings;

/// Wall-clock time at the start of a run: any moment of this century.
pub(crate) const EPOCH: Duration = Duration::from_secs(1_800_000_000);
/// Happenings kept for the report of a violation.
const LOG_LEN: usize = 20_000;

/// Whether things still go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    Foul,
    Fair,
}

/// Whether happenings are written down; that is slow, so only a repeat of a failed run does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logging {
    /// No.
    Off,
    /// Yes.
    On,
}

/// Everything outside the core, and the core.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) booted_at: Duration,
    pub(crate) boots: u32,
    pub(crate) scenario: Scenario,
    /// Of the present life of the daemon.
    pub(crate) settings: NodeSettings,
    pub(crate) weather: Weather,
    pub(crate) queue: Queue,
    pub(crate) fate: Fate,
    /// Details of what the users do, and of what the runtime does for them.
    pub(crate) workload: Dice,
    /// Details of the stroke that fell last.
    pub(crate) luck: Dice,
    /// When users and bad luck act next.
    pub(crate) rhythm: Dice,
    pub(crate) pace: Dice,
    pub(crate) ec2: Model,
    pub(crate) instance: InstanceId,
    pub(crate) subnet: SubnetId,
    pub(crate) other_subnets: Vec<SubnetId>,
    pub(crate) groups: Vec<SecurityGroupId>,
    pub(crate) primary_mac: MacAddress,
    pub(crate) kernel: Kernel,
    pub(crate) disk: StoredFiles,
    pub(crate) condition: NodeCondition,
    pub(crate) placement: Placement,
    /// When a view was last cut short.
    pub(crate) cut_short_at: Option<Duration>,
    /// Largest number of pods that was announced.
    pub(crate) announced: u32,
    /// Reads of IMDS.
    pub(crate) polls: u64,
    /// Conditions that last.
    pub(crate) outages: BTreeSet<Outage>,
    /// What the node's clock showed at the start of the run, had it always gone as it goes now.
    pub(crate) epoch: Duration,
    /// Whether the reference daemon serves this node while ours is down.
    pub(crate) reference_runs: bool,
    pub(crate) core: Option<Core>,
    pub(crate) life: Life,
    pub(crate) alarm: Option<Duration>,
    pub(crate) sandboxes: BTreeMap<IpamKey, Sandbox>,
    pub(crate) plugins: BTreeMap<Pid, Plugin>,
    pub(crate) next_pid: u32,
    pub(crate) next_req: u64,
    pub(crate) next_pod: u32,
    /// Which plugin waits for which request of the living daemon.
    pub(crate) open_requests: BTreeMap<ReqId, Pid>,
    /// When the last owner's state on an address was removed.
    pub(crate) cleared_at: BTreeMap<Ipv4Addr, (Duration, String)>,
    /// Addresses that others took off our ENIs, at least once.
    pub(crate) foreign: BTreeSet<Ipv4Addr>,
    pub(crate) foreign_edits: u32,
    pub(crate) foreign_enis: BTreeSet<EniId>,
    /// When the daemon last lost a file that it could not do without.
    pub(crate) memory_lost_at: Option<Duration>,
    /// When the last complete dump that the daemon got began.
    pub(crate) last_dump: Option<Duration>,
    /// Whether this life of the daemon has seen the subnets.
    pub(crate) subnets_shown: bool,
    /// Whether a file that could not be used is still there under another name.
    pub(crate) set_aside: bool,
    /// When the last event of the node's condition and placement is delivered.
    pub(crate) told_until: Duration,
    /// ENIs that somebody detached before any view of this boot had shown them.
    pub(crate) detached_unseen: BTreeSet<EniId>,
    pub(crate) limit_refusals: u32,
    /// Token of each creation, by its operation.
    pub(crate) tokens_of: BTreeMap<OpId, String>,
    /// Tokens of creations that were asked for.
    pub(crate) tokens: BTreeSet<String>,
    pub(crate) load: Load,
    /// EC2 calls by kind.
    pub(crate) calls: BTreeMap<&'static str, u64>,
    pub(crate) core_events: u64,
    pub(crate) coverage: Coverage,
    pub(crate) logging: Logging,
    pub(crate) log: VecDeque<String>,
    pub(crate) violation: Option<String>,
    pub(crate) defect: crate::run::Defect,
}

impl World {
    pub(crate) fn new(plan: &Plan, scenario: Scenario, logging: Logging) -> Self {
        let seed = plan.seed;
        let Region {
            ec2,
            instance,
            subnet,
            others,
            groups,
            primary_mac,
        } = Region::new(seed, &scenario);
        Self {
            now: Duration::from_secs(1),
            booted_at: Duration::ZERO,
            boots: 1,
            settings: scenario.settings.clone(),
            scenario,
            weather: Weather::Foul,
            queue: Queue::default(),
            fate: Fate::new(seed, plan.only.clone()),
            workload: Dice::of(seed, "workload"),
            luck: Dice::of(seed, "luck"),
            rhythm: Dice::of(seed, "rhythm"),
            pace: Dice::of(seed, "pace"),
            ec2,
            instance,
            subnet,
            other_subnets: others,
            groups,
            primary_mac,
            kernel: Kernel::default(),
            disk: StoredFiles::default(),
            condition: NodeCondition::default(),
            placement: Placement::default(),
            cut_short_at: None,
            announced: 0,
            polls: 0,
            outages: BTreeSet::new(),
            epoch: EPOCH,
            reference_runs: false,
            core: None,
            life: Life::default(),
            alarm: None,
            sandboxes: BTreeMap::new(),
            plugins: BTreeMap::new(),
            next_pid: 1,
            next_req: 1,
            next_pod: 1,
            open_requests: BTreeMap::new(),
            cleared_at: BTreeMap::new(),
            foreign: BTreeSet::new(),
            foreign_edits: 0,
            foreign_enis: BTreeSet::new(),
            memory_lost_at: None,
            last_dump: None,
            subnets_shown: false,
            set_aside: false,
            told_until: Duration::ZERO,
            detached_unseen: BTreeSet::new(),
            limit_refusals: 0,
            tokens_of: BTreeMap::new(),
            tokens: BTreeSet::new(),
            load: Load::default(),
            calls: BTreeMap::new(),
            core_events: 0,
            coverage: Coverage::default(),
            logging,
            log: VecDeque::new(),
            violation: None,
            defect: plan.defect,
        }
    }

    /// Events of the core that are no reads of IMDS.
    pub(crate) fn own_events(&self) -> u64 {
        self.core_events - self.polls.min(self.core_events)
    }

    /// Counts an EC2 call.
    pub(crate) fn count_call(&mut self, kind: &'static str) {
        *self.calls.entry(kind).or_default() += 1;
        self.load.at(self.now).calls += 1;
    }

    pub(crate) fn boot_time(&self) -> BootTime {
        BootTime(self.now - self.booted_at)
    }

    pub(crate) fn both_times(&self) -> Now {
        Now {
            boot: self.boot_time(),
            wall: WallTime(self.epoch + self.now),
        }
    }

    /// The moment of the run at which the node's boot clock shows `at`.
    pub(crate) fn moment(&self, at: BootTime) -> Duration {
        self.booted_at + at.0
    }

    pub(crate) fn after(&mut self, delay: Duration, happening: Happening) {
        self.queue.plan(self.now + delay, happening);
    }

    /// Draws whether a fault strikes here and now; `luck` then decides its details.
    pub(crate) fn strikes(&mut self, fault: Fault) -> bool {
        if self.weather == Weather::Fair {
            return false;
        }
        let odds = self.scenario.odds(fault);
        let Some(stroke) = self.fate.draw(fault, odds, self.now) else {
            return false;
        };
        self.luck = self.fate.details(stroke);
        self.coverage.fault(fault);
        self.note(|| format!("stroke {stroke}"));
        true
    }

    /// Whether the users' next act takes place; `workload` then decides what it is.
    pub(crate) fn users_turn(&mut self) -> bool {
        let Some(stroke) = self.fate.next(Origin::Users, self.now) else {
            return false;
        };
        self.workload = self.fate.details(stroke);
        self.note(|| format!("act {stroke}"));
        true
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if self.logging == Logging::On {
            let (secs, micros) = (self.now.as_secs(), self.now.subsec_micros());
            self.log.push_back(format!("{secs:>6}.{micros:06} {}", text()));
            if self.log.len() > LOG_LEN {
                self.log.pop_front();
            }
        }
    }

    pub(crate) fn violate(&mut self, text: String) {
        self.note(|| format!("VIOLATION {text}"));
        self.violation.get_or_insert(text);
    }

    /// Moves on by one happening; whether there was one before `until`.
    pub(crate) fn step(&mut self, until: Duration) -> bool {
        // EC2's own transitions and the core's alarm move, so they are compared, not planned.
        let queued = self.queue.peek();
        let due = [queued, self.ec2.next_transition(), self.alarm]
            .into_iter()
            .flatten()
            .min();
        let Some(at) = due.filter(|at| *at <= until) else {
            return false;
        };
        self.now = self.now.max(at);
        if self.alarm == Some(at) {
            self.alarm = None;
            self.tick();
        } else if queued == Some(at) {
            let (_, happening) = self.queue.next().expect("it was just peeked at");
            self.happen(happening);
        }
        self.ec2.advance(self.now);
        self.follow_ec2();
        self.check_step();
        true
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Deliver { life, event } if life == self.life => self.deliver(event),
            Happening::Deliver { .. } => {}
            Happening::Ec2Work {
                life,
                op,
                work,
                answered,
            } => self.ec2_work(life, op, &work, answered),
            Happening::Ec2Describe {
                life,
                scope,
                started_at,
            } => self.ec2_describe(life, scope, started_at),
            Happening::KernelWork { life, op, work } if life == self.life => self.kernel_work(op, &work),
            Happening::DumpLinks { life, started_at } if life == self.life => self.dump_links(started_at),
            Happening::DumpRoutes { life, view } if life == self.life => self.dump_routes(*view),
            Happening::WriteIpam { life, checkpoint } if life == self.life => self.write_ipam(checkpoint),
            Happening::WriteSide { life, checkpoint } if life == self.life => self.write_side(*checkpoint),
            Happening::KernelWork { .. }
            | Happening::DumpLinks { .. }
            | Happening::DumpRoutes { .. }
            | Happening::WriteIpam { .. }
            | Happening::WriteSide { .. } => {}
            Happening::Answered { pid, req, outcome } => self.plugin_answered(pid, req, outcome),
            Happening::Plugin { pid, step } => self.plugin_step(pid, step),
            Happening::HangUp { life, req } if life == self.life => {
                self.deliver(ipam_core::Event::AddAbandoned { req });
            }
            Happening::HangUp { .. } => {}
            Happening::Runtime { key, chore } => self.runtime_chore(&key, chore),
            Happening::Start => self.start_daemon(),
            Happening::PollImds => self.poll_imds(),
            Happening::ImdsHealed => self.ec2.heal_imds(),
            Happening::NodeOpen => self.open_node(),
            Happening::Pods { named } => self.pods_come(named),
            Happening::ReferenceEnds => self.end_of_reference(),
            Happening::Users => self.users_act(),
            Happening::Mishap => self.mishap(),
            Happening::SubnetFreed => self.free_subnet(),
            Happening::OutageOver(outage) => drop(self.outages.remove(&outage)),
            Happening::LinkAppears { eni } => self.link_appears(&eni),
            Happening::ForeignRegret { eni, address } => self.foreign_regret(&eni, address),
        }
    }

    /// The kernel follows what EC2 plugs and unplugs; the daemon hears of it a little later.
    fn follow_ec2(&mut self) {
        for change in self.ec2.drain_changes() {
            let event = match change {
                Change::Attached { eni, instance, .. } if instance == self.instance => {
                    if self.strikes(Fault::LinkLate) {
                        let late = self.luck.millis(2_000, 900_000);
                        self.after(late, Happening::LinkAppears { eni: eni.id.clone() });
                    } else {
                        self.link_appears(&eni.id);
                    }
                    continue;
                }
                Change::Detached { eni, instance } if instance == self.instance => {
                    let Some(mac) = self.kernel.links.get(&eni).copied() else {
                        continue;
                    };
                    self.kernel.unplug(&eni);
                    ipam_core::Event::LinkGone { mac }
                }
                Change::Attached { .. }
                | Change::Detached { .. }
                | Change::Assigned { .. }
                | Change::Unassigned { .. }
                | Change::Ipv6Assigned { .. }
                | Change::Ipv6Unassigned { .. }
                | Change::SourceDestCheck { .. }
                | Change::Terminated { .. } => continue,
            };
            self.note(|| format!("link {event:?}"));
            self.tell(event);
        }
    }

    /// The device of an ENI comes up, if it is still plugged.
    fn link_appears(&mut self, id: &EniId) {
        let Some(eni) = self.ec2.eni(id).filter(|eni| self.ec2.is_plugged(eni)) else {
            return;
        };
        let mac = eni.mac;
        self.kernel.links.insert(id.clone(), mac);
        self.note(|| format!("link of {id}"));
        self.tell(ipam_core::Event::LinkAppeared { mac });
    }

    /// The same for events of one source, which come in order.
    pub(crate) fn tell_in_order(&mut self, event: ipam_core::Event) {
        let at = (self.now + self.pace.millis(0, 5)).max(self.told_until + Duration::from_nanos(1));
        self.told_until = at;
        let life = self.life;
        self.after(at - self.now, Happening::Deliver { life, event });
    }

    /// Queues an event for the core that lives now.
    pub(crate) fn tell(&mut self, event: ipam_core::Event) {
        let delay = self.pace.millis(0, 5);
        let life = self.life;
        self.after(delay, Happening::Deliver { life, event });
    }
}
