//! A simulated VPC: EC2's network API, instance metadata, and (with `vpc-fabric`) the packets.
//!
//! [`model`] is EC2 as a pure state machine; [`Simulator`] gives it a clock and serves it over HTTP.

pub mod config;
pub mod ctl;
mod ec2;
mod imds;
pub mod kube;
pub mod model;
mod sim;
pub mod vpc;

pub use imds::{ImdsOptions, Launch, TokenPolicy};
pub use sim::{Asker, AttemptCount, Attempts, LostAnswers, Simulator};
