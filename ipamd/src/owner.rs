//! The owner task: the only one that holds the core.
//!
//! It takes one input at a time, hands it to the core with one reading of the clocks, and gives the actions away to those
//! who do I/O. It never waits for them: their results come back as inputs. Whoever gets an answer from this task has
//! proof that it is alive, so health goes through it too.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipam_core::{Action, BootTime, Cause, Core, Event, Grant, Outcome, ReqId, Status, WallTime};
use tokio::sync::{mpsc, oneshot};
use vpc_types::{IpamKey, PodName};

use crate::clock;
use crate::exec::Executors;
use crate::observe::Observer;
use crate::repair::Disturbance;
use crate::takeover::Unsettled;

/// Inputs in the queue; more make senders wait, and the kernel's queue of the socket holds back clients.
const QUEUE: usize = 1024;

/// One thing for the owner to digest.
#[derive(Debug)]
pub enum Input {
    /// A result of work, or a change in the kernel.
    Event(Event),
    /// AddNetwork.
    Add {
        /// Number of the request, for [`Input::Abandon`].
        req: ReqId,
        /// Whose.
        key: IpamKey,
        /// Absent for runtimes without Kubernetes.
        pod: Option<PodName>,
        /// Gets the answer.
        reply: oneshot::Sender<Result<Grant, Cause>>,
    },
    /// The client of an AddNetwork hung up.
    Abandon(ReqId),
    /// DelNetwork.
    Del {
        /// Number of the request.
        req: ReqId,
        /// Whose.
        key: IpamKey,
        /// Gets the answer.
        reply: oneshot::Sender<DelAnswer>,
    },
    /// DelNetwork for one lease and no later one of the same key: GC decided by a list that may be older.
    End {
        /// Number of the request.
        req: ReqId,
        /// Whose.
        key: IpamKey,
        /// The lease's own.
        granted_at: WallTime,
        /// Gets the answer.
        reply: oneshot::Sender<DelAnswer>,
    },
    /// Something may have been removed from running pods.
    Repair(Disturbance),
    /// A copy of the state.
    Status(oneshot::Sender<Status>),
    /// End.
    Shutdown,
}

/// How a DelNetwork ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DelAnswer {
    /// Rules and route are gone, the address rests.
    Released(Grant),
    /// There is no such lease.
    Unknown,
    /// The kernel refused; the runtime should ask again.
    NotCleared(Ipv4Addr),
}

/// Sends inputs to the owner.
#[derive(Debug, Clone)]
pub struct Inbox(mpsc::Sender<Input>);

impl Inbox {
    /// Waits while the queue is full; `false` once the owner has ended.
    pub async fn send(&self, input: Input) -> bool {
        self.0.send(input).await.is_ok()
    }

    /// For threads without a runtime.
    pub fn blocking_send(&self, input: Input) -> bool {
        self.0.blocking_send(input).is_ok()
    }

    /// For destructors: an input that finds the queue full is dropped.
    pub fn try_send(&self, input: Input) {
        let _ = self.0.try_send(input);
    }
}

/// The queue and its sending end.
pub fn queue() -> (Inbox, mpsc::Receiver<Input>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Inbox(sender), receiver)
}

/// The owner's state: the core and who waits for which answer.
#[derive(Debug)]
pub struct Owner {
    core: Core,
    adds: BTreeMap<ReqId, oneshot::Sender<Result<Grant, Cause>>>,
    dels: BTreeMap<ReqId, oneshot::Sender<DelAnswer>>,
    wake: Option<BootTime>,
    add_deadline: Duration,
    executors: Executors,
    observer: Observer,
    unsettled: Unsettled,
}

impl Owner {
    /// An owner for a core that was just built or restored.
    pub fn new(core: Core, add_deadline: Duration, executors: Executors, observer: Observer) -> Self {
        Self {
            unsettled: Unsettled::of(core.pool()),
            core,
            adds: BTreeMap::new(),
            dels: BTreeMap::new(),
            wake: None,
            add_deadline,
            executors,
            observer,
        }
    }

    /// Runs until told to end.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Input>) {
        self.event(Event::Tick);
        loop {
            let input = match self.wake {
                Some(at) => {
                    let wait = at.since(clock::now().boot);
                    tokio::time::timeout(wait, inbox.recv())
                        .await
                        .unwrap_or(Some(Input::Event(Event::Tick)))
                }
                None => inbox.recv().await,
            };
            match input {
                None | Some(Input::Shutdown) => return,
                Some(input) => self.take(input),
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => self.event(event),
            Input::Add { req, key, pod, reply } => {
                self.adds.insert(req, reply);
                let deadline = clock::now().boot.after(self.add_deadline);
                self.event(Event::AddRequested {
                    req,
                    key,
                    pod,
                    deadline,
                });
            }
            Input::Abandon(req) => {
                self.adds.remove(&req);
                self.event(Event::AddAbandoned { req });
            }
            Input::Del { req, key, reply } => {
                self.dels.insert(req, reply);
                self.event(Event::DelRequested { req, key });
            }
            Input::End {
                req,
                key,
                granted_at,
                reply,
            } => {
                let lease = self.core.pool().lease(&key);
                if lease.is_some_and(|lease| lease.granted_at == granted_at) {
                    self.take(Input::Del { req, key, reply });
                } else {
                    let _ = reply.send(DelAnswer::Unknown);
                }
            }
            Input::Repair(disturbance) => self.executors.repair(self.core.pool(), &disturbance),
            Input::Status(reply) => {
                let _ = reply.send(self.core.status(clock::now()));
            }
            Input::Shutdown => {}
        }
    }

    fn event(&mut self, event: Event) {
        let now = clock::now();
        if self.wake.is_some_and(|at| at <= now.boot) {
            self.wake = None;
        }
        self.executors.look_for_damage(self.core.pool(), &event);
        for action in self.core.handle(event, now) {
            self.run_action(action);
        }
        let ready = self.unsettled.take(self.core.pool());
        if !ready.is_empty() {
            self.executors.settle(ready);
        }
    }

    fn run_action(&mut self, action: Action) {
        match action {
            Action::Persist { .. } => self.executors.persist(self.core.checkpoint()),
            Action::Reply { req, outcome } => self.reply(req, outcome),
            Action::Describe { scope } => self.executors.describe(scope),
            Action::ViewKernel => self.executors.view_kernel(),
            Action::WakeAt { at } => self.wake = Some(at),
            Action::Run { op, work } => self.executors.run(op, work),
            Action::Note(note) => self.observer.note(&note),
        }
    }

    /// A receiver that is gone hung up; the core hears of that from the connection.
    fn reply(&mut self, req: ReqId, outcome: Outcome) {
        let add = |result| (Some(result), None);
        let del = |answer| (None, Some(answer));
        let (added, deleted) = match outcome {
            Outcome::Granted(grant) => add(Ok(grant)),
            Outcome::Refused(cause) => add(Err(cause)),
            Outcome::Deleted(grant) => del(DelAnswer::Released(grant)),
            Outcome::UnknownPod => del(DelAnswer::Unknown),
            Outcome::NotCleared { address } => del(DelAnswer::NotCleared(address)),
        };
        if let (Some(result), Some(sender)) = (added, self.adds.remove(&req)) {
            let _ = sender.send(result);
        } else if let (Some(answer), Some(sender)) = (deleted, self.dels.remove(&req)) {
            let _ = sender.send(answer);
        }
    }
}
