//! A simulated VPC: EC2's network API, instance metadata, and (with `vpc-fabric`) the packets.

pub mod model;
