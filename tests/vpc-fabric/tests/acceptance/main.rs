//! Acceptance tests of the sandbox, nodes and fabric, on the real kernel.
//!
//! A harness of its own: each test is a process, since a sandbox can only be entered by a process with one thread. As
//! root every test runs twice, as root and as an unprivileged uid; other users run the latter only. What this machine
//! cannot do fails, and says why.
//!
//! Arguments: words that test names must contain; `--skip WORD`; `--list`; other options of cargo's harness are accepted and ignored.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test program, although cargo's own harness is off"
)]

mod harness;
mod lifetime;
mod network;
mod nodes;
mod pods;
mod setup;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut tests = network::tests();
    tests.extend(nodes::tests());
    tests.extend(pods::tests());
    harness::main(&tests, &lifetime::tests())
}
