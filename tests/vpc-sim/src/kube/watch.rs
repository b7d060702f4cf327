//! What a watch sends: from an order and the store to lines of JSON. No I/O and no waiting.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::refusal::Refusal;
use super::request::{Bookmarks, Form, WatchOrder, WatchStart};
use super::resource::shown_as;
use super::store::{Change, Store, StoreError, last_state};
use super::table;

/// The annotation by which clients know that they have seen everything that was there.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// A watch that is being served.
#[derive(Debug)]
pub(super) struct Watch {
    order: WatchOrder,
    /// Everything up to this version was sent.
    seen: u64,
}

/// Whether a watch goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    GoesOn,
    Ends,
}

impl Watch {
    /// Begins: the watch and its first lines.
    pub(super) fn begin(order: WatchOrder, store: &Store) -> (Self, Vec<Bytes>, Flow) {
        let (start, present) = (order.start, store.version());
        let seen = match start {
            WatchStart::After(version) => version,
            WatchStart::Objects | WatchStart::ObjectsThenBookmark(_) => present,
        };
        let watch = Self { order, seen };
        let too_new = match start {
            WatchStart::ObjectsThenBookmark(wanted) => store.check_not_future(wanted),
            WatchStart::Objects | WatchStart::After(_) => Ok(()),
        };
        if let Err(error) = too_new {
            let line = watch.error(&error);
            return (watch, vec![line], Flow::Ends);
        }
        let mut lines = Vec::new();
        if !matches!(start, WatchStart::After(_)) {
            let objects = store.list(watch.order.resource.storage, watch.order.namespace.as_deref());
            let wanted = objects.filter(|(_, object)| watch.order.selector.matches(object));
            lines.extend(wanted.map(|(_, object)| watch.line("ADDED", object)));
        }
        if matches!(start, WatchStart::ObjectsThenBookmark(_)) && watch.order.bookmarks == Bookmarks::Wanted {
            let annotations = json!({INITIAL_EVENTS_END: "true"});
            lines.push(watch.bookmark_with(json!({"annotations": annotations})));
        }
        (watch, lines, Flow::GoesOn)
    }

    /// What has happened since the last time.
    pub(super) fn more(&mut self, store: &Store) -> (Vec<Bytes>, Flow) {
        match store.changes_since(self.seen, self.order.resource.storage) {
            Ok(changes) => {
                self.seen = store.version();
                (
                    changes.iter().filter_map(|change| self.event(change)).collect(),
                    Flow::GoesOn,
                )
            }
            Err(error) => (vec![self.error(&error)], Flow::Ends),
        }
    }

    /// A sign that everything up to now was sent, if the client wants such.
    pub(super) fn bookmark(&self) -> Option<Bytes> {
        (self.order.bookmarks == Bookmarks::Wanted).then(|| self.bookmark_with(json!({})))
    }

    pub(super) fn length(&self) -> std::time::Duration {
        self.order.length
    }

    /// An object that comes to match is new to this client, and one that ceases to match is gone.
    fn event(&self, change: &Change) -> Option<Bytes> {
        let is_here = self
            .order
            .namespace
            .as_ref()
            .is_none_or(|wanted| *wanted == change.key.namespace);
        let matching = |object: &Option<Arc<Value>>| {
            let object = object.as_deref().filter(|_| is_here);
            object.is_some_and(|object| self.order.selector.matches(object))
        };
        match (matching(&change.before), matching(&change.after)) {
            (false, false) => None,
            (false, true) => Some(self.line("ADDED", change.after.as_deref()?)),
            (true, true) => Some(self.line("MODIFIED", change.after.as_deref()?)),
            (true, false) => Some(self.line("DELETED", &last_state(change)?)),
        }
    }

    fn line(&self, kind: &str, object: &Value) -> Bytes {
        let resource = self.order.resource;
        let object = shown_as(resource, object);
        match self.order.form {
            Form::Object => line(kind, &object),
            Form::Table => {
                let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                line(kind, &table::of(resource, &[object], metadata))
            }
        }
    }

    fn bookmark_with(&self, mut metadata: Value) -> Bytes {
        let resource = self.order.resource;
        metadata["resourceVersion"] = self.seen.to_string().into();
        metadata["creationTimestamp"] = Value::Null;
        let object = json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata});
        line("BOOKMARK", &object)
    }

    fn error(&self, error: &StoreError) -> Bytes {
        line("ERROR", &Refusal::of_store(error, self.order.resource).status())
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    let mut line = json!({"type": kind, "object": object}).to_string();
    line.push('\n');
    line.into()
}
