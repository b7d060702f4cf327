//! Private /proc, /sys and /run, for the sandbox and again for each node.

use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use super::SandboxError;

const NONE: Option<&str> = None;

/// Cuts mount propagation, then gives the sandbox its own /proc, /sys and /run (with an empty /run/netns).
///
/// Must run in the new pid namespace, because a proc mount shows the pid namespace of the process that mounts it.
pub(super) fn make_private() -> Result<(), SandboxError> {
    cut_propagation().map_err(name_restriction)?;
    mount_fs("proc", Path::new("/proc"), NONE)?;
    mount_sysfs()?;
    mount_fs("tmpfs", Path::new("/run"), Some("mode=0755"))?;
    create_dir("/run/netns")
}

/// Some distributions give a new user namespace no capabilities, which shows only when they are used.
fn name_restriction(error: SandboxError) -> SandboxError {
    if let SandboxError::Mount {
        source: source @ (Errno::EPERM | Errno::EACCES),
        ..
    } = error
    {
        return SandboxError::Restricted { source };
    }
    error
}

/// Nothing mounted from here on is seen by the namespace this one was copied from, and the other way round.
pub(crate) fn cut_propagation() -> Result<(), SandboxError> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).map_err(failed("private", Path::new("/")))
}

/// A sysfs whose /sys/class/net shows the calling thread's network namespace.
pub(crate) fn mount_sysfs() -> Result<(), SandboxError> {
    mount_fs("sysfs", Path::new("/sys"), NONE)
}

/// Mounts a file system without device: `proc`, `sysfs`, `tmpfs`, `overlay`.
pub(crate) fn mount_fs(kind: &str, target: &Path, options: Option<&str>) -> Result<(), SandboxError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    // noexec only where nothing is ever executed: CNI binaries are installed into private directories.
    let flags = if kind == "proc" || kind == "sysfs" {
        flags | MsFlags::MS_NOEXEC
    } else {
        flags
    };
    mount(Some(kind), target, Some(kind), flags, options).map_err(failed(kind, target))
}

/// Makes `source` visible at `target`.
pub(crate) fn bind(source: &Path, target: &Path) -> Result<(), SandboxError> {
    mount(Some(source), target, NONE, MsFlags::MS_BIND, NONE).map_err(failed(&source.display().to_string(), target))
}

/// The same with everything that is mounted below `source`.
pub(crate) fn bind_tree(source: &Path, target: &Path) -> Result<(), SandboxError> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(source), target, NONE, flags, NONE).map_err(failed(&source.display().to_string(), target))
}

/// Leaves this mount out of every bind of a directory above it.
pub(crate) fn make_unbindable(target: &Path) -> Result<(), SandboxError> {
    mount(NONE, target, NONE, MsFlags::MS_UNBINDABLE, NONE).map_err(failed("unbindable", target))
}

/// `mkdir -p`.
pub(crate) fn create_dir(path: impl AsRef<Path>) -> Result<(), SandboxError> {
    let path = path.as_ref();
    std::fs::create_dir_all(path).map_err(|source| SandboxError::Create {
        path: path.display().to_string(),
        source,
    })
}

fn failed(what: &str, target: &Path) -> impl FnOnce(Errno) -> SandboxError {
    let (what, target) = (what.to_owned(), target.display().to_string());
    move |source| SandboxError::Mount { what, target, source }
}
