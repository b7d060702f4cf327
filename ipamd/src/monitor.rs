//! Turns kernel notices into events for the owner.
//!
//! Notices only say that something changed; the owner then asks for a dump, at most once per second.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use datapath::{KernelChange, Monitor};
use ipam_core::Event;
use tokio::io::unix::AsyncFd;

use crate::owner::{Inbox, Input};

/// `AsyncFd` asks for both kinds of descriptor.
#[derive(Debug)]
struct Source(Monitor);

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[expect(unsafe_code, reason = "tokio wants a promise about the descriptor")]
fn watched(source: Source) -> io::Result<AsyncFd<Source>> {
    // SAFETY: the source owns its socket, keeps the same descriptor for life, and closes it only when dropped, which is
    // after the registration has ended.
    unsafe { AsyncFd::register(source) }.map_err(Into::into)
}

/// Reads notices until the owner ends.
pub async fn run(monitor: Monitor, inbox: Inbox) -> io::Result<()> {
    let mut source = watched(Source(monitor))?;
    loop {
        let mut ready = source.readable_mut().await?;
        ready.clear_ready();
        let mut changed = false;
        while let Some(change) = ready.get_inner_mut().0.next_change()? {
            match event_of(&change) {
                Some(event) => {
                    if !inbox.send(Input::Event(event)).await {
                        return Ok(());
                    }
                }
                None => changed = true,
            }
        }
        if changed && !inbox.send(Input::Event(Event::KernelChanged)).await {
            return Ok(());
        }
    }
}

/// Devices with an alias or without a MAC are no ENIs; they count as one change among others.
fn event_of(change: &KernelChange) -> Option<Event> {
    match change {
        KernelChange::LinkAppeared {
            mac: Some(mac),
            alias: None,
            ..
        } => Some(Event::LinkAppeared { mac: *mac }),
        KernelChange::LinkGone {
            mac: Some(mac),
            alias: None,
            ..
        } => Some(Event::LinkGone { mac: *mac }),
        KernelChange::LinkAppeared { .. }
        | KernelChange::LinkGone { .. }
        | KernelChange::RouteChanged { .. }
        | KernelChange::TableChanged { .. }
        | KernelChange::RuleChanged { .. }
        | KernelChange::Overrun => None,
    }
}
