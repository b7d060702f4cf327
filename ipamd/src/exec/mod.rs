//! Those who do I/O for the owner: files, EC2, kernel. Each takes one order, does one thing, and reports one event.
//! No policy lives here: no retry, no fallback, no choice.

mod ec2;
mod kernel;
mod refused;
mod writer;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use cloud::Ec2Client;
use ipam_core::{Checkpoint, Event, OpId, Pool, Scope, Work};
use vpc_types::RouteTableId;

pub use ec2::{Ec2Executor, Ec2Scope, EniTags};
pub use kernel::{KernelExecutor, NodeState};
pub use writer::Writer;

use crate::repair::{self, Disturbance, Repairs};

/// All of them.
#[derive(Debug)]
pub struct Executors {
    writer: Writer,
    kernel: KernelExecutor,
    ec2: Arc<Ec2Executor<Ec2Client>>,
    repairs: Repairs,
}

impl Executors {
    /// Brings them together.
    pub fn new(writer: Writer, kernel: KernelExecutor, ec2: Ec2Executor<Ec2Client>, repairs: Repairs) -> Self {
        Self {
            writer,
            kernel,
            ec2: Arc::new(ec2),
            repairs,
        }
    }

    pub(crate) fn persist(&self, checkpoint: Checkpoint) {
        self.writer.write(checkpoint);
    }

    pub(crate) fn describe(&self, scope: Scope) {
        let ec2 = Arc::clone(&self.ec2);
        tokio::spawn(async move { ec2.describe(scope).await });
    }

    pub(crate) fn view_kernel(&self) {
        self.kernel.view();
    }

    /// Puts back what is missing of the pods that are wired now, where the disturbance is about any of them.
    pub(crate) fn repair(&self, pool: &Pool, disturbance: &Disturbance) {
        if let Some(order) = repair::order(pool, disturbance, self.kernel.veth_prefix()) {
            self.kernel.repair(order);
        }
    }

    /// Before the core takes an event: whether a view of the kernel shows pods that lack something.
    pub(crate) fn look_for_damage(&self, pool: &Pool, event: &Event) {
        let suspects = repair::suspects(pool, event, self.kernel.veth_prefix());
        self.repairs.wish(Disturbance::of_addresses(suspects));
    }

    /// Sees to it that running pods have one rule each.
    pub(crate) fn settle(&self, pods: BTreeMap<Ipv4Addr, RouteTableId>) {
        self.kernel.settle(pods);
    }

    pub(crate) fn run(&self, op: OpId, work: Work) {
        if is_kernel_work(&work) {
            self.kernel.run(op, work);
        } else {
            let ec2 = Arc::clone(&self.ec2);
            tokio::spawn(async move { ec2.run(op, work).await });
        }
    }
}

fn is_kernel_work(work: &Work) -> bool {
    matches!(
        work,
        Work::SetupEni { .. } | Work::TeardownEni { .. } | Work::ClearPodState { .. }
    )
}
