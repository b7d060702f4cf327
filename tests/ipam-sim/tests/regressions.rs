//! Histories that once broke an invariant, each by its seed and the strokes and acts it needs, with what was wrong.

use ipam_sim::{Allowed, Logging, Plan, Stroke, run};

/// `only` lists strokes and acts; an empty list means all that are drawn.
fn check_holds(seed: u64, steps: u64, only: &str) {
    let these = only
        .split_whitespace()
        .map(|text| text.parse::<Stroke>().expect("a stroke has a name"));
    let plan = Plan {
        only: if only.is_empty() {
            Allowed::All
        } else {
            Allowed::Only(these.collect())
        },
        ..Plan::of_seed(seed, steps)
    };
    let failure = run(&plan, Logging::Off).failure;
    assert!(failure.is_none(), "seed {seed}: {failure:?}");
}

/// What the tests of this file rest on: a run of named acts, and of nothing else.
#[test]
fn a_run_without_bad_luck_breaks_no_invariant() {
    check_holds(3, 500, "users#1 users#2 users#3 users#4 users#5 users#6 users#7");
}
