//! A node: a place with its own network and mounts, set up as an EKS worker's host is before any agent runs.
//!
//! Owns the node's private directories (`/run`, `/var/log`, and what the caller names), sysctls, the processes started
//! in it, and the network namespaces of its pods. Does not own ENIs: the fabric puts those in.
//!
//! Invariant: a process of the node sees its own `/run`, `/sys` and private directories under the usual absolute
//! names, and two nodes never share one. The same files are seen from the rest of the sandbox under [`Node::outside`].
//! Called by `vpc-sim`, the end-to-end tests and the demo.

mod child;
mod command;
mod enter;
mod files;
mod root;

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Pid;

pub use child::{NodeChild, Output};
pub use command::{CommandSpec, Stream};
pub use enter::{EnterError, NodeAddress, exec_in};

use crate::host::{DeviceSetup, HostError, configure_device};
use crate::place::{Isolation, NetnsRef, Place, PlaceError};
use crate::sandbox::SandboxError;

/// Where the sandbox keeps the nodes' private directories.
const NODES_DIR: &str = "/run/nodes";
/// Where pods' namespaces are named; `ip netns` looks there too.
const NETNS_DIR: &str = "/run/netns";

/// Sysctls that a worker of EKS has before aws-node starts: kubelet and the AMI turn forwarding on. `rp_filter` stays
/// at the kernel's 0 in `all` and `default`; the agent under test sets what it needs on the primary ENI.
const NODE_SYSCTLS: [(&str, &str); 1] = [("net/ipv4/ip_forward", "1")];

/// What a caller decides about a node.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Name: of its directory in the sandbox, and in errors. Letters, digits and dashes.
    pub name: String,
    /// Absolute directories which the node shall have for itself, empty at first, besides `/run` and `/var/log`. One
    /// that does not exist appears on an overlay over its nearest existing parent, or in a root of the node's own.
    pub private_dirs: Vec<PathBuf>,
    /// Further sysctls, as paths under /proc/sys with their values.
    pub sysctls: Vec<(String, String)>,
}

impl NodeConfig {
    /// A node with nothing special.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            private_dirs: Vec::new(),
            sysctls: Vec::new(),
        }
    }
}

/// Something a node could not do.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Namespace or thread.
    #[error("node {node}: no namespaces")]
    Place {
        /// Which node.
        node: String,
        /// Why.
        #[source]
        source: PlaceError,
    },
    /// Private directories.
    #[error("node {node}: cannot set up private directories")]
    Files {
        /// Which node.
        node: String,
        /// Why.
        #[source]
        source: SandboxError,
    },
    /// A sysctl or directory entry could not be written.
    #[error("cannot write {path}")]
    Write {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A name that is no file name.
    #[error("{0:?} is no valid name: letters, digits, dots, underscores and dashes only")]
    Name(String),
    /// A program could not be started.
    #[error("cannot start {program}")]
    Spawn {
        /// Which.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Input, output or end of a program could not be waited for.
    #[error("lost contact with {program}")]
    Wait {
        /// Which.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A program was still running at its deadline and was killed.
    #[error("{program} did not end within {deadline:?}")]
    Deadline {
        /// Which.
        program: String,
        /// How long it had.
        deadline: Duration,
    },
    /// A pod's namespace could not be made or removed.
    #[error("pod namespace {path}: {operation} failed")]
    PodNetns {
        /// Its path in the node.
        path: String,
        /// The system call.
        operation: &'static str,
        /// Why.
        #[source]
        source: Errno,
    },
    /// A device could not be configured.
    #[error("node {node}")]
    Device {
        /// Which node.
        node: String,
        /// Why.
        #[source]
        source: Box<HostError>,
    },
    /// `lo` could not be set up.
    #[error("node {node}: cannot bring lo up")]
    Loopback {
        /// Which node.
        node: String,
        /// Why.
        #[source]
        source: Box<crate::fabric::FabricError>,
    },
}

/// See the module's description. Dropping it ends its processes and, with them, its namespaces.
#[derive(Debug)]
pub struct Node {
    place: Place,
    directory: PathBuf,
}

/// A pod's network namespace, made as a container runtime does.
#[derive(Debug, Clone)]
pub struct PodNetns {
    /// Path inside the node: what goes into CNI_NETNS.
    pub path: PathBuf,
    /// The namespace itself, for probes.
    pub netns: NetnsRef,
}

impl Node {
    /// Makes the namespaces, private directories and sysctls; `lo` is up.
    pub fn create(config: &NodeConfig) -> Result<Self, NodeError> {
        check_name(&config.name)?;
        let directory = Path::new(NODES_DIR).join(&config.name);
        claim(&directory)?;
        let place = Place::create(&config.name, Isolation::NetworkAndMounts).map_err(in_node(&config.name))?;
        // From here on a failure drops the node, which cleans up.
        let node = Self { place, directory };
        node.prepare(config)?;
        Ok(node)
    }

    fn prepare(&self, config: &NodeConfig) -> Result<(), NodeError> {
        let name = || self.name().to_owned();
        let (private, from) = (config.private_dirs.clone(), self.directory.clone());
        let prepared = self.run(move || files::prepare(&from, &private))?;
        prepared.map_err(|source| NodeError::Files { node: name(), source })?;
        let sysctls = config.sysctls.clone();
        self.run(move || write_sysctls(&sysctls))??;
        let lo = self.run(crate::fabric::loopback_up)?;
        lo.map_err(|source| NodeError::Loopback {
            node: name(),
            source: Box::new(source),
        })
    }

    /// The name given at creation.
    pub fn name(&self) -> &str {
        self.place.name()
    }

    /// Its network namespace, where ENIs are attached.
    pub fn netns(&self) -> &NetnsRef {
        self.place.netns()
    }

    /// A thread id (as seen in the sandbox) whose namespaces are the node's: for `nsenter`, and [`exec_in`].
    pub fn pid(&self) -> Pid {
        self.place.tid()
    }

    /// Where the rest of the sandbox sees a file of the node that lies in `/run`, `/var/run`, `/var/log` or another
    /// private directory: `/run/aws-node/ipamd.sock` of node-1 is `/run/nodes/node-1/run/aws-node/ipamd.sock`.
    pub fn outside(&self, inside: &Path) -> PathBuf {
        files::outside(&self.directory, inside)
    }

    /// Runs `work` on a thread in the node's namespaces.
    pub fn run<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> Result<R, NodeError> {
        self.place.run(work).map_err(in_node(self.name()))
    }

    /// Configures a device as DHCP does at boot: see [`crate::host::configure_device`].
    pub fn configure_device(&self, setup: &DeviceSetup) -> Result<(), NodeError> {
        let setup = setup.clone();
        let configured = self.run(move || configure_device(&setup))?;
        configured.map_err(|source| NodeError::Device {
            node: self.name().to_owned(),
            source: Box::new(source),
        })
    }

    /// Starts a program in the node.
    pub fn spawn(&self, command: &CommandSpec) -> Result<NodeChild, NodeError> {
        let prepared = command.prepare()?;
        self.run(move || prepared.spawn())?
    }

    /// Runs a program to its end with `input` on its stdin, and collects stdout and stderr. At the deadline it is
    /// killed and [`NodeError::Deadline`] returned. Streams set in `command` are ignored.
    pub fn output(&self, command: &CommandSpec, input: &[u8], deadline: Duration) -> Result<Output, NodeError> {
        let piped = command
            .clone()
            .stdin(Stream::Pipe)
            .stdout(Stream::Pipe)
            .stderr(Stream::Pipe);
        self.spawn(&piped)?.communicate(input, deadline)
    }

    /// Makes an empty network namespace named `/run/netns/NAME` in the node; `lo` is down, as runtimes leave it.
    pub fn add_pod_netns(&self, name: &str) -> Result<PodNetns, NodeError> {
        check_name(name)?;
        let path = Path::new(NETNS_DIR).join(name);
        let target = path.clone();
        let netns = self.run(move || {
            // The node's thread must stay in the node: a short-lived one makes the namespace.
            std::thread::scope(|scope| {
                scope
                    .spawn(|| name_new_netns(&target))
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })??;
        Ok(PodNetns { path, netns })
    }

    /// Removes the name; the namespace goes when nothing else holds it. Absent already is not an error.
    pub fn delete_pod_netns(&self, name: &str) -> Result<(), NodeError> {
        check_name(name)?;
        let path = Path::new(NETNS_DIR).join(name);
        self.run(move || remove_netns_name(&path))?
    }

    /// Opens a pod's namespace that something else (a container runtime) named in this node.
    pub fn pod_netns(&self, path: &Path) -> Result<PodNetns, NodeError> {
        let path = path.to_owned();
        let opened = path.clone();
        let netns = self
            .run(move || NetnsRef::open(&opened))?
            .map_err(in_node(self.name()))?;
        Ok(PodNetns { path, netns })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        child::kill_all_around(self.pid());
        // Nobody is left to use it, and the name is free for another node. A rest would only take memory.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn in_node(node: &str) -> impl FnOnce(PlaceError) -> NodeError {
    let node = node.to_owned();
    move |source| NodeError::Place { node, source }
}

/// Two nodes of one name would share their files.
fn claim(directory: &Path) -> Result<(), NodeError> {
    let failed = |source| NodeError::Write {
        path: directory.display().to_string(),
        source,
    };
    std::fs::create_dir_all(NODES_DIR)
        .and_then(|()| std::fs::create_dir(directory))
        .map_err(failed)
}

fn check_name(name: &str) -> Result<(), NodeError> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty() && name.chars().all(good) && !name.starts_with('.') {
        Ok(())
    } else {
        Err(NodeError::Name(name.to_owned()))
    }
}

fn write_sysctls(extra: &[(String, String)]) -> Result<(), NodeError> {
    let own = NODE_SYSCTLS.iter().map(|(name, value)| (*name, *value));
    let all = own.chain(extra.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    for (name, value) in all {
        let path = format!("/proc/sys/{name}");
        std::fs::write(&path, value).map_err(|source| NodeError::Write { path, source })?;
    }
    Ok(())
}

fn name_new_netns(path: &Path) -> Result<NetnsRef, NodeError> {
    let failed = |operation| {
        move |source| NodeError::PodNetns {
            path: path.display().to_string(),
            operation,
            source,
        }
    };
    let write = |source| NodeError::Write {
        path: path.display().to_string(),
        source,
    };
    std::fs::create_dir_all(NETNS_DIR).map_err(write)?;
    std::fs::File::create_new(path).map_err(write)?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(failed("unshare"))?;
    let own = Path::new("/proc/thread-self/ns/net");
    mount(Some(own), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(failed("mount"))?;
    NetnsRef::current().map_err(|source| NodeError::Place {
        node: path.display().to_string(),
        source,
    })
}

fn remove_netns_name(path: &Path) -> Result<(), NodeError> {
    let failed = |operation, source| NodeError::PodNetns {
        path: path.display().to_string(),
        operation,
        source,
    };
    match umount2(path, MntFlags::MNT_DETACH) {
        // EINVAL: a leftover file that is no mount point.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(source) => return Err(failed("umount", source)),
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(NodeError::Write {
            path: path.display().to_string(),
            source: error,
        }),
        _ => Ok(()),
    }
}
