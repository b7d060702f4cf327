//! Network namespaces for tests, as root and without privileges. Only with the feature `testing`.
//!
//! Invariant: the machine's own network namespace is never touched, and no test is skipped in silence.

use std::process::Command;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

use crate::NetNs;

/// Set in the copy of the test program that runs in a user namespace, so that it does not start another one.
const INSIDE: &str = "NETLINK_TESTING_INSIDE_USER_NAMESPACE";

/// Runs a whole test on a thread of its own in a network namespace of its own. Without privileges, the test program is run
/// again in a user namespace for this one test, because a program with several threads cannot enter one.
pub fn in_namespace(test: impl FnOnce() + Send) {
    match enter_and_run(test) {
        Ok(()) => {}
        Err(Errno::EPERM) if std::env::var_os(INSIDE).is_none() => run_in_user_namespace(),
        Err(errno) => panic!("this test needs to make a network namespace: {errno}"),
    }
}

/// A network namespace that lives as long as the handle. The caller must be in [`in_namespace`].
pub fn new_namespace() -> NetNs {
    let mut made = None;
    let make = || made = Some(NetNs::current().expect("a thread can open its own namespace"));
    enter_and_run(make).expect("whoever made a namespace can make another one");
    made.expect("the closure has run")
}

fn enter_and_run(test: impl FnOnce() + Send) -> Result<(), Errno> {
    let run = || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        test();
        Ok(())
    };
    std::thread::scope(|scope| {
        scope
            .spawn(run)
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn run_in_user_namespace() {
    let thread = std::thread::current();
    let name = thread
        .name()
        .expect("the test harness names a test's thread after the test");
    let program = std::env::current_exe().expect("a program knows its own path");
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net"])
        .arg(program)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("this test needs root, or the program unshare");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "{name} failed in a user namespace:\n{text}");
    assert!(
        text.contains("1 passed"),
        "{name} did not run in a user namespace:\n{text}"
    );
}
