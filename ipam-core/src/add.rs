//! ADD requests: the line, grants, refusals.
//!
//! A request is granted from free addresses in order of arrival. With none free it waits until its deadline, or is
//! refused at once when nothing can come before that.

use crate::action::{Action, Note, Outcome};
use crate::address::AddressState;
use crate::cause::{Cause, CauseCode};
use crate::core::{Core, Waiter};
use crate::event::Scope;
use crate::lease::{Lease, LeaseState};
use crate::mutant::defective;
use crate::{BootTime, Now};

impl Core {
    pub(crate) fn add_requested(&mut self, waiter: Waiter) {
        if self.waiting.len() >= self.config.max_waiting {
            let cause = Cause {
                code: CauseCode::QueueFull,
                ..self.cause(waiter.since)
            };
            self.refuse(waiter, cause);
        } else if self.waiting.is_empty() || !defective!(self, LoseWaiter) {
            self.waiting.push_back(waiter);
        }
    }

    /// A grant needs one kernel dump since the start: before it nobody knows which addresses show life.
    pub(crate) fn may_grant(&self) -> bool {
        self.last_kernel.is_some()
    }

    pub(crate) fn serve_line(&mut self, now: Now) {
        let mut line = std::mem::take(&mut self.waiting);
        line.retain(|waiter| !self.serve(waiter, now));
        self.waiting = line;
        self.record_use(now.boot);
    }

    /// Whether the request was answered.
    fn serve(&mut self, waiter: &Waiter, now: Now) -> bool {
        let existing = self.pool.leases.get_mut(&waiter.key);
        let existing = existing.map(|lease| {
            if matches!(lease.state, LeaseState::Granted | LeaseState::Wired) {
                // Its plugin is at work again: that the sandbox was not there a moment ago proves nothing any more.
                (lease.since, lease.gone_since) = (now.boot, None);
            }
            (lease.state, lease.generation, lease.grant())
        });
        match existing {
            Some((LeaseState::Granted | LeaseState::Wired, generation, grant)) => {
                self.kernel.want(now.boot.after(self.config.timers.sweep_grace));
                self.outbox.after(
                    generation,
                    Action::Reply {
                        req: waiter.req,
                        outcome: Outcome::Granted(grant),
                    },
                );
                true
            }
            // The old address goes first; the request then gets a fresh one.
            Some((LeaseState::Draining | LeaseState::Orphan, ..)) => false,
            None if self.may_grant() => self.grant(waiter, now),
            None => false,
        }
    }

    fn grant(&mut self, waiter: &Waiter, now: Now) -> bool {
        let Some((eni_id, address)) = self.pool.pick(self.config.mode) else {
            return false;
        };
        let generation = self.outbox.bump();
        let eni = self
            .pool
            .enis
            .get_mut(&eni_id)
            .expect("pick returns an ENI of the pool");
        let lease = Lease {
            key: waiter.key.clone(),
            pod: waiter.pod.clone(),
            address,
            device: eni.device,
            table: eni.table(),
            state: LeaseState::Granted,
            since: now.boot,
            granted_at: now.wall,
            interfaces: 1,
            gone_since: None,
            generation,
            del_waiters: Vec::new(),
        };
        *eni.address_mut(address).expect("pick returns an address of that ENI") =
            AddressState::Leased(waiter.key.clone());
        let outcome = Outcome::Granted(lease.grant());
        self.outbox.after(
            generation,
            Action::Reply {
                req: waiter.req,
                outcome,
            },
        );
        self.note_lease(&lease, Some(LeaseState::Granted), "add");
        // A plugin that dies before it wires changes nothing in the kernel: only a look tells.
        self.kernel.want(now.boot.after(self.config.timers.sweep_grace));
        self.pool.leases.insert(waiter.key.clone(), lease);
        self.hasten_sweep_of_former(&waiter.key, now.boot);
        true
    }

    pub(crate) fn note_lease(&mut self, lease: &Lease, state: Option<LeaseState>, why: &'static str) {
        self.outbox.note(Note::Lease {
            key: lease.key.clone(),
            address: lease.address,
            state,
            why,
        });
    }

    fn refuse(&mut self, waiter: Waiter, cause: Cause) {
        self.outbox.note(Note::Refused {
            key: waiter.key,
            cause: cause.clone(),
        });
        self.outbox.now(Action::Reply {
            req: waiter.req,
            outcome: Outcome::Refused(cause),
        });
    }

    /// A DEL of the same key came first: the sandbox is going, nobody wants the address any more.
    pub(crate) fn cancel_waiting(&mut self, key: &vpc_types::IpamKey, now: BootTime) {
        for waiter in std::mem::take(&mut self.waiting) {
            if waiter.key != *key {
                self.waiting.push_back(waiter);
                continue;
            }
            let cause = Cause {
                code: CauseCode::SandboxBusy,
                ..self.cause(now)
            };
            self.refuse(waiter, cause);
        }
    }

    /// Refuses whom nothing can help before the deadline. Runs after planning, when all that can be under way is.
    pub(crate) fn refuse_hopeless(&mut self, now: BootTime) {
        if self.waiting.is_empty() {
            return;
        }
        let hope = self.next_supply(now);
        let cause = self.cause(now);
        for waiter in std::mem::take(&mut self.waiting) {
            if waiter.deadline <= now || hope.is_none_or(|at| at > waiter.deadline) {
                self.refuse(waiter, cause.clone());
            } else {
                self.wake_at(waiter.deadline);
                self.waiting.push_back(waiter);
            }
        }
    }

    /// Earliest time at which an address may become grantable; `None` when nothing that is known leads to one.
    fn next_supply(&self, now: BootTime) -> Option<BootTime> {
        let in_motion = !self.may_grant()
            || !self.ops.is_empty()
            || self.outbox.is_failing()
            || self.pool.enis().any(crate::eni::Eni::is_arriving)
            || self.pool.leases().any(|lease| lease.state == LeaseState::Draining);
        if in_motion {
            return Some(now);
        }
        let looks = [Scope::Attached, Scope::Subnets]
            .into_iter()
            .filter(|scope| self.may_view(*scope));
        let look = looks.filter_map(|scope| self.describe.get(&scope)?.next(now)).min();
        self.next_attempt(now).into_iter().chain(look).min()
    }

    /// When the next rest ends, the next call for addresses may go out, or the address of a sandbox that seems gone is free.
    pub(crate) fn next_attempt(&self, now: BootTime) -> Option<BootTime> {
        let swept = self.next_sweep().map(|at| at.after(self.config.timers.hold()));
        self.next_rest_end()
            .into_iter()
            .chain(self.next_growth(now))
            .chain(swept)
            .min()
    }

    /// The file could not be written.
    pub(crate) fn checkpoint_failed(&mut self, now: BootTime) {
        self.outbox.note(Note::CheckpointFailing);
        let held = self.outbox.failed(now);
        self.go_on_without_file(held, now);
    }

    /// A write that hangs may succeed yet, with leases in it that are taken back now: the next write corrects that, and after a
    /// crash before it their sandboxes are found to be gone.
    pub(crate) fn give_up_hung_write(&mut self, now: BootTime) {
        if let Some(held) = self.outbox.hung(now) {
            self.go_on_without_file(held, now);
        }
    }

    /// Grants that were not told to anybody are taken back, the rest goes on.
    fn go_on_without_file(&mut self, held: Vec<(crate::Generation, Action)>, now: BootTime) {
        for (generation, action) in held {
            match action {
                Action::Reply {
                    req,
                    outcome: Outcome::Granted(grant),
                } => self.revoke(req, grant, now),
                // Only a file makes a repeated creation safe, and only a file makes an ENI's departure known.
                Action::Run { ref work, .. } if !matches!(work, crate::Work::ClearPodState { .. }) => {
                    self.outbox.after(generation, action);
                }
                Action::Reply { .. }
                | Action::Run { .. }
                | Action::Persist { .. }
                | Action::Describe { .. }
                | Action::ViewKernel
                | Action::WakeAt { .. }
                | Action::Note(_) => self.outbox.now(action),
            }
        }
    }

    fn revoke(&mut self, req: crate::ReqId, grant: crate::Grant, now: BootTime) {
        let cause = Cause {
            code: CauseCode::CheckpointFailing,
            ..self.cause(now)
        };
        self.outbox.now(Action::Reply {
            req,
            outcome: Outcome::Refused(cause),
        });
        let key = self.pool.address(grant.address).and_then(|state| state.key().cloned());
        let Some(key) = key.filter(|key| self.pool.lease(key).is_some_and(|l| l.state == LeaseState::Granted)) else {
            return;
        };
        let lease = self.pool.leases.remove(&key).expect("the lease was there a line ago");
        if let Some(state) = self.pool.address_mut(grant.address) {
            *state = AddressState::Free { since: now };
        }
        self.outbox.bump();
        self.note_lease(&lease, None, "the state file cannot be written");
    }
}

/// A count as the pool's sums use it.
pub(crate) fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
