//! Lists as tables, which the API server prints for kubectl: columns and cells of the kinds that people look at.

use serde_json::{Value, json};

use super::resource::{Resource, Storage};

/// Name of a column, path to its value; columns that only `-o wide` shows have priority 1.
type Column = (&'static str, &'static str, u8);

const NODES: &[Column] = &[
    ("Status", "", 0),
    ("Version", "/status/nodeInfo/kubeletVersion", 0),
    ("Pods", "/status/capacity/pods", 0),
    ("Internal-IP", "/status/addresses/0/address", 1),
    ("Instance-Type", "/metadata/labels/node.kubernetes.io~1instance-type", 1),
    ("Zone", "/metadata/labels/topology.kubernetes.io~1zone", 1),
];
const PODS: &[Column] = &[
    ("Status", "/status/phase", 0),
    ("IP", "/status/podIP", 1),
    ("Node", "/spec/nodeName", 1),
];
const EVENTS: &[Column] = &[
    ("Type", "/type", 0),
    ("Reason", "/reason", 0),
    ("Object", "/involvedObject/name", 0),
    ("Message", "/message", 0),
];
const NAMESPACES: &[Column] = &[("Status", "/status/phase", 0)];
const ENICONFIGS: &[Column] = &[("Subnet", "/spec/subnet", 0)];

/// The objects as a table.
pub(super) fn of(resource: &Resource, objects: &[Value], metadata: Value) -> Value {
    let columns = match resource.storage {
        Storage::Nodes => NODES,
        Storage::Pods => PODS,
        Storage::Events => EVENTS,
        Storage::Namespaces => NAMESPACES,
        Storage::EniConfigs => ENICONFIGS,
        Storage::CniNodes => &[],
    };
    let head = |name: &str, priority: u8| {
        let format = if name == "Name" { "name" } else { "" };
        json!({"name": name, "type": "string", "format": format, "description": "", "priority": priority})
    };
    let definitions: Vec<_> = std::iter::once(head("Name", 0))
        .chain(columns.iter().map(|(name, _, priority)| head(name, *priority)))
        .collect();
    let rows: Vec<_> = objects.iter().map(|object| row(object, columns)).collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": definitions,
        "rows": rows,
    })
}

fn row(object: &Value, columns: &[Column]) -> Value {
    let cell = |path: &str| match path {
        "" => node_status(object).into(),
        path => object.pointer(path).cloned().unwrap_or_else(|| "<none>".into()),
    };
    let cells: Vec<_> = std::iter::once(object["metadata"]["name"].clone())
        .chain(columns.iter().map(|(_, path, _)| cell(path)))
        .collect();
    let part = json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"],
    });
    json!({"cells": cells, "object": part})
}

fn node_status(node: &Value) -> &'static str {
    let conditions = node["status"]["conditions"].as_array();
    let is_ready = conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    if is_ready { "Ready" } else { "NotReady" }
}
