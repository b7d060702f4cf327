//! Nodes as hosts: files, programs, pods' namespaces.

use std::path::Path;
use std::time::Duration;

use vpc_fabric::node::{CommandSpec, NodeError, Stream};
use vpc_fabric::{NetnsRef, Node, NodeConfig, Sandbox};

use crate::harness::{InsideTest, eventually};

const LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn tests() -> Vec<InsideTest> {
    vec![
        InsideTest {
            name: "each_node_has_its_own_files",
            run: own_files,
        },
        InsideTest {
            name: "a_private_directory_may_be_missing_on_the_machine",
            run: missing_directory,
        },
        InsideTest {
            name: "a_private_directory_may_stand_in_the_root_itself",
            run: missing_top,
        },
        InsideTest {
            name: "a_program_gets_input_and_gives_output",
            run: input_and_output,
        },
        InsideTest {
            name: "a_program_past_its_deadline_is_killed",
            run: deadline,
        },
        InsideTest {
            name: "the_end_of_a_node_ends_its_programs",
            run: end_of_node,
        },
        InsideTest {
            name: "pod_namespaces_come_and_go_by_name",
            run: pod_namespaces,
        },
        InsideTest {
            name: "a_node_sees_its_own_devices_and_forwards",
            run: own_devices,
        },
        InsideTest {
            name: "bad_names_are_refused",
            run: bad_names,
        },
    ]
}

fn node(name: &str) -> Node {
    Node::create(&NodeConfig::new(name)).expect("a node can be made")
}

fn shell(script: &str) -> CommandSpec {
    CommandSpec::new("/bin/sh").args(["-c", script])
}

fn stdout(node: &Node, script: &str) -> String {
    let output = node.output(&shell(script), b"", LIMIT).unwrap();
    assert!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn own_files(_: &Sandbox) {
    let (n1, n2) = (node("n1"), node("n2"));
    for node in [&n1, &n2] {
        let name = node.name();
        stdout(
            node,
            &format!("echo {name} > /var/run/who; mkdir /run/aws-node; echo {name} > /var/log/who"),
        );
        for file in ["/run/who", "/var/run/who", "/var/log/who"] {
            assert_eq!(
                std::fs::read_to_string(node.outside(Path::new(file))).unwrap().trim(),
                name,
                "{file}"
            );
        }
        assert_eq!(stdout(node, "cat /run/who"), name);
    }
    assert!(
        !Path::new("/run/who").exists(),
        "the sandbox's own /run is not the node's"
    );
}

fn missing_directory(_: &Sandbox) {
    let private_dirs = vec!["/opt/vpc-fabric-test/bin".into(), "/etc/vpc-fabric-test/net.d".into()];
    let config = NodeConfig {
        private_dirs,
        ..NodeConfig::new("n1")
    };
    let n1 = Node::create(&config).expect("an overlay makes the mount point");
    stdout(
        &n1,
        "echo x > /etc/vpc-fabric-test/net.d/10.conflist && test -e /etc/passwd",
    );
    assert!(n1.outside(Path::new("/etc/vpc-fabric-test/net.d/10.conflist")).exists());
    assert!(
        !Path::new("/etc/vpc-fabric-test").exists(),
        "the machine's own files are not touched"
    );
}

fn missing_top(_: &Sandbox) {
    let config = NodeConfig {
        private_dirs: vec!["/vpc-fabric-test".into(), "/vpc-fabric-deep/var/log".into()],
        ..NodeConfig::new("n1")
    };
    let n1 = Node::create(&config).expect("the node gets a root of its own");
    let script = "echo x > /vpc-fabric-test/a && mkdir /vpc-fabric-test/b && echo y > /vpc-fabric-deep/var/log/c \
                  && test -e /etc/passwd && test -c /dev/null && test -d /proc/self && test -d /sys/class/net/lo";
    stdout(&n1, script);
    for inside in ["/vpc-fabric-test/a", "/vpc-fabric-deep/var/log/c"] {
        assert!(n1.outside(Path::new(inside)).exists(), "{inside}");
    }
    assert!(
        !Path::new("/vpc-fabric-test").exists(),
        "the machine's own root is not touched"
    );
    assert_eq!(stdout(&n1, "ls /sys/class/net"), "lo");
    let n2 = node("n2");
    assert_eq!(stdout(&n2, "test -e /vpc-fabric-test || echo none"), "none");
    stdout(&n1, "echo here > /run/who && test -e /run/netns");
    assert!(n1.outside(Path::new("/run/who")).exists());
    // A pod's namespace is named in the node, and opened by its path there.
    let pod = n1.add_pod_netns("cni-1").unwrap();
    assert!(n1.pod_netns(&pod.path).is_ok());
}

fn input_and_output(_: &Sandbox) {
    let n1 = node("n1");
    let big = vec![b'x'; 300_000];
    let output = n1
        .output(&shell("cat; echo problem >&2; exit 3").env("A", "b"), &big, LIMIT)
        .unwrap();
    assert_eq!(
        (output.status.code(), output.stdout.len(), &output.stderr[..]),
        (Some(3), 300_000, &b"problem\n"[..])
    );
    // A program that ignores its input, and one that leaves a child holding its output.
    assert!(n1.output(&shell("exec true"), &big, LIMIT).unwrap().status.success());
    let output = n1.output(&shell("sleep 60 & echo done"), b"", LIMIT).unwrap();
    assert!(output.stdout == b"done\n" && output.elapsed < LIMIT);
    let missing = n1.output(&CommandSpec::new("/no/such/program"), b"", LIMIT);
    assert!(matches!(missing, Err(NodeError::Spawn { .. })), "{missing:?}");
}

fn deadline(_: &Sandbox) {
    let n1 = node("n1");
    let late = n1.output(
        &CommandSpec::new("/bin/sleep").arg("60"),
        b"",
        Duration::from_millis(50),
    );
    assert!(matches!(late, Err(NodeError::Deadline { .. })), "{late:?}");
    let mut child = n1.spawn(&CommandSpec::new("/bin/sleep").arg("60")).unwrap();
    assert_eq!(child.wait(Duration::from_millis(20)).unwrap(), None);
    assert!(!child.kill().unwrap().success());
    assert!(child.try_wait().unwrap().is_some());
}

fn processes_in(inode: u64) -> usize {
    use std::os::unix::fs::MetadataExt;
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    pids.filter(|pid| pid.parse::<u32>().is_ok())
        .filter_map(|pid| std::fs::metadata(format!("/proc/{pid}/ns/net")).ok())
        .filter(|metadata| metadata.ino() == inode)
        .count()
}

fn end_of_node(_: &Sandbox) {
    let n1 = node("n1");
    let inode = n1.netns().inode().unwrap();
    // Also one that no longer has a parent.
    n1.output(&shell("setsid sleep 60 > /dev/null 2>&1 &"), b"", LIMIT)
        .unwrap();
    n1.spawn(&CommandSpec::new("/bin/sleep").arg("60")).unwrap();
    eventually("both run", LIMIT, || processes_in(inode) == 2);
    let pod = n1.add_pod_netns("pod").unwrap();
    let in_pod = CommandSpec::new("/usr/bin/env").args(["nsenter", "--net=/run/netns/pod", "sleep", "60"]);
    n1.spawn(&in_pod).unwrap();
    let pod_inode = pod.netns.inode().unwrap();
    eventually("a program runs in the pod", LIMIT, || processes_in(pod_inode) == 1);
    Node::create(&NodeConfig::new("n1")).expect_err("the name is taken");
    drop(n1);
    assert_eq!((processes_in(inode), processes_in(pod_inode)), (0, 0));
    node("n1");
    eventually("init reaps them", LIMIT, || {
        let zombies = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let stat = std::fs::read_to_string(entry.unwrap().path().join("stat")).ok()?;
            stat.contains(") Z 1 ").then_some(())
        });
        zombies.count() == 0
    });
}

fn pod_namespaces(_: &Sandbox) {
    let (n1, n2) = (node("n1"), node("n2"));
    let pod = n1.add_pod_netns("cni-1").unwrap();
    assert_eq!(pod.path, Path::new("/run/netns/cni-1"));
    assert_eq!(
        n1.pod_netns(&pod.path).unwrap().netns.inode().unwrap(),
        pod.netns.inode().unwrap()
    );
    assert_ne!(pod.netns.inode().unwrap(), n1.netns().inode().unwrap());
    // The node's own thread has not moved, and the other node knows nothing of it.
    let now = n1.run(|| NetnsRef::current().unwrap().inode().unwrap()).unwrap();
    assert_eq!(now, n1.netns().inode().unwrap());
    assert!(n2.pod_netns(&pod.path).is_err());
    n1.add_pod_netns("cni-1").expect_err("the name is taken");
    n1.delete_pod_netns("cni-1").unwrap();
    n1.delete_pod_netns("cni-1").expect("gone is good");
    assert!(n1.pod_netns(&pod.path).is_err());
    n1.add_pod_netns("cni-1").expect("the name is free again");
}

fn own_devices(_: &Sandbox) {
    let n1 = node("n1");
    assert_eq!(stdout(&n1, "ls /sys/class/net"), "lo");
    assert_eq!(stdout(&n1, "cat /proc/sys/net/ipv4/ip_forward"), "1");
    let config = NodeConfig {
        sysctls: vec![("net/ipv4/conf/all/rp_filter".into(), "2".into())],
        ..NodeConfig::new("n2")
    };
    let n2 = Node::create(&config).unwrap();
    assert_eq!(stdout(&n2, "cat /proc/sys/net/ipv4/conf/all/rp_filter"), "2");
    let log = Path::new("/run/test.log");
    let mut child = n2
        .spawn(&shell("echo to the log").log_to(log).stdin(Stream::Null))
        .unwrap();
    assert!(child.wait(LIMIT).unwrap().is_some());
    assert_eq!(std::fs::read_to_string(log).unwrap(), "to the log\n");
}

fn bad_names(_: &Sandbox) {
    for name in ["", "a/b", "..", "a b", ".hidden"] {
        assert!(
            matches!(Node::create(&NodeConfig::new(name)), Err(NodeError::Name(_))),
            "{name:?}"
        );
    }
    assert!(matches!(node("n1").add_pod_netns("../x"), Err(NodeError::Name(_))));
}
