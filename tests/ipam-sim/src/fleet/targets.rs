//! From variables to the core's target, as the daemon maps them.

use ipam_core::{AllocationMode, WarmTarget};
use vpc_types::InstanceLimits;
use vpc_types::limits::PrefixDelegation;

use super::plan::{Mode, Targets};

/// Prefixes where the type can have them.
pub(crate) fn mode(mode: Mode, limits: &InstanceLimits) -> AllocationMode {
    match mode {
        Mode::Prefixes if limits.prefix_delegation == PrefixDelegation::Supported => AllocationMode::Prefixes,
        Mode::Prefixes | Mode::Addresses => AllocationMode::Addresses,
    }
}

pub(crate) fn warm_target(targets: Targets, mode: Mode) -> WarmTarget {
    let (warm, minimum) = (targets.warm_ip.unwrap_or(0), targets.minimum_ip.unwrap_or(0));
    let small = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    if targets == Targets::UNSET {
        return WarmTarget::Adaptive;
    }
    if warm > 0 || minimum > 0 {
        return WarmTarget::Addresses { warm, minimum };
    }
    match mode {
        Mode::Addresses => WarmTarget::Enis(small(targets.warm_eni.unwrap_or(1))),
        Mode::Prefixes => WarmTarget::Prefixes(small(targets.warm_prefix.unwrap_or(0))),
    }
}

/// Whether recent arrivals decide.
pub(crate) fn is_own_default(targets: Targets, mode: Mode, limits: &InstanceLimits) -> bool {
    let mode = match self::mode(mode, limits) {
        AllocationMode::Addresses => Mode::Addresses,
        AllocationMode::Prefixes => Mode::Prefixes,
    };
    warm_target(targets, mode) == WarmTarget::Adaptive
}
