//! A failure is shrunk to the few strokes and acts that it needs.
#![cfg(feature = "mutants")]

use ipam_core::Mutant;
use ipam_sim::{Logging, Plan, quiet_panics, run, shrink};

#[test]
fn a_failing_run_is_shrunk_to_a_few_strokes_that_fail_again() {
    quiet_panics();
    let failing = (1..50).find_map(|seed| {
        let plan = Plan {
            defect: Some(Mutant::OneStrike),
            ..Plan::of_seed(seed, 3_000)
        };
        let failure = run(&plan, Logging::Off).failure?;
        Some((plan, failure))
    });
    let (plan, failure) = failing.expect("the defect is noticed within 50 seeds");
    let (small, shown) = shrink(&plan, &failure);
    assert!(
        shown.fallen.len() < failure.fallen.len() / 2,
        "{} strokes",
        shown.fallen.len()
    );
    let again = run(&small, Logging::Off).failure.expect("the shrunk plan fails");
    assert_eq!(again.text, shown.text);
}
