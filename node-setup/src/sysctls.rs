//! Kernel settings that pods need on the node: which ones ([`plan`], pure), and putting them in place ([`apply`]).
//!
//! The daemon has a read-only `/proc/sys` and writes none of them, so this is the only place. Called by init.
//!
//! On `rp_filter`: only the primary interface needs to be loose. There arrive packets of pods whose rules lead out by another
//! ENI: requests to node ports, and replies to what was translated to the node's address. On a secondary ENI arrives only what
//! rules 1536 and 32765 send out by it again, so the strict check of many distributions passes. `conf.default` stays as it is: it would
//! also loosen the pods' own veths, where the strict check is what keeps a pod from using another pod's address.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::settings::{Family, Settings, Switch};

/// Where the kernel has them.
pub const ROOT: &str = "/proc/sys";

/// What it means when the kernel does not have a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Pods would not work.
    Required,
    /// Kernels may lack it, and work without.
    IfPresent,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Path below the root. Not dotted: names of interfaces may contain dots.
    pub path: PathBuf,
    /// The value.
    pub value: &'static str,
    /// What it means when it is missing.
    pub need: Need,
    /// What for, for the log.
    pub why: &'static str,
}

/// What was done about a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It had the value.
    AsWanted,
    /// It had this value.
    ChangedFrom(String),
    /// The kernel does not have it, and need not.
    Absent,
}

/// A setting that does not have its value.
#[derive(Debug)]
pub struct SysctlFailure {
    /// Path below the root.
    pub path: PathBuf,
    /// What it should be.
    pub wanted: &'static str,
    /// What it is, if it could be read.
    pub found: Option<String>,
    /// Why it could not be read or written; `None`: the kernel took it and shows another.
    pub cause: Option<io::Error>,
}

impl fmt::Display for SysctlFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} must be {}", self.path.display(), self.wanted)?;
        match &self.found {
            Some(found) => write!(f, " and is {found:?}")?,
            None => f.write_str(" and cannot be read")?,
        }
        match &self.cause {
            Some(cause) => write!(f, ": {cause}"),
            None => f.write_str(", although it was written"),
        }
    }
}

/// Settings that do not have their values; all others have.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(SysctlFailure::to_string).collect::<Vec<_>>().join("\n"))]
pub struct SysctlErrors(pub Vec<SysctlFailure>);

/// The settings for a node with this primary interface, in the order in which they are made. Switching forwarding comes first
/// in its family, as the kernel changes other settings along with it.
pub fn plan(settings: &Settings, primary: &str) -> Vec<Wanted> {
    use Need::{IfPresent, Required};
    let wanted = |path: &str, value, need, why| Wanted {
        path: path.into(),
        value,
        need,
        why,
    };
    let early_demux = match settings.early_demux {
        Switch::On => ("1", "sockets of the node are found before the route is looked up"),
        Switch::Off => ("0", "kubelet's probes reach pods with ENIs of their own"),
    };
    let mut all = vec![
        wanted("net/ipv4/ip_forward", "1", Required, "the node routes for its pods"),
        wanted(
            &format!("net/ipv4/conf/{primary}/rp_filter"),
            "2",
            Required,
            "packets of pods on other ENIs arrive here: from node ports, and as replies to what was translated",
        ),
        wanted("net/ipv4/tcp_early_demux", early_demux.0, IfPresent, early_demux.1),
    ];
    if settings.family == Family::V6 {
        let path = "net/ipv6/conf/all/disable_ipv6";
        all.push(wanted(path, "0", Required, "pods have IPv6 addresses"));
    }
    if settings.family == Family::V6 || settings.egress == Switch::On {
        all.push(wanted(
            "net/ipv6/conf/all/forwarding",
            "1",
            Required,
            "the node routes IPv6 for its pods",
        ));
        all.push(wanted(
            &format!("net/ipv6/conf/{primary}/accept_ra"),
            "2",
            Required,
            "a router ignores announcements of others otherwise, and the node's default route is one",
        ));
    }
    all
}

/// Writes what differs, and looks at everything again afterwards. Every setting is tried, whatever becomes of the others.
pub fn apply<'a>(root: &Path, plan: &'a [Wanted]) -> Result<Vec<(&'a Wanted, Outcome)>, SysctlErrors> {
    let mut outcomes = Vec::new();
    let mut failures = Vec::new();
    for wanted in plan {
        match put(root, wanted) {
            Ok(outcome) => outcomes.push((wanted, outcome)),
            Err(failure) => failures.push(failure),
        }
    }
    for (wanted, _) in outcomes.iter().filter(|(_, outcome)| *outcome != Outcome::Absent) {
        match read(root, wanted) {
            Ok(found) if found == wanted.value => {}
            Ok(found) => failures.push(failure(wanted, Some(found), None)),
            Err(cause) => failures.push(failure(wanted, None, Some(cause))),
        }
    }
    if failures.is_empty() {
        Ok(outcomes)
    } else {
        Err(SysctlErrors(failures))
    }
}

fn put(root: &Path, wanted: &Wanted) -> Result<Outcome, SysctlFailure> {
    let found = match read(root, wanted) {
        Ok(found) => found,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound && wanted.need == Need::IfPresent => {
            return Ok(Outcome::Absent);
        }
        Err(cause) => return Err(failure(wanted, None, Some(cause))),
    };
    if found == wanted.value {
        return Ok(Outcome::AsWanted);
    }
    match fs::write(root.join(&wanted.path), wanted.value) {
        Ok(()) => Ok(Outcome::ChangedFrom(found)),
        Err(cause) => Err(failure(wanted, Some(found), Some(cause))),
    }
}

fn read(root: &Path, wanted: &Wanted) -> io::Result<String> {
    Ok(fs::read_to_string(root.join(&wanted.path))?.trim().to_owned())
}

fn failure(wanted: &Wanted, found: Option<String>, cause: Option<io::Error>) -> SysctlFailure {
    SysctlFailure {
        path: wanted.path.clone(),
        wanted: wanted.value,
        found,
        cause,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let environment: BTreeMap<String, String> = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Settings::from_environment(&environment).unwrap()
    }

    fn lines(pairs: &[(&str, &str)]) -> Vec<String> {
        let plan = plan(&settings(pairs), "ens5");
        plan.iter()
            .map(|wanted| format!("{}={}", wanted.path.display(), wanted.value))
            .collect()
    }

    #[test]
    fn an_ipv4_node_forwards_and_is_loose_on_its_primary_interface_only() {
        assert_eq!(
            lines(&[]),
            [
                "net/ipv4/ip_forward=1",
                "net/ipv4/conf/ens5/rp_filter=2",
                "net/ipv4/tcp_early_demux=1"
            ]
        );
        assert!(lines(&[("DISABLE_TCP_EARLY_DEMUX", "true")]).contains(&"net/ipv4/tcp_early_demux=0".to_owned()));
    }

    #[test]
    fn ipv6_settings_follow_pods_and_egress() {
        let six = ["net/ipv6/conf/all/forwarding=1", "net/ipv6/conf/ens5/accept_ra=2"];
        assert_eq!(lines(&[("ENABLE_V6_EGRESS", "true")])[3..], six);
        let all = lines(&[("ENABLE_IPv6", "true")]);
        assert_eq!(all[3], "net/ipv6/conf/all/disable_ipv6=0");
        assert_eq!(all[4..], six);
        // Pods have IPv6 addresses whether or not they reach IPv4.
        assert_eq!(lines(&[("ENABLE_IPv6", "true"), ("ENABLE_V4_EGRESS", "false")]), all);
    }

    #[test]
    fn only_what_differs_is_written_and_what_may_be_missing_may() {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(&[]);
        let plan = plan(&settings, "eth0.100");
        for (path, value) in [
            ("net/ipv4/ip_forward", "1\n"),
            ("net/ipv4/conf/eth0.100/rp_filter", "1\n"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, value).unwrap();
        }
        let outcomes: Vec<Outcome> = apply(root.path(), &plan)
            .unwrap()
            .into_iter()
            .map(|(_, outcome)| outcome)
            .collect();
        assert_eq!(
            outcomes,
            [Outcome::AsWanted, Outcome::ChangedFrom("1".to_owned()), Outcome::Absent]
        );
    }

    #[test]
    fn what_is_missing_and_needed_is_named_with_the_value_it_should_have() {
        let root = tempfile::tempdir().unwrap();
        let errors = apply(root.path(), &plan(&settings(&[]), "eth0")).unwrap_err();
        assert_eq!(errors.0.len(), 2);
        assert!(
            errors
                .to_string()
                .starts_with("net/ipv4/ip_forward must be 1 and cannot be read: "),
            "{errors}"
        );
    }
}
