//! From variables to the core's target, as the daemon maps them.

use ipam_core::{AllocationMode, Settings, WarmTarget};
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

/// As the daemon takes its variables.
pub(crate) fn warm_target(targets: Targets, mode: AllocationMode) -> WarmTarget {
    let settings = Settings {
        warm_eni: targets.warm_eni,
        warm_ip: targets.warm_ip,
        minimum_ip: targets.minimum_ip,
        warm_prefix: targets.warm_prefix,
    };
    WarmTarget::from_settings(settings, mode).0
}
