//! Whether the node's own rules are in line, as the attempts to bring them there tell.
//!
//! Written by whoever applies them, read by GetStatus. A few attempts in vain may be the kernel's bad moment, and a runtime that
//! hears of it declares the whole node not ready: only several in a row count.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

/// So many attempts in vain are a problem: they come after 1, 2, 4 and 8 seconds, so for a quarter of a minute nothing worked.
const PROBLEM: u32 = 5;

/// The outcome of the last attempts.
#[derive(Debug, Clone, Default)]
pub struct DataPlane(Arc<Mutex<Vain>>);

/// Attempts in vain, in a row.
#[derive(Debug, Default)]
struct Vain {
    attempts: u32,
    last: String,
}

impl DataPlane {
    /// Everything is in line.
    pub fn is_in_line(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Vain::default();
    }

    /// An attempt was in vain.
    pub fn is_not_in_line(&self, why: &dyn Display) {
        let mut vain = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        vain.attempts = vain.attempts.saturating_add(1);
        vain.last = why.to_string();
    }

    /// What is wrong; empty when all is well.
    pub fn problem(&self) -> String {
        let vain = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if vain.attempts < PROBLEM {
            return String::new();
        }
        format!("{} attempts in vain, the last one: {}", vain.attempts, vain.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_attempts_in_vain_are_no_problem_and_a_good_one_ends_it() {
        let seen = DataPlane::default();
        let told = seen.clone();
        for _ in 1..PROBLEM {
            told.is_not_in_line(&"busy");
            assert_eq!(seen.problem(), "");
        }
        told.is_not_in_line(&"no such device");
        assert!(seen.problem().contains("no such device"), "{}", seen.problem());
        told.is_in_line();
        assert_eq!(seen.problem(), "");
    }
}
