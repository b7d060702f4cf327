//! EC2 for a [`Node`] whose test is about the pool: it does what it is asked at once, unless its subnet has run out.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipam_core::{
    Applied, AttachmentFact, AttachmentState, EniRole, Event, OnTermination, OpId, OpOutcome, Refusal, ReqId, Want,
    Work,
};
use vpc_types::{Allocation, NetworkCard};

use crate::node::{Node, eni, prefix};

/// What the subnet still has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subnet {
    /// Everything.
    Empty,
    /// Addresses, but no free prefix.
    Fragmented,
    /// The same, but for one prefix.
    OneBlock,
}

/// A node with EC2 behind it.
pub(crate) struct Region {
    pub(crate) node: Node,
    pub(crate) subnet: Subnet,
    /// The calls made, in order.
    pub(crate) calls: Vec<Work>,
    next: u8,
}

impl Region {
    pub(crate) fn of(node: Node) -> Self {
        Self::with(node, Subnet::Empty)
    }

    pub(crate) fn with(node: Node, subnet: Subnet) -> Self {
        let mut region = Self {
            node,
            subnet,
            calls: Vec::new(),
            next: 0,
        };
        region.work();
        region
    }

    /// Does what is asked, until nothing is.
    pub(crate) fn work(&mut self) {
        while !self.node.runs.is_empty() {
            let (op, work) = self.node.runs.remove(0);
            self.calls.push(work.clone());
            self.run(op, work);
        }
    }

    fn run(&mut self, op: OpId, work: Work) {
        match work {
            Work::CreateEni { want, .. } => self.create(op, want),
            Work::Attach { eni, device, .. } => {
                let number = format!("eni-attach-{:017x}", device.0);
                let attachment = AttachmentFact {
                    id: number.parse().unwrap(),
                    device,
                    card: NetworkCard::DEFAULT,
                    on_termination: OnTermination::Keep,
                    state: AttachmentState::Attached,
                };
                let fact = self.node.enis.iter_mut().find(|fact| fact.id == eni).unwrap();
                fact.attachment = Some(attachment.clone());
                let mac = fact.mac;
                self.node.finish(op, Applied::Attached(attachment.id));
                self.node.kernel.macs.insert(mac);
                self.node.tell(Event::LinkAppeared { mac });
            }
            Work::AllocateAddresses { want, .. } if self.lacks(want) => {
                self.node.outcome(op, OpOutcome::Refused(Refusal::SubnetFragmented));
            }
            Work::AllocateAddresses { eni, want } => {
                let new = self.take(want);
                let fact = self.node.enis.iter_mut().find(|fact| fact.id == eni).unwrap();
                fact.allocations.extend(new.iter().copied());
                self.node.finish(op, Applied::Allocated(new.into_iter().collect()));
            }
            Work::ReleaseAddresses { eni, allocations } => {
                let fact = self.node.enis.iter_mut().find(|fact| fact.id == eni).unwrap();
                fact.allocations.retain(|one| !allocations.contains(one));
                self.node.finish(op, Applied::Done);
            }
            Work::DeleteEni { eni } => {
                self.node.enis.retain(|fact| fact.id != eni);
                self.node.finish(op, Applied::Done);
            }
            _ => self.node.finish(op, Applied::Done),
        }
    }

    fn create(&mut self, op: OpId, want: Want) {
        if self.lacks(want) {
            self.node.outcome(op, OpOutcome::Refused(Refusal::SubnetFragmented));
            return;
        }
        let number = 10 + u16::try_from(self.node.enis.len()).unwrap() + u16::from(self.next);
        let mut fact = eni(number, &[]);
        fact.role = EniRole::Managed;
        fact.attachment = None;
        fact.allocations = self.take(want);
        self.node.enis.push(fact.clone());
        self.node.finish(op, Applied::Created(fact));
    }

    fn lacks(&self, want: Want) -> bool {
        let blocks = match self.subnet {
            Subnet::Empty => return false,
            Subnet::Fragmented => 0,
            Subnet::OneBlock => 1 - self.kinds().0.min(1),
        };
        matches!(want, Want::Prefixes(count) if usize::from(count) > blocks)
    }

    fn take(&mut self, want: Want) -> BTreeSet<Allocation> {
        let one = |next: u8| match want {
            Want::Addresses(_) => Allocation::Ip([10, 0, 7, next].into()),
            Want::Prefixes(_) => prefix(100 + next / 16, next % 16),
        };
        (0..want.slots())
            .map(|_| {
                self.next += 1;
                one(self.next)
            })
            .collect()
    }

    /// Lets time pass while EC2 does what it is asked.
    pub(crate) fn pass(&mut self, secs: u32) {
        for _ in 0..secs * 2 {
            self.node.pass(0.5);
            self.work();
        }
    }

    /// Pods come, and are wired as soon as they have an address.
    pub(crate) fn run_pods(&mut self, names: impl IntoIterator<Item = String>) -> Vec<ReqId> {
        let names: Vec<String> = names.into_iter().collect();
        let reqs: Vec<ReqId> = names.iter().map(|name| self.node.add(name)).collect();
        self.work();
        self.pass(3);
        for (name, req) in names.iter().zip(&reqs) {
            if let Some(address) = self.node.granted(*req) {
                self.node.wire(name, address);
                self.work();
            }
        }
        reqs
    }

    /// The pod goes, kernel state and all.
    pub(crate) fn end_pod(&mut self, name: &str) {
        self.node.kernel.veths.retain(|_, alias| alias.as_deref() != Some(name));
        self.node.del(name);
        self.work();
    }

    /// Allocations that the node has at EC2.
    pub(crate) fn held(&self) -> BTreeSet<Allocation> {
        self.node
            .enis
            .iter()
            .flat_map(|fact| fact.allocations.iter().copied())
            .collect()
    }

    /// Prefixes and single addresses that the node has at EC2.
    pub(crate) fn kinds(&self) -> (usize, usize) {
        let held = self.held();
        let prefixes = held.iter().filter(|one| matches!(one, Allocation::Prefix(_))).count();
        (prefixes, held.len() - prefixes)
    }

    pub(crate) fn address_of(&self, name: &str) -> Ipv4Addr {
        self.node.core.pool().lease(&crate::node::key(name)).unwrap().address
    }
}

pub(crate) fn names(range: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    range.map(|number| format!("pod-{number}"))
}
