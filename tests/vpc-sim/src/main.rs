//! `vpc-sim`: a VPC on this machine, with EC2's API, instance metadata, nodes and packets. Nothing outside is touched.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
