//! From variables to the core's target, as the daemon maps them.

use ipam_core::WarmTarget;

use super::plan::{Mode, Targets};
use super::queue::NodeId;
use super::world::Fleet;

pub(crate) fn warm_target(targets: Targets, _: Mode) -> WarmTarget {
    let (warm, minimum) = (targets.warm_ip.unwrap_or(0), targets.minimum_ip.unwrap_or(0));
    if warm > 0 || minimum > 0 {
        WarmTarget::Addresses { warm, minimum }
    } else {
        WarmTarget::Enis(u16::try_from(targets.warm_eni.unwrap_or(1)).unwrap_or(u16::MAX))
    }
}

pub(crate) fn tell(_: &mut Fleet, _: NodeId, _: u32) {}
