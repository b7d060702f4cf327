//! Runs steps one after the other, each within its time, and says at the end how each went.

use std::fmt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::context::Context;
use crate::run::Deadline;
use crate::setup;

type Action = Box<dyn Fn(&Context, Deadline) -> Result<()>>;

/// One thing to do.
pub(crate) struct Step {
    name: &'static str,
    budget: Duration,
    rights: Rights,
    action: Action,
}

/// Who may run a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rights {
    Anyone,
    Root,
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
            rights: Rights::Anyone,
            action: Box::new(action),
        }
    }

    /// A step for root and with programs that only root can install: for others its outcome is "not run".
    pub(crate) fn as_root(
        name: &'static str,
        minutes: u64,
        action: impl Fn(&Context, Deadline) -> Result<()> + 'static,
    ) -> Self {
        Self {
            rights: Rights::Root,
            ..Self::new(name, minutes, action)
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
    verdict: Verdict,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed(String),
    /// Nothing was tested, and why.
    NotRun(&'static str),
}

/// Runs all steps, also after a failure. The last line is `N passed, N failed, N not run`.
pub(crate) fn report(context: &Context, steps: Vec<Step>) -> Result<ExitCode> {
    let outcomes: Vec<Outcome> = steps.into_iter().map(|step| run(context, &step)).collect();
    let count = |is: fn(&Verdict) -> bool| outcomes.iter().filter(|outcome| is(&outcome.verdict)).count();
    let passed = count(|verdict| *verdict == Verdict::Passed);
    let not_run = count(|verdict| matches!(verdict, Verdict::NotRun(_)));
    let failed = outcomes.len() - passed - not_run;
    if outcomes.len() > 1 {
        println!();
        outcomes.iter().for_each(|outcome| println!("{}", line(outcome)));
    }
    println!("{passed} passed, {failed} failed, {not_run} not run");
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn run(context: &Context, step: &Step) -> Outcome {
    println!("── {} (at most {} min)", step.name, step.budget.as_secs() / 60);
    let started = Instant::now();
    let verdict = judge(context, step).unwrap_or_else(|error| Verdict::Failed(format!("{error:#}")));
    let outcome = Outcome {
        name: step.name,
        took: started.elapsed(),
        verdict,
    };
    println!("{}", line(&outcome));
    outcome
}

fn judge(context: &Context, step: &Step) -> Result<Verdict> {
    if step.rights == Rights::Root && !setup::is_root()? {
        return Ok(Verdict::NotRun("needs root: run it with sudo"));
    }
    (step.action)(context, Deadline::after(step.budget))?;
    Ok(Verdict::Passed)
}

fn line(outcome: &Outcome) -> String {
    let took = format!("{:.1} s", outcome.took.as_secs_f64());
    let name = outcome.name;
    match &outcome.verdict {
        Verdict::Passed => format!("  ✔ {name:<12} {took:>9}"),
        Verdict::Failed(error) => format!("  ✘ {name:<12} {took:>9}   {error}"),
        Verdict::NotRun(reason) => format!("  – {name:<12} {:>9}   {reason}", "not run"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(verdict: Verdict) -> Outcome {
        Outcome {
            name: "sim",
            took: Duration::from_millis(1_234),
            verdict,
        }
    }

    #[test]
    fn a_failed_step_is_named_with_its_reason() {
        let line = line(&outcome(Verdict::Failed("3 violations".to_owned())));
        assert!(
            line.contains("✘ sim") && line.contains("1.2 s") && line.ends_with("3 violations"),
            "{line}"
        );
    }

    #[test]
    fn a_step_that_was_not_run_does_not_look_like_one_that_passed() {
        let line = line(&outcome(Verdict::NotRun("needs root")));
        assert!(
            line.contains("– sim") && line.contains("not run") && line.ends_with("needs root"),
            "{line}"
        );
    }
}
