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

/// An [`AddressState`] without what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressKind {
    /// May be granted.
    Free,
    /// Belongs to a lease.
    Leased,
    /// Rests between two pods.
    Cooling,
    /// Is being given back.
    Releasing,
    /// The last EC2 view did not show it.
    Missing,
    /// The kernel shows a pod on it that no lease explains.
    Blocked,
}

impl AddressKind {
    const ALL: [Self; 6] = [
        Self::Free,
        Self::Leased,
        Self::Cooling,
        Self::Releasing,
        Self::Missing,
        Self::Blocked,
    ];

    /// A word for people and other programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Leased => "leased",
            Self::Cooling => "cooling",
            Self::Releasing => "releasing",
            Self::Missing => "missing",
            Self::Blocked => "blocked",
        }
    }

    /// Inverse of `as_str`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl AddressState {
    /// Which one it is.
    pub fn kind(&self) -> AddressKind {
        match self {
            Self::Free { .. } => AddressKind::Free,
            Self::Leased(_) => AddressKind::Leased,
            Self::Cooling { .. } => AddressKind::Cooling,
            Self::Releasing(_) => AddressKind::Releasing,
            Self::Missing { .. } => AddressKind::Missing,
            Self::Blocked { .. } => AddressKind::Blocked,
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
