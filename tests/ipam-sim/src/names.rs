//! Words for what the coverage counts. The matches are exhaustive: a new variant has to be given a word, and so a place in
//! the tables.

use ipam_core::{AddressKind, EniPhase, Refusal, Scope, ViewSource, Want};

pub(crate) fn of_scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Attached => "Attached",
        Scope::OwnAvailable => "OwnAvailable",
        Scope::Leaked => "Leaked",
        Scope::Subnets => "Subnets",
    }
}

pub(crate) fn of_refusal(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Throttled => "Throttled",
        Refusal::Unavailable => "Unavailable",
        Refusal::SubnetFull => "SubnetFull",
        Refusal::SubnetFragmented => "SubnetFragmented",
        Refusal::LimitReached => "LimitReached",
        Refusal::Gone => "Gone",
        Refusal::Conflict => "Conflict",
        Refusal::Denied => "Denied",
        Refusal::LinkMissing => "LinkMissing",
        Refusal::Kernel => "Kernel",
        Refusal::Other => "Other",
    }
}

pub(crate) fn of_source(source: ViewSource) -> &'static str {
    match source {
        ViewSource::Ec2 => "EC2",
        ViewSource::Imds => "IMDS",
    }
}

pub(crate) fn of_want(want: Want) -> &'static str {
    match want {
        Want::Addresses(_) => "addresses",
        Want::Prefixes(_) => "prefixes",
    }
}

/// Words of the core itself.
pub(crate) fn of_phase(phase: EniPhase) -> &'static str {
    phase.as_str()
}

pub(crate) fn of_address(kind: AddressKind) -> &'static str {
    kind.as_str()
}
