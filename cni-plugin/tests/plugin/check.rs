//! CHECK: it passes for what ADD made, names everything that is gone, and touches nothing.

use std::net::Ipv4Addr;
use std::path::Path;

use netlink::message::{LinkRef, LinkState, Rule, link, neighbour, route_key, set_link_state};
use netlink::packet::RouteNetlinkMessage as Message;
use netlink::{Batch, RouteSocket};
use proto::agent::Lease;
use serde_json::json;

use crate::call::{Call, Done, root};
use crate::daemons::{Answer, Daemon};
use crate::kernel::{PodNetns, on_a_node, state};
use crate::ours::Ours;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 6);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const VETH: &str = "enic440f455693";
const MAIN: u32 = 254;

fn added(root: &Path, pod: &PodNetns) -> Done {
    let _ipamd = Daemon::ipamd(root, Answer::Grant("10.0.1.6", 2, 3, ""), Answer::No);
    Call::add("c1", root, &pod.path).run().succeeded()
}

fn check(root: &Path, pod: &PodNetns, added: &Done) -> Call {
    Call::new("CHECK", "c1", root).netns(&pod.path).prev(added)
}

fn lease(address: &str, state: &str) -> Ours {
    let (address, state) = (address.to_owned(), state.to_owned());
    Ours {
        lease: Some(Lease {
            address,
            state,
            ..Lease::default()
        }),
        ..Ours::default()
    }
}

/// Applies one message in the calling thread's namespace.
fn change(flags: u16, message: Message) {
    let mut batch = Batch::new();
    batch.push("change by a test", flags, message);
    let errors = RouteSocket::open().unwrap().apply(&batch).unwrap();
    assert!(errors.is_empty(), "{errors:?}");
}

fn without_rule(priority: u32, from: Option<Ipv4Addr>, to: Option<Ipv4Addr>) -> Message {
    let rule = Rule {
        priority,
        from,
        to,
        ..Rule::default()
    };
    Message::DelRule(rule.message())
}

/// Wires a pod, changes something in the node or in the pod, and looks what CHECK says.
fn assert_found(expected: &[&str], change_it: impl FnOnce(&PodNetns) + Send) {
    let root = root();
    on_a_node(|| {
        let pod = PodNetns::new();
        let added = added(root.path(), &pod);
        change_it(&pod);
        let (before, inside) = (state(), pod.state());
        let (code, msg) = check(root.path(), &pod, &added).run().failed();
        assert_eq!((state(), pod.state()), (before, inside), "CHECK changed something");
        assert!(code == 999 && msg.starts_with("check cmd: "), "{code} {msg}");
        for object in expected {
            assert!(msg.contains(object), "{object:?} is not in {msg:?}");
        }
        assert_eq!(msg.matches(';').count() + 1, expected.len(), "{msg}");
    });
}

#[test]
fn what_add_made_passes_with_and_without_ipamd() {
    let root = root();
    on_a_node(|| {
        let pod = PodNetns::new();
        let added = added(root.path(), &pod);
        let check = check(root.path(), &pod, &added);
        let (before, inside) = (state(), pod.state());
        assert_eq!(check.run().succeeded().stdout, "");
        let log = std::fs::read_to_string(root.path().join("var/log/aws-routed-eni/plugin.log")).unwrap();
        assert!(log.contains("the kernel alone decides"), "{log}");
        let ipamd = lease("10.0.1.6", "wired").serve(root.path());
        assert_eq!(check.run().succeeded().stdout, "");
        assert_eq!(ipamd.calls.list(), ["check aws-cni/c1/eth0"]);
        drop(ipamd);
        // A daemon of another kind, which has no such call.
        let _ipamd = Daemon::ipamd(root.path(), Answer::No, Answer::No);
        check.run().succeeded();
        assert_eq!((state(), pod.state()), (before, inside));
    });
}

#[test]
fn a_pod_on_the_primary_eni_and_a_container_without_a_pod_pass_too() {
    let root = root();
    on_a_node(|| {
        let pod = PodNetns::new();
        let ipamd = Daemon::ipamd(root.path(), Answer::Grant("10.0.0.9", 0, 254, ""), Answer::No);
        let call = |verb| {
            Call::new(verb, "c1", root.path())
                .netns(&pod.path)
                .var("CNI_ARGS", "IgnoreUnknown=1")
                .conf("cniVersion", "1.1.0")
        };
        let added = call("ADD").run().succeeded();
        drop(ipamd);
        assert_eq!(call("CHECK").prev(&added).run().succeeded().stdout, "");
    });
}

#[test]
fn what_is_missing_on_the_host_is_named() {
    assert_found(&["rule 512 to 10.0.1.6 lookup main is missing"], |_| {
        change(0, without_rule(512, None, Some(ADDRESS)));
    });
    assert_found(&["rule 1536 from 10.0.1.6 lookup 3 is missing"], |_| {
        change(0, without_rule(1536, Some(ADDRESS), None));
    });
    assert_found(&["route to 10.0.1.6 in table main is missing"], |_| {
        change(0, Message::DelRoute(route_key(ADDRESS, 32, MAIN)));
    });
}

#[test]
fn a_rule_that_leads_elsewhere_is_named() {
    assert_found(&["rule 1536 from 10.0.1.6 lookup 4 should not be there"], |_| {
        let rule = Rule {
            priority: 1536,
            from: Some(ADDRESS),
            table: Some(4),
            ..Rule::default()
        };
        change(0x600, Message::NewRule(rule.message()));
    });
}

#[test]
fn what_is_wrong_in_the_pod_is_named() {
    let neighbour_of = |mac| neighbour(index_of("eth0"), GATEWAY, mac);
    assert_found(&["neighbour 169.254.1.1 on eth0 in the pod is 02:"], move |pod| {
        pod.run(move || change(0x500, neighbour_of([2, 0, 0, 0, 0, 9])));
    });
    assert_found(
        &["default route via 169.254.1.1 on eth0 in the pod is missing"],
        |pod| {
            pod.run(|| change(0, Message::DelRoute(route_key(Ipv4Addr::UNSPECIFIED, 0, MAIN))));
        },
    );
    assert_found(
        &[
            "interface eth0 in the pod is down, expected up",
            "route to 169.254.1.1 on eth0 in the pod is missing",
            "default route via 169.254.1.1 on eth0 in the pod is missing",
            "neighbour 169.254.1.1 on eth0 in the pod is missing",
        ],
        |pod| pod.run(|| change(0, set_link_state(LinkRef::Name("eth0"), LinkState::Down))),
    );
}

fn index_of(name: &str) -> u32 {
    RouteSocket::open().unwrap().device_index(name).unwrap()
}

#[test]
fn everything_that_is_gone_is_in_one_error() {
    let objects = [
        "host veth enic440f455693 is missing",
        "route to 10.0.1.6 in table main is missing",
        "rule 512 to 10.0.1.6 lookup main is missing",
        "interface eth0 in the pod is missing",
    ];
    assert_found(&objects, |_| {
        change(0, Message::DelLink(link(LinkRef::Name(VETH))));
        change(0, without_rule(512, None, Some(ADDRESS)));
    });
}

#[test]
fn a_veth_of_another_container_is_no_proof() {
    let root = root();
    on_a_node(|| {
        let (old, new) = (PodNetns::new(), PodNetns::new());
        let old_added = added(root.path(), &old);
        let _ipamd = Daemon::ipamd(root.path(), Answer::Grant("10.0.1.7", 2, 3, ""), Answer::No);
        Call::add("c2", root.path(), &new.path).run().succeeded();
        let (_, msg) = check(root.path(), &old, &old_added).run().failed();
        assert!(
            msg.contains("container of host veth enic440f455693 is c2, expected c1"),
            "{msg}"
        );
    });
}

#[test]
fn a_lease_that_ipamd_does_not_have_is_named() {
    let root = root();
    on_a_node(|| {
        let pod = PodNetns::new();
        let added = added(root.path(), &pod);
        let cases = [
            (Ours::default(), "lease of aws-cni/c1/eth0 is missing"),
            (lease("10.0.1.7", "wired"), "is 10.0.1.7, expected 10.0.1.6"),
            (lease("10.0.1.6", "draining"), "lease of aws-cni/c1/eth0 is being ended"),
        ];
        for (ours, expected) in cases {
            let _ipamd = ours.serve(root.path());
            let (code, msg) = check(root.path(), &pod, &added).run().failed();
            assert!(code == 999 && msg.contains(expected), "{code} {msg}");
        }
    });
}

#[test]
fn a_missing_or_foreign_earlier_result_is_named() {
    let root = root();
    on_a_node(|| {
        let pod = PodNetns::new();
        let call = Call::new("CHECK", "c1", root.path()).netns(&pod.path);
        let foreign = json!({"interfaces": [{"name": "eth0"}], "ips": []});
        let cases = [
            (call.clone(), 7, "\"prevResult\" is missing"),
            (call.clone().conf("prevResult", foreign), 7, "dummyc440f455693"),
            (call.conf("prevResult", json!({"ips": 7})), 6, "prevResult.ips"),
        ];
        for (call, expected, text) in cases {
            let (code, msg) = call.run().failed();
            assert!(code == expected && msg.contains(text), "{code} {msg}");
        }
    });
}
