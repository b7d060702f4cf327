//! What can go wrong in the fabric.

use std::net::Ipv4Addr;

use vpc_types::EniId;

/// Something the fabric could not do. Nothing half-made stays unless the variant says so.
#[derive(Debug, thiserror::Error)]
pub enum FabricError {
    /// A sysctl could not be written.
    #[error("cannot write {path}")]
    Sysctl {
        /// Path under /proc/sys.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The netlink socket failed; the outcome of the request is unknown.
    #[error("netlink: {operation}")]
    Socket {
        /// What was being done.
        operation: &'static str,
        /// Why.
        #[source]
        source: netlink::SocketError,
    },
    /// The kernel refused a request.
    #[error("the kernel refused to {operation}")]
    Refused {
        /// What was being done.
        operation: &'static str,
        /// Why.
        #[source]
        source: netlink::MessageError,
    },
    /// A device that was just made is not there.
    #[error("no device {device}")]
    Device {
        /// Its name.
        device: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Devices came and went during each try to list them.
    #[error("devices of the fabric change too fast to be listed")]
    Unsettled,
    /// No such ENI is attached.
    #[error("{0} is not attached")]
    NotAttached(EniId),
    /// That ENI is attached already.
    #[error("{0} is attached already")]
    AlreadyAttached(EniId),
    /// All names that were tried are taken in the node.
    #[error("no free device name like {wished:?} in the node for {eni}")]
    DeviceName {
        /// Which ENI.
        eni: EniId,
        /// The name asked for.
        wished: String,
    },
    /// The public address is in use for another private one.
    #[error("public address {public} belongs to {owner}")]
    PublicTaken {
        /// The public address.
        public: Ipv4Addr,
        /// Its private address.
        owner: Ipv4Addr,
    },
    /// The filter could not be changed; nothing of the change was applied.
    #[error("filter: {operation}")]
    Filter {
        /// What was being done.
        operation: &'static str,
        /// Why.
        #[source]
        source: nft::CommitError,
    },
    /// The filter's counters could not be read.
    #[error("filter: read {what}")]
    FilterRead {
        /// Set or counter.
        what: &'static str,
        /// Why.
        #[source]
        source: nft::ReadError,
    },
    /// More flows than the record holds.
    #[error("the record of flows is full")]
    RecordFull,
    /// A namespace or thread of an internet host.
    #[error("internet host {name}")]
    InternetHost {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: crate::place::PlaceError,
    },
}
