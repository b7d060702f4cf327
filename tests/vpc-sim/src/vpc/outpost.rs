//! A thread that stays in an internet host's namespace, so that `exec` has something to follow there.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use nix::unistd::gettid;
use vpc_fabric::{NetnsRef, PlaceError};

/// Ends its thread when dropped.
#[derive(Debug)]
pub(super) struct Outpost {
    tid: i32,
    stay: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Outpost {
    /// Sends a thread into the namespace.
    pub(super) fn start(name: &str, netns: NetnsRef) -> Result<Self, PlaceError> {
        let (stay, stayed) = channel::<()>();
        let (tell, told) = channel();
        let work = move || {
            let entered = netns.enter().map(|()| gettid().as_raw());
            let is_inside = entered.is_ok();
            if tell.send(entered).is_ok() && is_inside {
                // Nothing is ever sent: this waits for the sender's end.
                let _ = stayed.recv();
            }
        };
        let failed = |source| PlaceError::Thread {
            name: name.to_owned(),
            source,
        };
        let thread = std::thread::Builder::new()
            .name(format!("at-{name}"))
            .spawn(work)
            .map_err(failed)?;
        let tid = told.recv().unwrap_or_else(|_| Err(PlaceError::Gone(name.to_owned())))?;
        Ok(Self {
            tid,
            stay: Some(stay),
            thread: Some(thread),
        })
    }

    /// As the sandbox sees it.
    pub(super) fn tid(&self) -> i32 {
        self.tid
    }
}

impl Drop for Outpost {
    fn drop(&mut self) {
        drop(self.stay.take());
        if let Some(thread) = self.thread.take() {
            // It does nothing that could fail.
            let _ = thread.join();
        }
    }
}
