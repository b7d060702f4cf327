//! The error object that a runtime reads from the plugin's standard output.

use std::fmt;

use serde::Serialize;

/// Why a call failed, as the CNI specification numbers it. Below 100 the numbers are the specification's; 999 is what
/// the Go library uses for everything that a plugin itself reports, and what operators search for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum ErrorCode {
    /// The configuration's `cniVersion` is not supported, or too old for the verb.
    IncompatibleVersion = 1,
    /// A field of the configuration is not supported.
    UnsupportedField = 2,
    /// The container is unknown.
    UnknownContainer = 3,
    /// A `CNI_*` variable is missing or invalid.
    InvalidEnvironment = 4,
    /// Reading or writing failed.
    Io = 5,
    /// Standard input is no valid JSON of the expected form.
    Decoding = 6,
    /// The configuration is well-formed but invalid.
    InvalidConfig = 7,
    /// `CNI_NETNS` names no namespace, or the plugin's own.
    InvalidNetns = 8,
    /// A passing condition.
    TryAgainLater = 11,
    /// The plugin cannot serve ADD at the moment (answer to STATUS).
    NotAvailable = 50,
    /// The plugin cannot serve ADD, and running containers may lack connectivity (answer to STATUS).
    LimitedConnectivity = 51,
    /// The plugin's own work failed.
    Internal = 999,
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn number(self) -> u32 {
        self as u32
    }
}

/// What the plugin prints when it fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniError {
    /// Class of the failure.
    pub code: ErrorCode,
    /// What failed and why, for a person. Runtimes show it in the pod's events.
    pub msg: String,
    /// More text, possibly empty.
    pub details: String,
}

#[derive(Serialize)]
struct Wire<'a> {
    code: u32,
    msg: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    details: &'a str,
}

impl CniError {
    /// An error without details.
    pub fn new(code: ErrorCode, msg: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    /// An error of the plugin's own work (code 999).
    pub fn internal(msg: impl Into<String>) -> Self {
        Self::new(ErrorCode::Internal, msg)
    }

    /// The same error with details.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The JSON object. It has no `cniVersion` key: callers of the Go library have never seen one there.
    pub fn to_json(&self) -> String {
        let wire = Wire {
            code: self.code.number(),
            msg: &self.msg,
            details: &self.details,
        };
        serde_json::to_string(&wire).expect("a number and two strings always serialise")
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.msg, self.code.number())?;
        if self.details.is_empty() {
            Ok(())
        } else {
            write!(f, "; {}", self.details)
        }
    }
}

impl std::error::Error for CniError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_has_code_and_msg_and_details_only_when_there_are_some() {
        let plain = CniError::internal("add cmd: \"x\"");
        assert_eq!(plain.to_json(), r#"{"code":999,"msg":"add cmd: \"x\""}"#);
        let detailed = CniError::new(ErrorCode::InvalidEnvironment, "m").with_details("d");
        assert_eq!(detailed.to_json(), r#"{"code":4,"msg":"m","details":"d"}"#);
    }
}
