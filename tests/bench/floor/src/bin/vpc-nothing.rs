//! `vpc-nothing`: what starting a static program costs.

fn main() {}
