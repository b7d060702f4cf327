//! The data plane of the simulated VPC: namespaces, links, routes and filters of one machine's kernel.
//!
//! Owns: the sandbox that leaves nothing behind ([`sandbox`]), nodes as network + mount namespaces ([`node`]), the
//! fabric that moves packets between them as a VPC does ([`fabric`]), and probes that look at it from inside
//! ([`probe`]). Does not own: the meaning of EC2 calls, limits or timing; a model drives this crate and tells it which
//! ENI is where and which address belongs to whom.
//!
//! Invariant: nothing outside the sandbox is touched, and everything inside it ends with its first process.
//! Called by `vpc-sim`, the end-to-end tests and the demo.

pub mod fabric;
pub mod host;
pub mod node;
pub mod place;
pub mod probe;
pub mod sandbox;

mod os;

pub use fabric::{Fabric, FabricConfig, FabricError};
pub use host::{DefaultRoute, DeviceSetup, Host, HostError, configure_device};
pub use node::{Node, NodeConfig, NodeError};
pub use place::{NetnsRef, Place, PlaceError};
pub use sandbox::{Entry, Privilege, Sandbox, SandboxConfig, SandboxError};

#[cfg(test)]
mod tests {
    use std::marker::PhantomData;

    use super::*;

    fn assert_send<T: Send>(_: PhantomData<T>) {}

    #[test]
    fn a_fabric_and_its_nodes_can_be_owned_by_any_task() {
        assert_send(PhantomData::<(Fabric, Node, &Node, Host, FabricError)>);
        assert_send(PhantomData::<(node::NodeChild, probe::EchoServer, Place)>);
    }
}
