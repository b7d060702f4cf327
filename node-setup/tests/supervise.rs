//! The entrypoint with real processes.

#![expect(clippy::unwrap_used, reason = "helpers of tests may unwrap like the tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use node_setup::sequence::{Health, Limits};
use node_setup::supervise::{DAEMON, Daemon, Effects, run};

const LIMITS: Limits = Limits {
    health_pause: Duration::from_millis(5),
    health: Duration::from_secs(20),
    grace: Duration::from_millis(200),
};

/// Notes what was done, and what was there at that moment.
struct Host {
    directory: PathBuf,
    done: Vec<&'static str>,
    said: Vec<String>,
    /// Signal that the test sends itself once the list is in place.
    then_send: Option<&'static str>,
}

impl Host {
    fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            done: Vec::new(),
            said: Vec::new(),
            then_send: None,
        }
    }

    fn is_there(&self, name: &str) -> bool {
        self.directory.join(name).exists()
    }

    /// Through a shell: the signal reaches the entrypoint as from outside.
    fn send(number: &str) {
        let id = std::process::id().to_string();
        let sent = std::process::Command::new("kill").args([number, &id]).status();
        assert!(sent.unwrap().success());
    }
}

impl Effects for Host {
    fn install(&mut self) -> Result<(), String> {
        self.done.push("installed");
        (!self.is_there("disk-full"))
            .then_some(())
            .ok_or_else(|| "no space left".to_owned())
    }

    async fn ask_health(&mut self) -> Health {
        if self.is_there("serving") {
            Health::Serving
        } else {
            Health::NotYet
        }
    }

    fn put_list(&mut self) -> Result<(), String> {
        assert!(self.is_there("serving"), "the list came before the daemon served");
        self.done.push("listed");
        if let Some(number) = self.then_send {
            Self::send(number);
        }
        Ok(())
    }

    fn say(&mut self, text: &str) {
        self.said.push(text.to_owned());
    }
}

/// A daemon in shell, executed under the name that agents look for.
fn daemon(directory: &Path, script: &str) -> Daemon {
    let daemon = Daemon::in_directory(directory);
    assert_eq!(daemon.program.file_name().unwrap(), DAEMON);
    fs::write(
        &daemon.program,
        format!("#!/bin/sh\ncd {}\n{script}\n", directory.display()),
    )
    .unwrap();
    fs::set_permissions(&daemon.program, fs::Permissions::from_mode(0o755)).unwrap();
    daemon
}

fn run_to_its_end(daemon: &Daemon, limits: Limits, host: &mut Host) -> u8 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run(daemon, limits, host)).unwrap()
}

/// One test: signals are the whole process's.
#[test]
fn the_entrypoint_supervises_a_daemon_from_its_start_to_its_end() {
    check_that_one_that_ends_by_itself_gives_its_status();
    check_that_a_signal_reaches_it();
    check_that_one_that_does_not_end_is_killed();
    check_that_one_that_never_serves_is_ended();
    check_that_a_step_that_fails_starts_nothing();
}

fn check_that_one_that_ends_by_itself_gives_its_status() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = daemon(
        directory.path(),
        "cat /proc/$$/comm > comm; : > serving; sleep 0.2; exit 7",
    );
    let mut host = Host::new(directory.path());
    assert_eq!(run_to_its_end(&daemon, LIMITS, &mut host), 7);
    assert_eq!(host.done, ["installed", "listed"]);
    let name = fs::read_to_string(directory.path().join("comm")).unwrap();
    assert_eq!(name.trim(), "aws-k8s-agent");
}

fn check_that_a_signal_reaches_it() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = daemon(
        directory.path(),
        "trap 'echo told > told; exit 5' TERM; : > serving; while :; do sleep 0.02; done",
    );
    let mut host = Host::new(directory.path());
    host.then_send = Some("-TERM");
    let patient = Limits {
        grace: Duration::from_secs(20),
        ..LIMITS
    };
    assert_eq!(run_to_its_end(&daemon, patient, &mut host), 5);
    assert!(host.is_there("told"));
}

fn check_that_one_that_does_not_end_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = daemon(
        directory.path(),
        "trap '' TERM; : > serving; while :; do sleep 0.02; done",
    );
    let mut host = Host::new(directory.path());
    host.then_send = Some("-TERM");
    assert_eq!(run_to_its_end(&daemon, LIMITS, &mut host), 128 + 9);
}

fn check_that_one_that_never_serves_is_ended() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = daemon(directory.path(), "exec sleep 30");
    let mut host = Host::new(directory.path());
    let limits = Limits {
        health: Duration::from_millis(100),
        ..LIMITS
    };
    assert_eq!(run_to_its_end(&daemon, limits, &mut host), 1);
    assert_eq!(host.done, ["installed"]);
    assert!(
        host.said.iter().any(|text| text.contains("is ended")),
        "{:?}",
        host.said
    );
}

fn check_that_a_step_that_fails_starts_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = daemon(directory.path(), ": > started");
    let mut host = Host::new(directory.path());
    fs::write(directory.path().join("disk-full"), "").unwrap();
    assert_eq!(run_to_its_end(&daemon, LIMITS, &mut host), 1);
    assert!(!host.is_there("started"));
    assert_eq!(host.said, ["cannot copy the plugins: no space left"]);
    fs::remove_file(&daemon.program).unwrap();
    fs::remove_file(directory.path().join("disk-full")).unwrap();
    assert_eq!(run_to_its_end(&daemon, LIMITS, &mut host), 1);
    assert!(host.said[1].contains("cannot start"), "{:?}", host.said);
}
