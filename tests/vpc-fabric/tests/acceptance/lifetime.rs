//! What a sandbox leaves behind, however it ends: nothing. And how it is entered from outside.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vpc_fabric::node::{CommandSpec, NodeAddress, exec_in};
use vpc_fabric::{Entry, NetnsRef, Node, NodeConfig, SandboxConfig, sandbox};

use crate::harness::{Mode, OutsideTest, become_mode, eventually, helper};

const LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn tests() -> Vec<OutsideTest> {
    vec![
        OutsideTest {
            name: "nothing_is_left_after_a_normal_end",
            run: |mode| ends_by(mode, "leave", |_| {}, 0),
        },
        OutsideTest {
            name: "nothing_is_left_after_a_panic",
            run: |mode| ends_by(mode, "panic", |_| {}, 101),
        },
        OutsideTest {
            name: "nothing_is_left_after_an_abort",
            run: |mode| ends_by(mode, "abort", |_| {}, 128 + 6),
        },
        OutsideTest {
            name: "nothing_is_left_after_terminate",
            run: |mode| {
                ends_by(
                    mode,
                    "stay",
                    |victim| send(victim.supervisor(), Signal::SIGTERM),
                    128 + 15,
                )
            },
        },
        OutsideTest {
            name: "nothing_is_left_after_interrupt",
            run: |mode| {
                ends_by(
                    mode,
                    "stay",
                    |victim| send(victim.supervisor(), Signal::SIGINT),
                    128 + 2,
                )
            },
        },
        OutsideTest {
            name: "nothing_is_left_after_kill_of_the_supervisor",
            run: |mode| ends_by(mode, "stay", |victim| send(victim.supervisor(), Signal::SIGKILL), -9),
        },
        OutsideTest {
            name: "nothing_is_left_after_kill_of_init",
            run: |mode| ends_by(mode, "stay", |victim| send(victim.init, Signal::SIGKILL), 128 + 9),
        },
        OutsideTest {
            name: "nothing_is_left_after_kill_of_the_simulator",
            run: |mode| ends_by(mode, "stay", |victim| send(victim.main(), Signal::SIGKILL), 128 + 9),
        },
        OutsideTest {
            name: "a_deaf_simulator_is_killed_after_its_grace",
            run: deaf,
        },
        OutsideTest {
            name: "a_node_is_entered_from_outside",
            run: entered_from_outside,
        },
        OutsideTest {
            name: "a_process_with_threads_is_refused",
            run: threads_refused,
        },
    ]
}

/// A sandbox with a node in which programs run, as another process.
struct Victim {
    process: Child,
    init: Pid,
    node: Pid,
    inodes: BTreeSet<u64>,
}

impl Victim {
    fn start(mode: Mode, fate: &str) -> Self {
        let mut process = helper("victim", mode)
            .arg(fate)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("this program can be started again");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("the victim reports");
        let numbers: Vec<u64> = line
            .split_whitespace()
            .map(|word| word.parse().expect("a number"))
            .collect();
        let [init, node, inodes @ ..] = numbers.as_slice() else {
            panic!("no report: {line:?}")
        };
        let pid = |n: &u64| Pid::from_raw(i32::try_from(*n).expect("a pid"));
        Self {
            process,
            init: pid(init),
            node: pid(node),
            inodes: inodes.iter().copied().collect(),
        }
    }

    fn supervisor(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).expect("a pid"))
    }

    /// The only child of init that is no orphan of the node.
    fn main(&self) -> Pid {
        let path = format!("/proc/{0}/task/{0}/children", self.init);
        let children = std::fs::read_to_string(path).expect("init lives");
        let first = children.split_whitespace().next().expect("init has a child");
        Pid::from_raw(first.parse().expect("a pid"))
    }
}

fn send(pid: Pid, signal: Signal) {
    kill(pid, signal).expect("the process lives");
}

/// Network namespaces in which any process or thread of the machine is.
fn namespaces_in_use() -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    for process in std::fs::read_dir("/proc").expect("there is /proc").flatten() {
        let Ok(tasks) = std::fs::read_dir(process.path().join("task")) else {
            continue;
        };
        let namespaces = tasks
            .flatten()
            .filter_map(|task| std::fs::metadata(task.path().join("ns/net")).ok());
        found.extend(namespaces.map(|metadata| metadata.ino()));
    }
    found
}

/// A zombie has ended; when its parent was killed, some other process collects it at its leisure.
fn lives(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// `status`: exit status of the supervisor, negative for a signal.
fn ends_by(mode: Mode, fate: &str, blow: impl FnOnce(&Victim), status: i32) {
    let names = || {
        std::fs::read_dir("/run/netns")
            .map(|entries| entries.count())
            .unwrap_or(0)
    };
    let names_before = names();
    let mut victim = Victim::start(mode, fate);
    assert!(victim.inodes.len() == 3, "fabric, node, pod: {:?}", victim.inodes);
    if fate == "stay" {
        let used = namespaces_in_use();
        assert!(victim.inodes.is_subset(&used), "a program runs in each");
    }
    blow(&victim);
    drop(victim.process.stdin.take());
    let ended = victim.process.wait().expect("it can be waited for");
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(ended.code().unwrap_or_else(|| -ended.signal().unwrap_or(0)), status);
    eventually("no process is left in its namespaces", LIMIT, || {
        victim.inodes.is_disjoint(&namespaces_in_use())
    });
    eventually("its init is gone", LIMIT, || !lives(victim.init));
    assert_eq!(names(), names_before);
}

fn deaf(mode: Mode) {
    let mut victim = Victim::start(mode, "deaf");
    let start = std::time::Instant::now();
    send(victim.supervisor(), Signal::SIGTERM);
    let ended = victim.process.wait().expect("it can be waited for");
    assert_eq!(ended.code(), Some(128 + 9));
    assert!(start.elapsed() >= Duration::from_millis(250), "it had its grace");
    eventually("no process is left in its namespaces", LIMIT, || {
        victim.inodes.is_disjoint(&namespaces_in_use())
    });
}

fn entered_from_outside(mode: Mode) {
    let victim = Victim::start(mode, "stay");
    let (init, node) = (victim.init.to_string(), victim.node.to_string());
    let run = |script: &str| {
        let mut command: Command = helper("exec", mode);
        command
            .args([&init, &node, script])
            .output()
            .expect("it can be started")
    };
    let inside = run("cat /run/marker; stat -L -c %i /proc/self/ns/net; ls /run/netns; exit 7");
    assert_eq!(
        inside.status.code(),
        Some(7),
        "{}",
        String::from_utf8_lossy(&inside.stderr)
    );
    let text = String::from_utf8(inside.stdout).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    let [marker, inode, pod] = lines.as_slice() else {
        panic!("{text:?}")
    };
    assert_eq!((*marker, *pod), ("node-file", "pod"));
    assert!(victim.inodes.contains(&inode.parse().expect("a number")));
    assert_eq!(run("kill -TERM $$").status.code(), Some(128 + 15));
    send(victim.supervisor(), Signal::SIGKILL);
    eventually("its end", LIMIT, || victim.inodes.is_disjoint(&namespaces_in_use()));
    assert!(!run("true").status.success(), "nobody is there any more");
}

fn threads_refused(_: Mode) {
    let (stop, stopped) = channel::<()>();
    let thread = std::thread::spawn(move || stopped.recv());
    let refused = sandbox::enter(&SandboxConfig::default());
    drop(stop);
    thread.join().expect("no panic").expect_err("nothing was sent");
    assert!(matches!(refused, Err(vpc_fabric::SandboxError::Threads)), "{refused:?}");
}

/// `--helper NAME MODE …`: what this program does when a test above starts it.
pub(crate) fn helper_main(name: &str, mode: Mode, rest: &[&str]) -> ExitCode {
    become_mode(mode);
    match (name, rest) {
        ("victim", [fate]) => victim_main(fate),
        ("exec", [init, node, script]) => {
            let pid = |word: &str| Pid::from_raw(word.parse().expect("a pid"));
            let address = NodeAddress {
                host_init_pid: pid(init),
                node_pid: Some(pid(node)),
            };
            let status = exec_in(address, &"/bin/sh".into(), &["-c".into(), (*script).into()]);
            ExitCode::from(status.expect("the node can be entered"))
        }
        other => panic!("no such helper: {other:?}"),
    }
}

fn victim_main(fate: &str) -> ExitCode {
    if fate == "deaf" {
        let term: nix::sys::signal::SigSet = [Signal::SIGTERM].into_iter().collect();
        term.thread_block().expect("a signal can be blocked");
    }
    let config = SandboxConfig {
        grace: Duration::from_millis(300),
        ..SandboxConfig::default()
    };
    let sandbox = match sandbox::enter(&config).expect("a sandbox can be made") {
        Entry::Ended(status) => return ExitCode::from(status),
        Entry::Inside(sandbox) => sandbox,
    };
    let node = Node::create(&NodeConfig::new("n1")).expect("a node can be made");
    std::fs::write(node.outside("/run/marker".as_ref()), "node-file\n").expect("it can be written");
    let pod = node.add_pod_netns("pod").expect("a pod namespace can be made");
    let _daemon = node
        .spawn(&CommandSpec::new("/bin/sleep").arg("1000"))
        .expect("a program can be started");
    let orphan = CommandSpec::new("/bin/sh").args(["-c", "setsid sleep 1000 &"]);
    node.output(&orphan, b"", LIMIT).expect("a program can be started");
    let netns = pod.netns.clone();
    let _in_pod = std::thread::spawn(move || netns.run(|| channel::<()>().1.recv_timeout(LIMIT * 6)));
    let fabric = NetnsRef::current().expect("there is one");
    let inodes = [&fabric, node.netns(), &pod.netns].map(|netns| netns.inode().expect("there is one").to_string());
    eventually("the pod's thread is there", LIMIT, || {
        namespaces_in_use().contains(&pod.netns.inode().unwrap())
    });
    println!("{} {} {}", sandbox.host_init_pid(), node.pid(), inodes.join(" "));
    match fate {
        "leave" => ExitCode::SUCCESS,
        "panic" => panic!("as the test wants"),
        "abort" => std::process::abort(),
        _ => {
            let _ = std::io::stdin().read_line(&mut String::new());
            channel::<()>()
                .1
                .recv_timeout(LIMIT * 6)
                .map_or(ExitCode::FAILURE, |()| ExitCode::FAILURE)
        }
    }
}
