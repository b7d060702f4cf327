//! The list of plugins against golden files, and read back by what the plugin reads it with.

#![expect(clippy::unwrap_used, reason = "helpers of tests may unwrap like the tests")]

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use cni_spec::{CniVersion, Document, LogLevel, LogTarget, NetConf, SecurityGroupMode};
use node_setup::conflist::{self, FILE, ListError};
use node_setup::install::Change;
use node_setup::settings::Settings;
use serde_json::Value;

fn settings(pairs: &[(&str, &str)]) -> Settings {
    let environment: BTreeMap<String, String> = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Settings::from_environment(&environment).unwrap()
}

fn rendered(pairs: &[(&str, &str)], address: Option<&str>) -> String {
    conflist::render(&settings(pairs), None, address.map(parse)).unwrap()
}

fn parse(address: &str) -> IpAddr {
    address.parse().unwrap()
}

fn golden(name: &str) -> String {
    fs::read_to_string(path_of(name)).unwrap_or_default()
}

fn path_of(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The difference lies beside the build's other files, to be looked at and copied.
fn check(name: &str, found: &str) {
    if golden(name) != found {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&file, found).unwrap();
        panic!("{} differs from {}", file.display(), path_of(name).display());
    }
}

/// What the runtime hands each plugin: its entry, with name and version of the list.
fn handed_to(list: &str, plugin: &str) -> Vec<u8> {
    let list: Value = serde_json::from_str(list).unwrap();
    let plugins = list["plugins"].as_array().unwrap();
    let mut entry = plugins.iter().find(|entry| entry["type"] == plugin).unwrap().clone();
    entry["name"] = list["name"].clone();
    entry["cniVersion"] = list["cniVersion"].clone();
    serde_json::to_vec(&entry).unwrap()
}

fn types(list: &str) -> Vec<String> {
    let list: Value = serde_json::from_str(list).unwrap();
    let plugins = list["plugins"].as_array().unwrap();
    plugins
        .iter()
        .map(|entry| entry["type"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_default_list_calls_only_plugins_that_have_something_to_do() {
    check("default.conflist", &rendered(&[], None));
    // Nothing to do on a node without an IPv6 address, whatever the variable says.
    assert_eq!(rendered(&[("ENABLE_V6_EGRESS", "true")], None), rendered(&[], None));
    assert_eq!(rendered(&[], Some("2001:db8::1")), rendered(&[], None));
}

#[test]
fn each_variable_has_its_place_in_the_list() {
    let all = [
        ("AWS_VPC_K8S_CNI_VETHPREFIX", "pod"),
        ("POD_MTU", "1500"),
        ("POD_SECURITY_GROUP_ENFORCING_MODE", "standard"),
        ("AWS_VPC_K8S_PLUGIN_LOG_FILE", "/var/log/a \"b\".log"),
        ("AWS_VPC_K8S_PLUGIN_LOG_LEVEL", "WARN"),
    ];
    check("values.conflist", &rendered(&all, None));
    for (name, pairs) in [
        ("bandwidth.conflist", &[("ENABLE_BANDWIDTH_PLUGIN", "true")]),
        ("no-pod-v6.conflist", &[("DISABLE_POD_V6", "1")]),
        ("version-1.1.conflist", &[("VPC_CNI_CNI_VERSION", "1.1.0")]),
    ] {
        check(name, &rendered(pairs, None));
    }
}

#[test]
fn egress_is_listed_where_it_acts() {
    let six = rendered(
        &[("ENABLE_V6_EGRESS", "true"), ("AWS_VPC_K8S_CNI_RANDOMIZESNAT", "none")],
        Some("2001:db8::1"),
    );
    check("egress-v6.conflist", &six);
    check(
        "egress-v4.conflist",
        &rendered(&[("ENABLE_IPv6", "true")], Some("10.0.0.5")),
    );
    let off = [("ENABLE_IPv6", "true"), ("ENABLE_V4_EGRESS", "false")];
    assert_eq!(types(&rendered(&off, None)), ["aws-cni", "portmap"]);
    let error = conflist::render(&settings(&[("ENABLE_IPv6", "true")]), None, None).unwrap_err();
    assert!(matches!(error, ListError::NoNodeAddress("IPv4")), "{error}");
}

#[test]
fn what_the_plugin_reads_from_the_list_is_what_was_set() {
    let list = rendered(
        &[
            ("AWS_VPC_K8S_CNI_VETHPREFIX", "pod"),
            ("AWS_VPC_ENI_MTU", "8000"),
            ("POD_SECURITY_GROUP_ENFORCING_MODE", "standard"),
            ("AWS_VPC_K8S_PLUGIN_LOG_FILE", "/log/p.log"),
            ("AWS_VPC_K8S_PLUGIN_LOG_LEVEL", "error"),
            ("VPC_CNI_CNI_VERSION", "1.0.0"),
        ],
        None,
    );
    let conf = NetConf::from_document(Document::parse(&handed_to(&list, "aws-cni")).unwrap()).unwrap();
    assert_eq!((conf.name.as_str(), conf.version), ("aws-cni", CniVersion::V1_0_0));
    assert_eq!((conf.veth_prefix.as_str(), conf.mtu.get()), ("pod", 8000));
    assert_eq!(conf.security_groups, SecurityGroupMode::Standard);
    assert_eq!(
        (conf.log_target, conf.log_level),
        (LogTarget::File("/log/p.log".into()), LogLevel::Error)
    );
    let default =
        NetConf::from_document(Document::parse(&handed_to(&rendered(&[], None), "aws-cni")).unwrap()).unwrap();
    assert_eq!((default.version, default.mtu.get()), (CniVersion::V0_4_0, 9001));
    assert_eq!(default.log_level, LogLevel::Debug);
}

#[test]
fn a_list_of_the_operators_keeps_every_key_in_its_place() {
    let supplied = golden("supplied.template");
    let switches = [
        ("ENABLE_BANDWIDTH_PLUGIN", "true"),
        ("DISABLE_POD_V6", "true"),
        ("POD_MTU", "1400"),
    ];
    let list = conflist::render(&settings(&switches), Some(&supplied), None).unwrap();
    check("supplied.conflist", &list);
    // Again, now that the list has them: nothing is added twice.
    assert_eq!(conflist::render(&settings(&switches), Some(&list), None).unwrap(), list);
    // The version is the operator's unless a variable says otherwise.
    assert!(list.contains("\"cniVersion\": \"1.0.0\""));
    let version = conflist::render(&settings(&[("VPC_CNI_CNI_VERSION", "0.4.0")]), Some(&supplied), None).unwrap();
    assert!(version.contains("\"cniVersion\": \"0.4.0\""));
}

#[test]
fn an_egress_plugin_that_the_operator_wrote_out_stays() {
    let supplied = r#"{"name":"n","cniVersion":"0.4.0","plugins":[{"type":"aws-cni","mtu":"__MTU__"},
        {"type":"egress-cni","enabled":"false"},{"type":"egress-cni","enabled":"__EGRESSV4PLUGINENABLED__"}]}"#;
    let list = conflist::render(&settings(&[]), Some(supplied), None).unwrap();
    assert_eq!(types(&list), ["aws-cni", "egress-cni"]);
}

#[test]
fn a_list_that_a_runtime_could_not_use_is_refused() {
    let refused = |text: &str| conflist::render(&settings(&[]), Some(text), None).unwrap_err();
    assert!(matches!(refused("{"), ListError::Json(_)));
    for text in [
        r#"{"plugins":[]}"#,
        r#"{"name":"","plugins":[]}"#,
        r#"{"name":"n"}"#,
        r#"{"name":"n","plugins":{}}"#,
        r#"{"name":"n","plugins":[{}]}"#,
        r#"{"name":"n","plugins":[]}"#,
        "[]",
    ] {
        assert!(matches!(refused(text), ListError::Shape(_)), "{text}");
    }
}

#[test]
fn the_list_is_put_in_place_once_and_then_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let list = rendered(&[], None);
    assert_eq!(conflist::put(directory.path(), &list).unwrap(), Change::Replaced);
    assert_eq!(conflist::put(directory.path(), &list).unwrap(), Change::Unchanged);
    assert_eq!(fs::read_to_string(directory.path().join(FILE)).unwrap(), list);
    assert!(conflist::put(&directory.path().join("missing"), &list).is_err());
}
