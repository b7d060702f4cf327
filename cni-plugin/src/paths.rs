//! The one table of files and sockets that the plugin uses, and how they move under another root.

use std::path::{Path, PathBuf};

/// ipamd's socket.
const IPAMD_SOCKET: &str = "/var/run/aws-node/ipamd.sock";
/// The network policy agent's socket.
const POLICY_SOCKET: &str = "/var/run/aws-node/npa.sock";

/// Where things are on this node.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    root: Option<PathBuf>,
}

impl Paths {
    /// `root` replaces `/`, so that many nodes can live on one machine.
    pub(crate) fn under(root: Option<PathBuf>) -> Self {
        Self { root }
    }

    /// ipamd's socket.
    pub(crate) fn ipamd_socket(&self) -> PathBuf {
        self.rooted(Path::new(IPAMD_SOCKET))
    }

    /// The network policy agent's socket.
    pub(crate) fn policy_socket(&self) -> PathBuf {
        self.rooted(Path::new(POLICY_SOCKET))
    }

    /// An absolute path of the node, such as that of the log file, on this machine.
    pub(crate) fn rooted(&self, path: &Path) -> PathBuf {
        match &self.root {
            None => path.to_owned(),
            Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_moves_everything() {
        let (plain, moved) = (Paths::under(None), Paths::under(Some("/tmp/node-1".into())));
        assert_eq!(plain.ipamd_socket(), Path::new("/var/run/aws-node/ipamd.sock"));
        assert_eq!(
            moved.ipamd_socket(),
            Path::new("/tmp/node-1/var/run/aws-node/ipamd.sock")
        );
        assert_eq!(
            moved.policy_socket(),
            Path::new("/tmp/node-1/var/run/aws-node/npa.sock")
        );
        assert_eq!(
            moved.rooted(Path::new("/var/log/p.log")),
            Path::new("/tmp/node-1/var/log/p.log")
        );
    }
}
