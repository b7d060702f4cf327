//! A request of the API: method, path, parameters, headers that matter, body. And what is answered.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, header};
use serde_json::Value;

use super::refusal::Refusal;
use super::resource::Resource;
use super::selector::Selector;

/// A watch without a limit of its own ends after this; the API server takes something between half an hour and an hour.
const WATCH_MAX: Duration = Duration::from_secs(30 * 60);

/// What a client asked.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) content_type: String,
    accept: String,
    pub(super) body: Bytes,
}

/// What it gets.
#[derive(Debug)]
pub(super) enum Reply {
    Object(u16, Value),
    Text(&'static str),
    Watch(Box<WatchOrder>),
}

/// A watch to be served.
#[derive(Debug)]
pub(super) struct WatchOrder {
    pub(super) resource: &'static Resource,
    pub(super) namespace: Option<String>,
    pub(super) selector: Selector,
    pub(super) start: WatchStart,
    pub(super) bookmarks: Bookmarks,
    pub(super) form: Form,
    pub(super) length: Duration,
}

/// Whether the client wants bookmarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bookmarks {
    Wanted,
    Unwanted,
}

/// How objects are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As they are.
    Object,
    /// As a table to print.
    Table,
}

/// From where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WatchStart {
    /// All objects as they are, then changes; the old way.
    Objects,
    /// All objects, a bookmark that ends them, then changes.
    ObjectsThenBookmark(u64),
    /// Changes after this version.
    After(u64),
}

impl Asked {
    pub(super) fn new(method: Method, uri: &http::Uri, headers: &HeaderMap, body: Bytes) -> Self {
        let text = |name| {
            let values = headers.get_all(name).iter();
            let texts: Vec<_> = values
                .filter_map(|value: &http::HeaderValue| value.to_str().ok())
                .collect();
            texts.join(",")
        };
        let query = uri.query().unwrap_or_default().as_bytes();
        Self {
            method,
            path: uri.path().to_owned(),
            parameters: form_urlencoded::parse(query).into_owned().collect(),
            content_type: text(header::CONTENT_TYPE),
            accept: text(header::ACCEPT),
            body,
        }
    }

    fn parameter(&self, name: &str) -> &str {
        self.parameters.get(name).map(String::as_str).unwrap_or_default()
    }

    /// Booleans in parameters: present without a value is true.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.parameters
            .get(name)
            .is_some_and(|value| !matches!(value.as_str(), "false" | "0"))
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        match self.parameter(name) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| Refusal::bad_request(format!("invalid {name}: {text:?}"))),
        }
    }

    /// JSON is all that is spoken here; most clients list it behind protobuf.
    pub(super) fn check_accept(&self) -> Result<(), Refusal> {
        let takes_json = self.accept.split(',').any(|kind| {
            let kind = kind.split(';').next().unwrap_or_default().trim();
            matches!(kind, "" | "application/json" | "application/*" | "*/*" | "text/plain")
        });
        if takes_json {
            Ok(())
        } else {
            Err(Refusal::not_acceptable())
        }
    }

    /// What the client would rather have.
    pub(super) fn form(&self) -> Form {
        let is_table = |kind: &str| kind.contains("as=Table") && kind.contains("application/json");
        if self.accept.split(',').any(is_table) {
            Form::Table
        } else {
            Form::Object
        }
    }

    pub(super) fn object(&self) -> Result<Value, Refusal> {
        let kind = self.content_type.split(';').next().unwrap_or_default().trim();
        if !matches!(kind, "" | "application/json") {
            return Err(Refusal::media_type("application/json"));
        }
        self.json()
    }

    pub(super) fn json(&self) -> Result<Value, Refusal> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Refusal::bad_request(format!("the body is no JSON: {error}")))
    }

    pub(super) fn selector(&self, resource: &Resource) -> Result<Selector, Refusal> {
        let (labels, fields) = (self.parameter("labelSelector"), self.parameter("fieldSelector"));
        Ok(Selector::parse(resource.storage, labels, fields)?)
    }

    /// `resourceVersion`; nothing and 0 both mean that any will do.
    pub(super) fn version(&self) -> Result<Option<u64>, Refusal> {
        Ok(self.number("resourceVersion")?.filter(|version| *version > 0))
    }

    pub(super) fn watch(&self, resource: &'static Resource, namespace: Option<String>) -> Result<WatchOrder, Refusal> {
        let match_rule = self.parameter("resourceVersionMatch");
        let wants_initial = self.parameters.contains_key("sendInitialEvents");
        let start = match (wants_initial, match_rule) {
            (true, "NotOlderThan") if self.flag("sendInitialEvents") => {
                WatchStart::ObjectsThenBookmark(self.version()?.unwrap_or_default())
            }
            (true, "NotOlderThan") | (false, "") => self.version()?.map_or(WatchStart::Objects, WatchStart::After),
            (true, _) => {
                let text = "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                return Err(Refusal::invalid(format!(
                    "ListOptions.meta.k8s.io \"\" is invalid: {text}"
                )));
            }
            (false, _) => {
                let text = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                return Err(Refusal::invalid(format!(
                    "ListOptions.meta.k8s.io \"\" is invalid: {text}"
                )));
            }
        };
        let bookmarks = if self.flag("allowWatchBookmarks") {
            Bookmarks::Wanted
        } else {
            Bookmarks::Unwanted
        };
        let length = self.number("timeoutSeconds")?.filter(|seconds| *seconds > 0);
        Ok(WatchOrder {
            resource,
            namespace,
            selector: self.selector(resource)?,
            start,
            bookmarks,
            form: self.form(),
            length: length.map_or(WATCH_MAX, Duration::from_secs).min(WATCH_MAX),
        })
    }
}
