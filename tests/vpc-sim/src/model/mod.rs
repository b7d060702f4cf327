//! EC2's network side as a pure state machine: subnets and their allocator, ENIs, limits, throttling, lagging views, faults.
//!
//! Owns what AWS would own and nothing of the machine it runs on: no I/O, no clock, no randomness but what its seed
//! gives. Time is an argument, a [`Duration`] since some start, and must not go backwards. Equal calls after an equal
//! seed give equal answers. Invariant: [`Model::audit`] finds nothing, after any sequence of calls.
//! The HTTP servers of this crate and the deterministic simulation of the pool both drive it.
//!
//! ```
//! use std::time::Duration;
//! use vpc_sim::model::request::{AssignPrivateIpAddresses, CreateNetworkInterface, Ipv4Request};
//! use vpc_sim::model::{AllocationPolicy, Change, InstanceSpec, Model, Outcome, Settings, SubnetSpec};
//!
//! let mut model = Model::new(Settings::instant(42));
//! let vpc = model.add_vpc(&["10.0.0.0/16".parse()?], &[])?;
//! let subnet = model.add_subnet(SubnetSpec {
//!     vpc,
//!     zone: "us-east-1a".into(),
//!     cidr: "10.0.1.0/24".parse()?,
//!     ipv6_cidr: None,
//!     policy: AllocationPolicy::Random,
//!     tags: Default::default(),
//! })?;
//! let now = Duration::from_secs(1);
//! let node = model.run_instance(now, InstanceSpec::new("m5.large", subnet.clone()))?;
//!
//! // A call has a latency and an outcome; its effect happens at `now`, the caller hears of it at `now + latency`.
//! let answer = model.call(now, &CreateNetworkInterface::new(subnet));
//! let Outcome::Done(created) = answer.outcome else { panic!("refused or lost") };
//! let more = AssignPrivateIpAddresses::new(created.eni.id.clone(), Ipv4Request::Count(5));
//! assert_eq!(model.call(now, &more).done()?.addresses.len(), 5);
//!
//! // The primary ENI's device appeared on the instance; the new ENI is attached to nothing yet.
//! assert!(matches!(model.drain_changes().as_slice(), [Change::Attached { instance, .. }] if *instance == node));
//! // Devices come and go by themselves when their time comes: wake at `model.next_transition()` and call `advance`.
//! assert_eq!(model.next_transition(), None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod action;
mod audit;
mod change;
mod counter;
mod error;
mod fault;
mod filter;
mod history;
mod ops;
mod others;
mod record;
pub mod request;
mod settings;
mod setup;
mod subnet;
#[cfg(test)]
mod tests;
mod throttle;
mod view;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use vpc_types::InstanceId;

pub use action::Action;
pub use change::{Change, Ipv6Allocation};
pub use counter::{ActionCount, Counters};
pub use error::{Ec2Error, ErrorCode};
pub use fault::{Effect, Fault, Faults, ImdsFault};
pub use ops::{AssignedIpv4, AssignedIpv6, Attached, Created, InstanceType, InstanceView, Operation, Page};
pub use others::{Notice, Occupancy};
pub use record::{
    Attachment, AttachmentStatus, Eni, EniStatus, Instance, InstanceState, InterfaceType, OnTermination, SecurityGroup,
    SourceDestCheck, Vpc,
};
pub use settings::{AllocationPolicy, Delay, FreshIds, Settings, Throttle};
pub use setup::{InstanceSpec, SetupError, SubnetSpec};
pub use subnet::Subnet;
pub use throttle::Breadth;
pub use view::{ImdsAnswer, ImdsEni};
pub use world::World;

/// What a caller gets from a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It worked.
    Done(T),
    /// It had no effect.
    Refused(Ec2Error),
    /// No answer ever comes; whether it had an effect is for the caller to find out.
    Lost,
}

/// An outcome and when it reaches the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// Time from the call to its answer.
    pub latency: Duration,
    /// What the answer is.
    pub outcome: Outcome<T>,
}

impl<T> Answer<T> {
    /// The output, for callers that inject no lost answers.
    ///
    /// # Errors
    /// The refusal; a lost answer reads as `InternalError`.
    pub fn done(self) -> Result<T, Ec2Error> {
        match self.outcome {
            Outcome::Done(output) => Ok(output),
            Outcome::Refused(refusal) => Err(refusal),
            Outcome::Lost => Err(Ec2Error::new(ErrorCode::InternalError, "the answer was lost")),
        }
    }
}

/// A region of EC2.
#[derive(Debug, Clone)]
pub struct Model {
    world: World,
    buckets: throttle::Buckets,
    faults: Faults,
    counters: Counters,
    notices: BTreeMap<InstanceId, Notice>,
}

impl Model {
    /// An empty region.
    pub fn new(settings: Settings) -> Self {
        Self {
            world: World::new(settings),
            buckets: throttle::Buckets::default(),
            faults: Faults::default(),
            counters: Counters::default(),
            notices: BTreeMap::new(),
        }
    }

    /// One call of the API, as a client makes it: faults, throttling and latency apply, and it is counted.
    pub fn call<O: Operation>(&mut self, now: Duration, operation: &O) -> Answer<O::Output> {
        self.world.advance(now);
        let base = self.world.settings.latency.get(&O::ACTION).copied().unwrap_or_default();
        let mut latency = self.world.sample(base);
        let mut lost = None;
        match self.faults.take(O::ACTION) {
            Some(Fault::Refuse(refusal)) => return self.finish(O::ACTION, latency, Outcome::Refused(refusal)),
            Some(Fault::Delay(more)) => latency += more,
            Some(Fault::LoseAnswer(effect)) => lost = Some(effect),
            None => {}
        }
        if lost == Some(Effect::NotApplied) {
            return self.finish(O::ACTION, latency, Outcome::Lost);
        }
        let throttle = self.world.settings.throttle;
        if !self.buckets.admit(throttle, now, O::ACTION, operation.breadth()) {
            let refusal = Ec2Error::stock(ErrorCode::RequestLimitExceeded);
            return self.finish(O::ACTION, latency, Outcome::Refused(refusal));
        }
        let outcome = match self.execute(now, operation) {
            _ if lost.is_some() => Outcome::Lost,
            Ok(output) => Outcome::Done(output),
            Err(refusal) => Outcome::Refused(refusal),
        };
        self.finish(O::ACTION, latency, outcome)
    }

    /// The same by hand of an operator or of a test: no faults, no throttling, no latency, not counted.
    pub fn call_directly<O: Operation>(&mut self, now: Duration, operation: &O) -> Result<O::Output, Ec2Error> {
        self.world.advance(now);
        self.execute(now, operation)
    }

    fn execute<O: Operation>(&mut self, now: Duration, operation: &O) -> Result<O::Output, Ec2Error> {
        let result = operation.execute(&mut self.world, now);
        // Transitions without delay are due at once.
        self.world.advance(now);
        result
    }

    fn finish<T>(&mut self, action: Action, latency: Duration, outcome: Outcome<T>) -> Answer<T> {
        let count = self.counters.entry(action);
        match &outcome {
            Outcome::Done(_) => count.accepted += 1,
            Outcome::Refused(refusal) => *count.refused.entry(refusal.code).or_default() += 1,
            Outcome::Lost => count.lost += 1,
        }
        Answer { latency, outcome }
    }

    /// Lets everything happen that is due by `now`.
    pub fn advance(&mut self, now: Duration) {
        self.world.advance(now);
    }

    /// When the next device appears or disappears by itself.
    pub fn next_transition(&self) -> Option<Duration> {
        self.world.next_transition()
    }

    /// What happened to the data plane since the last time, in order.
    pub fn drain_changes(&mut self) -> Vec<Change> {
        self.world.drain_changes()
    }

    /// Call counts.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Call counts, to reset them.
    pub fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// Faults waiting.
    pub fn faults_mut(&mut self) -> &mut Faults {
        &mut self.faults
    }

    /// Settings in force.
    pub fn settings(&self) -> &Settings {
        &self.world.settings
    }

    /// Settings, to change them while running.
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.world.settings
    }
}
