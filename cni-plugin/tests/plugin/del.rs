//! DEL: what goes away with and without ipamd, and what must stay.

use std::collections::BTreeSet;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Instant;

use crate::call::{Call, Done, SHORT, root};
use crate::daemons::{Answer, Daemon, socket};
use crate::kernel::{PodNetns, on_a_node, state};

const POD: Answer = Answer::Grant("10.0.1.6", 2, 3, "");

/// What the host has of pods beyond `before`, their links aside: those die with the namespaces.
fn left(before: &BTreeSet<String>) -> Vec<String> {
    state()
        .difference(before)
        .filter(|line| !line.starts_with("link "))
        .cloned()
        .collect()
}

fn add(root: &Path, id: &str, pod: &PodNetns) -> Done {
    let _ipamd = Daemon::ipamd(root, POD, Answer::No);
    Call::add(id, root, &pod.path).run().succeeded()
}

#[test]
fn rules_and_route_go_even_if_ipamd_leaves_them_to_the_plugin() {
    let root = root();
    on_a_node(|| {
        let (pod, before) = (PodNetns::new(), state());
        add(root.path(), "c1", &pod);
        let ipamd = Daemon::ipamd(root.path(), POD, POD);
        let done = Call::del("c1", root.path()).netns(&pod.path).run().succeeded();
        assert_eq!((done.stdout.as_str(), left(&before)), ("", Vec::new()));
        assert_eq!(ipamd.calls.list(), ["del c1 PodDeleted uid=u1"]);
    });
}

#[test]
fn an_ipamd_that_has_cleared_the_host_is_believed() {
    let root = root();
    on_a_node(|| {
        let (pod, before) = (PodNetns::new(), state());
        add(root.path(), "c1", &pod);
        let _ipamd = Daemon::ipamd(root.path(), POD, Answer::Cleared("10.0.1.6"));
        Call::del("c1", root.path()).netns(&pod.path).run().succeeded();
        assert!(
            !left(&before).is_empty(),
            "the stand-in lied, and the plugin did not look"
        );
    });
}

#[test]
fn without_ipamd_the_earlier_result_says_what_to_remove() {
    let root = root();
    on_a_node(|| {
        let (pod, before) = (PodNetns::new(), state());
        let added = add(root.path(), "c1", &pod);
        Call::del("c1", root.path())
            .netns(&pod.path)
            .prev(&added)
            .run()
            .succeeded();
        assert_eq!(left(&before), Vec::<String>::new());
        // Again, and once more without anything to go by.
        Call::del("c1", root.path()).prev(&added).run().succeeded();
        Call::del("c1", root.path()).run().succeeded();
    });
}

#[test]
fn an_ipamd_that_does_not_know_the_pod_is_no_reason_to_leave_anything() {
    let root = root();
    on_a_node(|| {
        let (pod, before) = (PodNetns::new(), state());
        let added = add(root.path(), "c1", &pod);
        let _ipamd = Daemon::ipamd(
            root.path(),
            POD,
            Answer::Status(tonic::Code::Unknown, "datastore: unknown pod"),
        );
        Call::del("c1", root.path()).prev(&added).run().succeeded();
        assert_eq!(left(&before), Vec::<String>::new());
    });
}

#[test]
fn a_hung_ipamd_is_given_half_of_the_time() {
    let root = root();
    on_a_node(|| {
        let (pod, before) = (PodNetns::new(), state());
        let added = add(root.path(), "c1", &pod);
        let path = socket(root.path(), "ipamd.sock");
        std::fs::remove_file(&path).unwrap();
        let _listener = UnixListener::bind(path).unwrap();
        let start = Instant::now();
        Call::del("c1", root.path())
            .var("VPC_CNI_DEL_DEADLINE", SHORT)
            .prev(&added)
            .run()
            .succeeded();
        assert_eq!(left(&before), Vec::<String>::new());
        assert!(start.elapsed().as_millis() >= 300);
    });
}

#[test]
fn a_refused_del_is_an_error_so_that_the_runtime_tries_again() {
    let root = root();
    let _ipamd = Daemon::ipamd(root.path(), POD, Answer::No);
    let (code, msg) = on_a_node(|| Call::del("c1", root.path()).run().failed());
    assert!(
        code == 999 && msg.starts_with("del cmd: failed to process delete request"),
        "{code} {msg}"
    );
}

#[test]
fn a_late_del_harms_neither_the_next_pod_of_that_name_nor_the_next_owner_of_that_address() {
    let root = root();
    on_a_node(|| {
        let old = PodNetns::new();
        let added = add(root.path(), "c1", &old);
        Call::del("c1", root.path()).prev(&added).run().succeeded();
        drop(old);
        let new = PodNetns::new();
        add(root.path(), "c2", &new);
        let (before, inside) = (state(), new.state());
        // With ipamd away, and with one that names the address once more.
        let log = || std::fs::read_to_string(root.path().join("var/log/aws-routed-eni/plugin.log")).unwrap();
        let deleted = |text: &str| text.matches(r#""deleted"#).count();
        let said = deleted(&log());
        Call::del("c1", root.path()).prev(&added).run().succeeded();
        let _ipamd = Daemon::ipamd(root.path(), POD, POD);
        Call::del("c1", root.path()).prev(&added).run().succeeded();
        assert_eq!((state(), new.state()), (before, inside));
        // Nor does it say that it deleted anything.
        assert_eq!(deleted(&log()), said, "{}", log());
    });
}

#[test]
fn an_earlier_result_that_is_none_is_an_error() {
    let root = root();
    let call = Call::del("c1", root.path()).conf("prevResult", serde_json::json!({"ips": [{"address": "x"}]}));
    let (code, msg) = on_a_node(|| call.run().failed());
    assert!(code == 999 && msg.contains("prevResult.ips[0].address"), "{code} {msg}");
}

#[test]
fn the_policy_agent_is_told_and_its_absence_does_not_keep_the_pod() {
    let root = root();
    let _ipamd = Daemon::ipamd(root.path(), POD, Answer::Grant("10.0.1.6", 2, 3, "standard"));
    on_a_node(|| {
        let agent = Daemon::agent(root.path(), Answer::No);
        let call = Call::del("c1", root.path()).var("VPC_CNI_DEL_DEADLINE", SHORT);
        call.run().succeeded();
        assert_eq!(agent.calls.list(), ["delete default/nginx"]);
        drop(agent);
        call.run().succeeded();
    });
}

const UNKNOWN: Answer = Answer::Status(tonic::Code::Unknown, "datastore: unknown pod");

#[test]
fn the_policy_agent_is_told_also_without_ipamd_and_when_ipamd_does_not_know_the_pod() {
    let root = root();
    on_a_node(|| {
        let agent = Daemon::agent(root.path(), Answer::No);
        let call = Call::del("c1", root.path());
        call.run().succeeded();
        let _ipamd = Daemon::ipamd(root.path(), POD, UNKNOWN);
        call.run().succeeded();
        assert_eq!(agent.calls.list(), ["delete default/nginx"; 2]);
    });
}

#[test]
fn the_policy_agent_hears_nothing_of_a_late_del_whose_pod_has_another_container() {
    let root = root();
    on_a_node(|| {
        let (old, new) = (PodNetns::new(), PodNetns::new());
        let added = add(root.path(), "c1", &old);
        add(root.path(), "c2", &new);
        let agent = Daemon::agent(root.path(), Answer::No);
        let late = Call::del("c1", root.path()).prev(&added);
        late.run().succeeded();
        for answer in [UNKNOWN, Answer::Grant("10.0.1.6", 2, 3, "standard")] {
            let _ipamd = Daemon::ipamd(root.path(), POD, answer);
            late.run().succeeded();
        }
        assert_eq!(agent.calls.list(), Vec::<String>::new());
        Call::del("c2", root.path()).run().succeeded();
        assert_eq!(agent.calls.list(), ["delete default/nginx"]);
    });
}

#[test]
fn a_policy_agent_that_hangs_keeps_neither_the_del_nor_the_rules() {
    let root = root();
    on_a_node(|| {
        let (pod, before) = (PodNetns::new(), state());
        let added = add(root.path(), "c1", &pod);
        let _agent = UnixListener::bind(socket(root.path(), "npa.sock")).unwrap();
        let call = Call::del("c1", root.path()).var("VPC_CNI_DEL_DEADLINE", SHORT);
        call.clone().prev(&added).run().succeeded();
        assert_eq!(left(&before), Vec::<String>::new());
        let _ipamd = Daemon::ipamd(root.path(), POD, Answer::Grant("10.0.1.6", 2, 3, "strict"));
        call.run().succeeded();
    });
}
