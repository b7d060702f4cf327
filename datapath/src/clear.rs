//! Removal of an address' host state: rules and the /32 route.
//!
//! Rules are keyed by address alone, so a late removal for an old sandbox could hit the pod that got the address next. The
//! device of the /32 route tells whose the address is. Invariant: nothing of another owner is touched. Called by the daemon,
//! and by the plugin when the daemon is away.

use std::net::Ipv4Addr;

use netlink::message::{LinkRef, Rule, route_key};
use netlink::packet::RouteNetlinkMessage as Message;
use netlink::packet::route::RouteAttribute;
use netlink::{AnswerError, Batch, Errno, RouteSocket, SocketError};
use vpc_types::RouteTableId;

use crate::ids::{RULE_FROM_POD, RULE_TO_POD};
pub use crate::kernel::HostRouteError;
use crate::kernel::{find_host_route, find_link};

/// Equal rules per address that are deleted at most. Old releases made one per VPC CIDR, and EC2 allows 50 of those.
const RULES_MAX: usize = 256;

/// Who is supposed to own the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner<'a> {
    /// The container id, which is the alias of host veths that we made.
    pub container_id: &'a str,
    /// Name of the host veth, which decides for veths without alias, made by a predecessor.
    pub host_veth: Option<&'a str>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cleared {
    /// Rules or route were there and are gone.
    Removed,
    /// There was neither rule nor route.
    NothingThere,
    /// There is no route that tells whose the address is; rules, if there are any, were not touched.
    OwnerUnknown,
    /// The route belongs to somebody else; nothing was touched.
    NewOwner {
        /// The device of the route.
        device: String,
    },
}

/// State that may still be there.
#[derive(Debug, thiserror::Error)]
pub enum ClearError {
    /// The owner cannot be determined; nothing was touched.
    #[error("look up route to {address}")]
    Route {
        /// The address.
        address: Ipv4Addr,
        /// What the kernel said.
        #[source]
        source: HostRouteError,
    },
    /// The owner cannot be determined; nothing was touched.
    #[error("look at the device of the route to {address}")]
    Device {
        /// The address.
        address: Ipv4Addr,
        /// What the kernel said.
        #[source]
        source: AnswerError,
    },
    /// Some of it was refused; the rest is gone.
    #[error("remove rules and route of {address}")]
    Remove {
        /// The address.
        address: Ipv4Addr,
        /// The first refusal.
        #[source]
        source: AnswerError,
    },
}

/// Removes the rules of an address, in whatever table they look, and its route, unless they have another owner. Without a
/// route the rules are taken for the owner's, so the caller must know that nobody else is given the address meanwhile: it
/// is leased, or rests.
pub fn clear(s: &mut RouteSocket, address: Ipv4Addr, owner: &Owner<'_>) -> Result<Cleared, ClearError> {
    match look(s, address, owner)? {
        Found::Foreign { device } => Ok(Cleared::NewOwner { device }),
        Found::Own(index) => remove(s, address, Some(index)),
        Found::NoRoute => remove(s, address, None),
    }
    .map_err(|source| ClearError::Remove { address, source })
}

/// As [`clear`], for a caller that knows nothing about leases: removes only what the route's device proves to be the
/// owner's. Rules without a route may be those that another pod's wiring is just making, and whoever has the lease removes
/// them otherwise.
pub fn clear_own(s: &mut RouteSocket, address: Ipv4Addr, owner: &Owner<'_>) -> Result<Cleared, ClearError> {
    match look(s, address, owner)? {
        Found::Foreign { device } => Ok(Cleared::NewOwner { device }),
        Found::NoRoute => Ok(Cleared::OwnerUnknown),
        Found::Own(index) => remove(s, address, Some(index)).map_err(|source| ClearError::Remove { address, source }),
    }
}

/// Whose the route of an address is.
enum Found {
    NoRoute,
    Own(u32),
    Foreign { device: String },
}

fn look(s: &mut RouteSocket, address: Ipv4Addr, owner: &Owner<'_>) -> Result<Found, ClearError> {
    let device = find_host_route(s, address).map_err(|source| ClearError::Route { address, source })?;
    let Some(index) = device else {
        return Ok(Found::NoRoute);
    };
    let link = find_link(s, LinkRef::Index(index)).map_err(|source| ClearError::Device { address, source })?;
    Ok(match link {
        // A device that vanished meanwhile took the route along: what is left are rules.
        None => Found::NoRoute,
        Some(link) if owner.owns(link.alias.as_deref(), &link.name) => Found::Own(index),
        Some(link) => Found::Foreign { device: link.name },
    })
}

impl Owner<'_> {
    fn owns(&self, alias: Option<&str>, name: &str) -> bool {
        match alias {
            Some(alias) if !alias.is_empty() => alias == self.container_id,
            _ => self.host_veth == Some(name),
        }
    }
}

/// One datagram when there is at most one rule of each kind: the second deletion of each says that there is no more.
fn remove(s: &mut RouteSocket, address: Ipv4Addr, device: Option<u32>) -> Result<Cleared, AnswerError> {
    let patterns = [
        Rule {
            priority: RULE_TO_POD,
            to: Some(address),
            ..Rule::default()
        },
        Rule {
            priority: RULE_FROM_POD,
            from: Some(address),
            ..Rule::default()
        },
    ];
    let mut batch = Batch::new();
    for pattern in patterns.iter().flat_map(|pattern| [pattern; 2]) {
        batch.push("delete rule", 0, Message::DelRule(pattern.message()));
    }
    if let Some(index) = device {
        let mut route = route_key(address, 32, RouteTableId::MAIN.0);
        route.attributes.push(RouteAttribute::Oif(index));
        batch.push("delete route to pod", 0, Message::DelRoute(route));
    }
    let errors = s.apply(&batch)?;
    if let Some(error) = errors.iter().find(|error| !is_gone(error.errno)) {
        return Err(error.clone().into());
    }
    for (pattern, second) in patterns.into_iter().zip([1, 3]) {
        if !errors.iter().any(|error| error.index == second) {
            delete_rules(s, pattern)?;
        }
    }
    Ok(if errors.len() == batch.len() {
        Cleared::NothingThere
    } else {
        Cleared::Removed
    })
}

fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ESRCH | Errno::ENODEV)
}

/// Deletes rules that match the pattern until there is none.
pub(crate) fn delete_rules(s: &mut RouteSocket, pattern: Rule) -> Result<(), AnswerError> {
    for _ in 0..RULES_MAX {
        match s.request("delete rule", 0, Message::DelRule(pattern.message())) {
            Ok(()) => {}
            Err(error) if error.errno() == Some(Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    // Somebody adds them as fast as we delete: not gone, and no reason to go on.
    Err(SocketError::Malformed {
        operation: "delete rules".to_owned(),
        reason: format!("more than {RULES_MAX} equal rules"),
    }
    .into())
}
