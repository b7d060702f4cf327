//! What each variable does, and what is said about bad values.

use super::*;
use crate::variables::TABLE;

fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn read(pairs: &[(&str, &str)]) -> Result<Settings, Refused> {
    Settings::from_environment(&environment(pairs))
}

fn refused(pairs: &[(&str, &str)]) -> Vec<String> {
    let findings = read(pairs).unwrap_err().0;
    findings.iter().map(Finding::to_string).collect()
}

fn warned(pairs: &[(&str, &str)]) -> Vec<String> {
    read(pairs).unwrap().warnings.iter().map(Finding::to_string).collect()
}

#[test]
fn an_empty_environment_means_the_defaults_of_the_reference_and_is_quiet() {
    let settings = read(&[]).unwrap();
    assert_eq!(settings.warnings, []);
    assert_eq!(
        (settings.family, settings.pod_mtu, settings.version),
        (Family::V4, 9001, None)
    );
    assert_eq!(settings.veth_prefix, VethPrefix::default());
    assert_eq!(
        [
            &settings.security_groups,
            &settings.plugin_log,
            &settings.plugin_log_level,
            &settings.random
        ],
        ["strict", "/var/log/aws-routed-eni/plugin.log", "Debug", "prng"]
    );
    assert_eq!(
        [
            settings.egress,
            settings.bandwidth,
            settings.disable_pod_v6,
            settings.early_demux
        ],
        [Switch::Off, Switch::Off, Switch::Off, Switch::On]
    );
    assert_eq!(settings.bin_dir, Path::new("/host/opt/cni/bin"));
    assert_eq!(settings.conf_dir, Path::new("/host/etc/cni/net.d"));
}

#[test]
fn each_name_is_in_the_table_once_and_the_table_as_an_environment_is_valid() {
    let all: Vec<(&str, &str)> = TABLE.iter().map(|row| (row.name, row.default)).collect();
    let names: std::collections::BTreeSet<&str> = all.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), TABLE.len());
    assert_eq!(read(&all), read(&[]));
}

#[test]
fn every_mistake_is_named_at_once_with_its_value_and_what_is_allowed() {
    let found = refused(&[
        ("AWS_VPC_K8S_PLUGIN_LOG_FILE", "stdout"),
        ("AWS_VPC_K8S_CNI_VETHPREFIX", "vlan"),
        ("ENABLE_POD_ENI", "T"),
        ("POD_SECURITY_GROUP_ENFORCING_MODE", "lenient"),
        ("IP_COOLDOWN_PERIOD", "-1"),
        ("AWS_VPC_ENI_MTU", "575"),
        ("POD_MTU", "9002"),
        ("VPC_CNI_CNI_VERSION", "0.3.1"),
        ("HOST_CNI_BIN_PATH", "bin"),
    ]);
    let expected = [
        "IP_COOLDOWN_PERIOD=\"-1\": must be a whole number of seconds, at least 0",
        "AWS_VPC_K8S_CNI_VETHPREFIX=\"vlan\": must be 1 to 4 characters without space, '/' or ':', and none of eth, lo, vlan",
        "AWS_VPC_ENI_MTU=\"575\": must be a whole number from 576 to 9001",
        "POD_MTU=\"9002\": must be a whole number from 576 to 9001",
        "POD_SECURITY_GROUP_ENFORCING_MODE=\"lenient\": must be strict or standard, as ENABLE_POD_ENI is true",
        "AWS_VPC_K8S_PLUGIN_LOG_FILE=\"stdout\": must be a path or stderr: standard output belongs to the plugin's result",
        "VPC_CNI_CNI_VERSION=\"0.3.1\": must be 0.4.0, 1.0.0 or 1.1.0",
        "HOST_CNI_BIN_PATH=\"bin\": must be an absolute path",
    ];
    assert_eq!(found, expected);
}

#[test]
fn an_enforcing_mode_matters_only_where_pods_have_enis() {
    assert!(read(&[("POD_SECURITY_GROUP_ENFORCING_MODE", "lenient")]).is_ok());
    for mode in ["strict", "standard"] {
        assert!(read(&[("ENABLE_POD_ENI", "true"), ("POD_SECURITY_GROUP_ENFORCING_MODE", mode)]).is_ok());
    }
}

#[test]
fn the_least_mtu_depends_on_the_family_and_pods_may_have_their_own() {
    assert_eq!(read(&[("POD_MTU", "1200")]).unwrap().pod_mtu, 1200);
    assert_eq!(read(&[("AWS_VPC_ENI_MTU", "1500")]).unwrap().pod_mtu, 1500);
    assert_eq!(
        read(&[("AWS_VPC_ENI_MTU", "9001"), ("POD_MTU", "")]).unwrap().pod_mtu,
        9001
    );
    let found = refused(&[
        ("ENABLE_IPv6", "true"),
        ("AWS_VPC_ENI_MTU", "1279"),
        ("POD_MTU", "jumbo"),
    ]);
    assert!(
        found.len() == 2 && found.iter().all(|text| text.contains("from 1280 to 9001")),
        "{found:?}"
    );
}

#[test]
fn switches_have_the_spellings_of_go_and_others_fall_back() {
    for (text, expected) in [
        ("1", Switch::On),
        ("T", Switch::On),
        ("True", Switch::On),
        ("f", Switch::Off),
    ] {
        assert_eq!(
            read(&[("ENABLE_BANDWIDTH_PLUGIN", text)]).unwrap().bandwidth,
            expected,
            "{text}"
        );
    }
    let found = warned(&[("ENABLE_BANDWIDTH_PLUGIN", "yes")]);
    assert!(
        found[0].starts_with("ENABLE_BANDWIDTH_PLUGIN=\"yes\": must be true or false"),
        "{found:?}"
    );
    assert!(found[0].ends_with("using \"false\""), "{found:?}");
}

#[test]
fn prefixes_with_every_target_zero_are_a_warning_and_unset_targets_are_not_zero() {
    assert_eq!(warned(&[("ENABLE_PREFIX_DELEGATION", "true")]), [""; 0]);
    let zero = [
        ("ENABLE_PREFIX_DELEGATION", "true"),
        ("WARM_PREFIX_TARGET", "0"),
        ("WARM_IP_TARGET", "abc"),
    ];
    let found = warned(&zero);
    assert!(
        found.len() == 1 && found[0].contains("WARM_PREFIX_TARGET=\"0\""),
        "{found:?}"
    );
    assert_eq!(
        warned(&[("ENABLE_PREFIX_DELEGATION", "true"), ("WARM_IP_TARGET", "1")]),
        [""; 0]
    );
}

#[test]
fn the_other_familys_egress_is_chosen_by_the_pods_family() {
    let six = read(&[("ENABLE_IPv6", "true")]).unwrap();
    assert_eq!((six.egress, six.egress_log.contains("v4")), (Switch::On, true));
    let four = read(&[("ENABLE_V6_EGRESS", "true")]).unwrap();
    assert_eq!((four.egress, four.egress_log.contains("v6")), (Switch::On, true));
}

#[test]
fn a_root_stands_before_both_directories() {
    let settings = read(&[("VPC_CNI_ROOT", "/run/nodes/a")]).unwrap();
    assert_eq!(settings.bin_dir, Path::new("/run/nodes/a/host/opt/cni/bin"));
    assert_eq!(settings.conf_dir, Path::new("/run/nodes/a/host/etc/cni/net.d"));
}
