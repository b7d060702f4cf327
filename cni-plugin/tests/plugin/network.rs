//! STATUS and GC: what they ask of ipamd, and what they make of its answer or its absence.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use proto::agent::{Attachment, CollectGarbageReply, GetStatusReply, Lease, Pool};
use serde_json::json;

use crate::call::{Call, root};
use crate::daemons::{Answer, Daemon, socket};
use crate::kernel::{PodNetns, on_a_node};
use crate::ours::Ours;

fn call(verb: &str, root: &Path) -> Call {
    Call::new(verb, "unused", root)
        .without("CNI_CONTAINERID")
        .without("CNI_IFNAME")
        .conf("cniVersion", "1.1.0")
}

fn status(ready: bool, cause: &str, assigned: u32, data_plane: &str) -> Ours {
    let pool = Pool {
        assigned,
        ..Pool::default()
    };
    Ours {
        status: GetStatusReply {
            ready,
            cause: cause.to_owned(),
            detail: format!("{cause}: numbers"),
            pool: Some(pool),
            data_plane: data_plane.to_owned(),
            ..GetStatusReply::default()
        },
        ..Ours::default()
    }
}

#[test]
fn status_is_silent_while_an_add_would_be_served_and_on_full_nodes_with_pods() {
    let root = root();
    let cases = [
        status(true, "", 0, ""),
        status(false, "POOL_EMPTY_GROWING", 0, ""),
        status(false, "ENI_LIMIT", 11, ""),
        status(false, "SUBNET_FULL", 3, ""),
        status(false, "IAM_DENIED", 3, ""),
    ];
    for ours in cases {
        let daemon = ours.serve(root.path());
        assert_eq!(call("STATUS", root.path()).run().succeeded().stdout, "");
        assert_eq!(daemon.calls.list(), ["status"]);
    }
    // A daemon of another kind has no such call; it is there, though.
    let _ipamd = Daemon::ipamd(root.path(), Answer::No, Answer::No);
    call("STATUS", root.path()).run().succeeded();
}

#[test]
fn status_is_50_with_the_cause_when_no_add_would_be_served() {
    let root = root();
    for (cause, assigned) in [
        ("SUBNET_FULL", 0),
        ("IAM_DENIED", 0),
        ("KERNEL_ERROR", 0),
        ("CHECKPOINT_FAILING", 3),
        ("DAEMON_STARTING", 3),
    ] {
        let _ipamd = status(false, cause, assigned, "").serve(root.path());
        let (code, msg) = call("STATUS", root.path()).run().failed();
        assert!(code == 50 && msg.contains(&format!("{cause}: numbers")), "{code} {msg}");
    }
}

#[test]
fn status_is_51_when_the_nodes_rules_are_not_in_line() {
    let root = root();
    let _ipamd = status(true, "", 3, "2 attempts in vain: no such device").serve(root.path());
    let (code, msg) = call("STATUS", root.path()).run().failed();
    assert!(code == 51 && msg.contains("no such device"), "{code} {msg}");
}

#[test]
fn status_is_50_without_ipamd_and_with_one_that_hangs_within_the_limit() {
    let root = root();
    let (code, msg) = call("STATUS", root.path()).run().failed();
    assert!(code == 50 && msg.contains("ipamd.sock"), "{code} {msg}");
    let _listener = UnixListener::bind(socket(root.path(), "ipamd.sock")).unwrap();
    let start = Instant::now();
    let (code, msg) = call("STATUS", root.path()).run().failed();
    assert!(code == 50 && msg.contains("did not answer"), "{code} {msg}");
    // The limit is 2 s; the rest is for a busy machine.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn gc_hands_the_list_of_this_network_to_ipamd() {
    let root = root();
    let ours = Ours {
        garbage: Some(CollectGarbageReply {
            released: vec!["10.0.1.6".to_owned()],
            young: vec!["10.0.1.7".to_owned()],
            ..CollectGarbageReply::default()
        }),
        ..Ours::default()
    };
    let ipamd = ours.serve(root.path());
    let gc = call("GC", root.path());
    let list = json!([{"containerID": "c1", "ifname": "eth0"}, {"containerID": "c1", "ifname": "net1"}]);
    let done = gc.clone().conf("cni.dev/valid-attachments", list).run().succeeded();
    assert_eq!(done.stdout, "");
    gc.conf("cni.dev/valid-attachments", json!([])).run().succeeded();
    let expected = ["gc aws-cni [aws-cni/c1/eth0,aws-cni/c1/net1]", "gc aws-cni []"];
    assert_eq!(ipamd.calls.list(), expected);
    let log = std::fs::read_to_string(root.path().join("var/log/aws-routed-eni/plugin.log")).unwrap();
    assert!(log.contains("10.0.1.6") && log.contains("10.0.1.7"), "{log}");
}

#[test]
fn gc_without_a_list_or_with_a_broken_one_asks_ipamd_nothing() {
    let root = root();
    let ipamd = Ours::default().serve(root.path());
    let gc = call("GC", root.path());
    let with = |list| gc.clone().conf("cni.dev/valid-attachments", list);
    let cases = [
        (gc.clone(), 7, "\"cni.dev/valid-attachments\" is missing"),
        (with(json!(null)), 7, "\"cni.dev/valid-attachments\" is missing"),
        (with(json!("c1")), 6, "cni.dev/valid-attachments"),
        (
            with(json!([{"containerID": "c1"}])),
            7,
            "cni.dev/valid-attachments[0].ifname",
        ),
    ];
    for (call, expected, text) in cases {
        let (code, msg) = call.run().failed();
        assert!(code == expected && msg.contains(text), "{code} {msg}");
    }
    assert!(ipamd.calls.list().is_empty());
}

#[test]
fn gc_fails_when_ipamd_is_away_or_could_not_end_everything() {
    let root = root();
    let gc = call("GC", root.path()).conf("cni.dev/valid-attachments", json!([]));
    let (code, msg) = gc.run().failed();
    assert!(
        code == 999 && msg.starts_with("gc cmd: ") && msg.contains("ipamd.sock"),
        "{code} {msg}"
    );
    let ipamd = Ours::default().serve(root.path());
    let (code, msg) = gc.run().failed();
    assert!(code == 999 && msg.contains("rules stayed"), "{code} {msg}");
    let left = CollectGarbageReply {
        left: vec!["10.0.1.6".to_owned()],
        ..CollectGarbageReply::default()
    };
    drop(ipamd);
    let ours = Ours {
        garbage: Some(left),
        ..Ours::default()
    };
    let _ipamd = ours.serve(root.path());
    let (code, msg) = gc.run().failed();
    assert!(
        code == 999 && msg.contains("10.0.1.6 could not be removed"),
        "{code} {msg}"
    );
}

#[test]
fn gc_tells_the_policy_agent_of_the_pods_that_went() {
    let root = root();
    let lease = |container: &str, name: &str| Lease {
        attachment: Some(Attachment {
            network_name: "aws-cni".to_owned(),
            container_id: container.to_owned(),
            if_name: "eth0".to_owned(),
        }),
        pod_namespace: "default".to_owned(),
        pod_name: name.to_owned(),
        ..Lease::default()
    };
    let reply = |mode: &str| Ours {
        garbage: Some(CollectGarbageReply {
            ended: vec![lease("c1", "nginx"), lease("c2", ""), lease("c3", "web")],
            network_policy_mode: mode.to_owned(),
            ..CollectGarbageReply::default()
        }),
        ..Ours::default()
    };
    let gc = call("GC", root.path()).conf("cni.dev/valid-attachments", json!([]));
    on_a_node(|| {
        // The name nginx has another container by now.
        let pod = PodNetns::new();
        let ipamd = Daemon::ipamd(root.path(), Answer::Grant("10.0.1.6", 2, 3, ""), Answer::No);
        Call::add("c9", root.path(), &pod.path).run().succeeded();
        drop(ipamd);
        let ipamd = reply("strict").serve(root.path());
        // Without the agent GC succeeds all the same.
        gc.run().succeeded();
        let agent = Daemon::agent(root.path(), Answer::No);
        gc.run().succeeded();
        drop(ipamd);
        let _ipamd = reply("").serve(root.path());
        gc.run().succeeded();
        assert_eq!(agent.calls.list(), ["delete default/web"]);
    });
}
