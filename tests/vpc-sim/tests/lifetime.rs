//! The binary's life: what it says when it is ready, and that nothing is left however it ends.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(15);

fn vpc_sim(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vpc-sim"));
    command.env("VPC_SIM_STATE", state).stdin(Stdio::null());
    command
}

fn wait_until<T>(mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    while started.elapsed() < SOON {
        if let Some(found) = condition() {
            return Some(found);
        }
        poll(&mut [], PollTimeout::from(10_u8)).unwrap();
    }
    None
}

/// A simulator that is up; killed when the test ends early.
struct Up {
    child: Child,
    ready: Value,
    state: TempDir,
}

impl Up {
    fn start(options: &[&str]) -> Self {
        let state = TempDir::new().unwrap();
        let mut child = vpc_sim(state.path())
            .arg("up")
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no ready line but {line:?}"));
        Self { child, ready, state }
    }

    fn command(&self, args: &[&str]) -> Output {
        vpc_sim(self.state.path()).args(args).output().unwrap()
    }

    fn is_gone(&self) -> bool {
        let init = self.ready["host_init_pid"].as_u64().unwrap();
        !Path::new(&format!("/proc/{init}")).exists() && !self.command(&["ctl", "state"]).status.success()
    }

    fn end(&mut self, signal: Signal) -> std::process::ExitStatus {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
        wait_until(|| self.child.try_wait().unwrap()).expect("it ends")
    }

    fn assert_nothing_is_left(&self) {
        wait_until(|| self.is_gone().then_some(())).expect("all processes and the ctl socket are gone");
        assert_eq!(
            std::fs::read_dir(self.state.path()).unwrap().count(),
            0,
            "the state directory stays empty"
        );
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As root also with a user namespace, which is what others get.
fn ways() -> Vec<Vec<&'static str>> {
    if geteuid().is_root() {
        vec![vec![], vec!["--user-namespace"]]
    } else {
        vec![vec![]]
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn exec_sees_the_files_of_a_node_with_a_root_of_its_own() {
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("config.json");
    let content = r#"{"nodes": [{"name": "node-1", "subnet": "subnet-1", "private_dirs": ["/vpc-sim-lifetime"]}]}"#;
    std::fs::write(&config, content).unwrap();
    for way in ways() {
        let mut options = way.clone();
        options.extend(["--config", config.to_str().unwrap()]);
        let mut up = Up::start(&options);
        let script =
            "echo x > /vpc-sim-lifetime/a && cat /vpc-sim-lifetime/a /run/vpc-sim/environment && test -e /etc/passwd";
        let seen = up.command(&["exec", "node-1", "--", "sh", "-c", script]);
        assert!(seen.status.success(), "{seen:?}");
        let shown = text(&seen.stdout);
        assert!(
            shown.starts_with("x\n") && shown.contains("MY_NODE_NAME=node-1"),
            "{shown}"
        );
        assert_eq!(
            up.ready["nodes"][0]["environment"]["KUBECONFIG"],
            "/run/vpc-sim/kubeconfig"
        );
        let counted = up.command(&["ctl", "kube", "get", "nodes", "node-1"]);
        assert!(text(&counted.stdout).contains("\"pods\": \"29\""), "{counted:?}");
        assert!(!Path::new("/vpc-sim-lifetime").exists());
        assert!(up.end(Signal::SIGTERM).success());
        up.assert_nothing_is_left();
    }
}

#[test]
fn exec_and_ctl_reach_a_running_vpc() {
    for way in ways() {
        let up = Up::start(&way);
        assert_eq!(up.ready["nodes"][0]["address"], "10.0.1.10");
        let seen = up.command(&["exec", "node-1", "--", "cat", "/proc/net/fib_trie"]);
        assert!(text(&seen.stdout).contains("10.0.1.10"), "{seen:?}");
        let status = up.command(&["exec", "node-2", "--", "sh", "-c", "exit 7"]).status;
        assert_eq!(status.code(), Some(7));
        let seen = up.command(&["exec", "internet", "--", "cat", "/proc/net/fib_trie"]);
        assert!(text(&seen.stdout).contains("203.0.113.10"), "{seen:?}");
        let refused = up.command(&["exec", "node-9", "--", "true"]);
        assert!(
            text(&refused.stderr).contains("there is no node or internet host \"node-9\""),
            "{refused:?}"
        );
        let state: Value = serde_json::from_slice(&up.command(&["ctl", "state"]).stdout).unwrap();
        let eni = state["instances"][0]["enis"][0]["id"].as_str().unwrap();
        let assigned: Value =
            serde_json::from_slice(&up.command(&["ctl", "assign", eni, "--count", "2"]).stdout).unwrap();
        assert_eq!(assigned["addresses"].as_array().unwrap().len(), 2);
        for (args, good) in [
            (
                &["fault", "DescribeVpcs", "--code", "InternalError", "--calls", "3"][..],
                true,
            ),
            (&["fault", "DescribeVpcs", "--lose", "applied"], true),
            (&["fault", "DescribeVpcs"], false),
            (&["fault", "CreateWorld", "--code", "InternalError"], false),
            (&["timing", "--attach", "100"], true),
            (&["latency", "DescribeVpcs", "5"], true),
            (&["throttle", "0.5"], true),
            (&["throttle", "-1"], false),
            (&["imds-fault", "half-entry", eni], true),
            (&["imds-fault", "half-entry", "nonsense"], false),
            (&["lost-answers", "hang"], true),
            (&["clear-faults"], true),
            (&["drops"], true),
            (&["counts", "--reset"], true),
            (&["detach", eni], false),
        ] {
            let output = up.command(&[&["ctl"][..], args].concat());
            assert_eq!(output.status.success(), good, "{args:?}: {output:?}");
        }
    }
}

#[test]
fn two_simulators_do_not_take_the_same_name() {
    let up = Up::start(&[]);
    let second = up.command(&["up"]);
    assert!(text(&second.stderr).contains("runs for"), "{second:?}");
    assert!(!second.status.success());
}

#[test]
fn an_end_by_signal_is_good_and_leaves_nothing() {
    for way in ways() {
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            let mut up = Up::start(&way);
            assert_eq!(up.end(signal).code(), Some(0), "{signal}");
            up.assert_nothing_is_left();
        }
    }
}

#[test]
fn a_killed_simulator_leaves_nothing() {
    for way in ways() {
        let mut up = Up::start(&way);
        // A program in a node must not survive either.
        let mut inside = vpc_sim(up.state.path())
            .args(["exec", "node-1", "--", "sleep", "1000"])
            .spawn()
            .unwrap();
        let running = || {
            text(&up.command(&["exec", "node-1", "--", "ls", "/proc"]).stdout)
                .lines()
                .count()
        };
        wait_until(|| (running() > 0).then_some(())).expect("the node can be entered");
        up.end(Signal::SIGKILL);
        up.assert_nothing_is_left();
        wait_until(|| inside.try_wait().unwrap()).expect("the program in the node ends too");
    }
}

#[test]
fn a_killed_child_ends_the_simulator() {
    let mut up = Up::start(&[]);
    let init = i32::try_from(up.ready["host_init_pid"].as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(init), Signal::SIGKILL).unwrap();
    let status = wait_until(|| up.child.try_wait().unwrap()).expect("the simulator ends");
    assert!(!status.success());
    up.assert_nothing_is_left();
}

#[test]
fn bad_configurations_name_the_field_and_start_nothing() {
    let state = TempDir::new().unwrap();
    let file = state.path().join("config.json");
    std::fs::write(
        &file,
        r#"{"nodes": [{"name": "a", "subnet": "subnet-1", "typ": "m5.large"}]}"#,
    )
    .unwrap();
    let output = vpc_sim(state.path())
        .args(["up", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("nodes[0]") && said.contains("typ"), "{said}");
}

#[test]
fn the_api_alone_serves_until_it_is_told_to_end() {
    let state = TempDir::new().unwrap();
    let args = [
        "ec2",
        "--listen",
        "127.0.0.1:0",
        "--imds-listen",
        "127.0.0.1:0",
        "--imds-instance",
        "node-2",
    ];
    let mut child = vpc_sim(state.path())
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    for endpoint in ["ec2", "imds"] {
        let address = ready[endpoint].as_str().unwrap().trim_start_matches("http://");
        assert!(std::net::TcpStream::connect(address).is_ok(), "{endpoint} at {address}");
    }
    let counts = vpc_sim(state.path()).args(["ctl", "counts"]).output().unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&counts.stdout).unwrap()["total_calls"],
        0
    );
    let drops = vpc_sim(state.path()).args(["ctl", "drops"]).output().unwrap();
    assert!(text(&drops.stderr).contains("without a data plane"), "{drops:?}");
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    let status = wait_until(|| child.try_wait().unwrap()).expect("it ends");
    assert_eq!(status.code(), Some(0));
}
