//! The daemon ends when it is told, also before it serves.

#![expect(clippy::unwrap_used, reason = "helpers of tests may unwrap like the tests")]

use std::io::Read as _;
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// For what takes milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(20);
/// Bit of SIGTERM in a mask of `/proc/PID/status`.
const SIGTERM_BIT: u64 = 1 << 14;

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + SOON;
    let (_keep, never) = std::sync::mpsc::channel::<()>();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain until {what}");
        let _ = never.recv_timeout(Duration::from_millis(5));
    }
}

/// A process without a handler for a signal dies of it, unless it is process 1: then nothing happens at all.
fn catches_sigterm(child: &Child) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & SIGTERM_BIT != 0
}

fn end(child: &mut Child) -> (ExitStatus, Duration) {
    let told = Instant::now();
    let told_to = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(told_to.unwrap().success());
    let status = until("it ends", || child.try_wait().unwrap());
    (status, told.elapsed())
}

#[test]
fn sigterm_ends_a_daemon_that_waits_for_imds() {
    let root = tempfile::tempdir().unwrap();
    // Somebody accepts the connection and says nothing.
    let imds = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", imds.local_addr().unwrap());
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_ipamd"))
        .env_clear()
        .env("VPC_CNI_ROOT", root.path())
        .env("AWS_REGION", "us-east-1")
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint)
        .env("AWS_VPC_K8S_CNI_LOG_FILE", "stderr")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _asked = imds.accept().unwrap();
    assert!(catches_sigterm(&daemon), "it asks IMDS without a handler for SIGTERM");
    let (status, took) = end(&mut daemon);
    let mut log = String::new();
    daemon.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(status.success(), "{status}: {log}");
    assert!(took < Duration::from_secs(1), "it took {took:?}");
}
