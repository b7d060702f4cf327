//! containerd on one node, with our plugin.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use vpc_fabric::Node;
use vpc_fabric::node::{CommandSpec, NodeChild};

use super::client::Client;
use super::image;
use crate::wait;

/// Everything of it, as the node sees it; `/run` is the node's own.
const HOME: &str = "/run/e2e";
/// Plugins, ours and the runtime's own needs.
pub const PLUGINS: &str = "/run/e2e/cni-bin";
/// Network configurations.
pub const NETWORKS: &str = "/run/e2e/cni-conf";
/// Temporary files of runtimes.
pub const TEMPORARY: &str = "/run/e2e/tmp";
const SOCKET: &str = "/run/e2e/containerd.sock";
const CONFIG: &str = "/run/e2e/containerd.toml";
const IMAGE: &str = "/run/e2e/pause.tar";
const LOG: &str = "/var/log/containerd.log";
/// containerd calls this one for every pod, before ours.
const LOOPBACK: &str = "/usr/lib/cni/loopback";
/// It serves after some tenths of a second; the machine may be busy.
const START: Duration = Duration::from_secs(20);

/// Directories that runtimes use by fixed names. A node has its own, so that the machine's are not touched.
pub fn private_dirs() -> Vec<PathBuf> {
    ["/var/lib/cni", "/dev/shm"].map(PathBuf::from).to_vec()
}

/// Puts plugin, loopback plugin and image where runtimes of this node find them.
pub fn prepare(node: &Node, plugin: &Path, pause: &Path) -> Result<()> {
    for directory in [PLUGINS, NETWORKS, TEMPORARY] {
        let directory = node.outside(Path::new(directory));
        std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    for (from, name) in [(plugin, "aws-cni"), (Path::new(LOOPBACK), "loopback")] {
        let to = node.outside(Path::new(PLUGINS)).join(name);
        std::fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    image::write(pause, &node.outside(Path::new(IMAGE)))
}

/// Path of the image's archive, as the node sees it.
pub fn image_archive() -> &'static Path {
    Path::new(IMAGE)
}

/// A running containerd.
#[derive(Debug)]
pub struct Containerd {
    child: NodeChild,
    client: Client,
}

impl Containerd {
    /// Starts it with these variables, which plugins inherit, waits until it serves, and loads the image of the pods' first process.
    pub fn start(node: &Node, environment: &[(&str, &str)]) -> Result<Self> {
        let containerd = Self::restart(node, environment)?;
        let command = CommandSpec::new("/usr/bin/ctr")
            .args(["-a", SOCKET, "-n", "k8s.io", "images", "import", IMAGE])
            .env("TMPDIR", TEMPORARY);
        let output = node.output(&command, b"", START)?;
        ensure!(
            output.status.success(),
            "the image cannot be loaded: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(containerd)
    }

    /// Starts it with what it has on file.
    pub fn restart(node: &Node, environment: &[(&str, &str)]) -> Result<Self> {
        let config = node.outside(Path::new(CONFIG));
        std::fs::write(&config, config_text()).with_context(|| format!("cannot write {}", config.display()))?;
        let command = CommandSpec::new("/usr/bin/containerd")
            .args(["-c", CONFIG])
            .env("TMPDIR", TEMPORARY)
            .envs(environment.iter().copied())
            .log_to(node.outside(Path::new(LOG)));
        let mut child = node.spawn(&command)?;
        let socket = node.outside(Path::new(SOCKET));
        wait::until("containerd serves", START, || {
            if let Some(status) = child.try_wait()? {
                anyhow::bail!("containerd of {} ended with {status}", node.name());
            }
            Ok(UnixStream::connect(&socket).ok())
        })?;
        let client = Client::connect(&socket)?;
        // The socket is there before the service of pods is.
        wait::until("containerd knows of pods", START, || Ok(client.version().ok()))?;
        Ok(Self { child, client })
    }

    /// Ends it, and it alone: pods live on.
    pub fn stop(mut self, signal: Signal) -> Result<()> {
        self.child.signal(signal)?;
        self.child.wait(START)?.context("containerd does not end")?;
        Ok(())
    }

    /// The connection to it.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

/// `restrict_oom_score_adj`: in a container without `CAP_SYS_RESOURCE` nobody may lower that score, and runc gives up. AppArmor
/// profiles belong to the machine, so none is loaded.
fn config_text() -> String {
    format!(
        r#"version = 2
root = "{HOME}/root"
state = "{HOME}/state"
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{HOME}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{PLUGINS}"
    conf_dir = "{NETWORKS}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
"#,
        image = image::SHORT_NAME
    )
}
