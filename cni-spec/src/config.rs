//! The network configuration that arrives on standard input.
//!
//! Lenient exactly where the reference is (an MTU out of range becomes the default, an unknown log level means debug),
//! because nodes are upgraded with whatever their conflist says. Everything else that is wrong is an error that names
//! the field. [`Document`] holds what each verb needs; [`NetConf`] what ADD and DEL need.

use std::path::PathBuf;

use serde_json::Value;
use vpc_types::{VethPrefix, VethPrefixError};

use crate::json::{FieldError, Fields};
use crate::result::CniResult;
use crate::version::{CniVersion, VersionError};
use crate::{CniError, ErrorCode};

/// Pod annotations, where a runtime delivers them because the conflist asks for that capability.
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";
/// The annotation that asks for one interface per network card, and its value.
const NIC_CONFIG: (&str, &str) = ("k8s.amazonaws.com/nicConfig", "multi-nic-attachment");

/// A configuration whose common part is valid.
#[derive(Debug, Clone)]
pub struct Document {
    root: Value,
    name: String,
    version: CniVersion,
}

/// The configuration of this plugin.
#[derive(Debug, Clone)]
pub struct NetConf {
    /// Version of the protocol, and of the result.
    pub version: CniVersion,
    /// `name`: part of the lease's key.
    pub name: String,
    /// `vethPrefix`.
    pub veth_prefix: VethPrefix,
    /// `mtu` of both ends of the pod's link.
    pub mtu: Mtu,
    /// `podSGEnforcingMode`, for pods with their own security groups.
    pub security_groups: SecurityGroupMode,
    /// `pluginLogFile`.
    pub log_target: LogTarget,
    /// `pluginLogLevel`.
    pub log_level: LogLevel,
    /// What the pod's annotation asks for.
    pub nics: NicRequest,
    prev_result: Option<Value>,
}

/// Largest packet, in bytes: 576 to 9001.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mtu(u16);

/// How security groups act on traffic that does not leave the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecurityGroupMode {
    /// All traffic passes through the pod's own ENI.
    Strict,
    /// Traffic inside the node is not filtered.
    Standard,
    /// Anything else; an error only for pods it matters to.
    Other(String),
}

/// Where log lines go. Never standard output: that belongs to the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// The empty text, `stderr`, and `stdout`.
    Stderr,
    /// A file.
    File(PathBuf),
}

/// Least important line that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Everything; also any unknown name.
    Debug,
    /// What an operator cares about.
    Info,
    /// What would wake someone.
    Warn,
    /// Failures; also `fatal`.
    Error,
}

/// How many interfaces the pod gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NicRequest {
    /// One.
    Single,
    /// One per managed network card.
    PerCard,
}

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No JSON, or no object.
    #[error("network configuration on stdin: {0}")]
    Json(String),
    /// One of the common fields has the wrong type.
    #[error("network configuration: {0}")]
    Common(FieldError),
    /// No name.
    #[error("missing network name: field \"name\" of the network configuration is empty")]
    NoName,
    /// A name that could not be part of a path.
    #[error("invalid characters found in network name: field \"name\" is {0:?}")]
    Name(String),
    /// A version that does not fit.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// A field of ours has the wrong type.
    #[error("network configuration: {0}")]
    Field(#[from] FieldError),
    /// No room for the hash, or somebody else's prefix.
    #[error("network configuration: field \"vethPrefix\": {0}")]
    VethPrefix(#[from] VethPrefixError),
}

impl From<ConfigError> for CniError {
    fn from(error: ConfigError) -> Self {
        let code = match error {
            ConfigError::Version(error) => return error.into(),
            ConfigError::Json(_) | ConfigError::Common(_) => ErrorCode::Decoding,
            ConfigError::NoName | ConfigError::Name(_) => ErrorCode::InvalidConfig,
            // The plugin's own fields are the plugin's own failures.
            ConfigError::Field(_) | ConfigError::VethPrefix(_) => ErrorCode::Internal,
        };
        Self::new(code, error.to_string())
    }
}

impl Document {
    /// Parses the whole input and checks the common fields.
    pub fn parse(stdin: &[u8]) -> Result<Self, ConfigError> {
        let root: Value = serde_json::from_slice(stdin).map_err(|e| ConfigError::Json(e.to_string()))?;
        let Value::Object(_) = root else {
            return Err(ConfigError::Json("expected an object".to_owned()));
        };
        let fields = Fields::new(&root, "").map_err(ConfigError::Common)?;
        let name = fields
            .text("name")
            .map_err(ConfigError::Common)?
            .unwrap_or_default()
            .to_owned();
        check_name(&name)?;
        let version = fields
            .text("cniVersion")
            .map_err(ConfigError::Common)?
            .unwrap_or_default();
        let version = CniVersion::parse(version)?;
        Ok(Self { name, version, root })
    }

    /// `cniVersion`.
    pub fn version(&self) -> CniVersion {
        self.version
    }

    /// For the parts that have a module of their own.
    pub(crate) fn root(&self) -> &Value {
        &self.root
    }
}

fn check_name(name: &str) -> Result<(), ConfigError> {
    let plain = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    match name.bytes().next() {
        None => Err(ConfigError::NoName),
        Some(first) if plain && first.is_ascii_alphanumeric() => Ok(()),
        Some(_) => Err(ConfigError::Name(name.to_owned())),
    }
}

impl NetConf {
    /// Reads the plugin's own fields.
    pub fn from_document(document: Document) -> Result<Self, ConfigError> {
        let fields = Fields::new(&document.root, "")?;
        let text = |key| fields.text(key).map(Option::unwrap_or_default);
        let prefix = text("vethPrefix")?;
        let conf = Self {
            version: document.version,
            veth_prefix: if prefix.is_empty() {
                VethPrefix::default()
            } else {
                VethPrefix::parse(prefix)?
            },
            mtu: Mtu::parse(text("mtu")?),
            security_groups: SecurityGroupMode::parse(text("podSGEnforcingMode")?),
            log_target: LogTarget::parse(text("pluginLogFile")?),
            log_level: LogLevel::parse(text("pluginLogLevel")?),
            nics: nic_request(&fields)?,
            prev_result: fields.get("prevResult").cloned(),
            name: document.name,
        };
        Ok(conf)
    }

    /// The earlier result of this attachment, if the runtime handed it back. It has the configuration's version.
    pub fn prev_result(&self) -> Result<Option<CniResult>, FieldError> {
        self.prev_result
            .as_ref()
            .map(|value| CniResult::decode(self.version, value))
            .transpose()
    }
}

fn nic_request(fields: &Fields<'_>) -> Result<NicRequest, FieldError> {
    let Some(runtime) = fields.object("runtimeConfig")? else {
        return Ok(NicRequest::Single);
    };
    let Some(annotations) = runtime.object(ANNOTATIONS)? else {
        return Ok(NicRequest::Single);
    };
    let per_card = annotations.text(NIC_CONFIG.0)? == Some(NIC_CONFIG.1);
    Ok(if per_card {
        NicRequest::PerCard
    } else {
        NicRequest::Single
    })
}

impl Mtu {
    /// What EC2's jumbo frames allow.
    pub const DEFAULT: Self = Self(9001);
    /// The smallest an IPv4 host must accept.
    const MIN: u16 = 576;

    /// Silently the default for anything that is no number in range, as the reference does.
    fn parse(text: &str) -> Self {
        let number = text.parse().ok().filter(|n| (Self::MIN..=Self::DEFAULT.0).contains(n));
        number.map_or(Self::DEFAULT, Self)
    }

    /// Bytes.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl SecurityGroupMode {
    fn parse(text: &str) -> Self {
        match text {
            "" | "strict" => Self::Strict,
            "standard" => Self::Standard,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl LogTarget {
    fn parse(text: &str) -> Self {
        match text {
            "" | "stderr" | "stdout" => Self::Stderr,
            path => Self::File(path.into()),
        }
    }
}

impl LogLevel {
    fn parse(text: &str) -> Self {
        match text.to_ascii_lowercase().as_str() {
            "info" => Self::Info,
            "warn" => Self::Warn,
            "error" | "fatal" => Self::Error,
            _ => Self::Debug,
        }
    }

    /// The name in a line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> Result<NetConf, ConfigError> {
        NetConf::from_document(Document::parse(text.as_bytes())?)
    }

    fn refused(text: &str) -> (u32, String) {
        let error = CniError::from(conf(text).unwrap_err());
        (error.code.number(), error.msg)
    }

    #[test]
    fn defaults_are_those_of_the_reference() {
        let conf = conf(r#"{"name":"aws-cni","type":"aws-cni","cniVersion":"0.4.0","mtu":null}"#).unwrap();
        assert_eq!((conf.name.as_str(), conf.version), ("aws-cni", CniVersion::V0_4_0));
        assert_eq!((conf.veth_prefix, conf.mtu), (VethPrefix::default(), Mtu::DEFAULT));
        assert_eq!(
            (conf.security_groups, conf.nics),
            (SecurityGroupMode::Strict, NicRequest::Single)
        );
        assert_eq!((conf.log_target, conf.log_level), (LogTarget::Stderr, LogLevel::Debug));
    }

    #[test]
    fn given_values_are_taken() {
        let conf = conf(
            r#"{"name":"n","cniVersion":"1.0.0","vethPrefix":"pod","mtu":"1500","podSGEnforcingMode":"standard",
                "pluginLogFile":"/var/log/p.log","pluginLogLevel":"WARN",
                "runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"k8s.amazonaws.com/nicConfig":"multi-nic-attachment"}}}"#,
        )
        .unwrap();
        assert_eq!((conf.veth_prefix.as_str(), conf.mtu.get()), ("pod", 1500));
        assert_eq!(
            (conf.security_groups, conf.nics),
            (SecurityGroupMode::Standard, NicRequest::PerCard)
        );
        assert_eq!(
            (conf.log_target, conf.log_level),
            (LogTarget::File("/var/log/p.log".into()), LogLevel::Warn)
        );
    }

    #[test]
    fn an_mtu_out_of_range_is_the_default() {
        let mtu = |text: &str| Mtu::parse(text).get();
        assert_eq!([mtu("576"), mtu("9001"), mtu("1500")], [576, 9001, 1500]);
        assert_eq!(
            [
                mtu("575"),
                mtu("9002"),
                mtu("abc"),
                mtu(""),
                mtu("-1"),
                mtu("99999999999")
            ],
            [9001; 6]
        );
    }

    #[test]
    fn what_is_no_configuration_is_a_decoding_error() {
        for text in [
            "",
            "{",
            "[]",
            "null",
            "7",
            r#"{"name":"a"}x"#,
            r#"{"name":7}"#,
            r#"{"name":"a","cniVersion":1}"#,
        ] {
            assert_eq!(refused(text).0, 6, "{text:?}");
        }
        assert!(refused(r#"{"name":7}"#).1.contains("\"name\""));
    }

    #[test]
    fn a_name_is_required_and_plain() {
        assert_eq!(refused(r#"{"cniVersion":"1.0.0"}"#).0, 7);
        assert_eq!(refused(r#"{"name":"../x"}"#).0, 7);
    }

    #[test]
    fn an_unknown_version_is_incompatible() {
        assert_eq!(
            refused(r#"{"name":"a","cniVersion":"9.9.9"}"#),
            (1, "incompatible CNI versions".to_owned())
        );
    }

    #[test]
    fn wrong_fields_of_ours_are_named() {
        let cases = [
            (r#"{"name":"a","mtu":9001}"#, "\"mtu\""),
            (r#"{"name":"a","vethPrefix":"toolong"}"#, "\"vethPrefix\""),
            (r#"{"name":"a","pluginLogFile":{}}"#, "\"pluginLogFile\""),
            (r#"{"name":"a","runtimeConfig":[]}"#, "\"runtimeConfig\""),
        ];
        for (text, field) in cases {
            let (code, msg) = refused(text);
            assert!(code == 999 && msg.contains(field), "{text}: {code} {msg}");
        }
    }
}
