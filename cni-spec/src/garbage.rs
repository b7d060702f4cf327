//! The list that GC comes with: the attachments that are in use, by which everything else of the network is garbage.
//!
//! Invariant: a list that cannot be understood to the last entry is an error, and so is none at all. An empty list is one: the
//! runtime then says in so many words that it uses nothing.

use crate::config::Document;
use crate::env::is_container_id;
use crate::json::{FieldError, Fields};
use crate::{CniError, ErrorCode};

/// Where the specification puts the list.
const FIELD: &str = "cni.dev/valid-attachments";
/// Where the first runtimes put it, which followed a draft.
const DRAFT_FIELD: &str = "cni.dev/attachments";

/// An attachment that is in use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ValidAttachment {
    /// `containerID`.
    pub container_id: String,
    /// `ifname`.
    pub if_name: String,
}

/// A list by which nothing may be removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GarbageError {
    /// Not there, or null.
    #[error("network configuration: field {FIELD:?} is missing: without it nothing is garbage")]
    Missing,
    /// Of another form.
    #[error("network configuration: {0}")]
    Form(#[from] FieldError),
    /// An entry that names no attachment.
    #[error("network configuration: field {path:?}: {found:?} is no {expected}")]
    Value {
        /// Where it is.
        path: String,
        /// What belongs there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
}

impl From<GarbageError> for CniError {
    fn from(error: GarbageError) -> Self {
        let code = match error {
            GarbageError::Form(_) => ErrorCode::Decoding,
            GarbageError::Missing | GarbageError::Value { .. } => ErrorCode::InvalidConfig,
        };
        Self::new(code, error.to_string())
    }
}

impl Document {
    /// The attachments of this network that are in use, as the runtime lists them.
    pub fn valid_attachments(&self) -> Result<Vec<ValidAttachment>, GarbageError> {
        let fields = Fields::new(self.root(), "")?;
        let named = [FIELD, DRAFT_FIELD].into_iter().find(|key| fields.get(key).is_some());
        let key = named.ok_or(GarbageError::Missing)?;
        let entries = fields.objects(key)?;
        entries
            .iter()
            .enumerate()
            .map(|(index, entry)| entry_of(entry, &format!("{key}[{index}]")))
            .collect()
    }
}

fn entry_of(entry: &Fields<'_>, path: &str) -> Result<ValidAttachment, GarbageError> {
    let text = |key, expected, is_valid: fn(&str) -> bool| {
        let found = entry.text(key)?.unwrap_or_default();
        if is_valid(found) {
            return Ok(found.to_owned());
        }
        Err(GarbageError::Value {
            path: format!("{path}.{key}"),
            expected,
            found: found.to_owned(),
        })
    };
    Ok(ValidAttachment {
        container_id: text("containerID", "container id", is_container_id)?,
        if_name: text("ifname", "interface name", |name| !name.is_empty())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Result<Vec<ValidAttachment>, CniError> {
        let text = format!(r#"{{"name":"aws-cni","cniVersion":"1.1.0"{text}}}"#);
        Ok(Document::parse(text.as_bytes()).unwrap().valid_attachments()?)
    }

    #[test]
    fn the_list_is_read_under_its_name_and_that_of_the_draft() {
        let one = [ValidAttachment {
            container_id: "c1".to_owned(),
            if_name: "eth0".to_owned(),
        }];
        for field in [FIELD, DRAFT_FIELD] {
            let text = format!(r#","{field}":[{{"containerID":"c1","ifname":"eth0"}}]"#);
            assert_eq!(list(&text).unwrap(), one);
        }
        let both = format!(r#","{DRAFT_FIELD}":null,"{FIELD}":[]"#);
        assert_eq!(list(&both).unwrap(), []);
    }

    #[test]
    fn no_list_never_means_that_everything_is_garbage() {
        for text in ["", r#","cni.dev/valid-attachments":null"#] {
            let error = list(text).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidConfig);
            assert!(error.msg.contains(FIELD), "{error}");
        }
    }

    #[test]
    fn a_list_that_cannot_be_understood_is_refused_as_a_whole() {
        let cases = [
            (r#"{}"#, 6, "valid-attachments\""),
            (r#""x""#, 6, "valid-attachments\""),
            (r#"[7]"#, 6, "valid-attachments[0]"),
            (r#"[null]"#, 6, "valid-attachments[0]"),
            (r#"[{"containerID":7,"ifname":"eth0"}]"#, 6, "[0].containerID"),
            (r#"[{"ifname":"eth0"}]"#, 7, "[0].containerID"),
            (r#"[{"containerID":"../c","ifname":"eth0"}]"#, 7, "[0].containerID"),
            (
                r#"[{"containerID":"c1","ifname":"eth0"},{"containerID":"c2"}]"#,
                7,
                "[1].ifname",
            ),
        ];
        for (value, code, field) in cases {
            let error = list(&format!(r#","cni.dev/valid-attachments":{value}"#)).unwrap_err();
            assert!(
                error.code.number() == code && error.msg.contains(field),
                "{value}: {error}"
            );
        }
    }
}
