//! Turns kernel notices into events for the owner, and into wishes for repairs.
//!
//! Notices only say that something changed; the owner then asks for a dump, at most once per second. What may be missing is
//! looked at much sooner ([`crate::repair`]).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use datapath::{KernelChange, Monitor, NftEvents, RulesetChange};
use ipam_core::Event;
use tokio::io::unix::AsyncFd;

use crate::owner::{Inbox, Input};
use crate::repair::{Disturbance, Repairs};

/// `AsyncFd` asks for both kinds of descriptor.
#[derive(Debug)]
struct Source<T>(T);

impl<T: AsFd> AsFd for Source<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<T: AsFd> AsRawFd for Source<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[expect(unsafe_code, reason = "tokio wants a promise about the descriptor")]
fn watched<T: AsFd>(source: T) -> io::Result<AsyncFd<Source<T>>> {
    let source = Source(source);
    // SAFETY: the source, a monitor of datapath, owns its socket, keeps the same descriptor for life, and closes it only when dropped, which is
    // after the registration has ended.
    unsafe { AsyncFd::register(source) }.map_err(Into::into)
}

/// Reads notices until the owner ends. `mtu` is what ENIs should have.
pub async fn run(monitor: Monitor, mtu: u16, inbox: Inbox, repairs: Repairs) -> io::Result<()> {
    let mut source = watched(monitor)?;
    loop {
        let mut ready = source.readable_mut().await?;
        ready.clear_ready();
        let (mut changed, mut disturbance) = (false, Disturbance::default());
        while let Some(change) = ready.get_inner_mut().0.next_change()? {
            disturbance.add(&change, mtu);
            match event_of(&change) {
                Some(event) => {
                    if !inbox.send(Input::Event(event)).await {
                        return Ok(());
                    }
                }
                None => changed = true,
            }
        }
        repairs.wish(disturbance);
        if changed && !inbox.send(Input::Event(Event::KernelChanged)).await {
            return Ok(());
        }
    }
}

/// Reads notices of changed rulesets for as long as the daemon runs.
pub async fn run_rulesets(events: NftEvents, repairs: Repairs) -> io::Result<()> {
    let mut source = watched(events)?;
    loop {
        let mut ready = source.readable_mut().await?;
        ready.clear_ready();
        while let Some(change) = ready.get_inner_mut().0.next_change()? {
            repairs.wish_ruleset(match change {
                RulesetChange::Committed { port, program, .. } => format!("{program} (netlink port {port})"),
                RulesetChange::Overrun => "unknown".to_owned(),
            });
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
        | KernelChange::AddressRemoved { .. }
        | KernelChange::Overrun => None,
    }
}
