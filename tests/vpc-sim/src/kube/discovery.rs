//! What the server has: the discovery documents in their old form, which all clients take when the aggregated one is missing.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::resource::RESOURCES;

/// The version that is claimed: one that EKS runs, and whose clients ask for initial events.
const VERSION: (&str, &str) = ("1", "32");

pub(super) fn version() -> Value {
    let (major, minor) = VERSION;
    json!({
        "major": major, "minor": minor, "gitVersion": format!("v{major}.{minor}.0-vpc-sim"),
        "gitCommit": "0000000000000000000000000000000000000000", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc", "platform": "linux/amd64",
    })
}

pub(super) fn core(address: &str) -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

pub(super) fn groups() -> Value {
    let names: BTreeSet<_> = RESOURCES
        .iter()
        .filter(|one| !one.group.is_empty())
        .map(|one| one.group)
        .collect();
    let groups: Vec<_> = names.into_iter().map(group_entry).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

pub(super) fn group(name: &str) -> Value {
    let mut group = group_entry(name);
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    group
}

fn group_entry(name: &str) -> Value {
    let versions: Vec<_> = RESOURCES
        .iter()
        .filter(|one| one.group == name)
        .map(|one| json!({"groupVersion": one.api_version(), "version": one.version}))
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

pub(super) fn resources(group: &str, version: &str) -> Value {
    let own: Vec<_> = RESOURCES
        .iter()
        .filter(|one| one.group == group && one.version == version)
        .collect();
    let lines: Vec<_> = own.iter().flat_map(|one| one.discovery()).collect();
    let group_version = own.first().map(|one| one.api_version());
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": lines})
}
