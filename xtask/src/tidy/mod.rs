//! Rules of the repository that no other tool checks. Each finding names file, line and rule.
//!
//! Runs as `cargo xtask tidy` and as a test of this crate, so a plain `cargo test --workspace` enforces it too.

mod edges;
mod files;
mod generated;
mod lexer;
mod sdk;
mod source;
mod text;

use std::fmt;
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::context::Context;
use crate::steps::Step;

/// A rule that is broken somewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: PathBuf,
    line: usize,
    rule: &'static str,
    text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: [{}] {}",
            self.path.display(),
            self.line,
            self.rule,
            self.text
        )
    }
}

fn finding(path: impl Into<PathBuf>, line: usize, rule: &'static str, text: impl Into<String>) -> Finding {
    Finding {
        path: path.into(),
        line,
        rule,
        text: text.into(),
    }
}

/// The step that runs all rules.
pub(crate) fn step() -> Step {
    Step::new("tidy", 3, |context, _| {
        let findings = check(context)?;
        for finding in &findings {
            println!("{finding}");
        }
        match findings.len() {
            0 => Ok(()),
            count => bail!("{count} findings"),
        }
    })
}

fn check(context: &Context) -> Result<Vec<Finding>> {
    let files = files::all(&context.root)?;
    let mut findings = edges::check(context)?;
    findings.extend(sdk::check(context)?);
    findings.extend(generated::check(&context.root));
    findings.extend(text::check(&files));
    for file in files.iter().filter(|file| file.is_rust()) {
        findings.extend(source::check(file));
    }
    findings.sort();
    findings.dedup();
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        let context = Context::from_environment().unwrap();
        let findings = check(&context).unwrap();
        let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
        assert!(lines.is_empty(), "{} findings:\n{}", lines.len(), lines.join("\n"));
    }
}
