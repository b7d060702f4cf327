//! Rules about Rust files: length, thin `main.rs`, tests that test.

use super::files::File;
use super::lexer::mask;
use super::{Finding, finding};

/// Longest file, in lines.
const FILE_LINES: usize = 500;
/// Longest `src/main.rs`: set up, run, map the error to a status.
const MAIN_LINES: usize = 100;
/// Files that may be longer, each with its reason beside it.
const LONG_FILES: [&str; 0] = [];

/// Words of which one at least is in a test that can fail: in its body, its attributes, or its name (`…_without_panic`).
const CAN_FAIL: [&str; 7] = ["assert", "expect", "unwrap", "panic", "check", "unreachable", "?"];

/// All rules on one file.
pub(super) fn check(file: &File) -> Vec<Finding> {
    let Some(text) = &file.text else { return Vec::new() };
    let mut findings = length(file);
    for (line, name) in tests_that_cannot_fail(&mask(text)) {
        findings.push(finding(
            &file.path,
            line,
            "test-without-assertion",
            format!("{name} asserts nothing"),
        ));
    }
    findings
}

fn length(file: &File) -> Vec<Finding> {
    let lines = file.lines().count();
    let path = file.path.to_string_lossy();
    let mut findings = Vec::new();
    if lines > FILE_LINES && !LONG_FILES.contains(&path.as_ref()) {
        let text = format!("{lines} lines; at most {FILE_LINES}, one subject each");
        findings.push(finding(&file.path, lines, "file-length", text));
    }
    if path.ends_with("src/main.rs") && lines >= MAIN_LINES {
        let text = format!("{lines} lines; fewer than {MAIN_LINES}: the rest belongs into the library");
        findings.push(finding(&file.path, lines, "thin-main", text));
    }
    findings
}

/// Line and name of each test function whose body holds nothing that could fail. Takes masked source.
fn tests_that_cannot_fail(source: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut position = 0;
    while let Some(offset) = source[position..].find("#[") {
        let start = position + offset;
        let Some(end) = closing(source, start + 1, '[', ']') else {
            break;
        };
        position = end;
        let attribute = &source[start + 2..end];
        if !(attribute == "test" || attribute.starts_with("test(") || attribute.starts_with("tokio::test")) {
            continue;
        }
        let Some((name, head, body, after)) = function(source, end) else {
            break;
        };
        let texts = [name, head, body];
        if !CAN_FAIL.iter().any(|word| texts.iter().any(|text| text.contains(word))) {
            found.push((source[..start].matches('\n').count() + 1, name.to_owned()));
        }
        position = after;
    }
    found
}

/// The next function: its name, the text before its body, its body, where it ends.
fn function(source: &str, from: usize) -> Option<(&str, &str, &str, usize)> {
    let declared = from + source[from..].find("fn ")? + "fn ".len();
    let open = declared + source[declared..].find('{')?;
    let end = closing(source, open, '{', '}')?;
    let name = source[declared..open]
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .next()?;
    Some((name, &source[from..open], &source[open..end], end))
}

/// Position of the bracket that closes the one at `open`.
fn closing(source: &str, open: usize, opens: char, closes: char) -> Option<usize> {
    let mut depth = 0_usize;
    for (offset, character) in source[open..].char_indices() {
        if character == opens {
            depth += 1;
        } else if character == closes {
            depth = depth.checked_sub(1)?;
            if depth == 0 {
                return Some(open + offset);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(source: &str) -> Vec<(usize, String)> {
        tests_that_cannot_fail(&mask(source))
    }

    #[test]
    fn a_test_without_an_assertion_is_found() {
        let source = "mod t {\n    #[test]\n    fn nothing() { let a = [1]; call(\"assert\"); }\n    #[test]\n    fn good() { assert!(true); }\n}\n";
        assert_eq!(names(source), [(2, "nothing".to_owned())]);
    }

    #[test]
    fn tests_that_can_fail_otherwise_are_not() {
        for source in [
            "#[test]\n#[should_panic(expected = \"x\")]\nfn a() { f(); }",
            "#[tokio::test]\nasync fn a() -> Result<()> { f()?; Ok(()) }",
            "#[test]\nfn a() { check_all(); }",
            "#[test]\nfn any_bytes_are_read_without_panic() { read(bytes); }",
            "#[cfg(test)]\nmod tests { fn helper() {} }",
        ] {
            assert_eq!(names(source), [], "{source}");
        }
    }

    #[test]
    fn long_files_are_found_at_one_line_more_than_allowed() {
        let file = |path: &str, lines: usize| File {
            path: path.into(),
            size: 0,
            text: Some("x\n".repeat(lines)),
        };
        let rules = |file: &File| length(file).into_iter().map(|found| found.rule).collect::<Vec<_>>();
        assert_eq!(rules(&file("a/src/b.rs", FILE_LINES)), [""; 0]);
        assert_eq!(rules(&file("a/src/b.rs", FILE_LINES + 1)), ["file-length"]);
        assert_eq!(rules(&file("a/src/main.rs", MAIN_LINES - 1)), [""; 0]);
        assert_eq!(rules(&file("a/src/main.rs", MAIN_LINES)), ["thin-main"]);
    }
}
