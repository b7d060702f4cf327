//! The EC2 SDK is compiled once. It takes four minutes, and cargo compiles it again when tests give it, or anything below it,
//! other features than the programs do.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::{Finding, finding};
use crate::context::Context;
use crate::run;

const SDK: &str = "aws-sdk-ec2";

/// Features of everything below the SDK, with and without the tests' dependencies.
pub(super) fn check(context: &Context) -> Result<Vec<Finding>> {
    let below = names(&tree(context, &["-p", SDK, "-e", "normal,build"])?);
    let programs = features(&tree(context, &["--workspace", "-e", "normal,build"])?);
    let tests = features(&tree(context, &["--workspace", "-e", "normal,build,dev"])?);
    Ok(differences(&below, &programs, &tests))
}

fn differences(below: &BTreeSet<String>, programs: &Features, tests: &Features) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in below {
        let (with, without) = (tests.get(name), programs.get(name));
        if with != without {
            let text = format!("{name} is below {SDK}: tests use it with {with:?}, programs with {without:?}");
            findings.push(finding("Cargo.toml", 1, "sdk-once", text));
        }
    }
    findings
}

/// Feature lists by package and version: a package that build scripts use too may have two.
type Features = BTreeMap<String, BTreeSet<String>>;

fn tree(context: &Context, selection: &[&str]) -> Result<String> {
    let mut command = context.cargo(["tree", "--prefix", "none", "--format", "{p}|{f}", "--no-dedupe"]);
    run::output(command.args(selection))
}

fn names(tree: &str) -> BTreeSet<String> {
    features(tree).into_keys().collect()
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
        let below = names("bytes v1|std\n");
        let programs = features("bytes v1|std\nclap v4|std\n");
        let tests = features("bytes v1|serde,std\nclap v4|derive,std\n");
        assert_eq!(differences(&below, &programs, &programs), []);
        let found = differences(&below, &programs, &tests);
        assert_eq!(found.len(), 1);
        assert!(found[0].text.contains("bytes v1"), "{found:?}");
    }
}
