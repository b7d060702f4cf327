use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipam_core::{Core, Event, Outcome, RestoreError, Restored, StoredFiles};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::node::{Disk, Node, config, eni, ip, key, times, warm};

fn files() -> (Node, StoredFiles) {
    let mut node = Node::started(config(warm(3)), vec![eni(0, &[10, 11, 12]), eni(1, &[20, 21])]);
    ["a", "b", "c"].iter().for_each(|container| {
        node.add(container);
    });
    node.del("b");
    node.pass(10.0);
    let files = node.files.clone();
    (node, files)
}

fn damage(bytes: &mut Vec<u8>, at: usize, with: u8, keep: usize) {
    let at = at % bytes.len();
    bytes[at] = with;
    bytes.truncate(keep % (bytes.len() * 4) + 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_to_the_files_makes_a_start_panic(
        ipam in any::<(usize, u8, usize)>(), side in any::<(usize, u8, usize)>(), which in 0..3,
    ) {
        let (node, mut files) = files();
        if which != 0 {
            damage(files.ipam_json.as_mut().unwrap(), ipam.0, ipam.1, ipam.2);
        }
        if which != 1 {
            damage(files.side_file.as_mut().unwrap(), side.0, side.1, side.2);
        }
        if let Ok((core, _)) = Core::restore(config(warm(3)), &files, times(node.now)) {
            let mut again = Node::with(core, node.enis, node.now);
            again.tell(Event::Tick);
            again.pass(200.0);
        }
    }
}

/// One entry as the reference writes it.
fn entry(number: u8, named: u8, family: u8) -> Value {
    let metadata = match named % 3 {
        0 => json!({}),
        1 => json!({"k8sPodNamespace": "default", "k8sPodName": format!("pod-{number}")}),
        _ => json!({"k8sPodNamespace": "default", "k8sPodName": format!("pod-{number}"), "interfacesCount": 2}),
    };
    let (field, address) = if family == 0 {
        ("ipv6", format!("2001:db8::{number:x}"))
    } else {
        ("ipv4", ip(number).to_string())
    };
    json!({
        "networkName": "aws-cni", "containerID": format!("cid-{number}"), "ifName": "eth0", field: address,
        "allocationTimestamp": 1_799_999_000_000_000_000_u64 + u64::from(number), "metadata": metadata,
    })
}

/// What the reference makes of a file: by its own rules, address by key, with the interfaces.
fn as_the_reference_reads(bytes: &[u8]) -> BTreeMap<(String, String, String), (String, u64)> {
    let file: Value = serde_json::from_slice(bytes).unwrap();
    assert_eq!(file["version"], "vpc-cni-ipam/1");
    let mut read = BTreeMap::new();
    for entry in file["allocations"].as_array().unwrap() {
        // Its decoder matches names in any case.
        let entry: BTreeMap<String, &Value> = entry
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.to_lowercase(), value))
            .collect();
        let text = |field: &str| {
            let value = entry.get(&field.to_lowercase());
            value.and_then(|value| value.as_str()).unwrap_or_default().to_owned()
        };
        let address = text("ipv4") + &text("ipv6");
        let interfaces = entry["metadata"]["interfacesCount"].as_u64().unwrap_or(1);
        assert!(entry["allocationtimestamp"].is_u64());
        let key = (text("networkName"), text("containerID"), text("ifName"));
        assert!(read.insert(key, (address, interfaces)).is_none());
    }
    read
}

fn started_from(ipam_json: Vec<u8>) -> Node {
    let files = StoredFiles {
        ipam_json: Some(ipam_json),
        side_file: None,
    };
    let start = Duration::from_secs(1_000);
    let (core, restored) = Core::restore(config(warm(0)), &files, times(start)).unwrap();
    assert_eq!(restored, Restored::Leases);
    let all: Vec<u8> = (10..60).collect();
    Node::with(core, vec![eni(0, &all)], start)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i8_whatever_the_reference_wrote_it_reads_again_from_our_file(
        entries in proptest::collection::btree_map(10u8..60, (any::<u8>(), 0u8..4), 0..30), varied in any::<bool>(),
    ) {
        let allocations: Vec<Value> = entries.iter().map(|(n, (named, family))| entry(*n, *named, *family)).collect();
        let text = json!({"version": "vpc-cni-ipam/1", "allocations": allocations}).to_string();
        let expected = as_the_reference_reads(text.as_bytes());
        let text = if varied { text.replace("containerID", "ContainerId").replace("ifName", "IFNAME") } else { text };
        let mut node = started_from(text.into_bytes());
        node.tell(Event::Tick);
        let ours = node.files.ipam_json.clone().unwrap();
        prop_assert_eq!(as_the_reference_reads(&ours), expected);
        // And once more through us: the second reading changes nothing.
        let mut again = started_from(ours.clone());
        again.tell(Event::Tick);
        prop_assert_eq!(
            as_the_reference_reads(&again.files.ipam_json.unwrap()).len(), entries.len()
        );
    }
}

#[test]
fn a_bad_entry_costs_no_other_and_its_address_is_not_granted_while_it_lives() {
    let bad = json!({"networkName": "", "containerID": "x", "ifName": "eth0", "ipv4": ip(12).to_string()});
    let file = json!({"version": "vpc-cni-ipam/1", "allocations": [entry(10, 1, 1), bad, entry(11, 1, 1)]});
    let mut node = started_from(file.to_string().into_bytes());
    assert_eq!(node.core.file_faults().len(), 1);
    assert_eq!(node.core.pool().leases().count(), 2);
    node.wire("x", ip(12));
    node.pass(40.0);
    let granted: Vec<Option<Ipv4Addr>> = (0..3)
        .map(|number| {
            let req = node.add(&format!("new-{number}"));
            node.granted(req)
        })
        .collect();
    assert!(
        granted.iter().all(Option::is_some) && !granted.contains(&Some(ip(12))),
        "{granted:?}"
    );
}

#[test]
fn a_del_finds_what_an_old_version_took_over_from_the_runtime() {
    let mut old = entry(10, 1, 1);
    (old["networkName"], old["ifName"]) = ("_migrated-from-cri".into(), "unknown".into());
    let file = json!({"version": "vpc-cni-ipam/1", "allocations": [old]});
    let mut node = started_from(file.to_string().into_bytes());
    let del = node.del("cid-10");
    assert!(
        matches!(node.reply(del), Some(Outcome::Deleted(grant)) if grant.address == ip(10)),
        "{:?}",
        node.replies
    );
    assert_eq!(node.core.pool().leases().count(), 0);
}

#[test]
fn a_del_ends_what_another_family_recorded_for_the_sandbox() {
    let file = json!({"version": "vpc-cni-ipam/1", "allocations": [entry(10, 1, 0), entry(11, 1, 0)]});
    let mut node = started_from(file.to_string().into_bytes());
    node.tell(Event::Tick);
    let del = node.del("cid-10");
    assert_eq!(node.reply(del), Some(&Outcome::UnknownPod));
    let left = as_the_reference_reads(&node.files.ipam_json.unwrap());
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_file_of_the_future_is_refused_with_its_version() {
    let files = StoredFiles {
        ipam_json: Some(br#"{"version":"vpc-cni-ipam/2"}"#.to_vec()),
        side_file: None,
    };
    let error = Core::restore(config(warm(0)), &files, times(Duration::ZERO)).err();
    assert!(matches!(error, Some(RestoreError::Version(version)) if version.contains("/2")));
}

#[test]
fn threads_2350_2487_a_disk_that_hangs_keeps_no_pod_from_ending_and_grants_nothing() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10, 11])]);
    node.add("a");
    node.wire("a", ip(10));
    node.disk = Disk::Hangs;
    let del = node.del("a");
    let add = node.add("b");
    node.pass(4.0);
    assert!(
        node.reply(del).is_none() && node.reply(add).is_none(),
        "the disk may be slow only"
    );
    node.pass(2.0);
    assert!(
        matches!(node.reply(del), Some(Outcome::Deleted(_))),
        "{:?}",
        node.replies
    );
    let failing = |outcome: Option<&Outcome>| matches!(outcome, Some(Outcome::Refused(cause)) if cause.code.as_str() == "CHECKPOINT_FAILING");
    assert!(failing(node.reply(add)));
    let next = node.add("c");
    assert!(failing(node.reply(next)), "at once, while it hangs");
    assert_eq!(node.core.pool().leases().count(), 0);
    // It ends after all: the file has a lease that was taken back, and the next write has not.
    node.disk = Disk::Works;
    let late = node.hanging.take().unwrap();
    node.tell(Event::CheckpointDurable {
        generation: late.generation,
    });
    let text = String::from_utf8(node.files.ipam_json.clone().unwrap()).unwrap();
    assert!(!text.contains(&ip(11).to_string()), "{text}");
    let served = node.add("d");
    assert_eq!(node.granted(served), Some(ip(11)));
}

#[test]
fn a_lease_that_only_a_late_write_made_durable_ends_after_a_crash() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10])]);
    node.disk = Disk::Hangs;
    node.add("a");
    node.pass(6.0);
    let late = node.hanging.take().unwrap();
    let files = StoredFiles {
        ipam_json: Some(late.ipam_json),
        side_file: Some(late.side_file),
    };
    node.disk = Disk::Works;
    let mut node = node.restarted(config(warm(0)), &files, Duration::from_secs(1));
    assert_eq!(
        node.core.pool().lease(&key("a")).map(|lease| lease.address),
        Some(ip(10))
    );
    node.pass(120.0);
    assert_eq!(node.core.pool().leases().count(), 0);
}

#[test]
fn on_the_boot_of_its_launch_a_node_looks_for_no_half_made_eni() {
    use ipam_core::{Action, BootKind, Scope};
    let looks = |boot| {
        let mut config = config(warm(0));
        config.node.boot = boot;
        let (mut core, _) = Core::restore(config, &StoredFiles::default(), times(Duration::ZERO)).unwrap();
        let late = times(Duration::from_secs(120));
        let mut looks = 0;
        for _ in 0..3 {
            let actions = core.handle(Event::Tick, late);
            let is_look =
                |action: &&Action| matches!(action, Action::Describe { scope } if *scope == Scope::OwnAvailable);
            looks += actions.iter().filter(is_look).count();
        }
        looks
    };
    assert_eq!((looks(BootKind::Launch), looks(BootKind::Later)), (0, 1));
}
