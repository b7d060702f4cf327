//! Generated files are what their sources make of them.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::{Finding, finding};
use crate::generate::{docs, limits};

const RULE: &str = "generated";

/// All generated files.
pub(super) fn check(root: &Path) -> Vec<Finding> {
    [
        compare(root, limits::TABLE, "gen-limits", limits::table(root)),
        compare(root, limits::README, "gen-limits", Ok(limits::PROVENANCE.to_owned())),
        compare(root, docs::PAGE, "gen-docs", docs::page(root)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn compare(root: &Path, path: &'static str, command: &str, expected: Result<String>) -> Option<Finding> {
    let expected = match expected {
        Ok(expected) => expected,
        Err(error) => return Some(finding(path, 1, RULE, format!("cannot be made: {error:#}"))),
    };
    let Ok(actual) = fs::read_to_string(root.join(path)) else {
        return Some(finding(path, 1, RULE, format!("missing: run cargo xtask {command}")));
    };
    if actual == expected {
        return None;
    }
    let same = actual
        .lines()
        .zip(expected.lines())
        .take_while(|(left, right)| left == right);
    let line = same.count() + 1;
    Some(finding(
        path,
        line,
        RULE,
        format!("out of date: run cargo xtask {command}"),
    ))
}
