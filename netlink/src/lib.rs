//! Blocking netlink: sockets, batches with one error per message, dumps, events, and the network-namespace guard.
//!
//! Owns framing, sequence numbers, answers, time limits and namespace switching. Knows nothing of pods, VPCs or policy: what
//! to send is the callers' business (`datapath`, `nft`, the simulated fabric), which build `netlink-packet-route` messages.
//!
//! Invariants: no call blocks longer than its time limit; an answer that cannot be attributed is never taken for success; a
//! thread that enters a namespace leaves it again, even when the code inside panics.

mod attr;
mod batch;
mod dump;
mod events;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod message;
mod netns;
mod route;
mod socket;
mod sys;
#[cfg(feature = "testing")]
pub mod testing;

pub use attr::{Attribute, Attributes, parse_str, parse_u32};
pub use batch::{Batch, MessageError};
pub use dump::{DumpError, RawMessage};
pub use events::{Event, EventSocket, Group};
pub use netlink_packet_core::{NetlinkDeserializable, NetlinkSerializable};
/// The message types that this crate sends and reads.
pub use netlink_packet_route as packet;
pub use netns::{NetNs, NetNsError};
pub use nix::errno::Errno;
pub use route::{AnswerError, RouteSocket};
pub use socket::{Protocol, Received, Socket, SocketError};
