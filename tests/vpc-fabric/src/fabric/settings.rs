//! Kernel settings of the fabric's namespace, and of a namespace's loopback device.

use netlink::message::{LinkRef, LinkState, set_link_state};
use netlink::{Batch, RouteSocket};

use super::FabricError;

/// Brings `lo` of the calling thread's namespace up.
pub(crate) fn loopback_up() -> Result<(), FabricError> {
    let operation = "set lo up";
    let mut socket = RouteSocket::open().map_err(|source| FabricError::Socket { operation, source })?;
    let mut batch = Batch::new();
    batch.push(operation, 0, set_link_state(LinkRef::Name("lo"), LinkState::Up));
    apply(&mut socket, operation, &batch)
}

/// Sends a batch in which nothing may fail.
pub(super) fn apply(socket: &mut RouteSocket, operation: &'static str, batch: &Batch) -> Result<(), FabricError> {
    let errors = socket
        .apply(batch)
        .map_err(|source| FabricError::Socket { operation, source })?;
    match errors.into_iter().next() {
        None => Ok(()),
        Some(source) => Err(FabricError::Refused {
            operation: operation.to_owned(),
            source,
        }),
    }
}
