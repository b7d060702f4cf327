//! The checkpoint on disk: two files, each replaced as a whole, written by a thread of their own.
//!
//! Owns the guarantee that a file is either the former or the new one, also after a crash: temporary file, fsync,
//! rename, fsync of the directory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ipam_core::{Checkpoint, StoredFiles};

use crate::paths::Paths;

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Reading at start.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Replacing the file.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Moving a bad file out of the way.
    #[error("cannot set {path} aside")]
    SetAside {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Reads what is there; a file that is missing is no error.
pub fn read(paths: &Paths) -> Result<StoredFiles, FileError> {
    Ok(StoredFiles {
        ipam_json: read_one(&paths.ipam_json)?,
        side_file: read_one(&paths.side_file)?,
    })
}

fn read_one(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Replaces both files, `ipam.json` first: the side file names the `ipam.json` it belongs to.
pub fn write(paths: &Paths, checkpoint: &Checkpoint) -> Result<(), FileError> {
    replace(&paths.ipam_json, &checkpoint.ipam_json)?;
    replace(&paths.side_file, &checkpoint.side_file)
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let failed = |source| FileError::Write {
        path: path.to_owned(),
        source,
    };
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    let temporary = path.with_extension("tmp");
    let write_all = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(directory)?.sync_all()
    };
    write_all().map_err(failed)
}

/// Moves a file that cannot be used to `<name>.bad`, where a person finds it.
pub fn set_aside(path: &Path) -> Result<PathBuf, FileError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".bad");
    let aside = PathBuf::from(name);
    fs::rename(path, &aside).map_err(|source| FileError::SetAside {
        path: path.to_owned(),
        source,
    })?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(text: &str) -> Checkpoint {
        Checkpoint {
            generation: ipam_core::Generation(1),
            ipam_json: text.as_bytes().to_vec(),
            side_file: b"side".to_vec(),
        }
    }

    #[test]
    fn what_was_written_is_read_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path().to_str().unwrap(), "/ipam.json");
        assert_eq!(read(&paths).unwrap(), StoredFiles::default());
        write(&paths, &checkpoint("one")).unwrap();
        write(&paths, &checkpoint("two")).unwrap();
        let stored = read(&paths).unwrap();
        assert_eq!(stored.ipam_json.as_deref(), Some(&b"two"[..]));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_directory_that_is_missing_is_named() {
        let paths = Paths::new("/nonexistent", "/ipam.json");
        let text = write(&paths, &checkpoint("x")).unwrap_err().to_string();
        assert!(text.contains("/nonexistent/ipam.json"), "{text}");
    }
}
