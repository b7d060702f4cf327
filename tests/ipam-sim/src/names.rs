//! Words for what the coverage counts. The matches are exhaustive: a new variant has to be given a word, and so a place in
//! the tables.

use ipam_core::{Refusal, Scope};

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
