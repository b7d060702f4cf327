//! Why a VPC cannot be started, or its data plane cannot follow.

use std::net::SocketAddrV4;
use std::path::PathBuf;

use vpc_fabric::{FabricError, HostError, NodeError, PlaceError};
use vpc_types::EniId;

use crate::config::ConfigError;

/// See the module's description.
#[derive(Debug, thiserror::Error)]
pub enum VpcError {
    /// The configuration does not fit together.
    #[error("bad configuration")]
    Config(#[source] Box<ConfigError>),
    /// The fabric cannot be made.
    #[error("cannot set up the fabric")]
    Fabric(#[source] Box<FabricError>),
    /// A node cannot be made.
    #[error("cannot make node {node}")]
    Node {
        /// Which.
        node: String,
        /// Why.
        #[source]
        source: Box<NodeError>,
    },
    /// An internet host cannot be entered.
    #[error("cannot enter internet host {host}")]
    InternetHost {
        /// Which.
        host: String,
        /// Why.
        #[source]
        source: PlaceError,
    },
    /// The fabric refused a change.
    #[error("the fabric cannot {operation} {eni}")]
    Change {
        /// What was to be done.
        operation: &'static str,
        /// With which ENI.
        eni: EniId,
        /// Why.
        #[source]
        source: Box<FabricError>,
    },
    /// The primary device of a node cannot be configured.
    #[error("cannot configure the primary device of node {node}")]
    Device {
        /// Which node.
        node: String,
        /// Why.
        #[source]
        source: Box<HostError>,
    },
    /// An endpoint's address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddrV4,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file for a node's agents cannot be written.
    #[error("node {node}: cannot write {path}")]
    NodeFile {
        /// Which node.
        node: String,
        /// As the node sees it.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The servers' thread or runtime cannot be started.
    #[error("cannot start the servers")]
    Servers(#[source] std::io::Error),
}

impl From<ConfigError> for VpcError {
    fn from(error: ConfigError) -> Self {
        Self::Config(Box::new(error))
    }
}
