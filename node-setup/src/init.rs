//! The init container: programs to the host, kernel settings. Runs once, with privileges, before the daemon.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use vpc_types::MacAddress;

use crate::install::{self, Change, InstallError};
use crate::settings::{Finding, Refused, Settings};
use crate::sysctls::{self, Outcome, SysctlErrors};

/// Where the kernel lists interfaces.
pub const NET_CLASS: &str = "/sys/class/net";

/// Where things are; tests have others.
#[derive(Debug, Clone)]
pub struct Places {
    /// Directory with the programs to copy.
    pub programs: PathBuf,
    /// Programs of that directory that stay there: ourselves.
    pub except: Vec<String>,
    /// [`NET_CLASS`].
    pub net_class: PathBuf,
    /// [`sysctls::ROOT`].
    pub sysctls: PathBuf,
}

/// What init found and did, for the log.
#[derive(Debug)]
pub struct Report {
    /// The primary interface.
    pub primary: String,
    /// Programs.
    pub installed: Vec<(PathBuf, Change)>,
    /// Kernel settings, by path.
    pub sysctls: Vec<(PathBuf, Outcome)>,
    /// Values that were not used.
    pub warnings: Vec<Finding>,
}

/// The node is not ready for pods.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A variable.
    #[error(transparent)]
    Settings(#[from] Refused),
    /// A program.
    #[error("install the plugins")]
    Install(#[from] InstallError),
    /// The primary interface.
    #[error(transparent)]
    Primary(#[from] PrimaryError),
    /// A kernel setting.
    #[error(transparent)]
    Sysctls(#[from] SysctlErrors),
}

/// The primary interface could not be told.
#[derive(Debug, thiserror::Error)]
pub enum PrimaryError {
    /// The list cannot be read.
    #[error("list interfaces in {path}")]
    List {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// None has the address.
    #[error("no interface has the link-layer address {mac} of the primary ENI; there are: {found}")]
    None {
        /// What IMDS said.
        mac: MacAddress,
        /// Names and addresses.
        found: String,
    },
}

/// The whole of init. `primary` is the link-layer address that IMDS shows for the instance.
pub fn run(environment: &BTreeMap<String, String>, primary: MacAddress, places: &Places) -> Result<Report, InitError> {
    let settings = Settings::from_environment(environment)?;
    let except: Vec<&str> = places.except.iter().map(String::as_str).collect();
    let programs = install::files_of(&places.programs, &except)?;
    let installed = install::copy(&programs, &settings.bin_dir)?;
    let primary = find_primary(&places.net_class, primary)?;
    let plan = sysctls::plan(&settings, &primary);
    let outcomes = sysctls::apply(&places.sysctls, &plan)?;
    Ok(Report {
        sysctls: outcomes
            .into_iter()
            .map(|(wanted, outcome)| (wanted.path.clone(), outcome))
            .collect(),
        primary,
        installed,
        warnings: settings.warnings,
    })
}

/// The interface with this address. VLANs and the like on top of it have the same one and a `lower_` link to it.
pub fn find_primary(net_class: &Path, mac: MacAddress) -> Result<String, PrimaryError> {
    let list = |source| PrimaryError::List {
        path: net_class.to_owned(),
        source,
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(net_class).map_err(list)? {
        let entry = entry.map_err(list)?;
        // An interface may vanish while we look.
        let Ok(address) = fs::read_to_string(entry.path().join("address")) else {
            continue;
        };
        let name = entry.file_name().to_string_lossy().into_owned();
        found.push((is_stacked(&entry.path()), name, address.trim().to_owned()));
    }
    found.sort();
    let wanted = mac.to_string();
    if let Some((_, name, _)) = found.iter().find(|(_, _, address)| *address == wanted) {
        return Ok(name.clone());
    }
    let found: Vec<String> = found
        .into_iter()
        .map(|(_, name, address)| format!("{name} {address}"))
        .collect();
    Err(PrimaryError::None {
        mac,
        found: found.join(", "),
    })
}

fn is_stacked(interface: &Path) -> bool {
    let entries = fs::read_dir(interface).into_iter().flatten().flatten();
    entries
        .into_iter()
        .any(|entry| entry.file_name().as_encoded_bytes().starts_with(b"lower_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(root: &Path, name: &str, address: &str) -> PathBuf {
        let path = root.join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("address"), format!("{address}\n")).unwrap();
        path
    }

    #[test]
    fn the_primary_interface_is_the_one_below_others_with_its_address() {
        let root = tempfile::tempdir().unwrap();
        interface(root.path(), "lo", "00:00:00:00:00:00");
        let vlan = interface(root.path(), "a.100", "02:00:00:00:00:01");
        fs::write(vlan.join("lower_ens5"), "").unwrap();
        interface(root.path(), "ens5", "02:00:00:00:00:01");
        let mac: MacAddress = "02:00:00:00:00:01".parse().unwrap();
        assert_eq!(find_primary(root.path(), mac).unwrap(), "ens5");
        let other: MacAddress = "02:00:00:00:00:02".parse().unwrap();
        let error = find_primary(root.path(), other).unwrap_err().to_string();
        assert!(
            error.contains("02:00:00:00:00:02") && error.contains("ens5 02:00:00:00:00:01"),
            "{error}"
        );
    }
}
