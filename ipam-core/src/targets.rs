//! Warm targets: what the variables mean together, and how many addresses they ask for or can spare.
//!
//! Owns the arithmetic, in addresses, as pure functions; growth and shrinking turn the results into calls. Usable is what is
//! free and not resting, or on its way: an address that rests serves nobody for half a minute.

use std::fmt;

use vpc_types::Allocation;

use crate::config::{AllocationMode, WarmTarget};
use crate::pool::Supply;

/// The target variables as they were set; `None`: not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// `WARM_ENI_TARGET`.
    pub warm_eni: Option<u32>,
    /// `WARM_IP_TARGET`.
    pub warm_ip: Option<u32>,
    /// `MINIMUM_IP_TARGET`.
    pub minimum_ip: Option<u32>,
    /// `WARM_PREFIX_TARGET`.
    pub warm_prefix: Option<u32>,
}

/// A combination of variables that says less than it seems to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TargetWarning {
    /// `WARM_ENI_TARGET` beside an address target.
    EniTargetOverridden,
    /// `WARM_ENI_TARGET` with prefixes.
    EniTargetWithPrefixes,
    /// `WARM_PREFIX_TARGET` beside an address target.
    PrefixTargetOverridden,
    /// `WARM_PREFIX_TARGET` without prefixes.
    PrefixTargetWithoutPrefixes,
    /// `WARM_IP_TARGET` or `MINIMUM_IP_TARGET` is zero, and nothing else applies.
    ZeroIsUnset,
    /// `MINIMUM_IP_TARGET` without `WARM_IP_TARGET`.
    MinimumWithoutWarm,
    /// Prefixes, and every target is zero.
    OnDemand,
}

impl TargetWarning {
    /// The variable that it is about, for a metric.
    pub fn variable(self) -> &'static str {
        match self {
            Self::EniTargetOverridden | Self::EniTargetWithPrefixes => "WARM_ENI_TARGET",
            Self::PrefixTargetOverridden | Self::PrefixTargetWithoutPrefixes | Self::OnDemand => "WARM_PREFIX_TARGET",
            Self::ZeroIsUnset => "WARM_IP_TARGET",
            Self::MinimumWithoutWarm => "MINIMUM_IP_TARGET",
        }
    }
}

impl fmt::Display for TargetWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EniTargetOverridden => {
                "WARM_ENI_TARGET has no effect: WARM_IP_TARGET or MINIMUM_IP_TARGET is set and comes first"
            }
            Self::EniTargetWithPrefixes => {
                "WARM_ENI_TARGET has no effect with ENABLE_PREFIX_DELEGATION: WARM_PREFIX_TARGET says how much to keep"
            }
            Self::PrefixTargetOverridden => {
                "WARM_PREFIX_TARGET has no effect: WARM_IP_TARGET or MINIMUM_IP_TARGET is set and comes first"
            }
            Self::PrefixTargetWithoutPrefixes => "WARM_PREFIX_TARGET has no effect without ENABLE_PREFIX_DELEGATION",
            Self::ZeroIsUnset => "WARM_IP_TARGET=0 and MINIMUM_IP_TARGET=0 count as not set",
            Self::MinimumWithoutWarm => {
                "MINIMUM_IP_TARGET without WARM_IP_TARGET keeps nothing ready above the minimum: further pods wait for EC2"
            }
            Self::OnDemand => "every target is zero: prefixes are asked for when the last address is taken",
        })
    }
}

/// What the chart sets where its user says nothing: no sign that anybody meant it.
const CHART_DEFAULT: u32 = 1;

impl WarmTarget {
    /// The target that the variables amount to, in the reference's order of precedence, and what they say in vain.
    pub fn from_settings(set: Settings, mode: AllocationMode) -> (Self, Vec<TargetWarning>) {
        let mut warnings = Vec::new();
        let mut warn = |applies: bool, warning| warnings.extend(applies.then_some(warning));
        let (warm, minimum) = (set.warm_ip.unwrap_or(0), set.minimum_ip.unwrap_or(0));
        let deliberate = |value: Option<u32>| value.is_some_and(|value| value != CHART_DEFAULT);
        if warm > 0 || minimum > 0 {
            warn(deliberate(set.warm_eni), TargetWarning::EniTargetOverridden);
            warn(deliberate(set.warm_prefix), TargetWarning::PrefixTargetOverridden);
            warn(warm == 0, TargetWarning::MinimumWithoutWarm);
            return (Self::Addresses { warm, minimum }, warnings);
        }
        let own = match mode {
            AllocationMode::Addresses => {
                warn(deliberate(set.warm_prefix), TargetWarning::PrefixTargetWithoutPrefixes);
                set.warm_eni.map(|enis| Self::Enis(clamp(enis)))
            }
            AllocationMode::Prefixes => {
                warn(deliberate(set.warm_eni), TargetWarning::EniTargetWithPrefixes);
                warn(set.warm_prefix == Some(0), TargetWarning::OnDemand);
                set.warm_prefix.map(|prefixes| Self::Prefixes(clamp(prefixes)))
            }
        };
        let zero = set.warm_ip.or(set.minimum_ip).is_some();
        warn(own.is_none() && zero, TargetWarning::ZeroIsUnset);
        (own.unwrap_or(Self::Adaptive), warnings)
    }

    /// What it asks for on this node; `adaptive` is what recent arrivals suggest.
    pub(crate) fn level(self, slots_per_eni: u16, adaptive: u32) -> Level {
        let (warm, minimum) = match self {
            // With nothing to keep one address is kept all the same: the reference grows when the last one is taken.
            Self::Enis(enis) => ((u32::from(enis) * u32::from(slots_per_eni)).max(1), 0),
            Self::Prefixes(prefixes) => ((u32::from(prefixes) * 16).max(1), 0),
            Self::Addresses { warm, minimum } => (warm, minimum),
            Self::Adaptive => (adaptive, 0),
        };
        let refill_below = match self {
            Self::Adaptive => warm.div_ceil(2),
            Self::Enis(_) | Self::Prefixes(_) | Self::Addresses { .. } => warm,
        };
        let no_eni_for = match self {
            Self::Adaptive => warm / 4,
            Self::Enis(_) | Self::Prefixes(_) | Self::Addresses { .. } => 0,
        };
        Level {
            warm,
            refill_below,
            no_eni_for,
            minimum,
        }
    }
}

fn clamp(value: u32) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

impl AllocationMode {
    /// Whether this is what the mode asks for.
    pub(crate) fn is_kind_of(self, allocation: Allocation) -> bool {
        match allocation {
            Allocation::Ip(_) => self == Self::Addresses,
            Allocation::Prefix(_) => self == Self::Prefixes,
        }
    }
}

/// A target in addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level {
    /// Free addresses to keep.
    pub(crate) warm: u32,
    /// Fewer than this many start a refill up to `warm`.
    pub(crate) refill_below: u32,
    /// So few that are missing only from `warm` are not worth a further ENI.
    pub(crate) no_eni_for: u32,
    /// Addresses to hold in all.
    pub(crate) minimum: u32,
}

/// What the node holds and has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stock {
    /// All addresses that are to stay.
    pub(crate) total: u32,
    /// Those of them that a pod can get, now or once they are here.
    pub(crate) usable: u32,
    /// Usable ones that are to go: left over from before prefixes were switched on or off.
    pub(crate) passing: u32,
}

/// Who is without an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Unserved {
    /// ADDs in line.
    pub(crate) waiting: u32,
    /// Pods bound to the node whose ADD has not come.
    pub(crate) announced: u32,
}

/// How many addresses to bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Missing {
    /// For pods that wait or are announced.
    pub(crate) urgent: u32,
    /// These, and what the targets ask for.
    pub(crate) wanted: u32,
    /// More than this would not be used by the pods that the kubelet admits.
    pub(crate) at_most: u32,
}

impl Missing {
    /// What is left after a call for `addresses`.
    pub(crate) fn less(self, addresses: u32) -> Self {
        Self {
            urgent: self.urgent.saturating_sub(addresses),
            wanted: self.wanted.saturating_sub(addresses),
            at_most: self.at_most.saturating_sub(addresses),
        }
    }
}

/// What is missing. Targets are bounded by the pods that the kubelet admits; a pod that waits is not.
pub(crate) fn missing(level: Level, stock: Stock, unserved: Unserved, max_pods: Option<u32>) -> Missing {
    let without = unserved.waiting.saturating_add(unserved.announced);
    let at_hand = stock.usable.saturating_add(stock.passing);
    let urgent = without.saturating_sub(at_hand);
    let refill = if stock.usable < level.refill_below.saturating_add(without) {
        level.warm.saturating_add(without).saturating_sub(stock.usable)
    } else {
        0
    };
    let wanted = refill.max(level.minimum.saturating_sub(stock.total));
    let at_most = max_pods.map_or(u32::MAX, |pods| pods.saturating_sub(stock.total).max(urgent));
    Missing {
        urgent,
        wanted: wanted.min(at_most).max(urgent),
        at_most,
    }
}

/// Free addresses that neither the targets nor `peak`, the most that were in use of late, ask to keep.
pub(crate) fn surplus(level: Level, supply: Supply, peak: u32, max_pods: Option<u32>) -> u32 {
    let most = max_pods.map_or(u32::MAX, |pods| pods.max(supply.assigned));
    let keep = peak.saturating_add(level.warm).max(level.minimum).min(most);
    let warm = level.warm.min(most.saturating_sub(supply.assigned));
    let grantable_soon = supply.total.saturating_sub(supply.withheld);
    supply
        .free
        .saturating_sub(warm)
        .min(grantable_soon.saturating_sub(keep))
}

/// Announced pods that can really come: the kubelet admits no more.
pub(crate) fn announced(demand: u32, assigned: u32, waiting: u32, max_pods: Option<u32>) -> u32 {
    let room = max_pods.map_or(u32::MAX, |pods| pods.saturating_sub(assigned).saturating_sub(waiting));
    demand.min(room)
}
