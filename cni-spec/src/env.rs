//! The `CNI_*` variables: which verb is wanted, for which interface of which sandbox.

use std::path::PathBuf;

use crate::{CniError, ErrorCode};

/// Longest interface name the kernel takes (`IFNAMSIZ` less the terminating zero).
const IF_NAME_MAX: usize = 15;

/// A call of the plugin whose variables are valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    /// VERSION: needs nothing else.
    Version,
    /// A verb about one interface of one sandbox.
    Attachment(AttachmentVerb, Sandbox),
    /// A verb about the whole network.
    Node(NodeVerb),
}

/// Verbs about one interface of one sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachmentVerb {
    /// Connect it.
    Add,
    /// Disconnect it.
    Del,
    /// Verify it.
    Check,
}

/// Verbs about the whole network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeVerb {
    /// Remove what belongs to no listed attachment.
    Gc,
    /// Say whether ADD would work.
    Status,
}

/// What a verb acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// `CNI_CONTAINERID`, of letters, digits and `_.-` only.
    pub container_id: String,
    /// `CNI_IFNAME`, a name the kernel takes.
    pub if_name: String,
    /// `CNI_NETNS`; always there for ADD and CHECK.
    pub netns: Option<PathBuf>,
    /// `CNI_ARGS`, not parsed.
    pub args: String,
    /// `CNI_NETNS_OVERRIDE`: whether the namespace may be the plugin's own.
    pub own_netns: OwnNetns,
}

/// Whether the sandbox's namespace may be the plugin's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnNetns {
    /// An error: the plugin would rewire the host.
    Refused,
    /// The caller insists.
    Allowed,
}

/// Variables that are missing or invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// No `CNI_COMMAND`: a person started the program.
    #[error("required env variables [CNI_COMMAND] missing")]
    NoCommand,
    /// A verb that no version has.
    #[error("unknown CNI_COMMAND: {0}")]
    UnknownCommand(String),
    /// All that the verb needs and does not have.
    #[error("required env variables [{}] missing", .0.join(","))]
    Missing(Vec<&'static str>),
    /// A character that could escape from a path.
    #[error(
        "invalid characters in containerID: CNI_CONTAINERID is {0:?}, it must begin with a letter or digit and contain letters, digits, '_', '.' and '-' only"
    )]
    ContainerId(String),
    /// A name the kernel refuses.
    #[error("CNI_IFNAME: interface name {name:?} {problem}")]
    IfName {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl From<EnvError> for CniError {
    fn from(error: EnvError) -> Self {
        Self::new(ErrorCode::InvalidEnvironment, error.to_string())
    }
}

impl Invocation {
    /// Reads the variables through `lookup`. An empty variable counts as missing.
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, EnvError> {
        let get = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let command = get("CNI_COMMAND").ok_or(EnvError::NoCommand)?;
        let verb = match command.as_str() {
            "VERSION" => return Ok(Self::Version),
            "ADD" => AttachmentVerb::Add,
            "DEL" => AttachmentVerb::Del,
            "CHECK" => AttachmentVerb::Check,
            "GC" => return require(&["CNI_PATH"], get).map(|()| Self::Node(NodeVerb::Gc)),
            "STATUS" => return require(&["CNI_PATH"], get).map(|()| Self::Node(NodeVerb::Status)),
            _ => return Err(EnvError::UnknownCommand(command)),
        };
        match verb {
            AttachmentVerb::Add | AttachmentVerb::Check => {
                require(&["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"], get)?;
            }
            AttachmentVerb::Del => require(&["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"], get)?,
        }
        sandbox(get).map(|sandbox| Self::Attachment(verb, sandbox))
    }
}

fn require(names: &[&'static str], get: impl Fn(&str) -> Option<String>) -> Result<(), EnvError> {
    let missing: Vec<_> = names.iter().copied().filter(|name| get(name).is_none()).collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(EnvError::Missing(missing))
    }
}

fn sandbox(get: impl Fn(&str) -> Option<String>) -> Result<Sandbox, EnvError> {
    let text = |name| get(name).unwrap_or_default();
    let override_ = text("CNI_NETNS_OVERRIDE").to_ascii_lowercase();
    Ok(Sandbox {
        container_id: container_id(text("CNI_CONTAINERID"))?,
        if_name: if_name(text("CNI_IFNAME"))?,
        netns: get("CNI_NETNS").map(PathBuf::from),
        args: text("CNI_ARGS"),
        own_netns: if matches!(override_.as_str(), "1" | "true") {
            OwnNetns::Allowed
        } else {
            OwnNetns::Refused
        },
    })
}

/// Whether the text may be a container's id: no character of it can escape from a path.
pub(crate) fn is_container_id(id: &str) -> bool {
    let first = id.starts_with(|c: char| c.is_ascii_alphanumeric());
    let rest = id
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    first && rest
}

fn container_id(id: String) -> Result<String, EnvError> {
    if is_container_id(&id) {
        Ok(id)
    } else {
        Err(EnvError::ContainerId(id))
    }
}

fn if_name(name: String) -> Result<String, EnvError> {
    let problem = match name.as_str() {
        "" => "is empty",
        "." | ".." => "is . or ..",
        text if text.len() > IF_NAME_MAX => "is too long: at most 15 characters",
        text if text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) => "contains /, : or white space",
        _ => return Ok(name),
    };
    Err(EnvError::IfName { name, problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Invocation, EnvError> {
        Invocation::from_env(|name| {
            vars.iter()
                .rev()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| (*v).to_owned())
        })
    }

    fn add_with(name: &'static str, value: &'static str) -> Result<Invocation, EnvError> {
        let base = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", "/n"),
            ("CNI_IFNAME", "eth0"),
        ];
        read(&[&base[..], &[("CNI_PATH", "/opt/cni/bin"), (name, value)]].concat())
    }

    #[test]
    fn all_missing_variables_are_listed() {
        let missing = |command| read(&[("CNI_COMMAND", command)]).unwrap_err().to_string();
        assert_eq!(
            missing("ADD"),
            "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing"
        );
        assert_eq!(
            missing("DEL"),
            "required env variables [CNI_CONTAINERID,CNI_IFNAME,CNI_PATH] missing"
        );
        assert_eq!(missing("GC"), "required env variables [CNI_PATH] missing");
        assert_eq!(read(&[]), Err(EnvError::NoCommand));
        assert_eq!(
            CniError::from(read(&[("CNI_COMMAND", "add")]).unwrap_err())
                .code
                .number(),
            4
        );
    }

    #[test]
    fn version_needs_nothing_else() {
        assert_eq!(read(&[("CNI_COMMAND", "VERSION")]), Ok(Invocation::Version));
    }

    #[test]
    fn container_ids_are_plain() {
        for good in ["a", "0", "A_.-9", &"f".repeat(64)] {
            assert_eq!(container_id(good.to_owned()).as_deref(), Ok(good));
        }
        for bad in ["", "-a", ".a", "_a", "a/b", "a b", "é"] {
            assert!(container_id(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn interface_names_are_those_the_kernel_takes() {
        for good in ["e", "eth0", "123456789012345"] {
            assert_eq!(if_name(good.to_owned()).as_deref(), Ok(good));
        }
        for bad in [
            "",
            ".",
            "..",
            "1234567890123456",
            "a/b",
            "a:b",
            "a b",
            "a\tb",
            "a\u{a0}b",
        ] {
            assert!(if_name(bad.to_owned()).is_err(), "{bad:?}");
        }
        let text = add_with("CNI_IFNAME", "1234567890123456").unwrap_err().to_string();
        assert!(text.contains("CNI_IFNAME") && text.contains("too long"), "{text}");
    }

    #[test]
    fn the_override_is_one_or_true() {
        let own = |value| {
            let Ok(Invocation::Attachment(_, sandbox)) = add_with("CNI_NETNS_OVERRIDE", value) else {
                panic!("{value}")
            };
            sandbox.own_netns
        };
        assert_eq!([own("1"), own("TRUE")], [OwnNetns::Allowed; 2]);
        assert_eq!([own(""), own("0"), own("yes")], [OwnNetns::Refused; 3]);
    }
}
