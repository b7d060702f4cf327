//! What the operator decided: variables to checked values. Pure.
//!
//! All findings are gathered, so that an operator sees every mistake at once. Called before anything on the host is changed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use vpc_types::VethPrefix;

use crate::variables::{OnBad, find};

/// What an ENI takes at most.
const MTU_MAX: u16 = 9001;

/// Addresses of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Whether something is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// A version of the protocol that the list may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListVersion {
    /// What every plugin and runtime in use speaks; a downgraded plugin too.
    V0_4_0,
    /// Results without the family.
    V1_0_0,
    /// GC and STATUS as well.
    V1_1_0,
}

/// Everything that init container and entrypoint need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Addresses of pods.
    pub family: Family,
    /// Beginning of host veth names.
    pub veth_prefix: VethPrefix,
    /// MTU of pods, in bytes.
    pub pod_mtu: u16,
    /// `strict`, `standard`, or, for nodes it does not matter to, anything.
    pub security_groups: String,
    /// Where the plugin logs, as a path on the host, or `stderr`.
    pub plugin_log: String,
    /// Lowest level that plugins log.
    pub plugin_log_level: String,
    /// Whether pods reach addresses of the other family.
    pub egress: Switch,
    /// Log of egress-cni.
    pub egress_log: String,
    /// Source ports of egress-cni's SNAT.
    pub random: String,
    /// Whether the plugin bandwidth is called.
    pub bandwidth: Switch,
    /// Whether pods have no IPv6 at all.
    pub disable_pod_v6: Switch,
    /// `cniVersion`; `None`: what the list says.
    pub version: Option<ListVersion>,
    /// Whether sockets are looked up before the route is.
    pub early_demux: Switch,
    /// Where plugins are copied to.
    pub bin_dir: PathBuf,
    /// Where the list is put.
    pub conf_dir: PathBuf,
    /// What was wrong and what is used instead.
    pub warnings: Vec<Finding>,
}

/// A value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Name of the variable.
    pub variable: &'static str,
    /// Its value.
    pub value: String,
    /// What is allowed, and what is used instead, if anything is.
    pub allowed: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={:?}: {}", self.variable, self.value, self.allowed)
    }
}

/// The settings cannot be used; one finding per mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(Finding::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Refused(pub Vec<Finding>);

impl Settings {
    /// Reads and checks every variable of the table.
    pub fn from_environment(environment: &BTreeMap<String, String>) -> Result<Self, Refused> {
        let mut reader = Reader {
            environment,
            errors: Vec::new(),
            warnings: Vec::new(),
        };
        let family = match reader.switch("ENABLE_IPv6") {
            Switch::On => Family::V6,
            Switch::Off => Family::V4,
        };
        reader.check_cooldown();
        reader.check_prefix_targets();
        let (egress, egress_log) = match family {
            Family::V6 => ("ENABLE_V4_EGRESS", "AWS_VPC_K8S_EGRESS_V4_PLUGIN_LOG_FILE"),
            Family::V4 => ("ENABLE_V6_EGRESS", "AWS_VPC_K8S_EGRESS_V6_PLUGIN_LOG_FILE"),
        };
        let settings = Self {
            family,
            veth_prefix: reader.veth_prefix(),
            pod_mtu: reader.pod_mtu(family),
            security_groups: reader.security_groups(),
            plugin_log: reader.log_file("AWS_VPC_K8S_PLUGIN_LOG_FILE"),
            plugin_log_level: reader.choice("AWS_VPC_K8S_PLUGIN_LOG_LEVEL", &LEVELS),
            egress: reader.switch(egress),
            egress_log: reader.log_file(egress_log),
            random: reader.choice("AWS_VPC_K8S_CNI_RANDOMIZESNAT", &["prng", "hashrandom", "none"]),
            bandwidth: reader.switch("ENABLE_BANDWIDTH_PLUGIN"),
            disable_pod_v6: reader.switch("DISABLE_POD_V6"),
            version: reader.version(),
            early_demux: match reader.switch("DISABLE_TCP_EARLY_DEMUX") {
                Switch::On => Switch::Off,
                Switch::Off => Switch::On,
            },
            bin_dir: reader.directory("HOST_CNI_BIN_PATH"),
            conf_dir: reader.directory("HOST_CNI_CONFDIR_PATH"),
            warnings: Vec::new(),
        };
        if reader.errors.is_empty() {
            Ok(Self {
                warnings: reader.warnings,
                ..settings
            })
        } else {
            Err(Refused(reader.errors))
        }
    }
}

/// Names that plugins know, in any case.
const LEVELS: [&str; 5] = ["debug", "info", "warn", "error", "fatal"];

impl ListVersion {
    const ALL: [Self; 3] = [Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// The text in the list.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }
}

struct Reader<'a> {
    environment: &'a BTreeMap<String, String>,
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
}

impl Reader<'_> {
    /// What was given; an empty text is unset.
    fn given(&self, name: &str) -> Option<&str> {
        self.environment
            .get(name)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }

    fn text(&self, name: &str) -> String {
        self.given(name).unwrap_or_else(|| find(name).default).to_owned()
    }

    /// Notes a bad value; the default, in case it may be used.
    fn bad(&mut self, name: &str, allowed: impl fmt::Display) -> &'static str {
        let row = find(name);
        let mut finding = Finding {
            variable: row.name,
            value: self.text(name),
            allowed: format!("must be {allowed}"),
        };
        match row.on_bad {
            OnBad::Refuse => self.errors.push(finding),
            OnBad::Fallback => {
                finding.allowed.push_str(&format!("; using {:?}", row.default));
                self.warnings.push(finding);
            }
        }
        row.default
    }

    fn switch(&mut self, name: &str) -> Switch {
        parse_switch(&self.text(name)).unwrap_or_else(|| {
            let default = self.bad(name, "true or false (also 1, t, T, TRUE, True, 0, f, F, FALSE, False)");
            parse_switch(default).expect("defaults are valid (tested)")
        })
    }

    fn choice(&mut self, name: &str, allowed: &[&str]) -> String {
        let text = self.text(name);
        if allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(&text)) {
            return text;
        }
        self.bad(name, format_args!("one of {}", allowed.join(", "))).to_owned()
    }

    fn log_file(&mut self, name: &str) -> String {
        let text = self.text(name);
        if text == "stdout" {
            self.bad(name, "a path or stderr: standard output belongs to the plugin's result");
        }
        text
    }

    fn directory(&mut self, name: &str) -> PathBuf {
        let text = self.text(name);
        if !text.starts_with('/') {
            self.bad(name, "an absolute path");
        }
        match self.given("VPC_CNI_ROOT") {
            Some(root) => Path::new(root).join(text.trim_start_matches('/')),
            None => text.into(),
        }
    }

    fn veth_prefix(&mut self) -> VethPrefix {
        const NAME: &str = "AWS_VPC_K8S_CNI_VETHPREFIX";
        VethPrefix::parse(&self.text(NAME)).unwrap_or_else(|_| {
            self.bad(
                NAME,
                "1 to 4 characters without space, '/' or ':', and none of eth, lo, vlan",
            );
            VethPrefix::default()
        })
    }

    fn pod_mtu(&mut self, family: Family) -> u16 {
        let eni = self.mtu("AWS_VPC_ENI_MTU", family);
        if self.given("POD_MTU").is_some() {
            self.mtu("POD_MTU", family)
        } else {
            eni
        }
    }

    fn mtu(&mut self, name: &str, family: Family) -> u16 {
        // What every host of the family must be able to receive.
        let least = match family {
            Family::V4 => 576,
            Family::V6 => 1280,
        };
        let mtu = self.text(name).parse().ok();
        mtu.filter(|mtu| (least..=MTU_MAX).contains(mtu)).unwrap_or_else(|| {
            self.bad(name, format_args!("a whole number from {least} to {MTU_MAX}"));
            MTU_MAX
        })
    }

    fn security_groups(&mut self) -> String {
        const NAME: &str = "POD_SECURITY_GROUP_ENFORCING_MODE";
        let text = self.text(NAME);
        let pods_have_enis = self.switch("ENABLE_POD_ENI") == Switch::On;
        if pods_have_enis && !["strict", "standard"].contains(&text.as_str()) {
            self.bad(NAME, "strict or standard, as ENABLE_POD_ENI is true");
        }
        text
    }

    fn version(&mut self) -> Option<ListVersion> {
        const NAME: &str = "VPC_CNI_CNI_VERSION";
        let text = self.given(NAME)?;
        let known = ListVersion::ALL.into_iter().find(|version| version.as_str() == text);
        if known.is_none() {
            self.bad(NAME, "0.4.0, 1.0.0 or 1.1.0");
        }
        known
    }

    fn check_cooldown(&mut self) {
        const NAME: &str = "IP_COOLDOWN_PERIOD";
        if self.text(NAME).parse::<u32>().is_err() {
            self.bad(NAME, "a whole number of seconds, at least 0");
        }
    }

    /// With prefixes and every target 0 a prefix comes only when the last address is taken. Unset targets are not 0.
    fn check_prefix_targets(&mut self) {
        const NAMES: [&str; 3] = ["WARM_PREFIX_TARGET", "WARM_IP_TARGET", "MINIMUM_IP_TARGET"];
        if self.switch("ENABLE_PREFIX_DELEGATION") == Switch::Off {
            return;
        }
        let given: Vec<_> = NAMES.into_iter().filter(|name| self.given(name).is_some()).collect();
        let any = given
            .iter()
            .any(|name| self.text(name).parse::<i64>().is_ok_and(|target| target > 0));
        if any {
            return;
        }
        if let Some(name) = given.first() {
            self.warnings.push(Finding {
                variable: find(name).name,
                value: self.text(name),
                allowed: format!(
                    "with ENABLE_PREFIX_DELEGATION one of {} should be above 0: else a prefix comes only when the last \
                     address is taken",
                    NAMES.join(", ")
                ),
            });
        }
    }
}

/// The spellings that deployed manifests use.
fn parse_switch(text: &str) -> Option<Switch> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(Switch::On),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(Switch::Off),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
