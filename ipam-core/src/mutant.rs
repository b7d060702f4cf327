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
    /// Gives addresses back without a kernel dump newer than their last use.
    ReleaseWithoutDump,
    /// Gives addresses back that still rest.
    ReleaseCooling,
    /// Detaches an ENI without a look at its leases.
    DetachWithLease,
    /// Forgets an ENI that one view does not show.
    ForgetAfterOneView,
    /// Leaves ENIs behind when the instance ends.
    NoDeleteOnTermination,
    /// Repeats a creation with another token.
    NewTokenOnRepeat,
    /// Starts without the journal of the former run.
    ForgetIntents,
    /// Takes the slot that is kept for a trunk.
    IgnoreTrunkSlot,
    /// Counts a prefix as one address.
    PrefixIsOneAddress,
    /// Asks again at once after a refusal.
    NoBackoff,
    /// Takes files for its own that another run has outdated.
    TrustOldFiles,
    /// Forgets a request that has to wait behind another.
    LoseWaiter,
    /// Counts resting addresses as free when it decides what is missing.
    CoolingIsAvailable,
    /// Asks for prefixes only, whatever a subnet has.
    NeverFallBack,
    /// Gives back what the targets ask to keep.
    ReleaseBelowTarget,
    /// Makes ENIs in any subnet.
    IgnoreSubnetTags,
    /// Judges the age of a half-made ENI by the clock alone.
    HalfMadeByTheClock,
    /// Drops what IMDS does not show.
    TrustImds,
    /// Never repeats a call of unknown outcome.
    LateRepeat,
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
        Self::ReleaseWithoutDump,
        Self::ReleaseCooling,
        Self::DetachWithLease,
        Self::ForgetAfterOneView,
        Self::NoDeleteOnTermination,
        Self::NewTokenOnRepeat,
        Self::ForgetIntents,
        Self::IgnoreTrunkSlot,
        Self::PrefixIsOneAddress,
        Self::NoBackoff,
        Self::TrustOldFiles,
        Self::LoseWaiter,
        Self::CoolingIsAvailable,
        Self::NeverFallBack,
        Self::ReleaseBelowTarget,
        Self::IgnoreSubnetTags,
        Self::HalfMadeByTheClock,
        Self::TrustImds,
        Self::LateRepeat,
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
