//! Names of interfaces. Other agents on the node compute the same names from the pod's namespace and name, so they are
//! a contract.

use sha1_smol::Sha1;

use crate::{IpamKey, PodName};

/// Hexadecimal digits of the hash that end a name: prefix (≤ 4) + 11 = the kernel's limit of 15 characters.
const SUFFIX_LEN: usize = 11;

/// Without the formatting machinery, which costs the plugin more than the hash itself, and with a hash that does not ask which
/// processor this is: in a virtual machine each such question leaves the guest.
fn hash_suffix(text: &str) -> String {
    let digest = Sha1::from(text).digest().bytes();
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits
        .take(SUFFIX_LEN)
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

/// First 11 hexadecimal digits of `sha1("<namespace>.<name>")`; interface `index` > 0 appends `.<index>` to the hashed text.
pub fn name_suffix(pod: &PodName, index: u16) -> String {
    match index {
        0 => hash_suffix(&format!("{}.{}", pod.namespace, pod.name)),
        index => hash_suffix(&format!("{}.{}.{index}", pod.namespace, pod.name)),
    }
}

/// Suffix for sandboxes without a pod name (podman, nerdctl): hashes container id and interface name, so that two
/// containers never share a veth.
pub fn sandbox_suffix(container_id: &str, if_name: &str) -> String {
    hash_suffix(&format!("{container_id}.{if_name}"))
}

/// The host end's name for interface 0 of a sandbox.
pub fn host_veth_name(prefix: &VethPrefix, pod: Option<&PodName>, key: &IpamKey) -> String {
    format!("{}{}", prefix.as_str(), suffix(pod, key))
}

/// The interface entry of a CNI result that exists nowhere in the kernel and only carries data to DEL.
pub fn dummy_name(pod: Option<&PodName>, key: &IpamKey) -> String {
    format!("dummy{}", suffix(pod, key))
}

fn suffix(pod: Option<&PodName>, key: &IpamKey) -> String {
    pod.map_or_else(
        || sandbox_suffix(key.container_id(), key.if_name()),
        |pod| name_suffix(pod, 0),
    )
}

/// The beginning of host veth names, `eni` unless configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VethPrefix(Box<str>);

/// A prefix that would not fit or would collide.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("veth prefix {0:?} must be 1 to 4 characters without space, '/' or ':', and none of eth, lo, vlan")]
pub struct VethPrefixError(pub String);

impl VethPrefix {
    /// 1 to 4 printable characters; `eth`, `lo` and `vlan` belong to others.
    pub fn parse(text: &str) -> Result<Self, VethPrefixError> {
        let fits = (1..=4).contains(&text.len());
        let plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
        if fits && plain && !["eth", "lo", "vlan"].contains(&text) {
            Ok(Self(text.into()))
        } else {
            Err(VethPrefixError(text.to_owned()))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for VethPrefix {
    fn default() -> Self {
        Self("eni".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: &str, name: &str) -> PodName {
        PodName::new(namespace, name).unwrap()
    }

    fn key(container_id: &str) -> IpamKey {
        IpamKey::new("aws-cni", container_id, "eth0").unwrap()
    }

    #[test]
    fn names_are_those_that_other_agents_compute() {
        let nginx = pod("default", "nginx");
        assert_eq!(
            host_veth_name(&VethPrefix::default(), Some(&nginx), &key("c")),
            "enic440f455693"
        );
        assert_eq!(dummy_name(Some(&nginx), &key("c")), "dummyc440f455693");
        assert_eq!(name_suffix(&nginx, 1), "e48ae9c2f34");
        assert_eq!(
            name_suffix(&pod("kube-system", "coredns-5d78c9869d-abcde"), 0),
            "4d5f75c480c"
        );
    }

    #[test]
    fn sandboxes_without_a_pod_name_get_distinct_names_that_fit() {
        let (a, b) = (
            host_veth_name(&VethPrefix::default(), None, &key("a")),
            host_veth_name(&VethPrefix::default(), None, &key("b")),
        );
        assert_ne!(a, b);
        assert!(a.len() <= 15 && a.starts_with("eni"));
    }

    #[test]
    fn a_prefix_leaves_room_for_the_hash() {
        assert!(VethPrefix::parse("pods").is_ok());
        for bad in ["", "toolong", "eth", "lo", "vlan", "a b", "a/b", "é"] {
            assert!(VethPrefix::parse(bad).is_err(), "{bad:?}");
        }
    }
}
