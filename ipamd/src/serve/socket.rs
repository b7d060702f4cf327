//! The Unix socket and the lock beside it: taking over a stale socket, waiting for a live predecessor, leaving nothing
//! behind but the lock's empty file.
//!
//! Two daemons of ours exclude each other by the lock, which is held until the process ends; another kind of daemon is
//! recognised by its socket.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
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
    /// Creating the lock's file or locking it.
    #[error("cannot lock {path}")]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
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

/// Waits until no other daemon acts for this node: what it does until its end must be known to us. The returned lock lies
/// beside the socket, and is to be held as long as this process acts.
pub async fn take_over(socket: &Path) -> Result<File, SocketError> {
    let path = lock_file(socket);
    let failed = |source| SocketError::Lock {
        path: path.clone(),
        source,
    };
    let file = open_lock(&path).map_err(failed)?;
    let deadline = Instant::now() + PREDECESSOR;
    loop {
        match file.try_lock() {
            // Nobody of ours: one of another kind, perhaps, or a socket that refuses connections, which is stale.
            Ok(()) if !super::answers(socket).await => return Ok(file),
            Ok(()) | Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        if Instant::now() >= deadline {
            return Err(SocketError::Taken {
                path: socket.to_owned(),
            });
        }
        sleep(POLL).await;
    }
}

/// The lock's file.
pub fn lock_file(socket: &Path) -> PathBuf {
    socket.with_extension("lock")
}

fn open_lock(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    // Not even readable for others: whoever can open it can lock us out.
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Listens at `path`, where only a stale socket can be after [`take_over`].
pub fn bind(path: &Path) -> Result<(UnixListener, SocketGuard), SocketError> {
    listen(path).map_err(|source| SocketError::Bind {
        path: path.to_owned(),
        source,
    })
}

fn listen(path: &Path) -> io::Result<(UnixListener, SocketGuard)> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_daemon_gets_the_lock_when_the_first_one_has_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/ipamd.sock");
        let first = take_over(&path).await.unwrap();
        let mut second = std::pin::pin!(take_over(&path));
        let early = tokio::time::timeout(POLL * 3, &mut second).await;
        assert!(early.is_err(), "both have it");
        drop(first);
        second.await.unwrap();
    }

    #[tokio::test]
    async fn a_stale_socket_is_taken_over_and_removed_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/ipamd.sock");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // A listener that is dropped leaves its file, as a daemon that was killed does.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let _lock = take_over(&path).await.unwrap();
        let (_listener, guard) = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        drop(guard);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_socket_of_a_successor_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ipamd.sock");
        let (_listener, guard) = bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _successor = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(guard);
        assert!(path.exists());
    }
}
