//! The node's data plane: what a pod, an ENI and the node itself need in the kernel, applied over netlink.
//!
//! Owns the wiring of pods (`pod`), a look at it (`check`), its removal (`clear`), the tables of secondary ENIs (`eni`), the
//! node's rules and SNAT (`node`), views of the kernel (`observe`), notices of foreign changes (`monitor`) and putting back
//! what others removed (`repair`). Speaks of addresses, tables and marks; knows neither leases nor EC2, and decides nothing
//! about them.
//!
//! Invariants: everything can be done twice; what is right already is not touched; a failed wiring leaves nothing of its
//! own behind, or says what; nothing is deleted that has another owner. Called by the CNI plugin (`pod`, `check`, `clear`)
//! and by the daemon (all but `pod` and `check`).

pub mod check;
pub mod clear;
mod devices;
pub mod eni;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod ids;
pub mod inspect;
mod kernel;
mod mark_rule;
pub mod monitor;
pub mod node;
pub mod observe;
pub mod pod;
pub mod repair;
mod service_rules;
mod snat;
mod sysctl;
pub mod takeover;

pub use check::{CheckError, Fault, Finding, PodExpected, check_pod};
pub use clear::{ClearError, Cleared, Owner, clear, clear_own};
pub use devices::Devices;
pub use eni::{Change, EniError, EniReady, EniWiring, setup_eni, teardown_eni};
pub use inspect::{EniTable, Inspection, inspect};
pub use kernel::Link;
pub use monitor::{Fate, KernelChange, Monitor};
pub use netlink::message::LinkState;
pub use netlink::{AnswerError, MessageError, NetNs, NetNsError, RouteSocket, SocketError};
pub use nft::{Difference, NftEvents, Random, RulesetChange};
pub use node::{
    NodeApplied, NodeConfig, NodeError, NodeInspection, NodePorts, SnatPolicy, apply_node, apply_ruleset, inspect_node,
};
pub use observe::{AddressRules, KernelView, ObserveError, observe};
pub use pod::{Ipv6Settings, PodSockets, PodWiring, WireError, Wired, container_of, is_wired, undo, wire};
pub use repair::{DesiredPod, Kept, RepairError, Repaired, Repairer};
