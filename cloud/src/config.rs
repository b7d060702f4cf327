//! How to reach AWS: endpoints, proxy, certificates, time-outs.
//!
//! The caller reads the environment and hands the texts in ([`CloudConfig::from_lookup`]). What the AWS libraries read by
//! themselves (credentials, profile, FIPS, dual stack, proxies) is listed in [`VARIABLES`] too, so that one table can be
//! documented and checked. IMDS is always reached directly, never through a proxy.

use std::path::PathBuf;
use std::time::Duration;

/// Least and default time for one attempt: slow answers of EC2 take seconds, and giving up makes the outcome unknown.
pub(crate) const ATTEMPT_TIMEOUT_MIN: Duration = Duration::from_secs(10);

/// Who reads a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// [`CloudConfig::from_lookup`].
    Us,
    /// The AWS libraries, from the process environment.
    Sdk,
}

/// A variable that changes how AWS is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Who reads it.
    pub reader: Reader,
    /// What it does.
    pub meaning: &'static str,
}

const fn us(name: &'static str, meaning: &'static str) -> Variable {
    Variable {
        name,
        reader: Reader::Us,
        meaning,
    }
}

const fn sdk(name: &'static str, meaning: &'static str) -> Variable {
    Variable {
        name,
        reader: Reader::Sdk,
        meaning,
    }
}

/// Every variable that is honoured. `AWS_MAX_ATTEMPTS` and `AWS_RETRY_MODE` are not: reads are attempted twice and
/// mutations once, because the planner must see every attempt.
pub const VARIABLES: &[Variable] = &[
    us("AWS_REGION", "region; otherwise IMDS is asked"),
    us("AWS_DEFAULT_REGION", "the same, when AWS_REGION is not set"),
    us("AWS_ENDPOINT_URL_EC2", "EC2 endpoint, strongest of three"),
    us("AWS_ENDPOINT_URL", "endpoint of every AWS service"),
    us("AWS_EC2_ENDPOINT", "EC2 endpoint, weakest of three"),
    us(
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
        "true: the AWS_ENDPOINT_URL variables have no effect",
    ),
    us(
        "AWS_CA_BUNDLE",
        "PEM file that replaces the system's certificate authorities",
    ),
    us("HTTP_TIMEOUT", "seconds for one attempt, at least 10"),
    us("AWS_EC2_METADATA_SERVICE_ENDPOINT", "IMDS endpoint"),
    us("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "IPv4 or IPv6"),
    sdk(
        "AWS_EC2_METADATA_DISABLED",
        "true: credentials are not looked for in IMDS",
    ),
    sdk("HTTPS_PROXY", "proxy for https endpoints; also in lower case"),
    sdk(
        "HTTP_PROXY",
        "proxy for http endpoints that are not link-local or loopback; also in lower case",
    ),
    sdk("ALL_PROXY", "proxy where none of the two is set; also in lower case"),
    sdk(
        "NO_PROXY",
        "hosts, domains and networks reached directly; also in lower case",
    ),
    sdk("SSL_CERT_FILE", "the system's certificate authorities"),
    sdk("AWS_USE_FIPS_ENDPOINT", "FIPS endpoints"),
    sdk("AWS_USE_DUALSTACK_ENDPOINT", "dual-stack endpoints"),
    sdk("AWS_ACCESS_KEY_ID", "static credentials"),
    sdk("AWS_SECRET_ACCESS_KEY", "static credentials"),
    sdk("AWS_SESSION_TOKEN", "static credentials"),
    sdk("AWS_PROFILE", "profile in the configuration files"),
    sdk("AWS_CONFIG_FILE", "configuration file"),
    sdk("AWS_SHARED_CREDENTIALS_FILE", "credentials file"),
    sdk("AWS_ROLE_ARN", "web identity"),
    sdk("AWS_WEB_IDENTITY_TOKEN_FILE", "web identity"),
    sdk("AWS_ROLE_SESSION_NAME", "web identity"),
    sdk("AWS_CONTAINER_CREDENTIALS_FULL_URI", "pod identity agent"),
    sdk("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "container agent"),
    sdk("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "pod identity agent"),
    sdk("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container agent"),
];

/// Whether proxies of the environment are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyUse {
    /// As the proxy variables of the process environment say.
    Environment,
    /// Never.
    Never,
}

/// How to reach AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudConfig {
    /// `None`: ask IMDS.
    pub region: Option<String>,
    /// `None`: the region's own endpoint.
    pub ec2_endpoint: Option<String>,
    /// `None`: the link-local address.
    pub imds_endpoint: Option<String>,
    /// Which link-local address, when there is no endpoint.
    pub imds_family: ImdsFamily,
    /// Whether proxies are used.
    pub proxy: ProxyUse,
    /// `None`: the system's certificate authorities.
    pub ca_bundle: Option<PathBuf>,
    /// For one attempt of an EC2 call; at least 10 s outside tests.
    pub attempt_timeout: Duration,
    /// For the User-Agent header; an invalid text is left out.
    pub app_name: String,
}

/// Address family of the link-local IMDS endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImdsFamily {
    /// 169.254.169.254
    V4,
    /// fd00:ec2::254
    V6,
}

/// Configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A variable's text.
    #[error("{name}={text:?}: {reason}")]
    Value {
        /// The variable.
        name: &'static str,
        /// What it holds.
        text: String,
        /// What it should hold.
        reason: &'static str,
    },
    /// The bundle cannot be read.
    #[error("cannot read the CA bundle {path}")]
    ReadCaBundle {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The bundle has no certificate, or a broken one.
    #[error("the CA bundle {path} holds no usable certificates: {reason}")]
    ParseCaBundle {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is no region in the configuration, and IMDS did not give one.
    #[error("cannot learn the region")]
    Region(#[source] crate::ImdsError),
}

impl Default for CloudConfig {
    fn default() -> Self {
        Self {
            region: None,
            ec2_endpoint: None,
            imds_endpoint: None,
            imds_family: ImdsFamily::V4,
            proxy: ProxyUse::Environment,
            ca_bundle: None,
            attempt_timeout: ATTEMPT_TIMEOUT_MIN,
            app_name: "amazon-vpc-cni-k8s".to_owned(),
        }
    }
}

impl CloudConfig {
    /// Reads the variables of [`VARIABLES`] that are ours. Empty texts count as unset, as everywhere in the AWS tools.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let get = |name: &str| lookup(name).filter(|text| !text.is_empty());
        let ignore = get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let configured = || get("AWS_ENDPOINT_URL_EC2").or_else(|| get("AWS_ENDPOINT_URL"));
        let config = Self {
            region: get("AWS_REGION").or_else(|| get("AWS_DEFAULT_REGION")),
            ec2_endpoint: Some(ignore)
                .filter(|ignore| !ignore)
                .and_then(|_| configured())
                .or_else(|| get("AWS_EC2_ENDPOINT")),
            imds_endpoint: get("AWS_EC2_METADATA_SERVICE_ENDPOINT"),
            imds_family: imds_family(get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"))?,
            ca_bundle: get("AWS_CA_BUNDLE").map(PathBuf::from),
            attempt_timeout: attempt_timeout(get("HTTP_TIMEOUT")),
            ..Self::default()
        };
        check_url("the EC2 endpoint", config.ec2_endpoint.as_deref())?;
        check_url("AWS_EC2_METADATA_SERVICE_ENDPOINT", config.imds_endpoint.as_deref())?;
        Ok(config)
    }
}

fn imds_family(text: Option<String>) -> Result<ImdsFamily, ConfigError> {
    match text {
        None => Ok(ImdsFamily::V4),
        Some(text) if text.eq_ignore_ascii_case("ipv4") => Ok(ImdsFamily::V4),
        Some(text) if text.eq_ignore_ascii_case("ipv6") => Ok(ImdsFamily::V6),
        Some(text) => {
            let name = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE";
            Err(ConfigError::Value {
                name,
                text,
                reason: "must be IPv4 or IPv6",
            })
        }
    }
}

/// Texts that are no number of at least 10 count as unset, as in the reference.
fn attempt_timeout(text: Option<String>) -> Duration {
    let given = text.and_then(|text| text.parse().ok()).map(Duration::from_secs);
    given
        .filter(|given| *given >= ATTEMPT_TIMEOUT_MIN)
        .unwrap_or(ATTEMPT_TIMEOUT_MIN)
}

fn check_url(name: &'static str, text: Option<&str>) -> Result<(), ConfigError> {
    match text {
        Some(text) if !text.starts_with("http://") && !text.starts_with("https://") => Err(ConfigError::Value {
            name,
            text: text.to_owned(),
            reason: "must begin with http:// or https://",
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<CloudConfig, ConfigError> {
        let find = |name: &str| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, text)| (*text).to_owned())
        };
        CloudConfig::from_lookup(find)
    }

    #[test]
    fn the_most_specific_endpoint_wins() {
        let all = [
            ("AWS_ENDPOINT_URL_EC2", "http://a"),
            ("AWS_ENDPOINT_URL", "http://b"),
            ("AWS_EC2_ENDPOINT", "http://c"),
        ];
        let endpoint = |pairs: &[(&str, &str)]| config(pairs).unwrap().ec2_endpoint;
        assert_eq!(endpoint(&all).as_deref(), Some("http://a"));
        assert_eq!(endpoint(&all[1..]).as_deref(), Some("http://b"));
        assert_eq!(endpoint(&all[2..]).as_deref(), Some("http://c"));
        assert_eq!(endpoint(&[("AWS_ENDPOINT_URL", "")]), None);
        let ignored = [all[0], all[1], all[2], ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")];
        assert_eq!(endpoint(&ignored).as_deref(), Some("http://c"));
    }

    #[test]
    fn an_attempt_has_at_least_ten_seconds() {
        let timeout = |text| config(&[("HTTP_TIMEOUT", text)]).unwrap().attempt_timeout.as_secs();
        assert_eq!(
            [timeout(""), timeout("9"), timeout("10"), timeout("30"), timeout("x")],
            [10, 10, 10, 30, 10]
        );
    }

    #[test]
    fn a_bad_value_is_named() {
        let error = config(&[("AWS_ENDPOINT_URL", "localhost:80")]).unwrap_err().to_string();
        assert!(
            error.contains("EC2 endpoint") && error.contains("localhost:80"),
            "{error}"
        );
        assert!(config(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "v4")]).is_err());
    }

    #[test]
    fn the_table_names_each_variable_once() {
        let mut names: Vec<_> = VARIABLES.iter().map(|variable| variable.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
