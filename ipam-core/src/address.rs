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
