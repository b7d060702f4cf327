//! Objects as their controllers would write them: nodes as kubelet registers them, pods as the scheduler has placed them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

/// What a node object tells of its instance.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// Name of node and object.
    pub name: String,
    /// Instance id, type and zone.
    pub instance: String,
    /// For instance `m5.large`.
    pub instance_type: String,
    /// For instance `us-east-1a`.
    pub zone: String,
    /// Primary address.
    pub address: Option<Ipv4Addr>,
    /// Most pods that kubelet takes.
    pub max_pods: u32,
    /// Processors.
    pub cpus: u16,
    /// Labels besides the usual ones.
    pub labels: BTreeMap<String, String>,
}

/// What a pod object tells.
#[derive(Debug, Clone, Default)]
pub struct PodFacts {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where it runs; not scheduled when empty.
    pub node: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Its address, once it has one.
    pub address: Option<Ipv4Addr>,
}

pub(super) fn namespaces() -> impl Iterator<Item = Value> {
    ["default", "kube-node-lease", "kube-public", "kube-system"]
        .into_iter()
        .map(|name| {
            json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
                "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
            })
        })
}

/// A node that is ready.
pub fn node(facts: &NodeFacts) -> Value {
    let region = facts.zone.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let mut labels = json!({
        "kubernetes.io/hostname": facts.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        "node.kubernetes.io/instance-type": facts.instance_type, "topology.kubernetes.io/region": region,
        "topology.kubernetes.io/zone": facts.zone,
    });
    for (name, value) in &facts.labels {
        labels[name] = value.as_str().into();
    }
    let mut addresses: Vec<_> = facts
        .address
        .iter()
        .map(|address| json!({"type": "InternalIP", "address": address}))
        .collect();
    addresses.push(json!({"type": "Hostname", "address": facts.name}));
    let room = json!({"cpu": facts.cpus.to_string(), "memory": "8Gi", "pods": facts.max_pods.to_string()});
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": facts.name, "labels": labels, "annotations": {}},
        "spec": {"providerID": format!("aws:///{}/{}", facts.zone, facts.instance)},
        "status": {
            "addresses": addresses, "capacity": room, "allocatable": room,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "simulated",
                "lastHeartbeatTime": "1970-01-01T00:00:00Z", "lastTransitionTime": "1970-01-01T00:00:00Z",
            }],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": {
                "architecture": "amd64", "operatingSystem": "linux", "osImage": "vpc-sim", "kernelVersion": "simulated",
                "containerRuntimeVersion": "containerd://simulated", "kubeletVersion": "v1.32.0-vpc-sim",
                "kubeProxyVersion": "", "bootID": "", "machineID": "", "systemUUID": facts.instance,
            },
        },
    })
}

/// What the VPC resource controller makes for each node.
pub fn cni_node(name: &str) -> Value {
    json!({
        "apiVersion": "vpcresources.k8s.aws/v1alpha1", "kind": "CNINode", "metadata": {"name": name}, "spec": {},
        "status": {},
    })
}

/// A pod with one container.
pub fn pod(facts: &PodFacts) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": facts.name, "namespace": facts.namespace, "labels": facts.labels},
        "spec": {"containers": [{"name": "main", "image": "simulated"}], "restartPolicy": "Always"},
        "status": {"phase": if facts.node.is_empty() || facts.address.is_none() { "Pending" } else { "Running" }},
    });
    if !facts.node.is_empty() {
        pod["spec"]["nodeName"] = facts.node.as_str().into();
    }
    if let Some(address) = facts.address {
        pod["status"]["podIP"] = json!(address);
        pod["status"]["podIPs"] = json!([{"ip": address}]);
    }
    pod
}
