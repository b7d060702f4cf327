//! `CNI_ARGS`: `KEY=VALUE` pairs separated by semicolons, by which a runtime names the pod.

use vpc_types::PodName;

/// What the runtime says about the pod. Every part may be empty: podman names no namespace, plain containers nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodArgs {
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_INFRA_CONTAINER_ID`: the sandbox's id once more.
    pub infra_container_id: String,
    /// `K8S_POD_UID`.
    pub uid: String,
}

/// `CNI_ARGS` that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// Not exactly one equals sign.
    #[error("CNI_ARGS: invalid pair {0:?}: expected KEY=VALUE")]
    Pair(String),
    /// `IgnoreUnknown` is neither true nor false.
    #[error("CNI_ARGS: IgnoreUnknown={0:?} is no boolean: expected 1, true, 0 or false")]
    IgnoreUnknown(String),
    /// Keys that nobody knows, without the permission to ignore them.
    #[error("CNI_ARGS: unknown args {0:?} (set IgnoreUnknown=1 to allow them)")]
    Unknown(Vec<String>),
}

impl PodArgs {
    /// Parses the whole variable; the empty text is valid and names nothing.
    pub fn parse(text: &str) -> Result<Self, ArgsError> {
        let mut args = Self::default();
        let mut ignore_unknown = false;
        let mut unknown = Vec::new();
        for pair in text.split(';').take(if text.is_empty() { 0 } else { usize::MAX }) {
            let split = pair.split_once('=').filter(|(_, value)| !value.contains('='));
            let (key, value) = split.ok_or_else(|| ArgsError::Pair(pair.to_owned()))?;
            match key {
                "K8S_POD_NAME" => value.clone_into(&mut args.name),
                "K8S_POD_NAMESPACE" => value.clone_into(&mut args.namespace),
                "K8S_POD_INFRA_CONTAINER_ID" => value.clone_into(&mut args.infra_container_id),
                "K8S_POD_UID" => value.clone_into(&mut args.uid),
                "IgnoreUnknown" => ignore_unknown = parse_bool(value)?,
                _ => unknown.push(pair.to_owned()),
            }
        }
        if unknown.is_empty() || ignore_unknown {
            Ok(args)
        } else {
            Err(ArgsError::Unknown(unknown))
        }
    }

    /// The pod, if both parts of its name are known.
    pub fn pod(&self) -> Option<PodName> {
        PodName::new(&self.namespace, &self.name)
    }
}

fn parse_bool(text: &str) -> Result<bool, ArgsError> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(ArgsError::IgnoreUnknown(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_kubernetes_runtime_are_understood_in_any_order() {
        let args = PodArgs::parse("K8S_POD_UID=u;IgnoreUnknown=1;K8S_POD_NAME=nginx;K8S_POD_NAMESPACE=default;X=y;K8S_POD_INFRA_CONTAINER_ID=c").unwrap();
        assert_eq!((args.uid.as_str(), args.infra_container_id.as_str()), ("u", "c"));
        assert_eq!(args.pod(), PodName::new("default", "nginx"));
    }

    #[test]
    fn half_a_name_or_none_is_no_pod() {
        for text in [
            "",
            "IgnoreUnknown=1",
            "IgnoreUnknown=true;K8S_POD_NAME=box",
            "K8S_POD_NAMESPACE=default",
        ] {
            assert_eq!(PodArgs::parse(text).unwrap().pod(), None, "{text:?}");
        }
    }

    #[test]
    fn malformed_pairs_are_named() {
        for text in ["K8S_POD_NAME", "A=b=c;IgnoreUnknown=1", "K8S_POD_NAME=a;", ";"] {
            assert!(matches!(PodArgs::parse(text), Err(ArgsError::Pair(_))), "{text:?}");
        }
        assert_eq!(
            PodArgs::parse("IgnoreUnknown=yes"),
            Err(ArgsError::IgnoreUnknown("yes".into()))
        );
    }

    #[test]
    fn unknown_keys_need_permission_wherever_it_stands() {
        assert_eq!(PodArgs::parse("FOO=1"), Err(ArgsError::Unknown(vec!["FOO=1".into()])));
        assert!(PodArgs::parse("FOO=1;IgnoreUnknown=0").is_err());
        assert!(PodArgs::parse("FOO=1;IgnoreUnknown=True").is_ok());
    }
}
