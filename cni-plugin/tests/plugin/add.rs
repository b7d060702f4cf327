//! ADD: what it prints, what it wires, and that a failed one leaves nothing behind.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use netlink::message::{LinkState, Veth, VethEnd};
use netlink::{Batch, RouteSocket};
use serde_json::Value;

use crate::call::{Call, SHORT, root};
use crate::daemons::{Answer, Daemon, socket};
use crate::kernel::{PodNetns, on_a_node, state};

/// Device 2, table 3.
const SECONDARY: Answer = Answer::Grant("10.0.1.6", 2, 3, "");
const PRIMARY: Answer = Answer::Grant("10.0.0.9", 0, 254, "");

/// A link that is in the way.
fn occupy(name: &'static str) {
    let end = |name, last| VethEnd {
        name,
        mtu: 1500,
        mac: [2, 0, 0, 0, 0, last],
        netns: None,
    };
    let veth = Veth {
        end: end(name, 1),
        state: LinkState::Down,
        group: 0,
        peer: end("other", 2),
    };
    let mut batch = Batch::new();
    batch.push("occupy", 0x600, veth.message());
    assert!(RouteSocket::open().unwrap().apply(&batch).unwrap().is_empty());
}

fn added(root: &Path, pod: &PodNetns) -> Vec<String> {
    let before = state();
    Call::add("c1", root, &pod.path).run().succeeded();
    state().difference(&before).cloned().collect()
}

#[test]
fn a_pod_on_a_secondary_eni_gets_the_result_and_the_wiring_of_the_reference() {
    let root = root();
    let ipamd = Daemon::ipamd(root.path(), SECONDARY, Answer::No);
    on_a_node(|| {
        let (pod, before) = (PodNetns::new(), state());
        let done = Call::add("c1", root.path(), &pod.path).run().succeeded();
        let netns = pod.path.display();
        let expected = format!(
            r#"{{"cniVersion":"0.4.0","interfaces":[{{"name":"enic440f455693"}},{{"name":"eth0","mac":"3","sandbox":"{netns}"}},{{"name":"dummyc440f455693","mac":"0","sandbox":"2"}}],"ips":[{{"version":"4","interface":1,"address":"10.0.1.6/32"}}],"dns":{{}}}}"#
        );
        assert_eq!(done.stdout.trim_end(), expected);
        assert_eq!(done.stderr, "");
        let new: Vec<String> = state().difference(&before).cloned().collect();
        assert_eq!(
            new,
            [
                "link enic440f455693",
                "route 10.0.1.6/32 table 254",
                "rule 1536 from 10.0.1.6 table 3",
                "rule 512 to 10.0.1.6 table 254",
            ]
            .map(str::to_owned)
            .to_vec()
            .into_iter()
            .map(|line| line.replace("10.0.1.6/32", "Inet(10.0.1.6)/32"))
            .collect::<Vec<_>>()
        );
        let inside = pod.state();
        for expected in [
            "link eth0",
            "address 10.0.1.6/32",
            "neighbour Inet(169.254.1.1)",
            "route default table 254",
        ] {
            assert!(inside.contains(expected), "{expected} is not in {inside:?}");
        }
    });
    assert_eq!(ipamd.calls.list(), ["add default/nginx aws-cni c1 eth0"]);
}

#[test]
fn a_pod_on_the_primary_eni_needs_no_rule_from_it() {
    let root = root();
    let _ipamd = Daemon::ipamd(root.path(), PRIMARY, Answer::No);
    let new = on_a_node(|| added(root.path(), &PodNetns::new()));
    assert!(!new.iter().any(|line| line.contains("rule 1536")), "{new:?}");
    assert!(new.iter().any(|line| line.contains("rule 512 to 10.0.0.9")), "{new:?}");
}

#[test]
fn a_repeated_add_is_refused_and_touches_nothing() {
    let root = root();
    let ipamd = Daemon::ipamd(root.path(), SECONDARY, Answer::No);
    on_a_node(|| {
        let pod = PodNetns::new();
        let call = Call::add("c1", root.path(), &pod.path);
        call.run().succeeded();
        let (before, pod_before) = (state(), pod.state());
        let (code, msg) = call.run().failed();
        assert_eq!((state(), pod.state()), (before, pod_before), "{msg}");
        assert!(
            code == 999 && msg.starts_with("add command: failed to setup network"),
            "{code} {msg}"
        );
    });
    let list = ipamd.calls.list();
    assert!(
        list.len() == 2 && list.iter().all(|call| call.starts_with("add")),
        "{list:?}"
    );
}

#[test]
fn containers_without_a_pod_name_get_links_of_their_own() {
    let root = root();
    let ipamd = Daemon::ipamd(root.path(), SECONDARY, Answer::No);
    let second = Answer::Grant("10.0.1.7", 2, 3, "");
    on_a_node(|| {
        let pods = [PodNetns::new(), PodNetns::new()];
        let veth = |id: &str, pod: &PodNetns| {
            let call = Call::add(id, root.path(), &pod.path).var("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=box");
            let result: Value = serde_json::from_str(&call.run().succeeded().stdout).unwrap();
            // podman fails a container whose entries with a sandbox have another `mac` than a link-layer address.
            let entries = result["interfaces"].as_array().unwrap().iter();
            let macs: Vec<&str> = entries
                .filter(|entry| !entry["sandbox"].is_null())
                .map(|entry| entry["mac"].as_str().unwrap())
                .collect();
            assert!(macs.len() == 1 && macs[0].split(':').count() == 6, "{result}");
            result["interfaces"][0]["name"].as_str().unwrap().to_owned()
        };
        let first_veth = veth("c1", &pods[0]);
        assert_eq!(ipamd.calls.list(), ["add / aws-cni c1 eth0"]);
        drop(ipamd);
        let _ipamd = Daemon::ipamd(root.path(), second, Answer::No);
        assert_ne!(first_veth, veth("c2", &pods[1]));
    });
}

#[test]
fn a_failed_wiring_is_undone_and_the_address_given_back() {
    let root = root();
    let ipamd = Daemon::ipamd(root.path(), SECONDARY, Answer::Grant("10.0.1.6", 2, 3, ""));
    on_a_node(|| {
        let pod = PodNetns::new();
        pod.run(|| occupy("eth0"));
        let (before, pod_before) = (state(), pod.state());
        let (code, msg) = Call::add("c1", root.path(), &pod.path).run().failed();
        assert!(
            code == 999 && msg.starts_with("add command: failed to setup network"),
            "{code} {msg}"
        );
        assert!(msg.contains("eth0"), "{msg}");
        assert_eq!((state(), pod.state()), (before, pod_before));
    });
    assert_eq!(ipamd.calls.list()[1..], ["del c1 SetupNSFailed uid="]);
}

#[test]
fn the_policy_agent_is_told_and_its_failure_undoes_everything() {
    let root = root();
    let grant = Answer::Grant("10.0.1.6", 2, 3, "standard");
    let ipamd = Daemon::ipamd(root.path(), grant.clone(), grant.clone());
    on_a_node(|| {
        let pod = PodNetns::new();
        let (before, pod_before) = (state(), pod.state());
        let call = Call::add("c1", root.path(), &pod.path);
        let agent = Daemon::agent(root.path(), Answer::No);
        let (code, msg) = call.run().failed();
        assert!(
            code == 999 && msg.starts_with("add cmd: failed to setup network policy"),
            "{code} {msg}"
        );
        assert_eq!((state(), pod.state()), (before, pod_before));
        assert_eq!(
            agent.calls.list(),
            ["enforce default/nginx standard 1", "delete default/nginx"]
        );
        drop(agent);
        let agent = Daemon::agent(root.path(), grant);
        call.run().succeeded();
        assert_eq!(agent.calls.list(), ["enforce default/nginx standard 1"]);
    });
    let list = ipamd.calls.list();
    assert_eq!(list[1], "del c1 SetupNSFailed uid=", "{list:?}");
}

#[test]
fn an_absent_policy_agent_fails_the_add_within_its_limits() {
    let root = root();
    let grant = Answer::Grant("10.0.1.6", 2, 3, "strict");
    let _ipamd = Daemon::ipamd(root.path(), grant.clone(), grant);
    on_a_node(|| {
        let (pod, before) = (PodNetns::new(), state());
        let (code, msg) = Call::add("c1", root.path(), &pod.path)
            .var("VPC_CNI_ADD_DEADLINE", SHORT)
            .run()
            .failed();
        assert!(code == 999 && msg.contains("npa.sock"), "{code} {msg}");
        assert_eq!(state(), before);
    });
}

#[test]
fn an_ipamd_that_restarts_is_waited_for() {
    let root = root();
    // The first connection breaks off without an answer, then nobody listens for a while, then ipamd is there.
    let listener = UnixListener::bind(socket(root.path(), "ipamd.sock")).unwrap();
    let (keep, kept) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            drop(listener.accept().unwrap());
            drop(listener);
            keep.send(Daemon::ipamd(root.path(), SECONDARY, Answer::No)).unwrap();
        });
        on_a_node(|| {
            let new = added(root.path(), &PodNetns::new());
            assert!(new.iter().any(|line| line == "link enic440f455693"), "{new:?}");
        });
    });
    assert_eq!(kept.recv().unwrap().calls.list().len(), 1);
}

#[test]
fn a_plugin_that_was_stopped_past_its_deadline_changes_nothing() {
    let root = root();
    // The answer is there when the plugin goes on, and ipamd may have given the address to somebody else meanwhile.
    let ipamd = Daemon::ipamd(root.path(), Answer::Stall("10.0.1.6", 900), SECONDARY);
    on_a_node(|| {
        let pod = PodNetns::new();
        let (before, pod_before) = (state(), pod.state());
        let (code, msg) = Call::add("c1", root.path(), &pod.path)
            .var("VPC_CNI_ADD_DEADLINE", SHORT)
            .run()
            .failed();
        assert!(
            code == 999 && (msg.contains("the time is up") || msg.contains("within 0.6 s")),
            "{code} {msg}"
        );
        assert_eq!((state(), pod.state()), (before, pod_before), "{msg}");
    });
    assert!(ipamd.calls.list()[0].starts_with("add"));
}

#[test]
fn a_repeated_add_that_fails_before_wiring_leaves_the_live_pod_its_lease() {
    let root = root();
    let first = Daemon::ipamd(root.path(), SECONDARY, Answer::No);
    on_a_node(|| {
        let pod = PodNetns::new();
        let call = Call::add("c1", root.path(), &pod.path);
        call.run().succeeded();
        drop(first);
        // An answer that this plugin cannot use; a deadline that passed ends in the same place.
        let second = Daemon::ipamd(root.path(), Answer::Grant("fd00::6", 2, 3, ""), SECONDARY);
        let (before, pod_before) = (state(), pod.state());
        let (_, msg) = call.run().failed();
        assert_eq!((state(), pod.state()), (before, pod_before), "{msg}");
        assert_eq!(second.calls.list(), ["add default/nginx aws-cni c1 eth0"], "{msg}");
    });
}

#[test]
fn the_log_has_lines_of_json_without_the_configuration() {
    let root = root();
    let _ipamd = Daemon::ipamd(root.path(), SECONDARY, Answer::No);
    on_a_node(|| {
        let pod = PodNetns::new();
        let annotations = serde_json::json!({"io.kubernetes.cri.pod-annotations": {"token": "very secret"}});
        Call::add("c1", root.path(), &pod.path)
            .conf("runtimeConfig", annotations)
            .run()
            .succeeded();
    });
    let text = std::fs::read_to_string(root.path().join("var/log/aws-routed-eni/plugin.log")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["msg"], &last["pod"], &last["address"]),
        (&"added".into(), &"default/nginx".into(), &"10.0.1.6".into())
    );
    assert!(!text.contains("secret"));
}
