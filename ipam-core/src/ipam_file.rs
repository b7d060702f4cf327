//! `ipam.json`: the leases, in the format that the reference daemon and the network policy agent read and write.
//!
//! Reading is as lenient as theirs: keys match in any case, unknown ones are ignored.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use vpc_types::{IpamKey, KeyError, PodName};

use crate::WallTime;
use crate::lease::Lease;

/// The only version there is.
pub(crate) const VERSION: &str = "vpc-cni-ipam/1";

/// One lease as the file holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileLease {
    pub(crate) key: IpamKey,
    pub(crate) pod: Option<PodName>,
    pub(crate) address: Ipv4Addr,
    pub(crate) granted_at: WallTime,
}

/// Why a file cannot be used. The daemon sets such a file aside and learns the leases from the kernel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IpamFileError {
    #[error("not JSON")]
    Json(#[from] serde_json::Error),
    #[error("version is {0}, not {VERSION:?}")]
    Version(String),
    #[error("allocation {index}: field {field} is missing or has another form")]
    Field { index: usize, field: &'static str },
    #[error("allocation {index}: {source}")]
    Key { index: usize, source: KeyError },
    #[error("allocation {index}: {key} has a lease already")]
    Repeated { index: usize, key: IpamKey },
    #[error("address {address} is leased twice: to {first} and to {second}")]
    Duplicate {
        address: Ipv4Addr,
        first: IpamKey,
        second: IpamKey,
    },
}

/// The file, borrowed from the leases: it is written for every ADD, so nothing is copied. Members are in alphabetical order.
#[derive(Serialize)]
struct FileOut<'a> {
    allocations: Vec<LeaseOut<'a>>,
    stamp: &'a str,
    version: &'static str,
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
pub(crate) fn encode<'a>(leases: impl Iterator<Item = &'a Lease>, stamp: &str) -> Vec<u8> {
    let file = FileOut {
        allocations: leases.map(lease_out).collect(),
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
            interfaces_count: 1,
            k8s_pod_name: lease.pod.as_ref().map(|pod| pod.name.as_ref()),
            k8s_pod_namespace: lease.pod.as_ref().map(|pod| pod.namespace.as_ref()),
        },
        network_name: lease.key.network_name(),
    }
}

/// Reads all leases, or none. IPv6 entries are another family's and are left out.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<FileLease>, IpamFileError> {
    let file: Map<String, Value> = serde_json::from_slice(bytes)?;
    match field(&file, "version") {
        Some(Value::String(version)) if version == VERSION => {}
        other => {
            return Err(IpamFileError::Version(
                other.map_or_else(|| "missing".to_owned(), Value::to_string),
            ));
        }
    }
    let allocations = match field(&file, "allocations") {
        Some(Value::Array(entries)) => entries.as_slice(),
        None | Some(Value::Null) => &[],
        Some(_) => {
            return Err(IpamFileError::Field {
                index: 0,
                field: "allocations",
            });
        }
    };
    let mut leases = Vec::with_capacity(allocations.len());
    let mut by_address: BTreeMap<Ipv4Addr, IpamKey> = BTreeMap::new();
    for (index, entry) in allocations.iter().enumerate() {
        let Some(lease) = decode_lease(index, entry)? else {
            continue;
        };
        if leases.iter().any(|known: &FileLease| known.key == lease.key) {
            return Err(IpamFileError::Repeated { index, key: lease.key });
        }
        if let Some(first) = by_address.insert(lease.address, lease.key.clone()) {
            return Err(IpamFileError::Duplicate {
                address: lease.address,
                first,
                second: lease.key,
            });
        }
        leases.push(lease);
    }
    Ok(leases)
}

fn decode_lease(index: usize, entry: &Value) -> Result<Option<FileLease>, IpamFileError> {
    let missing = |field| IpamFileError::Field { index, field };
    let entry = entry.as_object().ok_or_else(|| missing("allocation"))?;
    let text = |name| field(entry, name).and_then(Value::as_str).ok_or_else(|| missing(name));
    let address = match field(entry, "ipv4").and_then(Value::as_str) {
        Some(text) if !text.is_empty() => text.parse().map_err(|_| missing("ipv4"))?,
        _ if field(entry, "ipv6").is_some() => return Ok(None),
        _ => return Err(missing("ipv4")),
    };
    let key = IpamKey::new(text("networkName")?, text("containerID")?, text("ifName")?)
        .map_err(|source| IpamFileError::Key { index, source })?;
    let granted_at = field(entry, "allocationTimestamp").and_then(Value::as_u64).unwrap_or(0);
    let metadata = field(entry, "metadata").and_then(Value::as_object);
    let of_pod = |name| {
        metadata
            .and_then(|m| field(m, name))
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    Ok(Some(FileLease {
        key,
        pod: PodName::new(of_pod("k8sPodNamespace"), of_pod("k8sPodName")),
        address,
        granted_at: WallTime(Duration::from_nanos(granted_at)),
    }))
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
        assert_eq!(String::from_utf8(encode(leases.iter(), "7")).unwrap(), golden);
    }

    #[test]
    fn a_file_of_the_reference_is_read() {
        let leases = decode(REFERENCE.as_bytes()).unwrap();
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
            decode(varied.as_bytes()).unwrap(),
            decode(REFERENCE.as_bytes()).unwrap()
        );
        assert_eq!(
            decode(br#"{"version":"vpc-cni-ipam/1","allocations":null}"#).unwrap(),
            []
        );
    }

    #[test]
    fn bad_files_say_what_is_wrong() {
        let text = |bytes: &str| decode(bytes.as_bytes()).unwrap_err().to_string();
        assert!(text("{").contains("JSON"));
        assert!(text(r#"{"version":"vpc-cni-ipam/2"}"#).contains("vpc-cni-ipam/2"));
        assert!(text(&REFERENCE.replace("10.0.0.5", "10.0.0")).contains("ipv4"));
        assert!(text(&REFERENCE.replace("cid1", "")).contains("ContainerID"));
        let twice = REFERENCE.replace(r#""ipv6":"2001:db8::1""#, r#""ipv4":"10.0.0.5""#);
        assert!(text(&twice).contains("leased twice"));
    }
}
