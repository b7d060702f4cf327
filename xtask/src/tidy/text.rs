//! Rules about all files: what may be mentioned, numbered decisions, size.

use std::collections::BTreeSet;
use std::path::Path;

use super::files::File;
use super::{Finding, finding};

/// Largest file, in bytes.
const BLOB: u64 = 300 * 1024;
/// Gathered facts may be larger.
const FACTS: &str = "vpc-types/data";
/// Where decisions are.
const DECISIONS: &str = "docs/adr";
/// Directories of one person, which mean nothing to others.
const FOREIGN: [&str; 2] = ["/home/", "/root/"];
/// Words for unfinished work.
const UNFINISHED: [&str; 2] = ["TODO", "FIXME"];
/// This file spells out what it forbids.
const HERE: &str = "xtask/src/tidy/text.rs";

/// All rules.
pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let pages = pages(files);
    let mut findings = decisions(files);
    for file in files {
        if file.size > BLOB && !file.path.starts_with(FACTS) {
            let text = format!("{} KiB; at most {}", file.size / 1024, BLOB / 1024);
            findings.push(finding(&file.path, 1, "blob", text));
        }
        if file.path == Path::new(HERE) {
            continue;
        }
        for (number, line) in file.lines() {
            for (rule, text) in mentions(line, &pages) {
                findings.push(finding(&file.path, number, rule, text));
            }
        }
    }
    findings
}

/// Names of all pages of documentation.
fn pages(files: &[File]) -> BTreeSet<&str> {
    files
        .iter()
        .filter_map(|file| file.path.file_name()?.to_str())
        .filter(|name| name.ends_with(".md"))
        .collect()
}

fn mentions(line: &str, pages: &BTreeSet<&str>) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for word in FOREIGN.iter().filter(|word| line.contains(**word)) {
        found.push(("machine-path", format!("{word} exists on one machine only")));
    }
    for word in UNFINISHED {
        if line.split(word).skip(1).any(|rest| !names_an_issue(rest)) {
            found.push(("unfinished", format!("{word} without an issue: write {word}(#123)")));
        }
    }
    for page in cited_pages(line).filter(|page| !pages.contains(page)) {
        found.push(("missing-page", format!("{page} is not in the repository")));
    }
    found
}

fn names_an_issue(rest: &str) -> bool {
    rest.strip_prefix("(#")
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// File names ending in `.md`; what a URL leads to is not ours to check.
fn cited_pages(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_alphanumeric() || "._-/:".contains(c)))
        .filter(|word| !word.contains("://"))
        .map(|word| word.trim_end_matches(['.', ':']))
        .filter_map(|word| word.rsplit('/').next())
        .filter(|name| name.len() > ".md".len() && name.ends_with(".md"))
}

/// Decisions are `NNNN-title.md`, numbered from 1 without a gap.
fn decisions(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut expected = 1_u32;
    for file in files
        .iter()
        .filter(|file| file.path.parent() == Some(Path::new(DECISIONS)))
    {
        let name = file.path.file_name().unwrap_or_default().to_string_lossy();
        let number = name
            .split_once('-')
            .filter(|(digits, title)| digits.len() == 4 && title.ends_with(".md"))
            .and_then(|(digits, _)| digits.parse::<u32>().ok());
        if number == Some(expected) {
            expected += 1;
        } else {
            let text = format!("decision {expected:04}-title.md expected here");
            findings.push(finding(&file.path, 1, "decision-number", text));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(line: &str) -> Vec<&'static str> {
        let pages = BTreeSet::from(["README.md"]);
        mentions(line, &pages).into_iter().map(|(rule, _)| rule).collect()
    }

    #[test]
    fn unfinished_work_needs_an_issue() {
        assert_eq!(rules("// TODO: later"), ["unfinished"]);
        assert_eq!(rules("// TODO(#12): later"), [""; 0]);
    }

    #[test]
    fn pages_that_do_not_exist_are_found() {
        assert_eq!(rules("see docs/none.md."), ["missing-page"]);
        assert_eq!(rules("see README.md, and `.md` files"), [""; 0]);
        assert_eq!(rules("https://example.org/a/other.md"), [""; 0]);
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        assert_eq!(rules("in /home/x/y"), ["machine-path"]);
        assert_eq!(rules("the home of others"), [""; 0]);
    }

    #[test]
    fn decisions_are_numbered_without_gaps() {
        let file = |name: &str| File {
            path: Path::new(DECISIONS).join(name),
            size: 0,
            text: None,
        };
        assert_eq!(decisions(&[file("0001-a.md"), file("0002-b.md")]), []);
        assert_eq!(decisions(&[file("0001-a.md"), file("0003-b.md")]).len(), 1);
        assert_eq!(decisions(&[file("1-a.md")]).len(), 1);
    }
}
