//! What will happen in the fleet, in order of time, then of planning.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use ipam_core::Event;

use super::reference::Wake;

/// A node, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId(pub(crate) usize);

/// A pod, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PodId(pub(crate) usize);

/// One thing that happens.
#[derive(Debug)]
pub(crate) enum Happening {
    /// The node's agent starts.
    NodeStarts(NodeId),
    /// The scheduler puts a pod on a node; it lives that long once it runs.
    PodBound { node: NodeId, life: Option<Duration> },
    /// The kubelet makes a sandbox.
    PodAdds(PodId),
    /// The pod ends.
    PodEnds(PodId),
    /// The sandbox's network namespace is gone.
    SandboxGone(PodId, String),
    /// An event reaches a core.
    Deliver(NodeId, Box<Event>),
    /// A core's alarm.
    Alarm(NodeId),
    /// The pool manager of a reference node goes on.
    Manager(NodeId, Box<Wake>),
    /// Addresses of a reference node may be free again.
    Supply(NodeId),
    /// A device appears or disappears.
    Transition,
    /// The workload goes on.
    Users,
    /// Figures are read.
    Sample,
}

#[derive(Debug)]
struct Planned {
    at: Duration,
    order: u64,
    happening: Happening,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<Planned>>,
    count: u64,
}

impl Queue {
    pub(crate) fn plan(&mut self, at: Duration, happening: Happening) {
        self.count += 1;
        let order = self.count;
        self.heap.push(Reverse(Planned { at, order, happening }));
    }

    /// The next happening that is due by `until`.
    pub(crate) fn next(&mut self, until: Duration) -> Option<(Duration, Happening)> {
        if self.heap.peek()?.0.at > until {
            return None;
        }
        self.heap.pop().map(|Reverse(next)| (next.at, next.happening))
    }
}
