//! A log file that many processes append to and that never grows without bound.
//!
//! Each line is one `write` on a descriptor in append mode. A file that has become too long is renamed to `FILE.1`, older
//! ones move up, the oldest goes; only the process that holds the file's lock does that. Used by the plugin, which opens the
//! file once per call, and by the daemon, which keeps it open.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg, OFlag};

/// Bytes after which a file is rotated, as the reference does.
const SIZE_MAX: u64 = 100 << 20;
/// Rotated files that are kept, as many as the reference keeps.
const BACKUPS: u32 = 5;
/// A writer that stays looks at the file's size after this many bytes of its own.
const LOOK_EVERY: u64 = 1 << 20;

/// Opens the file for appending, makes its directory if that is missing, and rotates if it is time.
pub fn open(path: &Path) -> io::Result<File> {
    open_rotated(path, SIZE_MAX)
}

/// A log file that stays open and rotates by itself.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    since_look: u64,
    look_every: u64,
    size_max: u64,
}

impl LogFile {
    /// Opens as [`open`] does.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::with_limits(path, SIZE_MAX, LOOK_EVERY)
    }

    fn with_limits(path: &Path, size_max: u64, look_every: u64) -> io::Result<Self> {
        let file = open_rotated(path, size_max)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            since_look: 0,
            look_every,
            size_max,
        })
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.since_look >= self.look_every {
            self.since_look = 0;
            // A file that cannot be opened again is kept: a long log is better than none.
            if let Ok(file) = open_rotated(&self.path, self.size_max) {
                self.file = file;
            }
        }
        let written = self.file.write(line)?;
        self.since_look += u64::try_from(written).unwrap_or(u64::MAX);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn open_rotated(path: &Path, size_max: u64) -> io::Result<File> {
    let file = append_to(path)?;
    if file.metadata()?.len() < size_max {
        return Ok(file);
    }
    // Somebody else rotates: these lines still belong to the old file.
    let Ok(lock) = Flock::lock(file.try_clone()?, FlockArg::LockExclusiveNonblock) else {
        return Ok(file);
    };
    // Between opening and locking another process may have finished a rotation.
    let same = fs::metadata(path).is_ok_and(|there| lock.metadata().is_ok_and(|ours| there.ino() == ours.ino()));
    if same {
        for n in (1..BACKUPS).rev() {
            // Gaps are fine: not every backup exists yet.
            let _ = fs::rename(backup(path, n), backup(path, n + 1));
        }
        fs::rename(path, backup(path, 1))?;
    }
    append_to(path)
}

/// Never blocks, whatever the path turns out to be.
fn append_to(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .append(true)
        .create(true)
        .mode(0o644)
        .custom_flags(OFlag::O_NONBLOCK.bits());
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(path.parent().unwrap_or(path))?;
            options.open(path)
        }
        opened => opened,
    }
}

fn backup(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_moves_aside_and_the_sixth_backup_never_exists() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/plugin.log");
        for round in 0..8 {
            let mut file = open_rotated(&path, 4).unwrap();
            write!(file, "round {round}").unwrap();
        }
        let read = |n| fs::read_to_string(backup(&path, n)).unwrap();
        assert_eq!(
            (fs::read_to_string(&path).unwrap(), read(1), read(5)),
            ("round 7".into(), "round 6".into(), "round 2".into())
        );
        assert!(!backup(&path, 6).exists());
    }

    #[test]
    fn concurrent_openers_rotate_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plugin.log");
        fs::write(&path, "-".repeat(2000)).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| open_rotated(&path, 1000).unwrap().write_all(b"x\n").unwrap());
            }
        });
        let (old, new) = (
            fs::read_to_string(backup(&path, 1)).unwrap(),
            fs::read_to_string(&path).unwrap(),
        );
        assert_eq!(old.matches('x').count() + new.matches('x').count(), 16);
        assert!(old.starts_with('-') && new.len() < 1000 && !backup(&path, 2).exists());
    }

    #[test]
    fn a_file_that_stays_open_rotates_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ipamd.log");
        let mut log = LogFile::with_limits(&path, 100, 10).unwrap();
        for n in 0..100 {
            writeln!(log, "line {n:03}").unwrap();
        }
        let newest = fs::read_to_string(&path).unwrap();
        assert!(newest.len() < 130 && newest.ends_with("line 099\n"), "{newest}");
        assert!(backup(&path, 5).exists() && !backup(&path, 6).exists());
    }
}
