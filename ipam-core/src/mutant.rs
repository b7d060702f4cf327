//! Deliberate defects, each a rule of the core switched off, to show that the simulation would notice.
//!
//! Without the feature `mutants` the switches are constants and cost nothing.

/// A deliberate defect, to show that the simulation notices it.
#[cfg(feature = "mutants")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Replies before the state behind them is durable.
    ReplyBeforePersist,
    /// Grants addresses that still rest.
    NoCooldown,
    /// Takes a call of unknown outcome for one that did nothing.
    UnknownIsRefused,
    /// Believes every EC2 view about everything, however recent the last change.
    TrustStaleViews,
    /// Does not look for life on addresses without a lease.
    IgnoreSigns,
    /// Ends a lease at the first kernel dump that does not show its sandbox.
    OneStrike,
    /// Drops leases whose address is out of view.
    DropOrphans,
}

#[cfg(feature = "mutants")]
impl Mutant {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::ReplyBeforePersist,
        Self::NoCooldown,
        Self::UnknownIsRefused,
        Self::TrustStaleViews,
        Self::IgnoreSigns,
        Self::OneStrike,
        Self::DropOrphans,
    ];
}

/// Switches of the deliberate defects; all off unless the feature `mutants` sets one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Defect {
    #[default]
    None,
    #[cfg(feature = "mutants")]
    Built(Mutant),
}

/// Whether a core has a deliberate defect; a constant where the feature is off.
macro_rules! defective {
    ($core:expr, $mutant:ident) => {{
        #[cfg(feature = "mutants")]
        let defective = $core.defect == crate::mutant::Defect::Built(crate::mutant::Mutant::$mutant);
        #[cfg(not(feature = "mutants"))]
        let defective = $core.defect != crate::mutant::Defect::None;
        defective
    }};
}
pub(crate) use defective;
