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

/// After the clock was set back, an ENI that somebody had detached stayed too young to be deleted, and was looked at for ever.
#[test]
fn a_half_made_eni_ages_although_the_clock_was_set_back() {
    check_holds(92, 3_000, "foreign-edit#9 clock-jump#10");
}

/// The reference ran in between and gave addresses back; EC2 could not be asked, and one of them was granted.
#[test]
fn addresses_of_an_unknown_run_wait_for_a_view() {
    check_holds(
        772,
        391,
        "users#11 users#13 crash#1 reference-ran#1 denied-call#23 users#75",
    );
}

/// After a run of the reference more was asked for than the ENI had room for, by what the old file said.
#[test]
fn growth_after_an_unknown_run_waits_for_a_view_that_can_be_believed() {
    check_holds(
        422,
        3_000,
        "users#3 disk-full#1 users#5 crash-between-actions#1 reference-ran#1 clock-jump#38",
    );
}

/// The clock jumped ahead, the daemon died between the files, and the lease of a plugin at work seemed old enough to end.
#[test]
fn a_lease_of_unknown_age_is_taken_for_a_young_one() {
    check_holds(
        635,
        952,
        "lost-request#2 users#2 sandbox-killed#1 crash-between-files#1 users#10 users#15 users#17 users#25 users#26 \
         users#27 crash-between-files#4 users#30 plugin-killed#1 plugin-stalled#4 users#31 users#32 users#33 users#34 \
         clock-jump#4 crash-between-files#5",
    );
}
