//! The plugin's log: one JSON object per line.
//!
//! A log that cannot be written is never a reason to fail a pod. Nothing of the configuration is logged as a whole: runtimes
//! put all of a pod's annotations there. Standard output is not a possible target.

use std::fmt::{Display, Write as _};
use std::fs::File;
use std::io::{self, Write};

use cni_spec::{LogLevel, LogTarget};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::paths::Paths;

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
            LogTarget::File(path) => log_file::open(&paths.rooted(path)).ok(),
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
        let ts = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        let (level, msg, fields) = (level.as_str(), quoted(msg), members(fields));
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

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
    fn a_log_that_cannot_be_opened_is_not_fatal() {
        let target = LogTarget::File("/proc/no/such/log".into());
        let log = Log::open(&target, LogLevel::Error, &Paths::under(None), &[]);
        log.debug("below the level", &[]);
        assert!(log.file.is_none(), "lines go to standard error instead");
    }
}
