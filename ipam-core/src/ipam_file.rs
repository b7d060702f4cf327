//! `ipam.json`: the leases, in the format that the reference daemon and the network policy agent read and write.
//!
//! Reading is as lenient as theirs: keys match in any case, unknown ones are ignored. A bad entry costs nobody but itself, and
//! what belongs to another family is written back as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use vpc_types::{IpamKey, KeyError, PodName};

use crate::WallTime;
use crate::lease::Lease;

/// The only version there is.
pub(crate) const VERSION: &str = "vpc-cni-ipam/1";

/// Most bytes that are read: a node of a thousand pods needs a fortieth.
const LONGEST: usize = 16 << 20;

/// One lease as the file holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileLease {
    pub(crate) key: IpamKey,
    pub(crate) pod: Option<PodName>,
    pub(crate) address: Ipv4Addr,
    pub(crate) granted_at: WallTime,
    /// Interfaces of the pod; more than one where another daemon wired several cards.
    pub(crate) interfaces: u8,
}

/// What a file says, as far as it can be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) leases: Vec<FileLease>,
    /// Allocations of another family: none of ours, but theirs to keep.
    pub(crate) others: Vec<Value>,
    /// Entries that make no sense.
    pub(crate) faults: Vec<EntryFault>,
}

/// Why a file cannot be used at all. The daemon sets it aside and learns from the kernel which addresses have pods.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Cut short, or something else than a state file.
    #[error("ipam.json is not JSON")]
    Json(#[from] serde_json::Error),
    /// A version of the future, or none.
    #[error("ipam.json has version {0}, not {VERSION:?}")]
    Version(String),
    /// Something else than a list.
    #[error("the allocations of ipam.json are no list")]
    NoList,
    /// More than any node needs.
    #[error("ipam.json has {bytes} bytes, more than {LONGEST}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

/// An entry of `ipam.json` that makes no sense; the others are used all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryFault {
    /// A field is missing, or is something else.
    #[error("allocation {index}: field {field} is missing or has another form")]
    Field {
        /// Which entry, from 0.
        index: usize,
        /// Which field.
        field: &'static str,
    },
    /// Part of the key is empty.
    #[error("allocation {index}: {source}")]
    Key {
        /// Which entry, from 0.
        index: usize,
        /// Which part.
        source: KeyError,
    },
    /// One interface of one sandbox has two addresses: the later one counts.
    #[error("{key} has two addresses: {dropped} is the older one")]
    Repeated {
        /// Whose.
        key: IpamKey,
        /// The address that was left out.
        dropped: Ipv4Addr,
    },
    /// One address has two holders: the later one counts.
    #[error("{address} is leased twice: to {kept} and, earlier, to {dropped}")]
    Duplicate {
        /// The address.
        address: Ipv4Addr,
        /// Who keeps it.
        kept: IpamKey,
        /// Who does not.
        dropped: IpamKey,
    },
}

/// The file, borrowed from the leases: it is written for every ADD, so nothing is copied. Members are in alphabetical order.
#[derive(Serialize)]
struct FileOut<'a> {
    allocations: Vec<EntryOut<'a>>,
    stamp: &'a str,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum EntryOut<'a> {
    Lease(LeaseOut<'a>),
    Other(&'a Value),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LeaseOut<'a> {
    allocation_timestamp: u64,
    #[serde(rename = "containerID")]
    container_id: &'a str,
    if_name: &'a str,
    ipv4: Ipv4Addr,
    metadata: MetadataOut<'a>,
    network_name: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MetadataOut<'a> {
    interfaces_count: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    k8s_pod_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    k8s_pod_namespace: Option<&'a str>,
}

/// The file for these leases: one line, in order of the keys. The stamp, a key that other readers ignore, differs from
/// write to write: equal leases at two moments must not make an old side file look as if it belonged to the new file.
pub(crate) fn encode<'a>(leases: impl Iterator<Item = &'a Lease>, others: &'a [Value], stamp: &str) -> Vec<u8> {
    let leases = leases.map(|lease| EntryOut::Lease(lease_out(lease)));
    let file = FileOut {
        allocations: leases.chain(others.iter().map(EntryOut::Other)).collect(),
        stamp,
        version: VERSION,
    };
    let mut bytes = serde_json::to_vec(&file).expect("numbers and texts always serialise");
    bytes.push(b'\n');
    bytes
}

fn lease_out(lease: &Lease) -> LeaseOut<'_> {
    LeaseOut {
        allocation_timestamp: lease.granted_at.as_nanos(),
        container_id: lease.key.container_id(),
        if_name: lease.key.if_name(),
        ipv4: lease.address,
        metadata: MetadataOut {
            interfaces_count: lease.interfaces,
            k8s_pod_name: lease.pod.as_ref().map(|pod| pod.name.as_ref()),
            k8s_pod_namespace: lease.pod.as_ref().map(|pod| pod.namespace.as_ref()),
        },
        network_name: lease.key.network_name(),
    }
}

/// Reads every entry that makes sense.
pub(crate) fn decode(bytes: &[u8]) -> Result<Decoded, RestoreError> {
    if bytes.len() > LONGEST {
        return Err(RestoreError::TooLong { bytes: bytes.len() });
    }
    // Editors leave a byte order mark, and a name may hold bytes that are no text: neither costs the file.
    let text = String::from_utf8_lossy(bytes);
    let file: Map<String, Value> = serde_json::from_str(text.trim_start_matches('\u{feff}'))?;
    match field(&file, "version") {
        Some(Value::String(version)) if version == VERSION => {}
        other => {
            return Err(RestoreError::Version(
                other.map_or_else(|| "missing".to_owned(), Value::to_string),
            ));
        }
    }
    let allocations = match field(&file, "allocations") {
        Some(Value::Array(entries)) => entries.as_slice(),
        None | Some(Value::Null) => &[],
        Some(_) => return Err(RestoreError::NoList),
    };
    let mut decoded = Decoded::default();
    for (index, entry) in allocations.iter().enumerate() {
        match decode_lease(index, entry) {
            Ok(Some(lease)) => decoded.leases.push(lease),
            Ok(None) => decoded.others.push(entry.clone()),
            Err(fault) => decoded.faults.push(fault),
        }
    }
    decoded.drop_contradictions();
    Ok(decoded)
}

impl Decoded {
    /// One address per key and one key per address: the latest entry is the one that was still true.
    fn drop_contradictions(&mut self) {
        self.leases.sort_by_key(|lease| std::cmp::Reverse(lease.granted_at));
        let mut keys: BTreeSet<IpamKey> = BTreeSet::new();
        let mut holders: BTreeMap<Ipv4Addr, IpamKey> = BTreeMap::new();
        for lease in std::mem::take(&mut self.leases) {
            if let Some(kept) = holders.get(&lease.address) {
                self.faults.push(EntryFault::Duplicate {
                    address: lease.address,
                    kept: kept.clone(),
                    dropped: lease.key,
                });
            } else if keys.contains(&lease.key) {
                self.faults.push(EntryFault::Repeated {
                    key: lease.key,
                    dropped: lease.address,
                });
            } else {
                keys.insert(lease.key.clone());
                holders.insert(lease.address, lease.key.clone());
                self.leases.push(lease);
            }
        }
    }
}

/// `None` for an allocation of another family.
fn decode_lease(index: usize, entry: &Value) -> Result<Option<FileLease>, EntryFault> {
    let missing = |field| EntryFault::Field { index, field };
    let entry = entry.as_object().ok_or_else(|| missing("allocation"))?;
    let text = |name| field(entry, name).and_then(Value::as_str).ok_or_else(|| missing(name));
    let address = match field(entry, "ipv4").and_then(Value::as_str) {
        Some(text) if !text.is_empty() => text.parse().map_err(|_| missing("ipv4"))?,
        _ if field(entry, "ipv6").is_some() => return Ok(None),
        _ => return Err(missing("ipv4")),
    };
    let key = IpamKey::new(text("networkName")?, text("containerID")?, text("ifName")?)
        .map_err(|source| EntryFault::Key { index, source })?;
    let granted_at = field(entry, "allocationTimestamp").and_then(Value::as_u64).unwrap_or(0);
    let metadata = field(entry, "metadata").and_then(Value::as_object);
    let of_pod = |name| metadata.and_then(|m| field(m, name));
    let word = |name| of_pod(name).and_then(Value::as_str).unwrap_or_default();
    let interfaces = of_pod("interfacesCount").and_then(Value::as_u64).unwrap_or(1);
    Ok(Some(FileLease {
        key,
        pod: PodName::new(word("k8sPodNamespace"), word("k8sPodName")),
        address,
        granted_at: WallTime(Duration::from_nanos(granted_at)),
        interfaces: u8::try_from(interfaces).unwrap_or(1).max(1),
    }))
}

/// Whether an allocation of another family belongs to this interface.
pub(crate) fn is_of(entry: &Value, key: &IpamKey) -> bool {
    let text = |name| {
        entry
            .as_object()
            .and_then(|entry| field(entry, name))
            .and_then(Value::as_str)
    };
    text("networkName") == Some(key.network_name())
        && text("containerID") == Some(key.container_id())
        && text("ifName") == Some(key.if_name())
}

/// The key under which versions up to 1.7 of the reference recorded pods that they found in the runtime.
pub(crate) fn migrated_key(key: &IpamKey) -> Option<IpamKey> {
    IpamKey::new("_migrated-from-cri", key.container_id(), "unknown").ok()
}

fn field<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object.get(name).or_else(|| {
        object
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: &str = r#"{"version":"vpc-cni-ipam/1","allocations":[
        {"networkName":"aws-cni","containerID":"cid1","ifName":"eth0","ipv4":"10.0.0.5",
         "allocationTimestamp":1795337371468852418,
         "metadata":{"k8sPodNamespace":"ns","k8sPodName":"pod","interfacesCount":1}},
        {"networkName":"aws-cni","containerID":"cid2","ifName":"eth0","ipv6":"2001:db8::1",
         "allocationTimestamp":1795337371468852419,"metadata":{}}]}"#;

    fn lease(pod: Option<PodName>) -> Lease {
        Lease {
            key: IpamKey::new("aws-cni", "cid\"1", "eth0").unwrap(),
            pod,
            address: Ipv4Addr::new(10, 0, 0, 5),
            device: vpc_types::DeviceNumber(0),
            table: vpc_types::RouteTableId::MAIN,
            state: crate::LeaseState::Wired,
            since: crate::BootTime::default(),
            granted_at: WallTime(Duration::from_nanos(1_795_337_371_468_852_418)),
            interfaces: 1,
            gone_since: None,
            generation: crate::Generation::default(),
            del_waiters: Vec::new(),
        }
    }

    #[test]
    fn a_written_file_has_its_golden_bytes() {
        let leases = [lease(PodName::new("ns", "pod")), lease(None)];
        let golden = concat!(
            r#"{"allocations":[{"allocationTimestamp":1795337371468852418,"containerID":"cid\"1","ifName":"eth0","#,
            r#""ipv4":"10.0.0.5","metadata":{"interfacesCount":1,"k8sPodName":"pod","k8sPodNamespace":"ns"},"#,
            r#""networkName":"aws-cni"},{"allocationTimestamp":1795337371468852418,"containerID":"cid\"1","#,
            r#""ifName":"eth0","ipv4":"10.0.0.5","metadata":{"interfacesCount":1},"networkName":"aws-cni"}],"#,
            r#""stamp":"7","version":"vpc-cni-ipam/1"}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(encode(leases.iter(), &[], "7")).unwrap(), golden);
    }

    #[test]
    fn a_file_of_the_reference_is_read() {
        let leases = decode(REFERENCE.as_bytes()).unwrap().leases;
        assert_eq!(leases.len(), 1);
        assert_eq!(
            (leases[0].address, leases[0].key.container_id()),
            (Ipv4Addr::new(10, 0, 0, 5), "cid1")
        );
        assert_eq!(leases[0].pod, PodName::new("ns", "pod"));
        assert_eq!(leases[0].granted_at.as_nanos(), 1_795_337_371_468_852_418);
    }

    #[test]
    fn keys_match_in_any_case_and_null_is_empty() {
        let varied = REFERENCE
            .replace("containerID", "containerid")
            .replace("networkName", "NetworkName");
        assert_eq!(
            decode(varied.as_bytes()).unwrap().leases,
            decode(REFERENCE.as_bytes()).unwrap().leases
        );
        assert_eq!(
            decode(br#"{"version":"vpc-cni-ipam/1","allocations":null}"#).unwrap(),
            Decoded::default()
        );
    }

    #[test]
    fn bad_files_say_what_is_wrong() {
        let text = |bytes: &str| decode(bytes.as_bytes()).unwrap_err().to_string();
        assert!(text("{").contains("JSON"));
        assert!(text(&REFERENCE[..REFERENCE.len() - 9]).contains("JSON"));
        assert!(text(r#"{"version":"vpc-cni-ipam/2"}"#).contains("vpc-cni-ipam/2"));
        assert!(text(r#"{"version":"vpc-cni-ipam/1","allocations":{}}"#).contains("list"));
        assert!(text(&" ".repeat(LONGEST + 1)).contains("bytes"));
    }

    #[test]
    fn a_bad_entry_is_named_and_costs_no_other() {
        let faults = |bytes: &str| {
            let decoded = decode(bytes.as_bytes()).unwrap();
            let faults: Vec<String> = decoded.faults.iter().map(ToString::to_string).collect();
            (decoded.leases.len(), decoded.others.len(), faults.join("; "))
        };
        let (leases, others, text) = faults(&REFERENCE.replace("10.0.0.5", "10.0.0"));
        assert_eq!((leases, others), (0, 1));
        assert!(text.contains("allocation 0: field ipv4"), "{text}");
        let (.., text) = faults(&REFERENCE.replace("cid1", ""));
        assert!(text.contains("ContainerID"), "{text}");
        let (leases, _, text) = faults(&REFERENCE.replace(r#""ipv6":"2001:db8::1""#, r#""ipv4":"10.0.0.5""#));
        assert_eq!(leases, 1);
        assert!(
            text.contains("leased twice: to aws-cni/cid2/eth0 and, earlier, to aws-cni/cid1/eth0"),
            "{text}"
        );
        let twice = REFERENCE.replace(r#""ipv6":"2001:db8::1""#, r#""ipv4":"10.0.0.6""#);
        let (leases, _, text) = faults(&twice.replace("cid2", "cid1"));
        assert_eq!(leases, 1);
        assert!(text.contains("10.0.0.5 is the older one"), "{text}");
        let (leases, _, text) = faults(&REFERENCE.replace(r#""allocations":["#, r#""allocations":[7,null,"#));
        assert_eq!(leases, 1);
        assert!(text.contains("allocation 0") && text.contains("allocation 1"), "{text}");
    }

    #[test]
    fn a_byte_order_mark_and_foreign_bytes_are_no_obstacle() {
        let mut bytes = b"\xef\xbb\xbf \n".to_vec();
        bytes.extend(REFERENCE.replace("\"pod\"", "\"p@d\"").bytes());
        let at = bytes.iter().position(|byte| *byte == b'@').unwrap();
        bytes[at] = 0xff;
        assert_eq!(decode(&bytes).unwrap().leases.len(), 1);
    }

    #[test]
    fn another_familys_allocation_is_written_as_it_was_read() {
        let read = decode(REFERENCE.as_bytes()).unwrap();
        let again = decode(&encode([].iter(), &read.others, "7")).unwrap();
        assert_eq!(again.others, read.others);
        assert!(is_of(
            &read.others[0],
            &IpamKey::new("aws-cni", "cid2", "eth0").unwrap()
        ));
    }
}
