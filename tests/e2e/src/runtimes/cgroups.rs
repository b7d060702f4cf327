//! A part of the machine's cgroup tree for one scenario: its processes see it as the whole tree.
//!
//! Containers make cgroups, and no namespace takes those along when it ends. So a scenario enters a directory of its own in
//! every hierarchy and a cgroup namespace rooted there; whatever runtimes make lies below, and is removed afterwards by
//! [`sweep`], called from outside. Invariant: a directory is removed only if the process that it is named for is gone.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use vpc_fabric::Node;

use crate::wait;

/// Where every distribution mounts them.
const ROOT: &str = "/sys/fs/cgroup";
/// Followed by the process id of the scenario.
const PREFIX: &str = "vpc-runtimes-";
/// Processes of an ended sandbox leave their cgroups a moment later; on a busy machine that is long.
const EMPTY: Duration = Duration::from_secs(60);

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    kind: Kind,
    /// Where it is mounted.
    point: PathBuf,
    /// What its mount point shows: `/` or, in a container, the container's directory.
    shown: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// One of several, with these controllers (or `name=…`).
    V1(BTreeSet<String>),
    /// The unified one.
    V2,
}

impl Hierarchy {
    /// All of the machine. Mounts that are hidden by later ones count: a sandbox has a /sys of its own.
    fn all() -> Result<Vec<Self>> {
        let table = std::fs::read_to_string("/proc/self/mountinfo").context("cannot read the mount table")?;
        let mut all: Vec<Self> = Vec::new();
        for hierarchy in table.lines().filter_map(Self::parse) {
            if all.iter().all(|known| known.kind != hierarchy.kind) {
                all.push(hierarchy);
            }
        }
        ensure!(!all.is_empty(), "no cgroups are mounted under {ROOT}");
        Ok(all)
    }

    /// A line is `id parent dev root point options [tags] - kind source options`.
    fn parse(line: &str) -> Option<Self> {
        let (mount, system) = line.split_once(" - ")?;
        let mount: Vec<&str> = mount.split(' ').collect();
        let mut system = system.split(' ');
        let kind = match (system.next()?, system.nth(1)?) {
            ("cgroup", options) => Kind::V1(names(options).filter(|name| is_controller(name)).collect()),
            ("cgroup2", _) => Kind::V2,
            _ => return None,
        };
        let (shown, point) = (PathBuf::from(mount.get(3)?), PathBuf::from(mount.get(4)?));
        point.starts_with(ROOT).then_some(Self { kind, point, shown })
    }

    /// Directory of the calling process, by the text of `/proc/self/cgroup`: lines `number:controllers:path`.
    fn own(&self, membership: &str) -> Result<PathBuf> {
        let path = membership.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let is_ours = match &self.kind {
                Kind::V1(ours) => !controllers.is_empty() && names(controllers).collect::<BTreeSet<_>>() == *ours,
                Kind::V2 => controllers.is_empty(),
            };
            is_ours.then_some(path)
        });
        let path = path.with_context(|| format!("no cgroup of this process in {}", self.point.display()))?;
        let below = Path::new(path)
            .strip_prefix(&self.shown)
            .unwrap_or_else(|_| Path::new(""));
        Ok(self.point.join(below))
    }
}

fn names(list: &str) -> impl Iterator<Item = String> {
    list.split(',').map(str::to_owned)
}

/// Whether a mount option names a controller or a hierarchy rather than a property.
fn is_controller(option: &str) -> bool {
    !matches!(
        option,
        "rw" | "ro" | "xattr" | "noprefix" | "clone_children" | "cpuset_v2_mode"
    ) && !option.starts_with("release_agent=")
}

fn membership() -> Result<String> {
    std::fs::read_to_string("/proc/self/cgroup").context("cannot read the cgroups of this process")
}

/// Moves this process, which has no other thread yet, into cgroups of its own; its children see nothing else.
pub fn enter() -> Result<()> {
    let membership = membership()?;
    let mut roots = Vec::new();
    for hierarchy in Hierarchy::all()? {
        let root = hierarchy
            .own(&membership)?
            .join(format!("{PREFIX}{}", std::process::id()));
        make(&root)?;
        join(&root)?;
        roots.push((hierarchy.kind, root));
    }
    unshare(CloneFlags::CLONE_NEWCGROUP).context("cannot make a cgroup namespace")?;
    for (kind, root) in roots {
        if kind == Kind::V2 {
            // In the unified hierarchy a directory with processes of its own passes no controllers on.
            let leaf = root.join("daemons");
            make(&leaf)?;
            join(&leaf)?;
        }
    }
    Ok(())
}

fn make(directory: &Path) -> Result<()> {
    std::fs::create_dir(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    // A new cpuset of version 1 is empty, and no process may enter it.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (ours, above) = (directory.join(file), directory.with_file_name(file));
        let Ok(text) = std::fs::read_to_string(&ours) else {
            continue;
        };
        if text.trim().is_empty() && directory.join("cpuset.effective_cpus").exists() {
            std::fs::copy(&above, &ours).with_context(|| format!("cannot write {}", ours.display()))?;
        }
    }
    Ok(())
}

fn join(directory: &Path) -> Result<()> {
    let file = directory.join("cgroup.procs");
    std::fs::write(&file, "0").with_context(|| format!("cannot write {}", file.display()))
}

/// Mounts the scenario's part of the tree where programs of a node look for it.
pub fn mount_in(node: &Node) -> Result<()> {
    node.run(mount_all)?
}

fn mount_all() -> Result<()> {
    let hierarchies = Hierarchy::all()?;
    let is_unified_alone = hierarchies.iter().any(|one| one.point == Path::new(ROOT));
    if !is_unified_alone {
        mount_one("tmpfs", Path::new(ROOT), "mode=755")?;
    }
    for Hierarchy { kind, point, .. } in hierarchies {
        if !is_unified_alone {
            std::fs::create_dir_all(&point).with_context(|| format!("cannot make {}", point.display()))?;
        }
        match kind {
            Kind::V1(controllers) => {
                let controllers: Vec<String> = controllers.into_iter().collect();
                mount_one("cgroup", &point, &controllers.join(","))?;
            }
            Kind::V2 => mount_one("cgroup2", &point, "")?,
        }
    }
    Ok(())
}

fn mount_one(kind: &str, point: &Path, options: &str) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(kind), point, Some(kind), flags, Some(options))
        .with_context(|| format!("cannot mount {kind} ({options}) on {}", point.display()))
}

/// Removes the cgroups of scenarios that have ended.
pub fn sweep() -> Result<()> {
    let membership = membership()?;
    for hierarchy in Hierarchy::all()? {
        let own = hierarchy.own(&membership)?;
        let entries = std::fs::read_dir(&own).with_context(|| format!("cannot read {}", own.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read {}", own.display()))?;
            let name = entry.file_name();
            let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                remove(&entry.path())?;
            }
        }
    }
    Ok(())
}

fn remove(directory: &Path) -> Result<()> {
    wait::until("nobody is left in a scenario's cgroups", EMPTY, || {
        Ok(remove_tree(directory).is_ok().then_some(()))
    })
    .with_context(|| directory.display().to_string())
}

/// Deepest first; the files in a cgroup are the kernel's and go with it. Another process may do the same at this moment.
fn remove_tree(directory: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if is_gone(&error) => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = match entry {
            Err(error) if is_gone(&error) => return Ok(()),
            entry => entry?,
        };
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match std::fs::remove_dir(directory) {
        Err(error) if !is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}

/// A cgroup that is removed while it is open says ENODEV.
fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ENODEV as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEVERAL: &str = "31 30 0:28 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct";
    const UNIFIED: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
    const CONTAINER: &str = "31 30 0:28 /docker/abc /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids";

    #[test]
    fn own_directory_is_found_in_either_version_and_in_a_container() {
        let membership = "4:cpuacct,cpu:/jobs/7\n2:pids:/docker/abc/x\n0::/user.slice\n";
        for (line, directory) in [
            (SEVERAL, "/sys/fs/cgroup/cpu/jobs/7"),
            (UNIFIED, "/sys/fs/cgroup/user.slice"),
            (CONTAINER, "/sys/fs/cgroup/pids/x"),
        ] {
            let hierarchy = Hierarchy::parse(line).unwrap();
            assert_eq!(hierarchy.own(membership).unwrap(), Path::new(directory));
        }
    }

    #[test]
    fn other_mounts_are_no_hierarchies() {
        let line = "22 1 0:20 / /sys rw - sysfs sysfs rw";
        assert_eq!(Hierarchy::parse(line), None);
    }
}
