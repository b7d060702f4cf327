//! What a node agent is given: the variables that lead it to the simulated services, and a kubeconfig, as files in each node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Vpc, VpcError, VpcNode};

/// The kubeconfig, as the node sees it.
pub const KUBECONFIG_FILE: &str = "/run/vpc-sim/kubeconfig";
/// The variables, one `NAME=value` per line, as the node sees them: `set -a; . /run/vpc-sim/environment`.
pub const ENVIRONMENT_FILE: &str = "/run/vpc-sim/environment";
/// Where a program in a pod looks for its own token.
const SERVICE_ACCOUNT: [(&str, &str); 2] = [
    ("/run/secrets/kubernetes.io/serviceaccount/token", TOKEN),
    ("/run/secrets/kubernetes.io/serviceaccount/namespace", "kube-system"),
];
/// Nobody checks it.
const TOKEN: &str = "simulated";

impl Vpc {
    /// What programs of a node need to find EC2, metadata and the cluster; `None` without such a node.
    pub fn environment(&self, node: &str) -> Option<BTreeMap<&'static str, String>> {
        let instance = self.handle.instance(node)?;
        let region = self.simulator().with_model(|model, _| {
            let zone = model.instance(instance).map(|one| one.zone.clone()).unwrap_or_default();
            zone.trim_end_matches(|c: char| c.is_ascii_lowercase()).to_owned()
        });
        Some(BTreeMap::from([
            ("AWS_ENDPOINT_URL_EC2", self.ec2_url()),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", self.imds_url()),
            ("AWS_REGION", region),
            // Signatures are not checked.
            ("AWS_ACCESS_KEY_ID", "AKIASIMULATED0000000".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "simulated".to_owned()),
            ("CLUSTER_ENDPOINT", self.kube_url()),
            ("CLUSTER_NAME", "vpc-sim".to_owned()),
            // The reference's daemon has both families off until it is told.
            ("ENABLE_IPv4", "true".to_owned()),
            ("KUBECONFIG", KUBECONFIG_FILE.to_owned()),
            ("KUBERNETES_SERVICE_HOST", self.endpoints.kube.ip().to_string()),
            ("KUBERNETES_SERVICE_PORT", self.endpoints.kube.port().to_string()),
            ("MY_NODE_NAME", node.to_owned()),
        ]))
    }

    pub(super) fn write_files(&self) -> Result<(), VpcError> {
        for (name, entry) in &self.handle.0.nodes {
            let kubeconfig = kubeconfig(&self.kube_url(), name);
            let lines: Vec<_> = self
                .environment(name)
                .into_iter()
                .flatten()
                .map(|(name, value)| format!("{name}={value}\n"))
                .collect();
            write(entry, KUBECONFIG_FILE, kubeconfig)?;
            write(entry, ENVIRONMENT_FILE, lines.concat())?;
            for (path, text) in SERVICE_ACCOUNT {
                write(entry, path, text.to_owned())?;
            }
        }
        Ok(())
    }
}

/// Plain HTTP with a token that nobody checks. JSON is YAML.
pub(crate) fn kubeconfig(url: &str, user: &str) -> String {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "vpc-sim", "preferences": {},
        "clusters": [{"name": "vpc-sim", "cluster": {"server": url}}],
        "users": [{"name": user, "user": {"token": TOKEN}}],
        "contexts": [{"name": "vpc-sim", "context": {"cluster": "vpc-sim", "user": user}}],
    });
    format!("{config:#}\n")
}

fn write(entry: &VpcNode, path: &'static str, text: String) -> Result<(), VpcError> {
    let failed = |source| VpcError::NodeFile {
        node: entry.node.name().to_owned(),
        path: PathBuf::from(path),
        source,
    };
    let outside = entry.node.outside(Path::new(path));
    let directory = outside.parent().unwrap_or(&outside);
    std::fs::create_dir_all(directory).map_err(failed)?;
    std::fs::write(&outside, text).map_err(failed)
}
