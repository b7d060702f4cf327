//! Rule priorities, names and addresses that pods wired by earlier versions, and other agents on the node, rely on.

use std::net::Ipv4Addr;

use vpc_types::RouteTableId;

/// `to <pod> lookup main`.
pub const RULE_TO_POD: u32 = 512;
/// `fwmark <mark> lookup main`: marked connections leave by the primary ENI.
pub const RULE_MARK: u32 = 1024;
/// `to <external service> lookup main`.
pub const RULE_EXTERNAL_SERVICE: u32 = 1535;
/// `from <pod> lookup <ENI table>`.
pub const RULE_FROM_POD: u32 = 1536;
/// `from <ENI primary address> lookup <ENI table>`.
pub const RULE_FROM_ENI: u32 = 32_765;
/// The kernel's own rule for table main.
const RULE_MAIN: u32 = 32_766;

/// The next hop of every pod's interface 0. No device has it: a permanent neighbour entry answers for it.
pub const POD_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The nf_tables table `ip aws-cni`. A predecessor that we are replaced by cleans up a table of this name.
pub const NFT_TABLE: &str = "aws-cni";

// A mark wins over the pod's own table, and a pod's own route over everything that concerns its source.
const _: () = assert!(RULE_TO_POD < RULE_MARK && RULE_MARK < RULE_EXTERNAL_SERVICE);
const _: () = assert!(RULE_EXTERNAL_SERVICE < RULE_FROM_POD && RULE_FROM_POD < RULE_FROM_ENI);
const _: () = assert!(RULE_FROM_ENI < RULE_MAIN);
const _: () = assert!(RouteTableId::MAIN.0 == 254);
