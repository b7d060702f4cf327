//! Names and numbers that every crate of the project shares: EC2 ids, addresses, ENI slots, route tables, marks,
//! interface names, and the ENI and address limits of instance types.
//!
//! Owns the *meaning* of values (what a valid ENI id is, which table an ENI gets) and nothing else: no I/O, no policy.
//! Invariant: a value of one of these types is valid, because its only constructors check.

mod addr;
mod ids;
mod key;
pub mod limits;
mod names;
mod slot;

pub use addr::{Allocation, AllocationError, MacAddress, Prefix28};
pub use ids::{AttachmentId, EniId, IdError, InstanceId, SecurityGroupId, SubnetId, VpcId};
pub use key::{IpamKey, KeyError, PodName};
pub use limits::InstanceLimits;
pub use names::{VethPrefix, VethPrefixError, dummy_name, host_veth_name, name_suffix, sandbox_suffix};
pub use slot::{DeviceNumber, FwMark, IfIndex, NetworkCard, RouteTableId};
