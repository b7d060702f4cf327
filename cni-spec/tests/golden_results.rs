//! Results byte for byte, and what can be read back from ours and from the reference's.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use cni_spec::{CniVersion, Document, NetConf, PodInterface, PodResult, PrevPod};
use vpc_types::{DeviceNumber, RouteTableId};

fn pod() -> PodResult {
    PodResult {
        dummy: "dummyc440f455693".to_owned(),
        device: DeviceNumber(2),
        sandbox: "/run/netns/x".to_owned(),
        interfaces: vec![PodInterface {
            host_veth: "enic440f455693".to_owned(),
            container_if: "eth0".to_owned(),
            address: "10.0.1.6".parse().unwrap(),
            table: RouteTableId(3),
        }],
        mac: None,
    }
}

fn prev(version: &str, prev_result: &str) -> Result<PrevPod, String> {
    let text = format!(r#"{{"name":"aws-cni","cniVersion":"{version}","prevResult":{prev_result}}}"#);
    let conf = NetConf::from_document(Document::parse(text.as_bytes()).unwrap()).unwrap();
    let result = conf.prev_result().map_err(|e| e.to_string())?.expect("there is one");
    PrevPod::decode(&result, "dummyc440f455693", "eth0").map_err(|e| e.to_string())
}

#[test]
fn each_version_has_its_form() {
    let interfaces = r#""interfaces":[{"name":"enic440f455693"},{"name":"eth0","mac":"3","sandbox":"/run/netns/x"},{"name":"dummyc440f455693","mac":"0","sandbox":"2"}]"#;
    for version in CniVersion::ALL {
        let expected = match version {
            CniVersion::V0_1_0 | CniVersion::V0_2_0 => {
                format!(r#"{{"cniVersion":"{version}","ip4":{{"ip":"10.0.1.6/32"}},"dns":{{}}}}"#)
            }
            CniVersion::V0_3_0 | CniVersion::V0_3_1 | CniVersion::V0_4_0 => format!(
                r#"{{"cniVersion":"{version}",{interfaces},"ips":[{{"version":"4","interface":1,"address":"10.0.1.6/32"}}],"dns":{{}}}}"#
            ),
            CniVersion::V1_0_0 | CniVersion::V1_1_0 => format!(
                r#"{{"cniVersion":"{version}",{interfaces},"ips":[{{"interface":1,"address":"10.0.1.6/32"}}],"dns":{{}}}}"#
            ),
        };
        assert_eq!(pod().encode().encode(version), expected);
    }
}

#[test]
fn what_add_prints_is_what_del_reads() {
    for version in CniVersion::ALL {
        let read = prev(version.as_str(), &pod().encode().encode(version)).unwrap();
        let expected = if version < CniVersion::V0_3_0 {
            PrevPod::Nothing
        } else {
            PrevPod::Plain(pod().interfaces)
        };
        assert_eq!(read, expected, "{version}");
    }
}

#[test]
fn two_interfaces_survive_and_entries_of_chained_plugins_are_skipped() {
    let mut two = pod();
    let second = PodInterface {
        host_veth: "enie48ae9c2f34".to_owned(),
        container_if: "mNicIf1".to_owned(),
        address: "10.0.2.7".parse().unwrap(),
        table: RouteTableId(10_101),
    };
    two.interfaces.push(second);
    let mut result = two.encode();
    assert_eq!(result.ips[1].interface, Some(3));
    result.interfaces.push(cni_spec::Interface {
        name: "veth1".to_owned(),
        ..Default::default()
    });
    result.interfaces.push(cni_spec::Interface {
        name: "v6if0".to_owned(),
        ..Default::default()
    });
    let read = PrevPod::decode(&result, &two.dummy, "eth0").unwrap();
    assert_eq!(read, PrevPod::Plain(two.interfaces));
}

#[test]
fn pods_of_releases_that_did_not_carry_the_table_get_it_from_the_device() {
    let old = |device: &str| {
        format!(
            r#"{{"interfaces":[{{"name":"enic440f455693"}},{{"name":"eth0","sandbox":"/n"}},{{"name":"dummyc440f455693","mac":"0","sandbox":"{device}"}}],
               "ips":[{{"version":"4","interface":1,"address":"10.0.1.6/32"}}]}}"#
        )
    };
    for (device, table) in [
        ("0", RouteTableId::MAIN),
        ("1", RouteTableId(2)),
        ("14", RouteTableId(15)),
    ] {
        let PrevPod::Plain(interfaces) = prev("0.4.0", &old(device)).unwrap() else {
            panic!("not plain")
        };
        assert_eq!(interfaces[0].table, table);
    }
}

#[test]
fn a_vlan_marks_a_pod_with_its_own_security_groups() {
    let branch = r#"{"interfaces":[{"name":"vlanc440f455693"},{"name":"eth0","mac":"101","sandbox":"/n"},{"name":"dummyc440f455693","mac":"7"}],
        "ips":[{"version":"4","interface":1,"address":"10.0.1.6/32","gateway":"10.0.1.1"}]}"#;
    let expected = PrevPod::Branch {
        vlan: 7,
        address: "10.0.1.6".parse().unwrap(),
    };
    assert_eq!(prev("0.4.0", branch), Ok(expected));
}

#[test]
fn a_result_without_our_carrier_says_nothing() {
    assert_eq!(
        prev("0.4.0", r#"{"interfaces":[{"name":"eth0"}],"ips":[]}"#),
        Ok(PrevPod::Nothing)
    );
    assert_eq!(prev("1.0.0", "{}"), Ok(PrevPod::Nothing));
}

#[test]
fn unreadable_results_name_the_field() {
    let cases = [
        (r#"[]"#, "prevResult"),
        (r#"{"interfaces":{}}"#, "prevResult.interfaces"),
        (r#"{"ips":[{"address":"10.0.0.1"}]}"#, "prevResult.ips[0].address"),
        (
            r#"{"ips":[{"address":"10.0.0.1/32","interface":"x"}]}"#,
            "prevResult.ips[0].interface",
        ),
        (r#"{"interfaces":[{"name":"dummyc440f455693","mac":"aa:bb"}]}"#, "mac"),
    ];
    for (text, named) in cases {
        let error = prev("0.4.0", text).unwrap_err();
        assert!(error.contains(named), "{text}: {error}");
    }
}

#[test]
fn an_ordinary_pod_with_odd_data_is_still_an_ordinary_pod() {
    let cases = [
        (
            r#"{"interfaces":[{"name":"dummyc440f455693","mac":"0","sandbox":"x"}]}"#,
            "sandbox",
        ),
        (
            r#"{"interfaces":[{"name":"h"},{"name":"eth0"},{"name":"dummyc440f455693","mac":"0","sandbox":"0"}]}"#,
            "0 addresses",
        ),
    ];
    for (text, named) in cases {
        let Ok(PrevPod::Unreadable(error)) = prev("0.4.0", text) else {
            panic!("{text}")
        };
        assert!(error.to_string().contains(named), "{text}: {error}");
    }
}

/// podman 4.3 fails a container if an entry with a sandbox has another `mac` than a link-layer address.
#[test]
fn the_result_of_a_container_without_a_pod_has_only_link_layer_addresses_in_its_sandbox_and_still_carries_the_table() {
    let mut container = pod();
    container.mac = Some("0a:58:0a:00:01:06".parse().unwrap());
    let result = container.encode();
    let inside: Vec<&str> = result
        .interfaces
        .iter()
        .filter(|entry| !entry.sandbox.is_empty())
        .map(|entry| entry.mac.as_str())
        .collect();
    assert_eq!(inside, ["0a:58:0a:00:01:06"]);
    assert_eq!(
        PrevPod::decode(&result, &container.dummy, "eth0"),
        Ok(PrevPod::Plain(container.interfaces))
    );
}
