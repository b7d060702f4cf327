//! Input that must be refused: the right code, a message that names the culprit, and nothing left behind.

use std::os::unix::net::UnixListener;

use crate::call::{Call, SHORT, root};
use crate::daemons::{Answer, Daemon, socket};
use crate::kernel::{PodNetns, on_a_node, state};

/// Runs `call` on a node of its own and compares what was there before and after.
fn refused(prepare: impl FnOnce(Call) -> Call + Send) -> (u64, String) {
    let root = root();
    on_a_node(|| {
        let pod = PodNetns::new();
        let (before, pod_before) = (state(), pod.state());
        let answer = prepare(Call::add("c1", root.path(), &pod.path))
            .var("VPC_CNI_ADD_DEADLINE", SHORT)
            .run()
            .failed();
        assert_eq!(
            (state(), pod.state()),
            (before, pod_before),
            "{answer:?} left something behind"
        );
        answer
    })
}

fn assert_refused(code: u64, culprit: &str, prepare: impl FnOnce(Call) -> Call + Send) {
    let (found, msg) = refused(prepare);
    assert!(
        found == code && msg.contains(culprit),
        "expected {code} and {culprit:?}, found {found}: {msg}"
    );
}

#[test]
fn malformed_configuration_is_a_decoding_error() {
    assert_refused(6, "stdin", |call| call.stdin("{\"name\":"));
    assert_refused(6, "stdin", |call| call.stdin(""));
    assert_refused(6, "\"name\"", |call| call.conf("name", 7));
}

#[test]
fn incomplete_configuration_is_invalid() {
    assert_refused(7, "name", |call| call.stdin(r#"{"cniVersion":"1.0.0"}"#));
}

#[test]
fn unknown_versions_are_incompatible() {
    assert_refused(1, "9.9.9", |call| call.conf("cniVersion", "9.9.9"));
}

#[test]
fn missing_variables_are_all_listed() {
    let both = "[CNI_CONTAINERID,CNI_IFNAME]";
    assert_refused(4, both, |call| call.without("CNI_CONTAINERID").without("CNI_IFNAME"));
    assert_refused(4, "[CNI_NETNS]", |call| call.without("CNI_NETNS"));
    assert_refused(4, "FROB", |call| call.var("CNI_COMMAND", "FROB"));
}

#[test]
fn names_that_the_kernel_or_a_path_would_not_take_are_refused() {
    assert_refused(4, "too long", |call| call.var("CNI_IFNAME", "a-name-with-16-c"));
    assert_refused(4, "CNI_IFNAME", |call| call.var("CNI_IFNAME", "a/b"));
    assert_refused(4, "CNI_CONTAINERID", |call| call.var("CNI_CONTAINERID", "../../etc"));
}

#[test]
fn arguments_must_be_known_and_well_formed() {
    assert_refused(999, "FOO=1", |call| call.var("CNI_ARGS", "FOO=1"));
    assert_refused(999, "CNI_ARGS", |call| call.var("CNI_ARGS", "K8S_POD_NAME"));
}

#[test]
fn fields_of_ours_are_named() {
    assert_refused(999, "vethPrefix", |call| call.conf("vethPrefix", "toolong"));
    assert_refused(999, "mtu", |call| call.conf("mtu", 9001));
    assert_refused(4, "VPC_CNI_ROOT", |call| call.var("VPC_CNI_ROOT", "relative"));
    assert_refused(4, "VPC_CNI_DEL_DEADLINE", |call| {
        call.var("VPC_CNI_DEL_DEADLINE", "soon")
    });
}

#[test]
fn a_namespace_that_is_none_is_refused_before_ipamd_is_asked() {
    assert_refused(8, "/run/netns/none-such", |call| {
        call.var("CNI_NETNS", "/run/netns/none-such")
    });
    assert_refused(8, "no network namespace", |call| call.var("CNI_NETNS", "/etc/passwd"));
    assert_refused(8, "plugin's own", |call| call.var("CNI_NETNS", "/proc/self/ns/net"));
}

#[test]
fn an_absent_ipamd_is_named_with_its_socket() {
    assert_refused(999, "ipamd.sock", |call| call);
}

#[test]
fn a_socket_that_nobody_listens_on_is_named() {
    let root = root();
    drop(UnixListener::bind(socket(root.path(), "ipamd.sock")).unwrap());
    let path = root.path().to_str().unwrap().to_owned();
    assert_refused(999, "refused", |call| call.var("VPC_CNI_ROOT", &path));
}

#[test]
fn a_hung_ipamd_costs_no_more_than_the_deadline() {
    let root = root();
    let path = root.path().to_str().unwrap().to_owned();
    let listener = UnixListener::bind(socket(root.path(), "ipamd.sock")).unwrap();
    assert_refused(999, "did not answer within 0.6 s", |call| {
        call.var("VPC_CNI_ROOT", &path)
    });
    drop(listener);
    let _ipamd = Daemon::ipamd(root.path(), Answer::Silence, Answer::No);
    assert_refused(999, "did not answer within 0.6 s", |call| {
        call.var("VPC_CNI_ROOT", &path)
    });
}

#[test]
fn refusals_of_ipamd_reach_the_runtime() {
    let root = root();
    let path = root.path().to_str().unwrap().to_owned();
    let ipamd = Daemon::ipamd(root.path(), Answer::No, Answer::No);
    assert_refused(999, "add cmd: failed to assign an IP address to container", |call| {
        call.var("VPC_CNI_ROOT", &path)
    });
    assert_eq!(ipamd.calls.list(), ["add default/nginx aws-cni c1 eth0"]);
    drop(ipamd);
    let why = "failed to assign an IP address to container: POOL_EMPTY: 0 free, next try in 3 s";
    let answer = Answer::Status(tonic::Code::ResourceExhausted, why);
    let _ipamd = Daemon::ipamd(root.path(), answer, Answer::No);
    let expected =
        format!("add cmd: Error received from AddNetwork gRPC call: rpc error: code = ResourceExhausted desc = {why}");
    assert_refused(999, &expected, |call| call.var("VPC_CNI_ROOT", &path));
}

#[test]
fn replies_that_make_no_sense_are_given_back() {
    let root = root();
    let path = root.path().to_str().unwrap().to_owned();
    let ipamd = Daemon::ipamd(root.path(), Answer::Grant("not-an-ip", 0, 254, ""), Answer::No);
    assert_refused(999, "IPv4Addr", |call| call.var("VPC_CNI_ROOT", &path));
    assert_eq!(ipamd.calls.list()[1..], ["del c1 SetupNSFailed uid="]);
}
