//! The node's private view of the file system, kept in a directory that the rest of the sandbox can read.

use std::path::{Component, Path, PathBuf};

use super::root;
use crate::sandbox::SandboxError;
use crate::sandbox::mounts::{bind, create_dir, cut_propagation, mount_fs, mount_sysfs};

/// Directories that every node has for itself.
const ALWAYS_PRIVATE: [&str; 1] = ["/var/log"];

/// Runs on the node's thread: binds `from/<path>` over each private directory, `/run` last (because `from` lies in
/// the sandbox's `/run` and is hidden by that).
pub(super) fn prepare(from: &Path, private: &[PathBuf]) -> Result<(), SandboxError> {
    cut_propagation()?;
    let missing = root::missing_in_root(private);
    if !missing.is_empty() {
        root::replace(&missing)?;
    }
    mount_sysfs()?;
    for dir in ALWAYS_PRIVATE
        .iter()
        .map(Path::new)
        .chain(private.iter().map(PathBuf::as_path))
    {
        let source = under(from, dir);
        create_dir(&source)?;
        make_mount_point(dir)?;
        bind(&source, dir)?;
    }
    let run = under(from, Path::new("/run"));
    create_dir(run.join("netns"))?;
    // /var/run is a link to /run on systems with systemd; where it is a directory of its own it must not differ.
    let var_run = Path::new("/var/run");
    if var_run.is_dir() && !var_run.is_symlink() {
        bind(&run, var_run)?;
    }
    bind(&run, Path::new("/run"))
}

/// See `Node::outside`.
pub(super) fn outside(from: &Path, inside: &Path) -> PathBuf {
    let inside = inside
        .strip_prefix("/var")
        .ok()
        .filter(|rest| rest.starts_with("run"))
        .unwrap_or(inside);
    under(from, inside)
}

fn under(from: &Path, absolute: &Path) -> PathBuf {
    absolute
        .components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .fold(from.to_owned(), |p, c| p.join(c))
}

/// Makes `dir` exist without changing the machine's own files: on an overlay over the nearest existing parent. What stands in `/`
/// itself is there already, see [`root`].
fn make_mount_point(dir: &Path) -> Result<(), SandboxError> {
    if dir.is_dir() {
        return Ok(());
    }
    let no_parent = || SandboxError::Create {
        path: dir.display().to_string(),
        source: std::io::Error::new(
            std::io::ErrorKind::NotFound,
            "no parent directory but the root to put it on",
        ),
    };
    let parent = dir
        .ancestors()
        .skip(1)
        .find(|p| p.is_dir())
        .filter(|p| *p != Path::new("/"))
        .ok_or_else(no_parent)?;
    // Both layers of the overlay's writable side must be on one file system that is not the one below.
    let scratch = PathBuf::from("/run/nodes/.overlay")
        .join(format!("{}", nix::unistd::gettid()))
        .join(under(Path::new(""), parent));
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    create_dir(&upper)?;
    create_dir(&work)?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={},userxattr",
        parent.display(),
        upper.display(),
        work.display()
    );
    mount_fs("overlay", parent, Some(&options))?;
    create_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_node_are_found_in_its_directory() {
        let from = Path::new("/run/nodes/n1");
        assert_eq!(
            outside(from, Path::new("/run/aws-node/x")),
            Path::new("/run/nodes/n1/run/aws-node/x")
        );
        assert_eq!(
            outside(from, Path::new("/var/run/aws-node/x")),
            Path::new("/run/nodes/n1/run/aws-node/x")
        );
        assert_eq!(
            outside(from, Path::new("/var/log/a")),
            Path::new("/run/nodes/n1/var/log/a")
        );
    }
}
