//! podman on one node: a runtime that knows no Kubernetes.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vpc_fabric::Node;
use vpc_fabric::node::CommandSpec;

use super::containerd::{NETWORKS, PLUGINS, TEMPORARY};
use super::{image, network};

/// Everything of it, as the node sees it.
const HOME: &str = "/run/e2e/podman";
/// A container takes a second; the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(40);

/// podman, set up in a node that [`containerd::prepare`](super::containerd::prepare) has prepared.
#[derive(Debug)]
pub struct Podman<'a> {
    node: &'a Node,
}

impl<'a> Podman<'a> {
    /// Writes its configuration and loads the image.
    pub fn new(node: &'a Node, archive: &Path) -> Result<Self> {
        let home = node.outside(Path::new(HOME));
        let policy = home.join(".config/containers");
        std::fs::create_dir_all(&policy).with_context(|| format!("cannot make {}", policy.display()))?;
        for (file, text) in [
            (home.join("containers.conf"), config_text()),
            (home.join("storage.conf"), storage_text()),
            (
                policy.join("policy.json"),
                r#"{"default": [{"type": "insecureAcceptAnything"}]}"#.to_owned(),
            ),
        ] {
            std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        let podman = Self { node };
        podman.run(&["load", "--quiet", "--input", &archive.display().to_string()])?;
        Ok(podman)
    }

    /// A container in our network, and its id.
    pub fn start(&self, name: &str) -> Result<String> {
        let arguments = [
            "run",
            "--detach",
            "--pull=never",
            "--name",
            name,
            "--network",
            network::NAME,
            image::SHORT_NAME,
        ];
        self.run(&arguments)
    }

    /// One field of a container.
    pub fn inspect(&self, name: &str, template: &str) -> Result<String> {
        self.run(&["inspect", "--format", template, name])
    }

    /// Ends and forgets a container.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.run(&["rm", "--force", "--time", "0", name]).map(drop)
    }

    /// One command; what it printed.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let command = CommandSpec::new("/usr/bin/podman")
            .args(arguments)
            .env("CONTAINERS_CONF", format!("{HOME}/containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", format!("{HOME}/storage.conf"))
            .env("HOME", HOME)
            .env("TMPDIR", TEMPORARY);
        let output = self.node.output(&command, b"", DEADLINE)?;
        ensure!(
            output.status.success(),
            "podman {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// The limits are low so that they can be set without `CAP_SYS_RESOURCE`; crun knows no mixed cgroup hierarchies.
fn config_text() -> String {
    format!(
        r#"[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
apparmor_profile = "unconfined"
[network]
network_backend = "cni"
cni_plugin_dirs = ["{PLUGINS}"]
network_config_dir = "{NETWORKS}"
default_network = "{network}"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "{HOME}/tmp"
"#,
        network = network::NAME
    )
}

fn storage_text() -> String {
    format!(
        r#"[storage]
driver = "overlay"
graphroot = "{HOME}/graph"
runroot = "{HOME}/run"
"#
    )
}
