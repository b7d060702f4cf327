//! The files of the repository, as they lie on disk: what git ignores is left out by name.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Build output, git's own files, and editors' and tools' directories.
const IGNORED: [&str; 4] = ["target", ".git", ".idea", ".vscode"];

/// One file.
#[derive(Debug)]
pub(super) struct File {
    /// Relative to the root.
    pub(super) path: PathBuf,
    /// Bytes.
    pub(super) size: u64,
    /// Its text; `None` when it is none.
    pub(super) text: Option<String>,
}

impl File {
    /// Whether it is Rust source.
    pub(super) fn is_rust(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "rs")
    }

    /// Its lines, counted from 1; none when it is no text.
    pub(super) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let text = self.text.as_deref().unwrap_or_default();
        text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

/// All files, by path.
pub(super) fn all(root: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(directory) = pending.pop() {
        let entries = fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))?;
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if IGNORED.iter().any(|ignored| entry.file_name() == *ignored) {
                continue;
            }
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_file() {
                files.push(read(root, &entry.path())?);
            }
        }
    }
    files.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(files)
}

fn read(root: &Path, path: &Path) -> Result<File> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(File {
        path: path.strip_prefix(root)?.to_path_buf(),
        size: u64::try_from(bytes.len())?,
        text: String::from_utf8(bytes).ok(),
    })
}
