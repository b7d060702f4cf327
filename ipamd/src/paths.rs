//! Files and sockets, all below one root that can be moved, so that many nodes run on one machine.

use std::path::{Path, PathBuf};

/// Where things are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    root: PathBuf,
    /// The leases, in the format of the reference.
    pub ipam_json: PathBuf,
    /// What a restart needs beyond the leases.
    pub side_file: PathBuf,
    /// When the daemon aborted.
    pub aborts: PathBuf,
    /// gRPC.
    pub socket: PathBuf,
}

impl Paths {
    /// `root` stands for `/`; `backing_store` is the configured place of `ipam.json`.
    pub fn new(root: &str, backing_store: &str) -> Self {
        let root = PathBuf::from(if root.is_empty() { "/" } else { root });
        let ipam_json = join(&root, backing_store);
        Self {
            side_file: ipam_json.with_file_name("vpc-cni-state.json"),
            aborts: ipam_json.with_file_name("vpc-cni-aborts"),
            socket: join(&root, "/var/run/aws-node/ipamd.sock"),
            ipam_json,
            root,
        }
    }

    /// The file by which xtables programs exclude each other, as `XTABLES_LOCKFILE` is by default.
    pub fn xtables_lock(&self) -> PathBuf {
        self.under_root("/run/xtables.lock")
    }

    /// Another absolute path below the root.
    pub fn under_root(&self, path: &str) -> PathBuf {
        join(&self.root, path)
    }
}

fn join(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}
