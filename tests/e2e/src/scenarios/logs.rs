//! What the programs under test wrote, for whoever reads a failure.

use std::io::Write;
use std::path::{Path, PathBuf};

/// Where the sandbox keeps the nodes' files.
const NODES: &str = "/run/nodes";
/// Of each file only the end is shown.
const LINES: usize = 250;

/// Prints the end of every log file of every node on stderr.
pub(crate) fn show() {
    let mut files = Vec::new();
    collect(Path::new(NODES), &mut files);
    files.sort();
    let mut out = std::io::stderr().lock();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let first = lines.len().saturating_sub(LINES);
        // The reader of a failure may have gone.
        let _ = writeln!(out, "--- {} ({} lines)", file.display(), lines.len());
        for line in &lines[first..] {
            let _ = writeln!(out, "{line}");
        }
    }
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_log = path
            .extension()
            .is_some_and(|extension| extension == "log" || extension == "out");
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(&path, files),
            Ok(_) if is_log => files.push(path),
            Ok(_) | Err(_) => {}
        }
    }
}
