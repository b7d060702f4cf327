//! Reading single values, with the table's defaults and rules for bad ones.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use datapath::Random;
use ipnet::Ipv4Net;
use vpc_types::{FwMark, VethPrefix};

use super::raw::{OnBad, Row, TABLE};

/// MTUs that an ENI takes.
const MTU_RANGE: std::ops::RangeInclusive<u16> = 576..=9001;

/// Features of the reference that this version does not have. Starting without one that is asked for would break pods.
const NOT_YET: [&str; 4] = [
    "ENABLE_IPv6",
    "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG",
    "ENABLE_POD_ENI",
    "ENABLE_MULTI_NIC",
];

/// Tag keys that only we may set.
const RESERVED_TAG: &str = "k8s.amazonaws.com";

/// Reads values and gathers what is wrong with them.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    environment: &'a BTreeMap<String, String>,
    warnings: Vec<String>,
    errors: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(environment: &'a BTreeMap<String, String>) -> Self {
        Self {
            environment,
            warnings: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// Warnings and errors.
    pub(crate) fn finish(self) -> (Vec<String>, Vec<String>) {
        (self.warnings, self.errors)
    }

    pub(crate) fn error(&mut self, text: String) {
        self.errors.push(text);
    }

    /// The text as given, or the default; an empty text is unset.
    pub(crate) fn text(&self, name: &str) -> String {
        let given = self.environment.get(name).filter(|text| !text.is_empty());
        given.cloned().unwrap_or_else(|| row(name).default.to_owned())
    }

    pub(crate) fn refuse_what_is_not_there_yet(&mut self) {
        for name in NOT_YET {
            if self.boolean(name) {
                self.errors
                    .push(format!("{name}=true: this version does not have that feature"));
            }
        }
        if !self.boolean("ENABLE_IPv4") {
            self.errors
                .push("ENABLE_IPv4=false: this version serves IPv4 pods only".to_owned());
        }
    }

    /// Parses the given text, or the default when there is none or it is bad and may fall back.
    fn parse<T>(&mut self, name: &str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> T {
        let row = row(name);
        let text = self.text(name);
        if let Some(value) = parse(&text) {
            return value;
        }
        let complaint = format!("{name}={text:?}: expected {expected}");
        match row.on_bad {
            OnBad::Fallback => self.warnings.push(format!("{complaint}; using {:?}", row.default)),
            OnBad::Refuse => self.errors.push(complaint),
        }
        parse(row.default).expect("the table's defaults are valid (tested)")
    }

    /// The spellings that deployed manifests use.
    pub(crate) fn boolean(&mut self, name: &str) -> bool {
        self.parse(name, "true or false", |text| match text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
            _ => None,
        })
    }

    /// A limit of at least 1; `None` when there is none ("-1"). Zero and other negative numbers count as none, and are named.
    pub(crate) fn limit(&mut self, name: &str) -> Option<u16> {
        let given: i64 = self.parse(name, "a whole number", |text| text.parse().ok());
        let limit = u16::try_from(given).ok().filter(|limit| *limit >= 1);
        if limit.is_none() && given != -1 {
            self.warnings.push(format!(
                "{name}={given}: no number of at least 1; there is no limit then"
            ));
        }
        limit
    }

    /// A target of the pool; `None` when unset. A text that is no number, or a negative one, counts as unset, and is named.
    pub(crate) fn target(&mut self, name: &str) -> Option<u32> {
        let text = self.text(name);
        if text.is_empty() {
            return None;
        }
        let target = text.parse().ok();
        if target.is_none() {
            let complaint = format!("{name}={text:?}: expected a whole number of at least 0; as if it were not set");
            self.warnings.push(complaint);
        }
        target
    }

    pub(crate) fn warn(&mut self, text: String) {
        self.warnings.push(text);
    }

    pub(crate) fn seconds(&mut self, name: &str) -> Option<Duration> {
        self.environment.get(name).filter(|text| !text.is_empty())?;
        Some(Duration::from_secs(self.parse(
            name,
            "whole seconds of at least 0",
            |text| text.parse().ok(),
        )))
    }

    pub(crate) fn mtu(&mut self, name: &str) -> u16 {
        let in_range = |text: &str| text.parse().ok().filter(|mtu| MTU_RANGE.contains(mtu));
        self.parse(name, "an MTU between 576 and 9001", in_range)
    }

    pub(crate) fn veth_prefix(&mut self, name: &str) -> VethPrefix {
        self.parse(name, "1 to 4 characters, none of eth, lo, vlan", |text| {
            VethPrefix::parse(text).ok()
        })
    }

    /// An integer literal of Go.
    pub(crate) fn mark(&mut self, name: &str) -> FwMark {
        self.parse(name, "a number from 1 to 0xffffffff", |text| {
            let value = go_integer(text).filter(|value| *value > 0)?;
            Some(FwMark { value, mask: value })
        })
    }

    pub(crate) fn random(&mut self, name: &str) -> Random {
        self.parse(name, "prng, hashrandom or none", |text| match text {
            "prng" => Some(Random::Fully),
            "hashrandom" => Some(Random::Hash),
            "none" => Some(Random::No),
            _ => None,
        })
    }

    /// Items that are no IPv4 range are named and left out; the others count.
    pub(crate) fn cidrs(&mut self, name: &str) -> Vec<Ipv4Net> {
        let text = self.text(name);
        let mut cidrs = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            match item.parse::<Ipv4Net>() {
                Ok(cidr) => cidrs.push(cidr.trunc()),
                Err(_) => self
                    .warnings
                    .push(format!("{name}: {item:?} is no IPv4 range; left out")),
            }
        }
        cidrs
    }

    pub(crate) fn tags(&mut self, name: &str) -> BTreeMap<String, String> {
        let mut tags: BTreeMap<String, String> =
            self.parse(name, "a JSON object with texts", |text| serde_json::from_str(text).ok());
        let reserved: Vec<String> = tags.keys().filter(|key| key.contains(RESERVED_TAG)).cloned().collect();
        for key in reserved {
            self.warnings.push(format!("{name}: tag {key:?} is reserved; left out"));
            tags.remove(&key);
        }
        tags
    }

    pub(crate) fn policy_mode(&mut self, name: &str) -> String {
        self.parse(name, "none, standard or strict", |text| {
            let known = text.is_empty()
                || ["none", "standard", "strict"]
                    .iter()
                    .any(|m| text.eq_ignore_ascii_case(m));
            known.then(|| text.to_owned())
        })
    }

    pub(crate) fn socket_address(&mut self, name: &str) -> Option<SocketAddr> {
        if self.environment.get(name).is_some_and(String::is_empty) {
            return None;
        }
        Some(self.parse(name, "an address with a port", |text| text.parse().ok()))
    }

    /// DEBUG was the reference's default; there it wrote a line per address on each ADD.
    pub(crate) fn level(&mut self, name: &str) -> tracing::Level {
        self.parse(name, "error, warn, info or debug", |text| {
            match text.to_ascii_lowercase().as_str() {
                "fatal" | "error" => Some(tracing::Level::ERROR),
                "warn" => Some(tracing::Level::WARN),
                "info" => Some(tracing::Level::INFO),
                "debug" => Some(tracing::Level::DEBUG),
                _ => None,
            }
        })
    }
}

/// A whole number as Go's source may have it: a sign, a base (`0b`, `0o` or `0`, `0x`), and single underscores between digits,
/// of which the base counts as one.
fn go_integer(text: &str) -> Option<u32> {
    let lower = text.strip_prefix('+').unwrap_or(text).to_ascii_lowercase();
    let prefixes = [("0x", 16), ("0b", 2), ("0o", 8)];
    let prefixed = prefixes
        .iter()
        .find_map(|(prefix, base)| Some((lower.strip_prefix(prefix)?, *base)));
    let (digits, base) = match (prefixed, lower.strip_prefix('0')) {
        (Some(prefixed), _) => prefixed,
        (None, Some(octal)) if !octal.is_empty() => (octal, 8),
        (None, _) => (lower.as_str(), 10),
    };
    // Only behind a base may an underscore come first.
    let digits = digits.strip_prefix('_').filter(|_| base != 10).unwrap_or(digits);
    let groups = digits.split('_');
    if groups.clone().any(str::is_empty) || !digits.chars().all(|c| c == '_' || c.is_digit(base)) {
        return None;
    }
    u32::from_str_radix(&groups.collect::<String>(), base).ok()
}

fn row(name: &str) -> &'static Row {
    TABLE
        .iter()
        .find(|row| row.name == name)
        .expect("only variables of the table are read (tested)")
}
