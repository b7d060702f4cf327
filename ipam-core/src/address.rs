//! State of one address on an ENI. One enum, so that no address can be leased and cooling at once.

use vpc_types::IpamKey;

use crate::{BootTime, OpId};

/// What an address is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressState {
    /// May be granted.
    Free {
        /// Since when; the longest free goes out first.
        since: BootTime,
    },
    /// Belongs to a lease, whatever that lease's own state is.
    Leased(IpamKey),
    /// Rests between two pods.
    Cooling {
        /// Since when, to tell older kernel dumps apart.
        since: BootTime,
        /// Until when.
        until: BootTime,
    },
    /// Is being given back; neither grantable nor gone.
    Releasing(OpId),
    /// The last EC2 view did not show it; forgotten when a second one agrees.
    Missing {
        /// Since when.
        since: BootTime,
    },
    /// The kernel shows a live pod on it that no lease explains.
    Blocked {
        /// Since when.
        since: BootTime,
    },
}

impl AddressState {
    /// A word for people and other programs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Free { .. } => "free",
            Self::Leased(_) => "leased",
            Self::Cooling { .. } => "cooling",
            Self::Releasing(_) => "releasing",
            Self::Missing { .. } => "missing",
            Self::Blocked { .. } => "blocked",
        }
    }

    /// When this state began, if that is known: two equal states with different beginnings are not the same one.
    pub fn since(&self) -> Option<BootTime> {
        match self {
            Self::Free { since } | Self::Cooling { since, .. } | Self::Missing { since } | Self::Blocked { since } => {
                Some(*since)
            }
            Self::Leased(_) | Self::Releasing(_) => None,
        }
    }

    /// The key of its lease.
    pub fn key(&self) -> Option<&IpamKey> {
        match self {
            Self::Leased(key) => Some(key),
            Self::Free { .. }
            | Self::Cooling { .. }
            | Self::Releasing(_)
            | Self::Missing { .. }
            | Self::Blocked { .. } => None,
        }
    }

    /// Until when it rests, if it does.
    pub(crate) fn rests_until(&self) -> Option<BootTime> {
        match self {
            Self::Cooling { until, .. } => Some(*until),
            Self::Free { .. } | Self::Leased(_) | Self::Releasing(_) | Self::Missing { .. } | Self::Blocked { .. } => {
                None
            }
        }
    }
}
