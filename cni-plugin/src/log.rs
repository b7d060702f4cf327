//! The log file: one JSON object per line, rotated by size.
//!
//! Many plugins run at once and share the file, so each line is one `write` on a descriptor in append mode, and only one
//! process rotates: the one that holds the lock of the file that has become too long. A log that cannot be written is
//! never a reason to fail a pod. Nothing of the configuration is logged as a whole: runtimes put all of a pod's annotations
//! there. Standard output is not a possible target.

use std::fmt::{Display, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cni_spec::{LogLevel, LogTarget};
use nix::fcntl::{Flock, FlockArg, OFlag};

use crate::paths::Paths;

/// As the reference rotates.
const SIZE_MAX: u64 = 100 << 20;
/// As many as the reference keeps.
const BACKUPS: u32 = 5;

/// Where this call's lines go.
#[derive(Debug)]
pub(crate) struct Log {
    level: LogLevel,
    file: Option<File>,
    /// The fields that every line of this call has, as JSON members with a leading comma.
    context: String,
}

/// A named value of a line.
pub(crate) type Field<'a> = (&'a str, &'a dyn Display);

impl Log {
    /// Opens, and rotates if it is time. Falls back to standard error.
    pub(crate) fn open(target: &LogTarget, level: LogLevel, paths: &Paths, context: &[Field<'_>]) -> Self {
        let file = match target {
            LogTarget::Stderr => None,
            LogTarget::File(path) => open_rotated(&paths.rooted(path), SIZE_MAX).ok(),
        };
        Self {
            level,
            file,
            context: members(context),
        }
    }

    /// For whoever debugs the plugin.
    pub(crate) fn debug(&self, msg: &str, fields: &[Field<'_>]) {
        self.line(LogLevel::Debug, msg, fields);
    }

    /// What an operator cares about.
    pub(crate) fn info(&self, msg: &str, fields: &[Field<'_>]) {
        self.line(LogLevel::Info, msg, fields);
    }

    /// Something to look at, although the call goes on.
    pub(crate) fn warn(&self, msg: &str, fields: &[Field<'_>]) {
        self.line(LogLevel::Warn, msg, fields);
    }

    /// The call fails.
    pub(crate) fn error(&self, msg: &str, fields: &[Field<'_>]) {
        self.line(LogLevel::Error, msg, fields);
    }

    fn line(&self, level: LogLevel, msg: &str, fields: &[Field<'_>]) {
        if level < self.level {
            return;
        }
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (level, ts, msg, fields) = (level.as_str(), timestamp(since_epoch), quoted(msg), members(fields));
        let line = format!(
            "{{\"level\":\"{level}\",\"ts\":\"{ts}\",\"msg\":{msg}{}{fields}}}\n",
            self.context
        );
        // Nothing sensible can be done about a full disk here.
        let _ = match &self.file {
            Some(file) => (&*file).write_all(line.as_bytes()),
            None => io::stderr().write_all(line.as_bytes()),
        };
    }
}

fn members(fields: &[Field<'_>]) -> String {
    let mut text = String::new();
    for (name, value) in fields {
        let _ = write!(text, ",{}:{}", quoted(name), quoted(&value.to_string()));
    }
    text
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

fn open_rotated(path: &Path, size_max: u64) -> io::Result<File> {
    let file = open(path)?;
    if file.metadata()?.len() < size_max {
        return Ok(file);
    }
    // Somebody else rotates: this call's lines still belong to the old file.
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
    open(path)
}

/// Never blocks, whatever the path turns out to be.
fn open(path: &Path) -> io::Result<File> {
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

/// RFC 3339 in UTC with milliseconds.
fn timestamp(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        since_epoch.subsec_millis()
    )
}

/// Civil date of a day since 1970-01-01. Years are counted from March, so that the leap day is the last one, in cycles of
/// 400 years, which have 146,097 days.
fn date(day_number: u64) -> (u64, u64, u64) {
    let days = day_number + 719_468; // since 0000-03-01
    let (cycle, day_of_cycle) = (days / 146_097, days % 146_097);
    let leap_days = day_of_cycle / 1460 - day_of_cycle / 36_524 + day_of_cycle / 146_096;
    let year_of_cycle = (day_of_cycle - leap_days) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (cycle * 400 + year_of_cycle + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_civil() {
        let at = |seconds: u64| timestamp(Duration::from_millis(seconds * 1000 + 7));
        assert_eq!(at(0), "1970-01-01T00:00:00.007Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59.007Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.007Z");
        assert_eq!(at(1_709_251_200), "2024-03-01T00:00:00.007Z");
        assert_eq!(at(4_102_444_799), "2099-12-31T23:59:59.007Z");
    }

    #[test]
    fn a_line_is_one_json_object_with_the_context() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/plugin.log");
        let target = LogTarget::File(path.clone());
        let log = Log::open(&target, LogLevel::Info, &Paths::under(None), &[("container", &"c\"1")]);
        log.debug("not written", &[]);
        log.info("wired", &[("address", &"10.0.0.1")]);
        let text = fs::read_to_string(path).unwrap();
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(
            (&line["msg"], &line["container"], &line["address"]),
            (&"wired".into(), &"c\"1".into(), &"10.0.0.1".into())
        );
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn a_long_file_moves_aside_and_the_sixth_backup_never_exists() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plugin.log");
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
    fn a_log_that_cannot_be_opened_is_not_fatal() {
        let target = LogTarget::File("/proc/no/such/log".into());
        let log = Log::open(&target, LogLevel::Error, &Paths::under(None), &[]);
        log.debug("below the level", &[]);
        assert!(log.file.is_none(), "lines go to standard error instead");
    }
}
