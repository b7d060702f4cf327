//! Failures as Kubernetes words them: a `Status` object with code and reason.

use serde_json::{Value, json};

use super::patch::BadPatch;
use super::resource::Resource;
use super::selector::BadSelector;
use super::store::StoreError;

/// A request that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    code: u16,
    reason: &'static str,
    message: String,
    details: Option<(String, String)>,
}

impl Refusal {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: None,
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(super) fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    pub(super) fn method() -> Self {
        let text = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", text)
    }

    pub(super) fn not_acceptable() -> Self {
        let text = "only the following media types are accepted: application/json";
        Self::new(406, "NotAcceptable", text)
    }

    pub(super) fn media_type(kinds: &str) -> Self {
        let text = format!("the body of the request was in an unknown format - accepted media types include: {kinds}");
        Self::new(415, "UnsupportedMediaType", text)
    }

    pub(super) fn too_long() -> Self {
        Self::new(413, "RequestEntityTooLarge", "the request is too long or broke off")
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(422, "Invalid", message)
    }

    /// What the store says about an object of a resource.
    pub(super) fn of_store(error: &StoreError, resource: &Resource) -> Self {
        let qualified = resource.qualified();
        let about = |name: &str, mut refusal: Self| {
            refusal.details = Some((name.to_owned(), resource.plural.to_owned()));
            refusal
        };
        match error {
            StoreError::NotFound(name) => about(
                name,
                Self::new(404, "NotFound", format!("{qualified} \"{name}\" not found")),
            ),
            StoreError::Exists(name) => {
                let text = format!("{qualified} \"{name}\" already exists");
                about(name, Self::new(409, "AlreadyExists", text))
            }
            StoreError::Conflict { name, .. } => {
                let text = format!(
                    "Operation cannot be fulfilled on {qualified} \"{name}\": the object has been modified; please apply \
                     your changes to the latest version and try again"
                );
                about(name, Self::new(409, "Conflict", text))
            }
            StoreError::TooOld { .. } => Self::new(410, "Expired", error.to_string()),
            StoreError::TooLarge { .. } => Self::new(504, "Timeout", error.to_string()),
            StoreError::Full => Self::new(507, "InternalError", error.to_string()),
        }
    }

    pub(super) fn code(&self) -> u16 {
        self.code
    }

    pub(super) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message,
            "reason": self.reason, "code": self.code,
        });
        if let Some((name, kind)) = &self.details {
            status["details"] = json!({"name": name, "kind": kind});
        }
        status
    }
}

impl From<BadSelector> for Refusal {
    fn from(error: BadSelector) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<BadPatch> for Refusal {
    fn from(error: BadPatch) -> Self {
        Self::invalid(error.to_string())
    }
}
