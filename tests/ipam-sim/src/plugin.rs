//! Plugin processes: the life of an ADD and of a DEL, step by step, with every way to die in between.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipam_core::{BootTime, Event, Grant, Outcome, Owner, ReqId};
use vpc_types::IpamKey;

use crate::fault::Fault;
use crate::queue::{Chore, Happening, Pid, PluginStep};
use crate::sandbox::{Netns, Phase};
use crate::world::World;

/// Deadline of an ADD in the plugin.
const ADD_DEADLINE: Duration = Duration::from_secs(35);
/// Deadline of an ADD in the daemon.
const ADD_SERVED: Duration = Duration::from_secs(30);
/// Deadline of a DEL, below the minimum hold of an address.
const DEL_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Del,
}

#[derive(Debug, Clone)]
pub(crate) struct Plugin {
    pub(crate) verb: Verb,
    pub(crate) key: IpamKey,
    pub(crate) deadline: Duration,
    pub(crate) req: Option<ReqId>,
    /// When the living daemon got the request.
    pub(crate) asked_at: Option<Duration>,
    pub(crate) grant: Option<Grant>,
}

impl World {
    pub(crate) fn spawn(&mut self, key: &IpamKey, verb: Verb) {
        let pid = Pid(self.next_pid);
        self.next_pid += 1;
        let deadline = self.now + if verb == Verb::Add { ADD_DEADLINE } else { DEL_DEADLINE };
        let plugin = Plugin {
            verb,
            key: key.clone(),
            deadline,
            req: None,
            asked_at: None,
            grant: None,
        };
        self.plugins.insert(pid, plugin);
        if let Some(sandbox) = self.sandboxes.get_mut(key) {
            sandbox.plugin = Some(pid);
        }
        let delay = self.pace.millis(1, 4);
        self.plan_plugin(pid, PluginStep::Connect, delay);
        self.queue.plan(
            deadline,
            Happening::Plugin {
                pid,
                step: PluginStep::Expire,
            },
        );
    }

    fn plan_plugin(&mut self, pid: Pid, step: PluginStep, delay: Duration) {
        self.after(delay, Happening::Plugin { pid, step });
    }

    /// The process is gone; what it did stays.
    pub(crate) fn kill_plugin(&mut self, pid: Pid) {
        let Some(plugin) = self.plugins.remove(&pid) else {
            return;
        };
        self.note(|| format!("plugin {} of {} ends", pid.0, plugin.key));
        if let Some(sandbox) = self
            .sandboxes
            .get_mut(&plugin.key)
            .filter(|one| one.plugin == Some(pid))
        {
            sandbox.plugin = None;
        }
        let Some(req) = plugin.req.filter(|req| self.open_requests.remove(req).is_some()) else {
            return;
        };
        let life = self.life;
        if self.strikes(Fault::LateAbandon) {
            if self.luck.chance(500) {
                let late = self.luck.millis(10, 20_000);
                self.after(late, Happening::HangUp { life, req });
            }
        } else {
            let delay = self.pace.millis(0, 2);
            self.after(delay, Happening::HangUp { life, req });
        }
    }

    pub(crate) fn plugin_step(&mut self, pid: Pid, step: PluginStep) {
        let Some(plugin) = self.plugins.get(&pid).cloned() else {
            return;
        };
        if step != PluginStep::Expire && plugin.verb == Verb::Add && self.strikes(Fault::PluginKilled) {
            self.kill_plugin(pid);
            return self.add_failed(&plugin.key);
        }
        match step {
            PluginStep::Connect => self.connect(pid, &plugin),
            PluginStep::MakeVeth => self.make_veth(pid, &plugin),
            PluginStep::MakeRoutes => self.make_routes(pid, &plugin),
            PluginStep::Finish => self.finish_add(pid, &plugin),
            PluginStep::ClearItself => self.clear_itself(pid, &plugin),
            PluginStep::Expire => self.expire(pid, &plugin),
        }
    }

    fn connect(&mut self, pid: Pid, plugin: &Plugin) {
        if self.core.is_none() {
            let step = if plugin.verb == Verb::Add {
                PluginStep::Connect
            } else {
                PluginStep::ClearItself
            };
            let delay = self.pace.millis(100, 300);
            return self.plan_plugin(pid, step, delay);
        }
        let req = self.new_request(Some(pid));
        let waiting = self.plugins.get_mut(&pid).expect("the caller has found it");
        (waiting.req, waiting.asked_at) = (Some(req), Some(self.now));
        let event = match plugin.verb {
            Verb::Add => Event::AddRequested {
                req,
                key: plugin.key.clone(),
                pod: self.sandboxes.get(&plugin.key).and_then(|sandbox| sandbox.pod.clone()),
                deadline: BootTime((self.now + ADD_SERVED).min(plugin.deadline) - self.booted_at),
            },
            Verb::Del => Event::DelRequested {
                req,
                key: plugin.key.clone(),
            },
        };
        self.tell(event);
    }

    /// The deadline has come. While it waits the plugin gives up; a stalled one notices at its next step.
    fn expire(&mut self, pid: Pid, plugin: &Plugin) {
        if plugin.grant.is_some() {
            return;
        }
        let unanswered = plugin.verb == Verb::Add && plugin.req.is_some() && self.core.is_some();
        if unanswered
            && plugin
                .asked_at
                .is_some_and(|at| self.now - at > ADD_SERVED + Duration::from_secs(3))
        {
            self.violate(format!("I7: {} got no answer, not even a refusal", plugin.key));
        }
        self.kill_plugin(pid);
        match plugin.verb {
            Verb::Add => self.add_failed(&plugin.key),
            Verb::Del => self.del_failed(&plugin.key),
        }
    }

    pub(crate) fn plugin_answered(&mut self, pid: Pid, req: ReqId, outcome: Outcome) {
        let Some(plugin) = self.plugins.get_mut(&pid).filter(|plugin| plugin.req == Some(req)) else {
            return;
        };
        plugin.req = None;
        let plugin = plugin.clone();
        match (plugin.verb, outcome) {
            (Verb::Add, Outcome::Granted(grant)) => {
                self.plugins.get_mut(&pid).expect("it was there a line ago").grant = Some(grant);
                let stalls = self.strikes(Fault::PluginStalled);
                let delay = if stalls {
                    self.luck.millis(100, 60_000)
                } else {
                    self.pace.millis(0, 3)
                };
                self.plan_plugin(pid, PluginStep::MakeVeth, delay);
            }
            (Verb::Add, _) => {
                self.kill_plugin(pid);
                self.add_failed(&plugin.key);
            }
            (Verb::Del, Outcome::Deleted(_) | Outcome::UnknownPod) => {
                self.kill_plugin(pid);
                self.del_done(&plugin.key);
            }
            (Verb::Del, _) => {
                self.kill_plugin(pid);
                self.del_failed(&plugin.key);
            }
        }
    }

    fn make_veth(&mut self, pid: Pid, plugin: &Plugin) {
        let Some(sandbox) = self.sandboxes.get(&plugin.key) else {
            return self.kill_plugin(pid);
        };
        let (veth, netns) = (sandbox.veth.clone(), sandbox.netns);
        let container = plugin.key.container_id();
        if self.kernel.veths.values().flatten().any(|alias| alias == container) {
            // A repeat for a sandbox that is wired already: an error that touches nothing.
            self.coverage.hit("plugin", "touched-nothing");
            self.kill_plugin(pid);
            return;
        }
        let expired = self.now >= plugin.deadline;
        if expired {
            self.coverage.hit("plugin", "expired-before-wiring");
        }
        if expired || netns == Netns::Dead {
            if self.kernel.veths.get(&veth) == Some(&None) {
                // Made by the reference, for this container perhaps: the address may belong to a pod that lives.
                self.kill_plugin(pid);
                return self.add_failed(&plugin.key);
            }
            return self.undo(pid, plugin);
        }
        // An equal name without this alias is the veth of the pod's former sandbox; or the reference's of this one, whose ADD comes
        // again: that pod is wired anew.
        if self.kernel.veths.get(&veth) == Some(&None)
            && let Some(again) = self.sandboxes.get_mut(&plugin.key)
            && matches!(again.phase, Phase::Running(_))
        {
            again.phase = Phase::Adding;
        }
        self.kernel.delete_veth(&veth);
        self.kernel.veths.insert(veth, Some(container.to_owned()));
        self.kernel_changed();
        let delay = self.pace.millis(0, 2);
        self.plan_plugin(pid, PluginStep::MakeRoutes, delay);
    }

    fn make_routes(&mut self, pid: Pid, plugin: &Plugin) {
        let veth = self.sandboxes.get(&plugin.key).map(|sandbox| sandbox.veth.clone());
        let Some(veth) = veth.filter(|veth| self.kernel.veths.contains_key(veth)) else {
            return self.undo(pid, plugin);
        };
        let address = plugin.grant.expect("wiring follows a grant").address;
        self.check_wiring(&plugin.key, address);
        self.kernel.routes.insert(address, veth);
        self.kernel.rules.insert(address, 2);
        self.kernel_changed();
        let delay = self.pace.millis(0, 2);
        self.plan_plugin(pid, PluginStep::Finish, delay);
    }

    fn finish_add(&mut self, pid: Pid, plugin: &Plugin) {
        if self.now >= plugin.deadline {
            return self.undo(pid, plugin);
        }
        let address = plugin.grant.expect("wiring follows a grant").address;
        self.kill_plugin(pid);
        let Some(sandbox) = self.sandboxes.get_mut(&plugin.key) else {
            return;
        };
        sandbox.prev_result = Some(address);
        if sandbox.phase == Phase::Adding {
            sandbox.phase = Phase::Running(address);
        }
    }

    /// Undoes what this run made, newest first, then `DelNetwork`.
    fn undo(&mut self, pid: Pid, plugin: &Plugin) {
        if let Some(grant) = plugin.grant {
            self.clear_own(&plugin.key, grant.address);
        }
        let veth = self.sandboxes.get(&plugin.key).map(|one| one.veth.clone());
        self.kernel
            .kill_sandbox(plugin.key.container_id(), &veth.unwrap_or_default());
        self.kernel_changed();
        self.kill_plugin(pid);
        if self.core.is_some() {
            let req = self.new_request(None);
            self.tell(Event::DelRequested {
                req,
                key: plugin.key.clone(),
            });
        }
        self.add_failed(&plugin.key);
    }

    fn add_failed(&mut self, key: &IpamKey) {
        let Some(sandbox) = self.sandboxes.get_mut(key).filter(|one| one.phase == Phase::Adding) else {
            return;
        };
        sandbox.phase = Phase::Failed;
        // Runtimes call DEL after a failed ADD; some die before, and the sandbox just goes.
        let chore = if self.workload.chance(850) {
            Chore::Del
        } else {
            Chore::KillNetns
        };
        if chore == Chore::KillNetns {
            sandbox.phase = Phase::Deleted;
        }
        let delay = self.pace.millis(1, 3_000);
        self.after(
            delay,
            Happening::Runtime {
                key: key.clone(),
                chore,
            },
        );
    }

    fn del_done(&mut self, key: &IpamKey) {
        if let Some(sandbox) = self.sandboxes.get_mut(key) {
            sandbox.phase = Phase::Deleted;
        }
        let delay = if self.workload.chance(800) {
            self.pace.millis(0, 500)
        } else {
            self.pace.millis(500, 60_000)
        };
        self.after(
            delay,
            Happening::Runtime {
                key: key.clone(),
                chore: Chore::KillNetns,
            },
        );
    }

    fn del_failed(&mut self, key: &IpamKey) {
        let delay = self.pace.millis(500, 3_000);
        self.after(
            delay,
            Happening::Runtime {
                key: key.clone(),
                chore: Chore::Del,
            },
        );
    }

    /// DEL without the daemon: the plugin removes rules and route itself, if it still may.
    fn clear_itself(&mut self, pid: Pid, plugin: &Plugin) {
        if self.strikes(Fault::PluginStalled) {
            let delay = self.luck.millis(100, 11_000);
            return self.plan_plugin(pid, PluginStep::ClearItself, delay);
        }
        let prev_result = self.sandboxes.get(&plugin.key).and_then(|sandbox| sandbox.prev_result);
        self.kill_plugin(pid);
        if self.now >= plugin.deadline {
            return self.del_failed(&plugin.key);
        }
        self.coverage.hit("plugin", "cleared-itself");
        if let Some(address) = prev_result {
            self.clear_own(&plugin.key, address);
            self.kernel_changed();
        }
        self.del_done(&plugin.key);
    }

    fn clear_own(&mut self, key: &IpamKey, address: Ipv4Addr) {
        let Some(sandbox) = self.sandboxes.get(key) else { return };
        let owner = Owner {
            container_id: key.container_id().to_owned(),
            host_veth: sandbox.veth.clone(),
        };
        self.clear(address, Some(&owner));
    }
}
