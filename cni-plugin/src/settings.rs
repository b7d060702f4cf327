//! The plugin's own variables. The runtime's configuration is `cni-spec`'s subject.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `VPC_CNI_ROOT` | replaces `/` in the paths of sockets and the log file | none |
//! | `VPC_CNI_ADD_DEADLINE` | seconds (may have a fraction) that an ADD or GC may take, waiting for ipamd included | 35 |
//! | `VPC_CNI_DEL_DEADLINE` | the same for a DEL or CHECK; half of a DEL's may be spent on waiting for ipamd's answer | 10 |

use std::time::Duration;

use cni_spec::{CniError, ErrorCode};

use crate::paths::Paths;

/// 5 s more than ipamd itself takes at most, so that its reason arrives.
const ADD_DEADLINE: Duration = Duration::from_secs(35);
/// Below the shortest time for which ipamd holds a freed address: a late DEL never meets a new owner.
const DEL_DEADLINE: Duration = Duration::from_secs(10);
/// Runtimes give up after minutes.
const LONGEST: Duration = Duration::from_secs(600);

/// The plugin's own variables, checked.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where sockets and logs are.
    pub(crate) paths: Paths,
    /// For a whole ADD or GC.
    pub(crate) add_deadline: Duration,
    /// For a whole DEL or CHECK.
    pub(crate) del_deadline: Duration,
}

/// A variable that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SettingsError {
    /// No time.
    #[error("{name}={text:?}: expected seconds, more than 0 and at most 600")]
    Seconds {
        /// The variable.
        name: &'static str,
        /// What it holds.
        text: String,
    },
    /// A root that depends on the working directory, which the runtime chooses.
    #[error("VPC_CNI_ROOT={0:?}: expected an absolute path")]
    Root(String),
}

impl From<SettingsError> for CniError {
    fn from(error: SettingsError) -> Self {
        Self::new(ErrorCode::InvalidEnvironment, error.to_string())
    }
}

impl Settings {
    /// Reads the variables through `lookup`; an empty one counts as missing.
    pub(crate) fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let get = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let root = match get("VPC_CNI_ROOT") {
            Some(text) if !text.starts_with('/') => return Err(SettingsError::Root(text)),
            root => root.map(Into::into),
        };
        let seconds = |name, default| get(name).map_or(Ok(default), |text| parse_seconds(name, text));
        Ok(Self {
            paths: Paths::under(root),
            add_deadline: seconds("VPC_CNI_ADD_DEADLINE", ADD_DEADLINE)?,
            del_deadline: seconds("VPC_CNI_DEL_DEADLINE", DEL_DEADLINE)?,
        })
    }
}

fn parse_seconds(name: &'static str, text: String) -> Result<Duration, SettingsError> {
    let parsed = text
        .parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match parsed {
        Some(time) if !time.is_zero() && time <= LONGEST => Ok(time),
        _ => Err(SettingsError::Seconds { name, text }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, value: &str) -> Result<Settings, SettingsError> {
        Settings::from_env(|asked| (asked == name).then(|| value.to_owned()))
    }

    #[test]
    fn deadlines_have_defaults_and_may_be_fractions() {
        let plain = read("", "").unwrap();
        assert_eq!((plain.add_deadline, plain.del_deadline), (ADD_DEADLINE, DEL_DEADLINE));
        assert_eq!(
            read("VPC_CNI_ADD_DEADLINE", "0.5").unwrap().add_deadline,
            Duration::from_millis(500)
        );
    }

    #[test]
    fn bad_values_are_named() {
        for bad in ["0", "-1", "x", "601", "NaN", "inf"] {
            let error = read("VPC_CNI_DEL_DEADLINE", bad).unwrap_err();
            assert!(error.to_string().contains("VPC_CNI_DEL_DEADLINE"), "{error}");
        }
        assert!(read("VPC_CNI_ROOT", "relative").is_err());
    }
}
