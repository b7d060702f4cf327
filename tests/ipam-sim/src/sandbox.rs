//! Sandboxes as the runtime knows them, and what users and the runtime do with them.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipam_core::{Event, ReqId};
use vpc_types::{IpamKey, PodName, VethPrefix, host_veth_name};

use crate::fault::Fault;
use crate::plugin::Verb;
use crate::queue::{Chore, Happening, Pid};
use crate::world::{Weather, World};

/// Where a sandbox stands, as its runtime sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Adding,
    Running(Ipv4Addr),
    Failed,
    Deleting,
    Deleted,
}

/// Whether the network namespace exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Netns {
    Alive,
    Dead,
}

/// Whether the daemon can know of the lease; it cannot after its files were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record {
    Kept,
    Lost,
}

#[derive(Debug, Clone)]
pub(crate) struct Sandbox {
    pub(crate) key: IpamKey,
    pub(crate) pod: Option<PodName>,
    pub(crate) veth: String,
    pub(crate) netns: Netns,
    pub(crate) phase: Phase,
    /// From the result of the last ADD: what the runtime hands to DEL.
    pub(crate) prev_result: Option<Ipv4Addr>,
    pub(crate) plugin: Option<Pid>,
    pub(crate) record: Record,
}

impl Sandbox {
    /// The address of a sandbox that runs and that nobody has begun to end.
    pub(crate) fn live_address(&self) -> Option<Ipv4Addr> {
        match self.phase {
            Phase::Running(address) if self.netns == Netns::Alive => Some(address),
            Phase::Running(_) | Phase::Adding | Phase::Failed | Phase::Deleting | Phase::Deleted => None,
        }
    }
}

impl World {
    pub(crate) fn new_sandbox(&mut self, pod: Option<PodName>) -> IpamKey {
        let container = format!(
            "{:032x}",
            u128::from(self.next_pod) << 64 | u128::from(self.workload.u64())
        );
        self.next_pod += 1;
        let key = IpamKey::new("aws-cni", &container, "eth0").expect("no part is empty");
        let veth = host_veth_name(&VethPrefix::default(), pod.as_ref(), &key);
        let sandbox = Sandbox {
            key: key.clone(),
            pod,
            veth,
            netns: Netns::Alive,
            phase: Phase::Adding,
            prev_result: None,
            plugin: None,
            record: Record::Kept,
        };
        self.sandboxes.insert(key.clone(), sandbox);
        self.spawn(&key, Verb::Add);
        key
    }

    pub(crate) fn pods_come(&mut self, pods: u32) {
        for _ in 0..pods {
            self.new_pod();
        }
    }

    fn new_pod(&mut self) -> IpamKey {
        let number = self.next_pod;
        let named = !self.workload.chance(150);
        self.new_sandbox(
            named
                .then(|| PodName::new("default", &format!("pod-{number}")))
                .flatten(),
        )
    }

    fn any_sandbox(&mut self, wanted: impl Fn(&Sandbox) -> bool) -> Option<IpamKey> {
        let fitting: Vec<&IpamKey> = self
            .sandboxes
            .values()
            .filter(|one| wanted(one))
            .map(|sandbox| &sandbox.key)
            .collect();
        (!fitting.is_empty()).then(|| fitting[self.workload.below(fitting.len())].clone())
    }

    pub(crate) fn live(&self) -> usize {
        self.sandboxes
            .values()
            .filter(|one| !matches!(one.phase, Phase::Deleted))
            .count()
    }

    /// One act of the users, and the next one later.
    pub(crate) fn users_act(&mut self) {
        if self.weather == Weather::Fair {
            return;
        }
        if self.users_turn() {
            self.users_do_something();
        }
        self.forget_old();
        let pause = self.users_pause();
        self.after(pause, Happening::Users);
    }

    fn acted(&mut self, what: &'static str) {
        self.coverage.hit("users", what);
        self.fate.was(what);
    }

    fn users_do_something(&mut self) {
        let full = self.live() >= self.scenario.max_live;
        let running = |one: &Sandbox| matches!(one.phase, Phase::Running(_)) && one.plugin.is_none();
        match self.workload.below(20) {
            0..=7 if !full => {
                self.acted("add");
                self.new_pod();
            }
            8 if !full => {
                self.acted("burst");
                let pods = self.workload.number(2, 12);
                if self.workload.chance(500) {
                    self.announce(pods);
                    let lead = self.workload.millis(300, 2_500);
                    self.after(lead, Happening::Pods { named: pods });
                } else {
                    self.pods_come(pods);
                }
            }
            9 => {
                if let Some(key) = self.any_sandbox(running) {
                    self.acted("repeat-add");
                    self.spawn(&key, Verb::Add);
                }
            }
            10 => {
                if let Some(key) = self.any_sandbox(|one| matches!(one.phase, Phase::Deleted)) {
                    self.acted("del-again");
                    self.spawn(&key, Verb::Del);
                }
            }
            11 => {
                self.acted("del-unknown");
                let container = format!("unknown-{}", self.workload.u64());
                let key = IpamKey::new("aws-cni", &container, "eth0").expect("no part is empty");
                let req = self.new_request(None);
                self.tell(Event::DelRequested { req, key });
            }
            12 => self.recreate(),
            13 if self.workload.chance(150) => {
                // Everything goes at once, as in a drained node.
                self.acted("drain");
                let all: Vec<IpamKey> = self.sandboxes.keys().cloned().collect();
                all.iter().for_each(|key| self.end_sandbox(key));
            }
            _ => {
                if let Some(key) = self.any_sandbox(|one| matches!(one.phase, Phase::Running(_) | Phase::Adding)) {
                    self.acted("del");
                    self.end_sandbox(&key);
                }
            }
        }
    }

    fn users_pause(&mut self) -> Duration {
        match self.rhythm.below(40) {
            0 => self.rhythm.millis(60_000, 900_000),
            1..=4 => self.rhythm.millis(5_000, 40_000),
            5..=20 => self.rhythm.millis(200, 4_000),
            _ => self.rhythm.millis(0, 200),
        }
    }

    /// The same pod in a new sandbox, while the old one's end is still to come.
    fn recreate(&mut self) {
        let Some(old) =
            self.any_sandbox(|one| one.pod.is_some() && matches!(one.phase, Phase::Running(_)) && one.plugin.is_none())
        else {
            return;
        };
        self.acted("recreate");
        let pod = self.sandboxes[&old].pod.clone();
        // The old containers are dead by then, its namespace may or may not be.
        if self.workload.chance(500) {
            self.kill_netns(&old);
        }
        let sandbox = self.sandboxes.get_mut(&old).expect("it was just picked");
        sandbox.phase = Phase::Deleting;
        let late = self.workload.millis(100, 30_000);
        self.after(
            late,
            Happening::Runtime {
                key: old,
                chore: Chore::Del,
            },
        );
        self.new_sandbox(pod);
    }

    /// The runtime ends a sandbox: a running ADD is killed first, then DEL.
    pub(crate) fn end_sandbox(&mut self, key: &IpamKey) {
        let Some(sandbox) = self.sandboxes.get_mut(key) else {
            return;
        };
        if matches!(sandbox.phase, Phase::Deleting | Phase::Deleted) {
            return;
        }
        sandbox.phase = Phase::Deleting;
        if let Some(pid) = sandbox.plugin {
            self.kill_plugin(pid);
        }
        let delay = self.pace.millis(0, 50);
        self.after(
            delay,
            Happening::Runtime {
                key: key.clone(),
                chore: Chore::Del,
            },
        );
    }

    pub(crate) fn runtime_chore(&mut self, key: &IpamKey, chore: Chore) {
        match chore {
            Chore::Del => {
                let Some(sandbox) = self.sandboxes.get_mut(key) else {
                    return;
                };
                if sandbox.phase == Phase::Deleted {
                    return;
                }
                sandbox.phase = Phase::Deleting;
                if let Some(pid) = sandbox.plugin {
                    self.kill_plugin(pid);
                }
                self.spawn(key, Verb::Del);
            }
            Chore::KillNetns => self.kill_netns(key),
        }
    }

    pub(crate) fn kill_netns(&mut self, key: &IpamKey) {
        let Some(sandbox) = self.sandboxes.get_mut(key).filter(|one| one.netns == Netns::Alive) else {
            return;
        };
        sandbox.netns = Netns::Dead;
        let veth = sandbox.veth.clone();
        self.note(|| format!("namespace of {key} dies"));
        self.kernel.kill_sandbox(key.container_id(), &veth);
        self.kernel_changed();
    }

    /// A sandbox dies with everything in it, and its runtime forgets it, or calls DEL much later.
    pub(crate) fn lose_sandbox(&mut self) {
        let Some(key) = self.any_sandbox(|one| matches!(one.phase, Phase::Running(_)) && one.plugin.is_none()) else {
            return;
        };
        if !self.strikes(Fault::SandboxKilled) {
            return;
        }
        self.kill_netns(&key);
        let sandbox = self.sandboxes.get_mut(&key).expect("it was just picked");
        if self.luck.chance(500) {
            sandbox.phase = Phase::Deleted;
        } else {
            let late = self.luck.millis(1_000, 300_000);
            self.after(late, Happening::Runtime { key, chore: Chore::Del });
        }
    }

    /// Keeps the list of ended sandboxes short.
    fn forget_old(&mut self) {
        let ended =
            |one: &Sandbox| matches!(one.phase, Phase::Deleted) && one.netns == Netns::Dead && one.plugin.is_none();
        if self.sandboxes.len() > self.scenario.max_live * 2 + 20 {
            let oldest = self
                .sandboxes
                .values()
                .find(|one| ended(one))
                .map(|one| one.key.clone());
            oldest.map(|key| self.sandboxes.remove(&key));
        }
    }

    pub(crate) fn new_request(&mut self, pid: Option<Pid>) -> ReqId {
        let req = ReqId(self.next_req);
        self.next_req += 1;
        if let Some(pid) = pid {
            self.open_requests.insert(req, pid);
        }
        req
    }
}
