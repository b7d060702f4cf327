//! The checkpoint on disk: two files, each replaced as a whole, written by a thread of their own.
//!
//! Owns the guarantee that a file is either the former or the new one, also after a crash: temporary file, fsync,
//! rename, fsync of the directory.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ipam_core::{Checkpoint, StoredFiles};

use crate::paths::Paths;

/// Most bytes of a file that are read, as many as the core takes: a node of a thousand pods needs a fortieth.
const LONGEST: u64 = 16 << 20;

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
    /// A file that no daemon wrote.
    #[error("{path} has more than {LONGEST} bytes")]
    TooLong {
        /// The file.
        path: PathBuf,
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

/// Reads what is there; a file that is missing is no error. One that is too long is set aside and counts as unreadable.
pub fn read(paths: &Paths) -> Result<StoredFiles, FileError> {
    let ipam_json = read_or_set_aside(&paths.ipam_json)?;
    let side_file = read_or_set_aside(&paths.side_file)?;
    let is_unreadable = [&ipam_json, &side_file]
        .iter()
        .any(|stored| matches!(stored, Stored::SetAside));
    let mut files = StoredFiles {
        ipam_json: ipam_json.bytes(),
        side_file: side_file.bytes(),
    };
    let none = files.ipam_json.is_none() && files.side_file.is_none();
    // A run that ended before it could write again leaves nothing but what it had set aside.
    if is_unreadable
        || none
            && [&paths.ipam_json, &paths.side_file]
                .iter()
                .any(|path| bad(path).exists())
    {
        there_were_files(&mut files);
    }
    Ok(files)
}

/// Where nothing else tells of former files an empty side file does: addresses of unknown past then rest once.
pub fn there_were_files(files: &mut StoredFiles) {
    files.side_file.get_or_insert_default();
}

enum Stored {
    Missing,
    Bytes(Vec<u8>),
    SetAside,
}

impl Stored {
    fn bytes(self) -> Option<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Missing | Self::SetAside => None,
        }
    }
}

fn read_or_set_aside(path: &Path) -> Result<Stored, FileError> {
    match read_one(path) {
        Ok(bytes) => Ok(bytes.map_or(Stored::Missing, Stored::Bytes)),
        Err(error @ FileError::TooLong { .. }) => {
            let aside = set_aside(path)?;
            tracing::error!(%error, aside = %aside.display(), "set aside");
            Ok(Stored::SetAside)
        }
        Err(error) => Err(error),
    }
}

/// Never holds more than the limit in memory: a file may be of any length, or grow meanwhile.
fn read_one(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes)) {
        Ok(_) if bytes.len() as u64 > LONGEST => Err(FileError::TooLong { path: path.to_owned() }),
        Ok(_) => Ok(Some(bytes)),
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
    let aside = bad(path);
    fs::rename(path, &aside).map_err(|source| FileError::SetAside {
        path: path.to_owned(),
        source,
    })?;
    Ok(aside)
}

/// Writes what was read from a file that is used in part to `<name>.bad`: the next checkpoint replaces the file.
pub fn keep_copy(path: &Path, bytes: &[u8]) -> Result<PathBuf, FileError> {
    let aside = bad(path);
    replace(&aside, bytes)?;
    Ok(aside)
}

fn bad(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".bad");
    PathBuf::from(name)
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

    #[test]
    fn a_file_that_is_too_long_is_set_aside_and_leaves_word_that_it_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path().to_str().unwrap(), "/ipam.json");
        let lengthen = |path: &Path, bytes| File::create(path).unwrap().set_len(bytes).unwrap();
        lengthen(&paths.ipam_json, LONGEST);
        assert_eq!(read(&paths).unwrap().ipam_json.unwrap().len() as u64, LONGEST);
        lengthen(&paths.ipam_json, LONGEST + 1);
        let unreadable = StoredFiles {
            ipam_json: None,
            side_file: Some(Vec::new()),
        };
        assert_eq!(read(&paths).unwrap(), unreadable);
        let aside = directory.path().join("ipam.json.bad");
        assert_eq!(fs::metadata(aside).unwrap().len(), LONGEST + 1);
        assert_eq!(read(&paths).unwrap(), unreadable, "also after a run that wrote nothing");
        lengthen(&paths.side_file, LONGEST + 1);
        assert_eq!(read(&paths).unwrap(), unreadable);
        assert!(!paths.side_file.exists());
    }
}
