//! The whole VPC on the real kernel: API calls made in nodes, and what they do to packets.
//!
//! A harness of its own: each test is a process, since a sandbox can only be entered by a process with one thread.
//! Every test runs without and with a user namespace as root, with one as any other user. What this machine cannot do
//! fails, and says why. Arguments: words that test names must contain.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test program, although cargo's own harness is off"
)]

mod foreign;
mod network;
mod node;

use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use vpc_fabric::{Entry, Privilege, SandboxConfig, sandbox};
use vpc_sim::config::Config;
use vpc_sim::vpc::Vpc;

/// Hard limit of one test; the longest takes two seconds.
const TEST_LIMIT: Duration = Duration::from_secs(60);

/// A test and the VPC it wants.
struct Test {
    name: &'static str,
    config: &'static str,
    run: fn(&Vpc),
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--inside", name, mode] => run_inside(name, mode),
        ["--list", ..] => {
            tests().for_each(|test| println!("{}: test", test.name));
            ExitCode::SUCCESS
        }
        words => run_all(words),
    }
}

fn tests() -> impl Iterator<Item = &'static Test> {
    network::TESTS.iter().chain(foreign::TESTS)
}

fn run_inside(name: &str, mode: &str) -> ExitCode {
    let test = tests()
        .find(|test| test.name == name)
        .expect("the runner names existing tests");
    let privilege = if mode == "rootless" {
        Privilege::UserNamespace
    } else {
        Privilege::Detect
    };
    let config = SandboxConfig {
        privilege,
        ..SandboxConfig::default()
    };
    match sandbox::enter(&config).expect("a sandbox can be made") {
        Entry::Ended(status) => ExitCode::from(status),
        Entry::Inside(sandbox) => {
            let vpc = Vpc::start(
                &Config::parse(test.config).expect("tests have good configurations"),
                &sandbox,
            )
            .expect("the VPC starts");
            (test.run)(&vpc);
            assert_eq!(vpc.handle().errors(), Vec::<String>::new());
            assert_eq!(
                vpc.simulator().with_model(|model, _| model.audit()),
                Vec::<String>::new()
            );
            ExitCode::SUCCESS
        }
    }
}

fn run_all(words: &[&str]) -> ExitCode {
    let wanted: Vec<_> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let takes = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(**word));
    let modes: &[&str] = if geteuid().is_root() {
        &["root", "rootless"]
    } else {
        &["rootless"]
    };
    let mut failures = 0;
    for mode in modes {
        for test in tests().filter(|test| takes(test.name)) {
            failures += u32::from(!run_one(test.name, mode));
        }
    }
    println!("\nas {modes:?}, {failures} failures");
    ExitCode::from(u8::from(failures > 0))
}

fn run_one(name: &str, mode: &str) -> bool {
    let start = Instant::now();
    let mut command = Command::new(std::env::current_exe().expect("a running program has a path"));
    command.args(["--inside", name, mode]).stdin(Stdio::null());
    let mut child = command.spawn().expect("this program can be started again");
    let ended = node::wait_until(TEST_LIMIT, || child.try_wait().unwrap());
    let verdict = match ended {
        Some(status) if status.success() => "ok".to_owned(),
        Some(status) => format!("FAILED: {status}"),
        None => {
            child.kill().unwrap();
            child.wait().unwrap();
            format!("FAILED: no end within {TEST_LIMIT:?}")
        }
    };
    println!(
        "test {name} ({mode}) ... {verdict} in {} ms",
        start.elapsed().as_millis()
    );
    verdict == "ok"
}
