//! A place: one thread that lives in network (and mount) namespaces of its own and runs closures there.
//!
//! Owns the life of those namespaces: they exist while the thread does, or while a process or mount holds them. Does
//! not own what is in them. A process started from the thread is born in the same namespaces, so nothing ever has to
//! fork a multi-threaded process and run code in the child.
//!
//! Invariant: the thread never leaves the namespaces it entered first, so a closure always runs where it was meant to.
//! Called by `node` and `fabric`.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Pid, gettid};

/// A network namespace, kept alive by this handle.
#[derive(Debug, Clone)]
pub struct NetnsRef(Arc<File>);

impl NetnsRef {
    /// The calling thread's.
    pub fn current() -> Result<Self, PlaceError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The one a file stands for: `/run/netns/NAME` or `/proc/PID/ns/net`.
    pub fn open(path: &Path) -> Result<Self, PlaceError> {
        let file = File::open(path).map_err(|source| PlaceError::Open {
            path: path.display().to_string(),
            source,
        })?;
        Ok(Self(Arc::new(file)))
    }

    /// Number that identifies the namespace while it exists (the inode of its file).
    pub fn inode(&self) -> Result<u64, PlaceError> {
        let metadata = self.0.metadata();
        metadata.map(|m| m.ino()).map_err(|source| PlaceError::Open {
            path: "netns handle".into(),
            source,
        })
    }

    /// Runs `work` on a new thread inside this namespace and waits for it. A panic in `work` is passed on.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> Result<R, PlaceError> {
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                self.enter()?;
                Ok(work())
            });
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into this namespace, for good. Only for threads made for that.
    pub fn enter(&self) -> Result<(), PlaceError> {
        setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|source| PlaceError::Namespace {
            operation: "setns",
            source,
        })
    }
}

impl AsFd for NetnsRef {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What a place does not share with the thread that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Its own network.
    Network,
    /// Its own network and mounts.
    NetworkAndMounts,
}

/// A place that could not be made, or is gone.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The kernel refused a namespace call.
    #[error("{operation} failed")]
    Namespace {
        /// `unshare` or `setns`.
        operation: &'static str,
        /// Why.
        #[source]
        source: Errno,
    },
    /// A namespace file could not be opened.
    #[error("cannot open {path}")]
    Open {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No thread could be started.
    #[error("cannot start the thread of {name}")]
    Thread {
        /// Name of the place.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The thread ended because a closure panicked.
    #[error("the thread of {0} has ended")]
    Gone(String),
}

type Job = Box<dyn FnOnce() + Send>;

/// See the module's description. Dropping it ends the thread.
#[derive(Debug)]
pub struct Place {
    name: String,
    tid: Pid,
    netns: NetnsRef,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Place {
    /// New, empty namespaces (`lo` is down), named for error messages and as thread name.
    pub fn create(name: &str, isolation: Isolation) -> Result<Self, PlaceError> {
        let (jobs, queue) = channel();
        let (born, birth) = channel();
        // The kernel keeps 15 characters of a thread's name.
        let thread_name = name.chars().take(15).collect();
        let thread = std::thread::Builder::new()
            .name(thread_name)
            .spawn(move || {
                let _ = born.send(isolate(isolation));
                work(&queue);
            })
            .map_err(|source| PlaceError::Thread {
                name: name.to_owned(),
                source,
            })?;
        let (tid, netns) = birth.recv().map_err(|_| PlaceError::Gone(name.to_owned()))??;
        Ok(Self {
            name: name.to_owned(),
            tid,
            netns,
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// The name given at creation.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The thread's id: `nsenter -t TID -n -m` from within the sandbox enters the place.
    pub fn tid(&self) -> Pid {
        self.tid
    }

    /// The place's network namespace.
    pub fn netns(&self) -> &NetnsRef {
        &self.netns
    }

    /// Runs `work` on the place's thread and waits for its result; the work must end by itself.
    pub fn run<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> Result<R, PlaceError> {
        let gone = || PlaceError::Gone(self.name.clone());
        let (done, result) = channel();
        let job: Job = Box::new(move || {
            let _ = done.send(work());
        });
        self.jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
        result.recv().map_err(|_| gone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic in a closure was reported by its `run`.
            let _ = thread.join();
        }
    }
}

fn isolate(isolation: Isolation) -> Result<(Pid, NetnsRef), PlaceError> {
    let flags = match isolation {
        Isolation::Network => CloneFlags::CLONE_NEWNET,
        // The kernel adds CLONE_FS: a thread with its own mounts needs its own root and working directory.
        Isolation::NetworkAndMounts => CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS,
    };
    unshare(flags).map_err(|source| PlaceError::Namespace {
        operation: "unshare",
        source,
    })?;
    Ok((gettid(), NetnsRef::current()?))
}

fn work(queue: &Receiver<Job>) {
    while let Ok(job) = queue.recv() {
        job();
    }
}
