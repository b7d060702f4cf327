//! Runs steps one after the other, each within its time, and says at the end how each went.

use std::fmt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::context::Context;
use crate::run::Deadline;

type Action = Box<dyn Fn(&Context, Deadline) -> Result<()>>;

/// One thing to do.
pub(crate) struct Step {
    name: &'static str,
    budget: Duration,
    action: Action,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Step {
    /// A step that is over, well or not, within so many minutes.
    pub(crate) fn new(
        name: &'static str,
        minutes: u64,
        action: impl Fn(&Context, Deadline) -> Result<()> + 'static,
    ) -> Self {
        Self {
            name,
            budget: Duration::from_secs(60 * minutes),
            action: Box::new(action),
        }
    }

    /// A step that runs one cargo command.
    pub(crate) fn cargo(name: &'static str, minutes: u64, arguments: &'static [&'static str]) -> Self {
        Self::new(name, minutes, move |context, deadline| {
            crate::run::check(&mut context.cargo(arguments.iter().copied()), deadline)
        })
    }
}

struct Outcome {
    name: &'static str,
    took: Duration,
    error: Option<String>,
}

/// Runs all steps, also after a failure. The last line is `N passed, N failed`.
pub(crate) fn report(context: &Context, steps: Vec<Step>) -> Result<ExitCode> {
    let outcomes: Vec<Outcome> = steps.into_iter().map(|step| run(context, &step)).collect();
    let failed = outcomes.iter().filter(|outcome| outcome.error.is_some()).count();
    if outcomes.len() > 1 {
        println!();
        outcomes.iter().for_each(|outcome| println!("{}", line(outcome)));
    }
    println!("{} passed, {failed} failed", outcomes.len() - failed);
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn run(context: &Context, step: &Step) -> Outcome {
    println!("── {} (at most {} min)", step.name, step.budget.as_secs() / 60);
    let started = Instant::now();
    let result = (step.action)(context, Deadline::after(step.budget));
    let outcome = Outcome {
        name: step.name,
        took: started.elapsed(),
        error: result.err().map(|error| format!("{error:#}")),
    };
    println!("{}", line(&outcome));
    outcome
}

fn line(outcome: &Outcome) -> String {
    let took = format!("{:.1} s", outcome.took.as_secs_f64());
    match &outcome.error {
        None => format!("  ✔ {:<12} {took:>9}", outcome.name),
        Some(error) => format!("  ✘ {:<12} {took:>9}   {error}", outcome.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_is_named_with_its_reason() {
        let outcome = Outcome {
            name: "sim",
            took: Duration::from_millis(1_234),
            error: Some("3 violations".to_owned()),
        };
        let line = line(&outcome);
        assert!(
            line.contains("✘ sim") && line.contains("1.2 s") && line.ends_with("3 violations"),
            "{line}"
        );
    }
}
