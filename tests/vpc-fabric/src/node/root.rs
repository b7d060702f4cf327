//! A root directory of the node's own, for private directories that stand in `/` itself and do not exist on the machine.
//!
//! The new root is an empty file system on which everything in `/` is bound again; the node's processes cannot tell it from the old
//! one. Invariant: nothing is written to the machine's file systems.

use std::fs::FileType;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::unistd::{chdir, gettid, pivot_root};

use crate::sandbox::SandboxError;
use crate::sandbox::mounts::{bind_tree, create_dir, make_unbindable, mount_fs};

/// Directories of the list that have no existing parent but `/`.
pub(super) fn missing_in_root(private: &[PathBuf]) -> Vec<PathBuf> {
    let is_missing = |dir: &&PathBuf| !dir.components().take(2).collect::<PathBuf>().exists();
    private.iter().filter(is_missing).cloned().collect()
}

/// Replaces the calling thread's root, in its own mount namespace, by one that also has these directories.
pub(super) fn replace(missing: &[PathBuf]) -> Result<(), SandboxError> {
    let root = PathBuf::from(format!("/run/nodes/.root/{}", gettid()));
    create_dir(&root)?;
    mount_fs("tmpfs", &root, Some("mode=0755"))?;
    // Without this, binding /run would bind the new root into itself.
    make_unbindable(&root)?;
    let entries = std::fs::read_dir("/").and_then(Iterator::collect::<Result<Vec<_>, _>>);
    for entry in entries.map_err(created(Path::new("/")))? {
        let from = entry.path();
        let kind = entry.file_type().map_err(created(&from))?;
        repeat(&from, kind, &root.join(entry.file_name()))?;
    }
    for dir in missing {
        create_dir(root.join(dir.strip_prefix("/").unwrap_or(dir)))?;
    }
    let failed = |operation| move |source| SandboxError::Process { operation, source };
    chdir(&root).map_err(failed("chdir"))?;
    // The old root lands on top of the new one, at the same place, and is taken off there.
    pivot_root(".", ".").map_err(failed("pivot_root"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(failed("umount of the old root"))?;
    chdir("/").map_err(failed("chdir"))
}

/// The same entry in the new root.
fn repeat(from: &Path, kind: FileType, to: &Path) -> Result<(), SandboxError> {
    if kind.is_symlink() {
        let target = std::fs::read_link(from).map_err(created(to))?;
        return symlink(target, to).map_err(created(to));
    }
    if kind.is_dir() {
        create_dir(to)?;
    } else {
        std::fs::File::create_new(to).map_err(created(to))?;
    }
    match bind_tree(from, to) {
        // Not everything in a user's root may be bound by that user; what cannot be seen there is not missed here.
        Err(SandboxError::Mount {
            source: Errno::EACCES | Errno::EPERM,
            ..
        }) => Ok(()),
        bound => bound,
    }
}

fn created(path: &Path) -> impl FnOnce(std::io::Error) -> SandboxError {
    let path = path.display().to_string();
    move |source| SandboxError::Create { path, source }
}
