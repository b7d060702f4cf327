//! Histories that once broke an invariant, each by its seed, with what was wrong.

use std::collections::BTreeSet;

use ipam_sim::{Defect, Logging, Plan, run};

fn check_holds(seed: u64) {
    let plan = Plan {
        seed,
        steps: 3_000,
        off: BTreeSet::new(),
        defect: Defect::default(),
    };
    let failure = run(&plan, Logging::Off).failure;
    assert!(failure.is_none(), "seed {seed}: {failure:?}");
}

/// A creation of unknown outcome kept the pause of a full subnet, half an hour, while pods waited for it.
#[test]
fn a_repeated_creation_does_not_wait_for_the_pause_of_a_refill() {
    check_holds(167);
}

/// A crash between the two files forgot that the lease of an orphan had just ended; EC2 gave the same address again.
#[test]
fn an_address_whose_lease_ended_between_the_files_rests() {
    check_holds(549);
}

/// An ENI too many, made by a call of a former run, was attached again and again.
#[test]
fn an_eni_too_many_goes_instead_of_being_attached() {
    check_holds(1_174);
}

/// The second look at missing addresses came too soon after a change of ours, and there was no third.
#[test]
fn a_look_that_came_too_soon_is_repeated() {
    check_holds(1_945);
}

/// A slot that somebody else had taken was tried for ever.
#[test]
fn an_attach_refused_for_its_slot_takes_another_one() {
    check_holds(40_407);
}
