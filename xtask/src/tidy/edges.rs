//! Who may use whom. The shape of the dependency graph is the architecture, so the whole of it is written down here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Finding, finding};
use crate::context::Context;
use crate::run;

/// Each crate of ours and those of ours that it may name in its manifest, tests included. Nobody may use `ipamd`, except the
/// tests of whole programs.
const MAY_USE: &[(&str, &[&str])] = &[
    ("vpc-types", &[]),
    ("cni-spec", &["vpc-types"]),
    ("proto", &["vpc-types"]),
    ("ipam-core", &["vpc-types"]),
    ("log-file", &[]),
    ("netlink", &["vpc-types"]),
    ("nft", &["netlink", "vpc-types"]),
    ("datapath", &["netlink", "nft", "vpc-types"]),
    ("cloud", &["vpc-types"]),
    (
        "ipamd",
        &[
            "cloud",
            "cni-spec",
            "datapath",
            "ipam-core",
            "log-file",
            "netlink",
            "nft",
            "proto",
            "vpc-types",
        ],
    ),
    (
        "cni-plugin",
        &[
            "cni-spec",
            "datapath",
            "log-file",
            "netlink",
            // In its tests.
            "policy-agent",
            "proto",
            "vpc-types",
        ],
    ),
    ("node-setup", &["cni-spec", "netlink", "vpc-types"]),
    ("vpc-fabric", &["netlink", "nft", "vpc-types"]),
    ("vpc-sim", &["netlink", "nft", "vpc-fabric", "vpc-types"]),
    ("ipam-sim", &["ipam-core", "vpc-sim", "vpc-types"]),
    (
        "fuzz",
        &[
            "cni-spec",
            "datapath",
            "ipam-core",
            "netlink",
            "nft",
            "node-setup",
            "vpc-types",
        ],
    ),
    ("cri", &[]),
    ("pause", &[]),
    ("policy-agent", &["netlink", "proto"]),
    (
        "e2e",
        &[
            "cni-spec",
            "cri",
            "fuzz",
            "ipamd",
            "netlink",
            "policy-agent",
            "proto",
            "vpc-fabric",
            "vpc-sim",
            "vpc-types",
        ],
    ),
    ("bench-floor", &[]),
    (
        "bench",
        &["bench-floor", "e2e", "netlink", "vpc-fabric", "vpc-sim", "vpc-types"],
    ),
    ("xtask", &[]),
];

/// What a crate must not reach, not even through others, in what is shipped (`*` ends a prefix), and why.
const MUST_NOT_REACH: &[(&str, &[&str], &str)] = &[
    (
        "cni-plugin",
        &["ipam-core", "cloud", "kube*", "k8s-openapi", "aws-*"],
        "it starts once per pod: small and quick",
    ),
    (
        "ipam-core",
        &[
            "tokio*",
            "tonic*",
            "hyper*",
            "mio",
            "kube*",
            "aws-*",
            "netlink*",
            "rtnetlink",
            "nix",
            "rand",
            "rand_*",
            "getrandom",
            "fastrand",
            "time",
            "chrono",
            "tempfile",
            "socket2",
            "tracing-subscriber",
        ],
        "it is pure: events in, actions out",
    ),
    (
        "node-setup",
        &["cloud", "aws-*", "kube*", "ipam-core", "netlink", "tonic*"],
        "it runs before the daemon, and beside it for as long as the node lives",
    ),
    (
        "vpc-sim",
        &["cloud", "aws-*", "ipamd", "ipam-core"],
        "one misreading must not pass on both sides",
    ),
    (
        "bench-floor",
        &["tokio*", "tonic*", "hyper*", "h2", "serde*", "tracing*", "netlink-*"],
        "it is the floor: what the plugin carries would be subtracted from the plugin",
    ),
    (
        "cloud",
        &["vpc-sim", "vpc-fabric", "ipam-core"],
        "it knows requests, not policy",
    ),
    (
        "datapath",
        &["ipam-core", "cloud", "aws-*", "kube*"],
        "it knows addresses, not pools",
    ),
];

/// The only crate of ours that names a crate of the AWS SDK.
const SDK_OWNER: &str = "cloud";

/// All rules.
pub(super) fn check(context: &Context) -> Result<Vec<Finding>> {
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let text = run::output(&mut context.cargo(["metadata", "--format-version=1", "--filter-platform", &host]))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata wrote no JSON")?;
    let graph = Graph::read(&metadata, &context.root).context("cargo metadata has another form than expected")?;
    Ok(graph.findings())
}

#[derive(Debug, Default)]
struct Graph {
    /// Crates of ours: manifest, and the names in it.
    members: BTreeMap<String, (String, BTreeSet<String>)>,
    /// By package id: name and what it is built with, without dependencies of tests.
    nodes: BTreeMap<String, (String, Vec<String>)>,
}

impl Graph {
    fn read(metadata: &Value, root: &Path) -> Option<Self> {
        let members: BTreeSet<&str> = metadata["workspace_members"]
            .as_array()?
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let mut graph = Self::default();
        let mut names = BTreeMap::new();
        for package in metadata["packages"].as_array()? {
            let (id, name) = (package["id"].as_str()?, package["name"].as_str()?);
            names.insert(id, name);
            if members.contains(id) {
                let manifest = Path::new(package["manifest_path"].as_str()?);
                let manifest = manifest.strip_prefix(root).unwrap_or(manifest).display().to_string();
                let uses = package["dependencies"].as_array()?.iter();
                let uses = uses.filter_map(|dependency| Some(dependency["name"].as_str()?.to_owned()));
                graph.members.insert(name.to_owned(), (manifest, uses.collect()));
            }
        }
        for node in metadata["resolve"]["nodes"].as_array()? {
            let id = node["id"].as_str()?;
            let shipped = node["deps"]
                .as_array()?
                .iter()
                .filter(|dependency| is_shipped(dependency));
            let shipped = shipped.filter_map(|dependency| Some(dependency["pkg"].as_str()?.to_owned()));
            let name = (*names.get(id)?).to_owned();
            graph.nodes.insert(id.to_owned(), (name, shipped.collect()));
        }
        Some(graph)
    }

    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (name, (manifest, uses)) in &self.members {
            let Some((_, allowed)) = MAY_USE.iter().find(|(known, _)| known == name) else {
                let text = format!("{name} is not in the table of who may use whom (xtask/src/tidy/edges.rs)");
                findings.push(finding(manifest, 1, "dependency", text));
                continue;
            };
            for used in uses
                .iter()
                .filter(|used| self.members.contains_key(*used) && *used != name)
            {
                if !allowed.contains(&used.as_str()) {
                    findings.push(finding(manifest, 1, "dependency", format!("{name} may not use {used}")));
                }
            }
            if name != SDK_OWNER
                && let Some(sdk) = uses.iter().find(|used| used.starts_with("aws-"))
            {
                let text = format!("only {SDK_OWNER} may use {sdk}: the SDK sits in one leaf");
                findings.push(finding(manifest, 1, "dependency", text));
            }
        }
        for (name, forbidden, why) in MUST_NOT_REACH {
            findings.extend(self.reach(name, forbidden, why));
        }
        findings
    }

    /// Forbidden crates that a crate reaches, each with the way to it.
    fn reach(&self, name: &str, forbidden: &[&str], why: &str) -> Vec<Finding> {
        let Some((manifest, _)) = self.members.get(name) else {
            return Vec::new();
        };
        let start = self
            .nodes
            .iter()
            .find(|(_, (known, _))| known == name)
            .map(|(id, _)| id);
        let mut findings = Vec::new();
        let mut seen = BTreeSet::new();
        let mut pending: Vec<(&String, String)> = start.map(|id| (id, name.to_owned())).into_iter().collect();
        while let Some((id, way)) = pending.pop() {
            let Some((_, next)) = self.nodes.get(id).filter(|_| seen.insert(id)) else {
                continue;
            };
            for id in next {
                let Some((name, _)) = self.nodes.get(id) else { continue };
                let way = format!("{way} → {name}");
                if forbidden.iter().any(|pattern| matches(pattern, name)) {
                    findings.push(finding(manifest, 1, "reach", format!("{way}: {why}")));
                } else {
                    pending.push((id, way));
                }
            }
        }
        findings
    }
}

/// Whether a dependency is more than one of tests.
fn is_shipped(dependency: &Value) -> bool {
    dependency["dep_kinds"]
        .as_array()
        .is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"] != "dev"))
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace of crates of ours (`name: what it uses`), in the form of cargo's metadata.
    fn graph(crates: &[(&str, &[&str])], foreign: &[&str]) -> Graph {
        let package = |name: &&str, uses: &[&str]| {
            let uses: Vec<_> = uses.iter().map(|used| serde_json::json!({"name": used})).collect();
            serde_json::json!({"id": name, "name": name, "manifest_path": format!("/r/{name}/Cargo.toml"), "dependencies": uses})
        };
        let node = |name: &&str, uses: &[&str]| {
            let uses: Vec<_> = uses
                .iter()
                .map(|used| serde_json::json!({"pkg": used, "dep_kinds": [{"kind": null}]}))
                .collect();
            serde_json::json!({"id": name, "deps": uses})
        };
        let all = || {
            crates
                .iter()
                .copied()
                .chain(foreign.iter().map(|name| (*name, &[] as &[&str])))
        };
        let metadata = serde_json::json!({
            "workspace_members": crates.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            "packages": all().map(|(name, uses)| package(&name, uses)).collect::<Vec<_>>(),
            "resolve": {"nodes": all().map(|(name, uses)| node(&name, uses)).collect::<Vec<_>>()},
        });
        Graph::read(&metadata, Path::new("/r")).unwrap()
    }

    fn texts(graph: &Graph) -> Vec<String> {
        graph.findings().iter().map(Finding::to_string).collect()
    }

    #[test]
    fn an_allowed_graph_has_no_findings() {
        let graph = graph(
            &[("vpc-types", &[]), ("cloud", &["vpc-types", "aws-config"])],
            &["aws-config"],
        );
        assert_eq!(texts(&graph), [""; 0]);
    }

    #[test]
    fn a_way_to_a_forbidden_crate_is_shown() {
        let graph = graph(
            &[("cni-plugin", &["cni-spec"]), ("cni-spec", &["aws-config"])],
            &["aws-config"],
        );
        let texts = texts(&graph);
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(texts[0].contains("only cloud may use aws-config"), "{texts:?}");
        assert!(texts[1].contains("cni-plugin → cni-spec → aws-config"), "{texts:?}");
    }

    #[test]
    fn a_crate_of_ours_uses_only_what_the_table_says() {
        let graph = graph(&[("vpc-sim", &["cloud"]), ("cloud", &[]), ("newcomer", &[])], &[]);
        let texts = texts(&graph);
        assert!(
            texts.iter().any(|text| text.contains("vpc-sim may not use cloud")),
            "{texts:?}"
        );
        assert!(
            texts.iter().any(|text| text.contains("newcomer is not in the table")),
            "{texts:?}"
        );
    }
}
