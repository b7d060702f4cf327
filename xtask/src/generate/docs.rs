//! The tables of variables in `docs/configuration.md`, made from the source of the programs that read them.
//!
//! The source is read as text: linking those crates would make xtask compile the EC2 SDK before it can do anything.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};

use crate::context::Context;

/// The page.
pub(crate) const PAGE: &str = "docs/configuration.md";
/// Variables of the daemon's own.
const DAEMON: &str = "ipamd/src/config/raw.rs";
/// Variables of init container and entrypoint.
const SETUP: &str = "node-setup/src/variables.rs";
/// Variables of the AWS client.
const CLIENT: &str = "cloud/src/config.rs";

const BEGIN: &str = "<!-- begin: made by `cargo xtask gen-docs` -->\n";
const END: &str = "<!-- end -->\n";
const PREFACE: &str = "# Configuration\n\n";

/// `cargo xtask gen-docs`.
pub(crate) fn write(context: &Context) -> Result<ExitCode> {
    let file = context.root.join(PAGE);
    fs::write(&file, page(&context.root)?).with_context(|| format!("cannot write {PAGE}"))?;
    println!("{PAGE}: written");
    Ok(ExitCode::SUCCESS)
}

/// What the page should contain: the tables anew, the prose around them as it is.
pub(crate) fn page(root: &Path) -> Result<String> {
    let old = fs::read_to_string(root.join(PAGE)).unwrap_or_else(|_| format!("{PREFACE}{BEGIN}{END}"));
    let (before, rest) = old
        .split_once(BEGIN)
        .with_context(|| format!("{PAGE}: no line {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{PAGE}: no line {END}"))?;
    Ok(format!("{before}{BEGIN}\n{}\n{END}{after}", tables(root)?))
}

fn tables(root: &Path) -> Result<String> {
    let mut text = format!(
        "## The daemon\n\n{}\n## Init container and entrypoint\n\n{}",
        settings(root, DAEMON, "the daemon does not start")?,
        settings(root, SETUP, "the container ends, and nothing was changed")?
    );
    text.push_str("\n## The AWS client\n\n| variable | read by | meaning |\n|---|---|---|\n");
    for (maker, entry) in entries(root, CLIENT, "VARIABLES")? {
        let [name, meaning] = fields(&entry, CLIENT)?;
        let reader = if maker == "us" { "us" } else { "the AWS SDK" };
        text.push_str(&format!("| `{name}` | {reader} | {meaning} |\n"));
    }
    Ok(text)
}

/// A table with defaults.
fn settings(root: &Path, file: &str, refused: &str) -> Result<String> {
    let mut text = String::from("| variable | default | on a bad value | meaning |\n|---|---|---|---|\n");
    for (_, entry) in entries(root, file, "TABLE")? {
        let [name, default, on_bad, meaning] = fields(&entry, file)?;
        let on_bad = match on_bad.as_str() {
            "Fallback" => "the default, and a warning",
            "Refuse" => refused,
            other => bail!("{file}: `{other}` has no words here"),
        };
        let default = if default.is_empty() {
            String::new()
        } else {
            format!("`{default}`")
        };
        text.push_str(&format!("| `{name}` | {default} | {on_bad} | {meaning} |\n"));
    }
    Ok(text)
}

fn fields<const N: usize>(entry: &[String], file: &str) -> Result<[String; N]> {
    <[String; N]>::try_from(entry.to_vec())
        .map_err(|entry| anyhow::anyhow!("{file}: {N} arguments expected, not {entry:?}"))
}

/// The calls that fill a constant list: name of the function, arguments.
fn entries(root: &Path, file: &str, list: &str) -> Result<Vec<(String, Vec<String>)>> {
    let source = fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"))?;
    let start = format!("const {list}: ");
    let (_, rest) = source
        .split_once(&start)
        .with_context(|| format!("{file}: no {start}"))?;
    let (_, rest) = rest
        .split_once("&[\n")
        .with_context(|| format!("{file}: {list} is no list"))?;
    let (body, _) = rest
        .split_once("\n];")
        .with_context(|| format!("{file}: {list} does not end"))?;
    let entries = calls(body);
    ensure!(!entries.is_empty(), "{file}: {list} is empty");
    Ok(entries)
}

/// Reads `name(argument, …),` where an argument is a string literal or a word.
fn calls(body: &str) -> Vec<(String, Vec<String>)> {
    let mut calls: Vec<(String, Vec<String>)> = Vec::new();
    let mut word = String::new();
    let mut inside = false;
    let mut characters = body.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                let text = literal(&mut characters);
                if let Some((_, arguments)) = calls.last_mut() {
                    arguments.push(text);
                }
            }
            '(' => {
                calls.push((std::mem::take(&mut word), Vec::new()));
                inside = true;
            }
            ',' | ')' => {
                let text = std::mem::take(&mut word);
                if let (true, Some((_, arguments))) = (inside && !text.is_empty(), calls.last_mut()) {
                    arguments.push(text);
                }
                inside = inside && character == ',';
            }
            other if other.is_whitespace() => {}
            other => word.push(other),
        }
    }
    calls
}

fn literal(characters: &mut std::str::Chars<'_>) -> String {
    let mut text = String::new();
    while let Some(character) = characters.next() {
        match character {
            '"' => break,
            '\\' => text.extend(characters.next()),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_with_literals_and_words() {
        let body = "    row(\n        \"A\",\n        \"\",\n        Fallback,\n        \"a, (b)\",\n    ),\n    sdk(\"C\", \"d \\\"e\\\"\"),\n";
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            calls(body),
            [
                ("row".to_owned(), owned(&["A", "", "Fallback", "a, (b)"])),
                ("sdk".to_owned(), owned(&["C", "d \"e\""])),
            ]
        );
    }
}
