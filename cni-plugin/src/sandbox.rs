//! The sandbox's namespace: whether it is there, and whether it is not the host's.

use std::path::Path;

use cni_spec::env::OwnNetns;
use cni_spec::{CniError, ErrorCode, Sandbox};
use netlink::{NetNs, NetNsError};

use crate::rpc::chain;

/// Opens the namespace that ADD needs. A runtime that names the plugin's own one would have the host rewired.
pub(crate) fn open_required(sandbox: &Sandbox) -> Result<NetNs, CniError> {
    let path = sandbox.netns.as_deref().unwrap_or_else(|| Path::new(""));
    let netns = NetNs::open(path).map_err(|error| invalid(&error))?;
    refuse_own(sandbox, &netns)?;
    Ok(netns)
}

/// For DEL, which must succeed when the namespace is gone.
pub(crate) fn check_if_there(sandbox: &Sandbox) -> Result<(), CniError> {
    let Some(path) = sandbox.netns.as_deref() else {
        return Ok(());
    };
    match NetNs::open(path) {
        Ok(netns) => refuse_own(sandbox, &netns),
        Err(_) => Ok(()),
    }
}

fn refuse_own(sandbox: &Sandbox, netns: &NetNs) -> Result<(), CniError> {
    if sandbox.own_netns == OwnNetns::Allowed {
        return Ok(());
    }
    let own = NetNs::current().map_err(|error| invalid(&error))?;
    let same = own
        .is_same(netns)
        .map_err(|error| CniError::new(ErrorCode::InvalidNetns, format!("CNI_NETNS: {error}")))?;
    if same {
        let path = netns.path().display();
        let msg = format!("plugin's netns and netns from CNI_NETNS should not be the same: {path} is the plugin's own");
        return Err(CniError::new(ErrorCode::InvalidNetns, msg));
    }
    Ok(())
}

fn invalid(error: &NetNsError) -> CniError {
    CniError::new(ErrorCode::InvalidNetns, format!("CNI_NETNS: {}", chain(error)))
}
