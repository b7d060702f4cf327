//! The two services an EC2 node talks to: the EC2 API (through the AWS SDK) and the instance metadata service.
//!
//! Owns how a question is asked: wire, deadlines, retries of reads, typed views, error classes. Owns no policy: it
//! never decides to repeat a mutation, to wait, or to fall back; that is the planner's business, so that it can be
//! simulated. Invariant: a mutation is attempted once, and its caller learns whether it surely was not applied
//! ([`Class::NotSent`] and the refusals) or may have been ([`Class::Unknown`]). `ipamd` is the only user.

#[cfg(test)]
mod canned;
mod config;
mod ec2;
mod http;
mod imds;

pub use config::{CloudConfig, ConfigError, ImdsFamily, ProxyUse, Reader, VARIABLES, Variable};
pub use ec2::client::Ec2Client;
pub use ec2::eni::{
    AttachmentStatus, AttachmentView, DeleteOnTermination, EniKind, EniStatus, EniView, SourceDestCheck, SubnetView,
};
pub use ec2::error::{Action, Class, Delivery, Ec2Error, ErrorCode};
pub use ec2::observe::{CallObserver, CallReport};
pub use ec2::request::{ClientToken, ClientTokenError, CreateEni, TagFilter, Want};
pub use ec2::traits::{Ec2, EniAllocations, EniLifecycle, ReadEc2};
pub use imds::client::{ImdsClient, ImdsError};
pub use imds::facts::{ImdsEni, ImdsGlance, InstanceFacts};
