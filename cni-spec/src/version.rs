//! The protocol versions we speak, and what differs between them.

use std::fmt;

use serde::Serialize;

use crate::{CniError, ErrorCode};

/// A supported version of the CNI protocol, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CniVersion {
    /// 0.1.0: results hold `ip4` and `ip6`. Also what a configuration without `cniVersion` means.
    V0_1_0,
    /// 0.2.0: as 0.1.0.
    V0_2_0,
    /// 0.3.0: results hold `interfaces` and `ips`, each address with its family.
    V0_3_0,
    /// 0.3.1: as 0.3.0.
    V0_3_1,
    /// 0.4.0: adds CHECK.
    V0_4_0,
    /// 1.0.0: addresses lose the family.
    V1_0_0,
    /// 1.1.0: adds GC and STATUS.
    V1_1_0,
}

/// The form of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `ip4` and `ip6` only.
    Families,
    /// `interfaces`, `ips` with `version`.
    Tagged,
    /// `interfaces`, `ips`.
    Plain,
}

/// A `cniVersion` that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// Not one of ours.
    #[error("incompatible CNI versions")]
    Unsupported {
        /// The configuration's text.
        found: String,
    },
    /// The verb came with a later version.
    #[error("config version does not allow {verb}")]
    TooOld {
        /// Name of the verb.
        verb: &'static str,
        /// The configuration's version.
        found: CniVersion,
    },
}

impl From<VersionError> for CniError {
    fn from(error: VersionError) -> Self {
        let details = match &error {
            VersionError::Unsupported { found } => {
                format!("config is {found:?}, plugin supports {:?}", CniVersion::names())
            }
            VersionError::TooOld { verb, found } => format!("cniVersion is {found}, {verb} came later"),
        };
        Self::new(ErrorCode::IncompatibleVersion, error.to_string()).with_details(details)
    }
}

impl CniVersion {
    /// All of them, oldest first.
    pub const ALL: [Self; 7] = [
        Self::V0_1_0,
        Self::V0_2_0,
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];

    /// The latest one: what VERSION answers with.
    pub const LATEST: Self = Self::V1_1_0;

    /// An exact match; the empty text means 0.1.0, which had no such key yet.
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        if text.is_empty() {
            return Ok(Self::V0_1_0);
        }
        let found = Self::ALL.into_iter().find(|v| v.as_str() == text);
        found.ok_or_else(|| VersionError::Unsupported { found: text.to_owned() })
    }

    /// The text in configurations and results.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Refuses a verb that this version does not know yet.
    pub fn allow(self, verb: &'static str, since: Self) -> Result<(), VersionError> {
        if self >= since {
            Ok(())
        } else {
            Err(VersionError::TooOld { verb, found: self })
        }
    }

    pub(crate) const fn shape(self) -> Shape {
        match self {
            Self::V0_1_0 | Self::V0_2_0 => Shape::Families,
            Self::V0_3_0 | Self::V0_3_1 | Self::V0_4_0 => Shape::Tagged,
            Self::V1_0_0 | Self::V1_1_0 => Shape::Plain,
        }
    }

    fn names() -> [&'static str; 7] {
        Self::ALL.map(Self::as_str)
    }
}

impl fmt::Display for CniVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The answer to VERSION.
pub fn version_output() -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Wire {
        cni_version: &'static str,
        supported_versions: [&'static str; 7],
    }
    let wire = Wire {
        cni_version: CniVersion::LATEST.as_str(),
        supported_versions: CniVersion::names(),
    };
    serde_json::to_string(&wire).expect("strings always serialise")
}

/// The versions as one line for people.
pub fn version_list() -> String {
    CniVersion::names().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_answer_lists_all_versions() {
        assert_eq!(
            version_output(),
            r#"{"cniVersion":"1.1.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#
        );
    }

    #[test]
    fn versions_match_exactly_and_none_means_the_first() {
        assert_eq!(CniVersion::parse(""), Ok(CniVersion::V0_1_0));
        for version in CniVersion::ALL {
            assert_eq!(CniVersion::parse(version.as_str()), Ok(version));
        }
        for bad in ["0.3.2", "1.0", "v1.0.0", "2.0.0", "1.0.0 "] {
            let error = CniError::from(CniVersion::parse(bad).unwrap_err());
            assert_eq!(error.code, ErrorCode::IncompatibleVersion, "{bad:?}");
            assert!(error.details.contains(bad), "{}", error.details);
        }
    }

    #[test]
    fn verbs_need_the_version_that_brought_them() {
        assert!(CniVersion::V0_4_0.allow("CHECK", CniVersion::V0_4_0).is_ok());
        let error = CniError::from(CniVersion::V1_0_0.allow("STATUS", CniVersion::V1_1_0).unwrap_err());
        assert_eq!(
            (error.code.number(), error.msg.as_str()),
            (1, "config version does not allow STATUS")
        );
    }
}
