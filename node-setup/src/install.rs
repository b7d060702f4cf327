//! Files of the host: plugins, and the list of them.
//!
//! Invariant: under its final name a file is whole, durable and executable (where it should be) or it is what was there
//! before. A container runtime may start a plugin at any moment, and a node may lose its power at any moment.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Bits of a mode that are copied.
const MODE: u32 = 0o777;

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The file is new, or another one than before.
    Replaced,
    /// It was there with this content and mode.
    Unchanged,
}

/// A file could not be put in place; what was there before still is.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The source cannot be read.
    #[error("read {path}")]
    Read {
        /// The source.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The new content cannot be written beside the old.
    #[error("write {path}")]
    Write {
        /// The temporary file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The new file cannot get its name.
    #[error("rename to {path}")]
    Rename {
        /// The final name.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The regular files of a directory but for those named, in the order of their names.
pub fn files_of(directory: &Path, except: &[&str]) -> Result<Vec<PathBuf>, InstallError> {
    let read = |source| InstallError::Read {
        path: directory.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(read)? {
        let entry = entry.map_err(read)?;
        let name = entry.file_name();
        if entry.file_type().map_err(read)?.is_file() && !except.iter().any(|except| name == *except) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Copies programs under their own names, with their modes. All are written before the first one gets its name: where one does
/// not fit, none changes.
pub fn copy(sources: &[PathBuf], directory: &Path) -> Result<Vec<(PathBuf, Change)>, InstallError> {
    let mut staged = Vec::new();
    for path in sources {
        let read = |source| InstallError::Read {
            path: path.clone(),
            source,
        };
        let name = path
            .file_name()
            .ok_or_else(|| read(io::ErrorKind::InvalidFilename.into()))?;
        let mode = fs::metadata(path).map_err(read)?.mode() & MODE;
        let content = fs::read(path).map_err(read)?;
        staged.push(Staged::write(directory.join(name), &content, mode)?);
    }
    staged.into_iter().map(Staged::publish).collect()
}

/// Replaces one file.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> Result<Change, InstallError> {
    let (_, change) = Staged::write(path.to_owned(), content, mode)?.publish()?;
    Ok(change)
}

/// A file that is written and has not got its name.
#[derive(Debug)]
struct Staged {
    path: PathBuf,
    /// None when the right one is in place.
    temporary: Option<Temporary>,
}

/// Removed unless it was renamed.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // A later run removes what stays.
        let _ = fs::remove_file(&self.0);
    }
}

impl Staged {
    fn write(path: PathBuf, content: &[u8], mode: u32) -> Result<Self, InstallError> {
        let temporary = temporary_of(&path);
        // A leftover of a run that was killed, of whatever mode and owner; also a symbolic link, which must not be followed.
        if let Err(source) = fs::remove_file(&temporary)
            && source.kind() != io::ErrorKind::NotFound
        {
            return Err(InstallError::Write {
                path: temporary,
                source,
            });
        }
        if is_in_place(&path, content, mode) {
            return Ok(Self { path, temporary: None });
        }
        let guard = Temporary(temporary);
        write_durably(&guard.0, content, mode).map_err(|source| InstallError::Write {
            path: guard.0.clone(),
            source,
        })?;
        Ok(Self {
            path,
            temporary: Some(guard),
        })
    }

    fn publish(self) -> Result<(PathBuf, Change), InstallError> {
        let Some(temporary) = self.temporary else {
            return Ok((self.path, Change::Unchanged));
        };
        let renamed = fs::rename(&temporary.0, &self.path).and_then(|()| {
            let directory = self.path.parent().unwrap_or_else(|| Path::new("/"));
            File::open(directory)?.sync_all()
        });
        renamed.map_err(|source| InstallError::Rename {
            path: self.path.clone(),
            source,
        })?;
        Ok((self.path, Change::Replaced))
    }
}

/// The ending that the reference uses; runtimes do not read such files as lists.
fn temporary_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

/// A symbolic link is not in place: what it points to is somebody else's.
fn is_in_place(path: &Path, content: &[u8], mode: u32) -> bool {
    let is_alike = |metadata: fs::Metadata| {
        metadata.is_file() && metadata.len() == content.len() as u64 && metadata.mode() & MODE == mode
    };
    fs::symlink_metadata(path).is_ok_and(is_alike) && fs::read(path).is_ok_and(|known| known == content)
}

/// The mode comes last but before the name: whoever finds the file by its name can execute it.
fn write_durably(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    // Not at creation: the process's own mask would take bits away.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host {
        root: tempfile::TempDir,
    }

    impl Host {
        fn new() -> Self {
            let host = Self {
                root: tempfile::tempdir().unwrap(),
            };
            fs::create_dir(host.bin()).unwrap();
            fs::create_dir(host.app()).unwrap();
            host
        }

        fn bin(&self) -> PathBuf {
            self.root.path().join("bin")
        }

        fn app(&self) -> PathBuf {
            self.root.path().join("app")
        }

        fn program(&self, name: &str, content: &str) -> PathBuf {
            let path = self.app().join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.bin()).unwrap();
            let mut names: Vec<_> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    fn changes(done: &[(PathBuf, Change)]) -> Vec<Change> {
        done.iter().map(|(_, change)| *change).collect()
    }

    #[test]
    fn programs_arrive_with_their_modes_and_are_left_alone_afterwards() {
        let host = Host::new();
        let sources = [host.program("aws-cni", "one"), host.program("portmap", "two")];
        assert_eq!(changes(&copy(&sources, &host.bin()).unwrap()), [Change::Replaced; 2]);
        let file = host.bin().join("aws-cni");
        let first = fs::metadata(&file).unwrap();
        assert_eq!(first.mode() & MODE, 0o755);
        assert_eq!(changes(&copy(&sources, &host.bin()).unwrap()), [Change::Unchanged; 2]);
        assert_eq!(fs::metadata(&file).unwrap().ino(), first.ino());
        host.program("aws-cni", "new");
        assert_eq!(
            changes(&copy(&sources, &host.bin()).unwrap()),
            [Change::Replaced, Change::Unchanged]
        );
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(host.names(), ["aws-cni", "portmap"]);
    }

    #[test]
    fn a_program_is_whole_and_executable_before_it_has_its_name() {
        let host = Host::new();
        let file = host.bin().join("aws-cni");
        let staged = Staged::write(file.clone(), b"plugin", 0o755).unwrap();
        let waiting = fs::metadata(temporary_of(&file)).unwrap();
        assert_eq!((waiting.mode() & MODE, waiting.len(), file.exists()), (0o755, 6, false));
        staged.publish().unwrap();
        assert_eq!(fs::metadata(&file).unwrap().ino(), waiting.ino());
        // One that is not published after all leaves nothing.
        drop(Staged::write(file, b"another", 0o755).unwrap());
        assert_eq!(host.names(), ["aws-cni"]);
    }

    #[test]
    fn a_file_that_lost_its_mode_is_replaced() {
        let host = Host::new();
        let sources = [host.program("aws-cni", "one")];
        copy(&sources, &host.bin()).unwrap();
        fs::set_permissions(host.bin().join("aws-cni"), fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(changes(&copy(&sources, &host.bin()).unwrap()), [Change::Replaced]);
        assert_eq!(fs::metadata(host.bin().join("aws-cni")).unwrap().mode() & MODE, 0o755);
    }

    #[test]
    fn leftovers_of_a_killed_run_go_and_links_are_not_followed() {
        let host = Host::new();
        let sources = [host.program("aws-cni", "one")];
        let elsewhere = host.root.path().join("elsewhere");
        fs::write(&elsewhere, "somebody else's").unwrap();
        std::os::unix::fs::symlink(&elsewhere, host.bin().join("aws-cni.tmp")).unwrap();
        std::os::unix::fs::symlink(&elsewhere, host.bin().join("aws-cni")).unwrap();
        copy(&sources, &host.bin()).unwrap();
        assert_eq!(fs::read(&elsewhere).unwrap(), b"somebody else's");
        assert!(fs::symlink_metadata(host.bin().join("aws-cni")).unwrap().is_file());
        // Also when nothing else is to be done.
        fs::write(host.bin().join("aws-cni.tmp"), "half").unwrap();
        copy(&sources, &host.bin()).unwrap();
        assert_eq!(host.names(), ["aws-cni"]);
    }

    #[test]
    fn where_one_file_cannot_be_written_none_changes() {
        let host = Host::new();
        let old = [host.program("aws-cni", "old"), host.program("portmap", "old")];
        copy(&old, &host.bin()).unwrap();
        host.program("aws-cni", "new");
        let missing = host.app().join("egress-cni");
        let error = copy(&[old[0].clone(), missing], &host.bin()).unwrap_err();
        assert!(error.to_string().contains("egress-cni"), "{error}");
        assert_eq!(fs::read(host.bin().join("aws-cni")).unwrap(), b"old");
        assert_eq!(host.names(), ["aws-cni", "portmap"]);
    }

    #[test]
    fn files_are_listed_without_directories_and_exceptions() {
        let host = Host::new();
        for name in ["b", "a", "aws-vpc-cni-init"] {
            host.program(name, name);
        }
        fs::create_dir(host.app().join("d")).unwrap();
        let files = files_of(&host.app(), &["aws-vpc-cni-init"]).unwrap();
        assert_eq!(files, [host.app().join("a"), host.app().join("b")]);
    }
}
