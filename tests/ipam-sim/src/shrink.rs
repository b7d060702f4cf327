//! Makes a failing run small: fewer faults, then fewer strokes and acts, as long as the same failure stays.
//!
//! First whole kinds are left out, then halves, quarters and so on of what is left, down to single strokes. Bounded by a
//! number of repetitions, so that a report never waits for minutes.

use std::collections::BTreeSet;

use crate::fate::{Allowed, Origin, Stroke};
use crate::fault::Fault;
use crate::run::{Failure, Plan, run};
use crate::world::Logging;

/// Repetitions that shrinking may take. A run takes some milliseconds.
const BUDGET: u32 = 1_500;

struct Search {
    best: Plan,
    shown: Failure,
    kind: String,
    budget: u32,
}

/// The same failure with few strokes, and the log of that run.
pub fn shrink(plan: &Plan, failure: &Failure) -> (Plan, Failure) {
    let mut search = Search {
        best: plan.clone(),
        shown: failure.clone(),
        kind: kind(&failure.text),
        budget: BUDGET,
    };
    let mut start = plan.clone();
    start.steps = start.steps.min(failure.step);
    search.tries(start);
    for fault in Fault::ALL {
        let mut without = search.best.clone();
        without.off.insert(*fault);
        search.tries(without);
    }
    let all = strokes(&search.shown);
    if search.tries(search.with(&all)) {
        search.reduce(all);
    }
    let logged = run(&search.best, Logging::On).failure;
    (search.best, logged.unwrap_or(search.shown))
}

fn strokes(failure: &Failure) -> Vec<Stroke> {
    failure.fallen.iter().map(|one| one.stroke).collect()
}

impl Search {
    fn with(&self, only: &[Stroke]) -> Plan {
        Plan {
            only: Allowed::Only(only.iter().copied().collect()),
            ..self.best.clone()
        }
    }

    /// Takes the candidate as the best one if it fails in the same way.
    fn tries(&mut self, mut candidate: Plan) -> bool {
        if self.budget == 0 {
            return false;
        }
        self.budget -= 1;
        let found = run(&candidate, Logging::Off).failure;
        let Some(found) = found.filter(|found| kind(&found.text) == self.kind) else {
            return false;
        };
        candidate.steps = candidate.steps.min(found.step);
        (self.best, self.shown) = (candidate, found);
        true
    }

    /// Leaves out pieces of the list, large ones first.
    fn reduce(&mut self, mut left: Vec<Stroke>) {
        // A kind with many strokes of which none matters goes at once.
        let kinds: BTreeSet<Origin> = left.iter().map(|stroke| stroke.origin).collect();
        for origin in kinds {
            let without: Vec<Stroke> = left.iter().copied().filter(|stroke| stroke.origin != origin).collect();
            if self.tries(self.with(&without)) {
                left = strokes(&self.shown);
            }
        }
        let mut size = left.len().div_ceil(2);
        while size > 0 && self.budget > 0 {
            let mut start = 0;
            let mut smaller = false;
            while start < left.len() {
                let end = (start + size).min(left.len());
                let mut without = left.clone();
                without.drain(start..end);
                if self.tries(self.with(&without)) {
                    // Strokes that the shorter run does not reach are gone as well.
                    let reached: BTreeSet<Stroke> = strokes(&self.shown).into_iter().collect();
                    left = without.into_iter().filter(|stroke| reached.contains(stroke)).collect();
                    smaller = true;
                } else {
                    start = end;
                }
            }
            size = if size > 1 { size / 2 } else { usize::from(smaller) };
        }
    }
}

/// What makes two failures the same one: the invariant and the words of its text, without addresses and numbers.
pub(crate) fn kind(text: &str) -> String {
    let mut words = text.split_whitespace();
    let first = words.next().unwrap_or_default();
    let is_word = |word: &&str| word.contains(".rs:") || !word.contains(|c: char| c.is_ascii_digit());
    let rest: Vec<&str> = words.filter(is_word).take(5).collect();
    format!("{first} {}", rest.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_that_differ_in_addresses_only_are_the_same() {
        let text = |address, key| format!("I2: {address} of {key} is given back by ReleaseAddresses");
        assert_eq!(kind(&text("10.0.0.1", "a/1")), kind(&text("10.0.0.77", "b/2")));
        assert_ne!(kind("I7: nobody is served"), kind("I7: 3 ADDs wait"));
    }
}
