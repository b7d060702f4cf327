//! The actions: what each checks, changes and answers.
//!
//! An operation checks everything before it changes anything, so a refused call has no effect.

mod assign;
mod assign6;
mod attach;
mod create;
mod describe;
mod modify;

use std::time::Duration;

use vpc_types::InstanceLimits;

pub use assign::AssignedIpv4;
pub use assign6::AssignedIpv6;
pub use attach::Attached;
pub(super) use attach::tie;
pub use create::Created;
pub(super) use create::{Tokens, new_eni};
pub use describe::{InstanceType, InstanceView, Page};

use super::throttle::Breadth;
use super::{Action, Ec2Error, ErrorCode, World};

/// One call of the API, with its answer's type.
pub trait Operation {
    /// What a success answers.
    type Output;
    /// Its action.
    const ACTION: Action;

    /// Which token bucket it is charged to.
    fn breadth(&self) -> Breadth {
        Breadth::Narrowed
    }

    /// Checks and does it. Called by [`super::Model::call`], which adds faults, throttling and counts.
    fn execute(&self, world: &mut World, now: Duration) -> Result<Self::Output, Ec2Error>;
}

/// The type's IPv4 slots per ENI hold the primary address, secondary addresses, and each prefix as one.
fn check_ipv4_slots(limits: Option<&InstanceLimits>, slots: usize) -> Result<(), Ec2Error> {
    match limits {
        Some(limits) if slots > usize::from(limits.ipv4_per_eni) => {
            Err(Ec2Error::stock(ErrorCode::PrivateIpAddressLimitExceeded))
        }
        _ => Ok(()),
    }
}
