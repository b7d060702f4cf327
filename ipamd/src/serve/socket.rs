//! The Unix socket: taking over a stale one, waiting for a live predecessor, leaving nothing behind.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::time::{Instant, sleep};

/// How long a predecessor may take to end: its grace period is 10 s in a rolling update.
const PREDECESSOR: Duration = Duration::from_secs(12);
const POLL: Duration = Duration::from_millis(50);
/// Root and its group: whoever may call may take and free addresses.
const MODE: u32 = 0o660;

/// The socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another daemon serves there and does not end.
    #[error("another daemon serves {path}")]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// Creating or preparing it.
    #[error("cannot listen on {path}")]
    Bind {
        /// The socket.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Removes the socket at the end, but only if it is still ours: a successor may have replaced it.
#[derive(Debug)]
pub struct SocketGuard {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens at `path`. A socket file that refuses connections is stale and goes; one that answers is waited for.
pub async fn bind(path: &Path) -> Result<(UnixListener, SocketGuard), SocketError> {
    let deadline = Instant::now() + PREDECESSOR;
    while super::answers(path).await {
        if Instant::now() >= deadline {
            return Err(SocketError::Taken { path: path.to_owned() });
        }
        sleep(POLL).await;
    }
    listen(path).map_err(|source| SocketError::Bind {
        path: path.to_owned(),
        source,
    })
}

fn listen(path: &Path) -> io::Result<(UnixListener, SocketGuard)> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    let inode = fs::symlink_metadata(path)?.ino();
    Ok((
        listener,
        SocketGuard {
            path: path.to_owned(),
            inode,
        },
    ))
}
