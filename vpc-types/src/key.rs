//! What identifies an assignment of an address.

use std::fmt;

/// The primary key of a lease: which interface of which sandbox in which network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpamKey {
    network_name: Box<str>,
    container_id: Box<str>,
    if_name: Box<str>,
}

/// A part of the key that is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is empty")]
pub struct KeyError(pub &'static str);

impl IpamKey {
    /// Refuses empty parts, naming the first one.
    pub fn new(network_name: &str, container_id: &str, if_name: &str) -> Result<Self, KeyError> {
        for (part, name) in [
            (network_name, "NetworkName"),
            (container_id, "ContainerID"),
            (if_name, "IfName"),
        ] {
            if part.is_empty() {
                return Err(KeyError(name));
            }
        }
        Ok(Self {
            network_name: network_name.into(),
            container_id: container_id.into(),
            if_name: if_name.into(),
        })
    }

    /// Name of the network configuration list.
    pub fn network_name(&self) -> &str {
        &self.network_name
    }

    /// The runtime's id of the sandbox.
    pub fn container_id(&self) -> &str {
        &self.container_id
    }

    /// The interface inside the sandbox.
    pub fn if_name(&self) -> &str {
        &self.if_name
    }
}

impl fmt::Display for IpamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.network_name, self.container_id, self.if_name)
    }
}

/// Namespace and name of a pod; runtimes without Kubernetes give none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName {
    /// Kubernetes namespace, not empty.
    pub namespace: Box<str>,
    /// Pod name, not empty.
    pub name: Box<str>,
}

impl PodName {
    /// `None` unless both parts are there: half a name identifies nothing.
    pub fn new(namespace: &str, name: &str) -> Option<Self> {
        (!namespace.is_empty() && !name.is_empty()).then(|| Self {
            namespace: namespace.into(),
            name: name.into(),
        })
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
