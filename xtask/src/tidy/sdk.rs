//! The EC2 SDK is compiled once. It takes four minutes, and cargo compiles it again for every selection that gives it, or
//! anything below it, other features than the whole workspace does.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::{Finding, finding};
use crate::context::Context;
use crate::run;

const SDK: &str = "aws-sdk-ec2";

/// What people build besides `--workspace --bins`, with or without the dependencies of tests.
const SELECTIONS: [(&str, &[&str], &str); 3] = [
    ("cargo test --workspace", &["--workspace"], ",dev"),
    ("cargo build -p ipamd", &["-p", "ipamd"], ""),
    ("cargo test -p ipamd", &["-p", "ipamd"], ",dev"),
];

/// A package may be built twice with different features: for the target, and for the host where macros and build scripts use
/// it. The two are compared apart, else one could hide the other.
const SIDES: [&str; 2] = ["normal,no-proc-macro", "normal,build"];

/// Features of everything below the SDK in each selection.
pub(super) fn check(context: &Context) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut compared = BTreeSet::new();
    for side in SIDES {
        let below: BTreeSet<String> = tree(context, &["-p", SDK, "-e", side])?.into_keys().collect();
        let below: BTreeSet<String> = below.difference(&compared).cloned().collect();
        let programs = tree(context, &["--workspace", "-e", side])?;
        for (name, selection, more) in SELECTIONS {
            let edges = format!("{side}{more}");
            let mut arguments = selection.to_vec();
            arguments.extend(["-e", &edges]);
            findings.extend(differences(&below, &programs, &tree(context, &arguments)?, name));
        }
        compared.extend(below);
    }
    Ok(findings)
}

fn differences(below: &BTreeSet<String>, programs: &Features, others: &Features, name: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in below {
        let (here, there) = (programs.get(package), others.get(package));
        if here != there {
            let text = format!(
                "`{name}` compiles {SDK} again: {package} has {}, with --workspace {}",
                listed(there),
                listed(here)
            );
            findings.push(finding("Cargo.toml", 1, "sdk-once", text));
        }
    }
    findings
}

fn listed(lists: Option<&BTreeSet<String>>) -> String {
    let lists: Vec<&str> = lists.into_iter().flatten().map(String::as_str).collect();
    format!("[{}]", lists.join("] and ["))
}

/// Feature lists by package and version.
type Features = BTreeMap<String, BTreeSet<String>>;

fn tree(context: &Context, selection: &[&str]) -> Result<Features> {
    let mut command = context.cargo(["tree", "--prefix", "none", "--format", "{p}|{f}", "--no-dedupe"]);
    Ok(features(&run::output(command.args(selection))?))
}

fn features(tree: &str) -> Features {
    let mut features = Features::new();
    for (package, list) in tree.lines().filter_map(|line| line.split_once('|')) {
        features.entry(package.to_owned()).or_default().insert(list.to_owned());
    }
    features
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_that_only_tests_want_is_found_below_the_sdk_and_nowhere_else() {
        let below = BTreeSet::from(["bytes v1".to_owned()]);
        let programs = features("bytes v1|std\nclap v4|std\n");
        let tests = features("bytes v1|serde,std\nclap v4|derive,std\n");
        assert_eq!(differences(&below, &programs, &programs, "x"), []);
        let found = differences(&below, &programs, &tests, "cargo test");
        assert_eq!(found.len(), 1);
        assert!(
            found[0]
                .text
                .contains("bytes v1 has [serde,std], with --workspace [std]"),
            "{found:?}"
        );
    }
}
