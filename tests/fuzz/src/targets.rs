//! Everything of ours that reads bytes of others: runtimes, operators, the kernel, and what lies on disk.
//!
//! A target checks more than that nothing panics where something more must hold: what was accepted is encoded and read again, a table
//! equals itself, a name fits the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use cni_spec::{CniError, CniVersion, Document, NetConf, PodArgs, PrevPod};
use datapath::takeover::legacy::{TableInfo, without_leftovers};
use ipam_core::{
    AllocationMode, BootKind, Core, CoreConfig, LeakSweep, NodeFacts, Now, Provisioning, StartMode, StoredFiles,
    SubnetChoice, Timers, TrunkSlot, WarmTarget,
};
use node_setup::conflist;
use node_setup::settings::Settings;
use vpc_types::{IpamKey, MacAddress, VethPrefix, host_veth_name};

use crate::run::Target;

/// All of them.
pub const ALL: &[Target] = &[
    target("stdin", JSON, stdin),
    target("prev-result", JSON, prev_result),
    target("annotations", JSON, annotations),
    target("cni-args", ARGUMENTS, cni_args),
    target("conflist", JSON, supplied_list),
    target("route-messages", &[], route_messages),
    target("nft-messages", NFT, nft_messages),
    target("xtables", XTABLES, xtables),
    target("ipam-json", JSON, ipam_json),
    target("side-file", JSON, side_file),
];

const fn target(name: &'static str, dictionary: &'static [&'static [u8]], read: fn(&[u8]) -> u64) -> Target {
    Target { name, dictionary, read }
}

const JSON: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"\"\"",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\"cniVersion\":\"1.1.0\"",
    b"\"0.1.0\"",
    b"\"prevResult\":",
    b"\"interfaces\":[",
    b"\"ips\":[",
    b"\"ip4\":",
    b"\"address\":\"10.0.0.1/33\"",
    b"\"interface\":-1",
    b"\"mac\":\"4095\"",
    b"\"vethPrefix\":\"\\u00e9\"",
    b"\"mtu\":\"65536\"",
    b"::/0",
    b"10.0.0.0/28",
    b"__MTU__",
    b"\"cni.dev/valid-attachments\":[",
    b"\"containerID\":\"",
    b"\"ifname\":\"",
];

const ARGUMENTS: &[&[u8]] = &[
    b";",
    b"=",
    b"IgnoreUnknown=1",
    b"IgnoreUnknown=",
    b"K8S_POD_NAME=",
    b"K8S_POD_NAMESPACE=",
    b"K8S_POD_UID=",
    b"\0",
    b"\n",
    b"../",
    "é".as_bytes(),
];

const NFT: &[&[u8]] = &[
    b"counter\0",
    b"immediate\0",
    b"target\0",
    b"match\0",
    b"comment\0",
    b"nat\0",
    b"lookup\0",
];

const XTABLES: &[&[u8]] = &[
    b"ERROR\0",
    b"AWS-SNAT-CHAIN-0\0",
    b"AWS, SNAT\0",
    b"comment\0",
    b"CONNMARK\0",
    &[0xff, 0xff, 0xff, 0xff],
];

/// Numbers and texts within an outcome are no news.
fn shape(outcome: &impl Debug) -> u64 {
    let text = format!("{outcome:?}");
    // FNV-1a.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let (mut in_text, mut escaped) = (false, false);
    for byte in text.bytes() {
        let is_quote = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        if is_quote {
            in_text = !in_text;
        }
        if !in_text && !byte.is_ascii_digit() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

fn stdin(input: &[u8]) -> u64 {
    let document = match Document::parse(input) {
        Ok(document) => document,
        Err(error) => {
            let shape = shape(&error);
            assert!(CniError::from(error).to_json().contains("code"));
            return shape;
        }
    };
    let in_use = document.valid_attachments();
    match NetConf::from_document(document) {
        Ok(conf) => read_config(&conf) ^ shape(&in_use),
        Err(error) => {
            let shape = shape(&error);
            assert!(CniError::from(error).to_json().contains("code"));
            shape
        }
    }
}

/// As ADD and DEL go on with a configuration.
fn read_config(conf: &NetConf) -> u64 {
    let key = IpamKey::new(&conf.name, "c0ffee", "eth0");
    if let Ok(key) = &key {
        let name = host_veth_name(&conf.veth_prefix, None, key);
        assert!(name.len() <= 15, "the kernel takes no name like {name:?}");
    }
    let result = match conf.prev_result() {
        Ok(Some(result)) => result,
        other => return shape(&other),
    };
    let carried = PrevPod::decode(&result, "dummyc440f455693", "eth0");
    let encoded = result.encode(conf.version);
    if conf.version >= CniVersion::V0_3_0 {
        let text = format!(
            r#"{{"name":"n","cniVersion":"{}","prevResult":{encoded}}}"#,
            conf.version.as_str()
        );
        let again = Document::parse(text.as_bytes()).and_then(NetConf::from_document);
        let again = again.expect("what we write is a configuration").prev_result();
        assert_eq!(again, Ok(Some(result)), "what we write reads as something else");
    }
    shape(&(carried, conf.version))
}

fn prev_result(input: &[u8]) -> u64 {
    let mut all = 0_u64;
    for version in ["0.1.0", "0.3.1", "0.4.0", "1.1.0"] {
        let mut text = format!(r#"{{"name":"aws-cni","cniVersion":"{version}","prevResult":"#).into_bytes();
        text.extend(input);
        text.push(b'}');
        all = all.rotate_left(7) ^ stdin(&text);
    }
    all
}

fn annotations(input: &[u8]) -> u64 {
    let mut text =
        br#"{"name":"aws-cni","cniVersion":"1.0.0","runtimeConfig":{"io.kubernetes.cri.pod-annotations":"#.to_vec();
    text.extend(input);
    text.extend(b"}}");
    let conf = Document::parse(&text).and_then(NetConf::from_document);
    shape(&conf.map(|conf| conf.nics))
}

/// A variable cannot hold a NUL byte, and what is no text is replaced before we see it.
fn cni_args(input: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(input);
    let args = match PodArgs::parse(&text) {
        Ok(args) => args,
        Err(error) => return shape(&error),
    };
    let pod = args.pod();
    let key = IpamKey::new("aws-cni", "c0ffee", "eth0").expect("a valid key");
    let name = host_veth_name(&VethPrefix::default(), pod.as_ref(), &key);
    assert!(name.len() <= 15, "the kernel takes no name like {name:?}");
    shape(&(pod.is_some(), args.name.is_empty(), args.uid.is_empty()))
}

fn supplied_list(input: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(input);
    let switches = ["ENABLE_BANDWIDTH_PLUGIN", "DISABLE_POD_V6"];
    let environment: BTreeMap<String, String> = switches.map(|name| (name.to_owned(), "true".to_owned())).into();
    let settings = Settings::from_environment(&environment).expect("valid settings");
    match conflist::render(&settings, Some(&text), None) {
        Ok(list) => {
            let again = conflist::render(&settings, Some(&list), None);
            assert_eq!(
                again.ok().as_deref(),
                Some(list.as_str()),
                "a list that is rendered again changes"
            );
            shape(&list.len().min(1))
        }
        Err(error) => shape(&error),
    }
}

fn route_messages(input: &[u8]) -> u64 {
    let messages = netlink::fuzzing::read(input);
    let found: Vec<_> = messages.iter().take(8).map(datapath::fuzzing::read).collect();
    shape(&found)
}

fn nft_messages(input: &[u8]) -> u64 {
    let found = nft::fuzzing::read(input);
    assert_eq!(
        found.comparison,
        Some(nft::Comparison::Equal),
        "a table differs from itself"
    );
    let rules: Vec<_> = found
        .rules
        .iter()
        .take(8)
        .map(|rule| (rule.comment.is_some(), rule.jumps.len(), rule.targets.len().min(3)))
        .collect();
    shape(&(
        rules.len(),
        found.elements.min(4) > 0,
        found.is_notice,
        found.refusals.len(),
    )) ^ rules.iter().fold(0_u64, |hash, rule| {
        hash.rotate_left(5) ^ (u64::from(rule.0) + 2 * (rule.1.min(3) as u64) + 8 * (rule.2 as u64))
    })
}

/// `struct ipt_getinfo`, and the entries behind it.
fn xtables(input: &[u8]) -> u64 {
    const INFO: usize = 84;
    let (head, blob) = input.split_at(INFO.min(input.len()));
    let info = match TableInfo::parse(head) {
        Ok(info) => info,
        Err(error) => return shape(&error),
    };
    match without_leftovers("nat", &info, blob) {
        Ok(Some(replacement)) => {
            let message = replacement.message(&info);
            assert!(message.len() <= blob.len() + 96, "the table grew");
            shape(&replacement.removed)
        }
        Ok(None) => 0,
        Err(error) => shape(&error.reason).wrapping_add(text_hash(error.reason)),
    }
}

fn text_hash(text: &str) -> u64 {
    text.bytes()
        .fold(7, |hash: u64, byte| hash.wrapping_mul(31) + u64::from(byte))
}

fn ipam_json(input: &[u8]) -> u64 {
    restore(StoredFiles {
        ipam_json: Some(input.to_vec()),
        side_file: None,
    })
}

fn side_file(input: &[u8]) -> u64 {
    restore(StoredFiles {
        ipam_json: None,
        side_file: Some(input.to_vec()),
    })
}

/// What was restored is written, and read again.
fn restore(files: StoredFiles) -> u64 {
    let now = Now::default();
    let (core, restored) = match Core::restore(config(), &files, now) {
        Ok(restored) => restored,
        Err(error) => return shape(&error),
    };
    let written = core.checkpoint();
    let files = StoredFiles {
        ipam_json: Some(written.ipam_json.clone()),
        side_file: Some(written.side_file),
    };
    let (again, _) = Core::restore(config(), &files, now).expect("our own files are readable");
    assert!(again.file_faults().is_empty(), "{:?}", again.file_faults());
    assert_eq!(
        core.pool().leases().count(),
        again.pool().leases().count(),
        "leases are lost or found on the way"
    );
    let held = core.pool().enis().count();
    shape(&(restored, core.file_faults())) ^ ((held as u64) << 8) ^ core.pool().leases().count() as u64
}

fn config() -> CoreConfig {
    CoreConfig {
        target: WarmTarget::Addresses { warm: 1, minimum: 0 },
        mode: AllocationMode::Addresses,
        provisioning: Provisioning::Full,
        subnets: SubnetChoice::PrimaryOnly,
        leak_sweep: LeakSweep::Off,
        start: StartMode::Normal,
        cluster: None,
        timers: Timers::default(),
        node: NodeFacts {
            instance: "i-0123456789abcdef0".parse().expect("an id"),
            primary_mac: MacAddress([2, 0, 0, 0, 0, 1]),
            subnet: "subnet-0123".parse().expect("an id"),
            max_enis: 3,
            slots_per_eni: 9,
            groups: BTreeSet::new(),
            trunk: TrunkSlot::NotWanted,
            max_pods: None,
            cluster_nodes: None,
            boot: BootKind::Later,
        },
        veth_prefix: VethPrefix::default(),
        max_waiting: 100,
        boot_id: "boot".to_owned(),
        nonce: 7,
    }
}
