//! The network policy agent, as a stand-in that looks for the pod's device in the kernel like the real one.

use policy_agent::PolicyAgent;

use crate::call::{Call, SHORT, root};
use crate::daemons::{Answer, Daemon, socket};
use crate::kernel::{PodNetns, on_a_node, state};

fn grant(mode: &'static str) -> Answer {
    Answer::Grant("10.0.1.6", 2, 3, mode)
}

#[test]
fn the_agent_finds_the_pods_device_and_can_attach_to_it_before_the_pod_runs() {
    let root = root();
    on_a_node(|| {
        let agent = PolicyAgent::start(&socket(root.path(), "npa.sock")).unwrap();
        for (number, mode) in ["standard", "strict"].into_iter().enumerate() {
            let _ipamd = Daemon::ipamd(root.path(), grant(mode), grant(mode));
            let (id, pod) = (format!("c{number}"), PodNetns::new());
            Call::add(&id, root.path(), &pod.path).run().succeeded();
            Call::del(&id, root.path()).run().succeeded();
        }
        let expected = [
            "enforce default/nginx standard on enic440f455693",
            "delete default/nginx",
            "enforce default/nginx strict on enic440f455693",
            "delete default/nginx",
        ];
        assert_eq!(agent.calls(), expected);
    });
}

#[test]
fn a_device_that_the_agent_does_not_find_fails_the_add_and_undoes_it() {
    let root = root();
    let ipamd = Daemon::ipamd(root.path(), grant("strict"), grant("strict"));
    on_a_node(|| {
        let agent = PolicyAgent::start(&socket(root.path(), "npa.sock")).unwrap();
        let (pod, before) = (PodNetns::new(), state());
        let inside = pod.state();
        // The agent knows two prefixes, and this is none of them.
        let call = Call::add("c1", root.path(), &pod.path).conf("vethPrefix", "pod");
        let (code, msg) = call.run().failed();
        assert!(
            code == 999 && msg.starts_with("add cmd: failed to setup network policy"),
            "{code} {msg}"
        );
        assert_eq!((state(), pod.state()), (before, inside));
        let calls = agent.calls();
        assert!(
            calls[0].contains("no device") && calls[1] == "delete default/nginx",
            "{calls:?}"
        );
    });
    assert_eq!(ipamd.calls.list()[1..], ["del c1 SetupNSFailed uid="]);
}

#[test]
fn an_agent_that_hangs_fails_the_add_in_time_and_undoes_it() {
    let root = root();
    let ipamd = Daemon::ipamd(root.path(), grant("strict"), grant("strict"));
    on_a_node(|| {
        let _agent = Daemon::agent(root.path(), Answer::Silence);
        let (pod, before) = (PodNetns::new(), state());
        let call = Call::add("c1", root.path(), &pod.path).var("VPC_CNI_ADD_DEADLINE", SHORT);
        let (code, msg) = call.run().failed();
        assert!(code == 999 && msg.contains("npa.sock did not answer"), "{code} {msg}");
        assert_eq!(state(), before);
    });
    assert_eq!(ipamd.calls.list()[1..], ["del c1 SetupNSFailed uid="]);
}

#[test]
fn an_agent_that_restarts_is_waited_for() {
    let root = root();
    let _ipamd = Daemon::ipamd(root.path(), grant("standard"), grant("standard"));
    on_a_node(|| {
        let path = socket(root.path(), "npa.sock");
        // Its last run left the socket behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let pod = PodNetns::new();
        let call = Call::add("c1", root.path(), &pod.path);
        let agent = std::thread::scope(|scope| {
            let added = scope.spawn(|| call.run().succeeded());
            let agent = PolicyAgent::start(&path).unwrap();
            added.join().unwrap();
            agent
        });
        assert_eq!(agent.calls(), ["enforce default/nginx standard on enic440f455693"]);
    });
}
