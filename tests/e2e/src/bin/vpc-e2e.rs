//! `vpc-e2e`: the end-to-end suite.
fn main() {}
