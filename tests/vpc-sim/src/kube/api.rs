//! The API's requests on the store: each is one function from a request and a time to a reply. No I/O.

use http::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::refusal::Refusal;
use super::request::{Asked, Form, Reply};
use super::resource::{Resource, Scope, shown_as, stored_form};
use super::route::{Part, Route, route};
use super::store::{Key, Store, StoreError};
use super::{discovery, patch, table};

/// Most objects in one page when the client sets no limit: all.
const PAGE_MAX: usize = usize::MAX;

/// Answers one request. `address` is the server's own, for a discovery document.
pub(super) fn answer(store: &mut Store, now: OffsetDateTime, address: &str, asked: &Asked) -> Result<Reply, Refusal> {
    asked.check_accept()?;
    let route = route(&asked.path)?;
    let read_only = |document: Value| match asked.method {
        Method::GET => Ok(Reply::Object(200, document)),
        _ => Err(Refusal::method()),
    };
    match route {
        Route::Version => read_only(discovery::version()),
        Route::Health => Ok(Reply::Text("ok")),
        Route::Core => read_only(discovery::core(address)),
        Route::Groups => read_only(discovery::groups()),
        Route::Group(group) => read_only(discovery::group(group)),
        Route::Resources(group, version) => read_only(discovery::resources(group, version)),
        Route::Collection(resource, namespace) => collection(store, now, asked, resource, namespace),
        Route::Item {
            resource,
            namespace,
            name,
            part,
        } => {
            let key = Key::new(resource.storage, &namespace, &name);
            item(store, asked, resource, &key, part)
        }
    }
}

fn collection(
    store: &mut Store,
    now: OffsetDateTime,
    asked: &Asked,
    resource: &'static Resource,
    namespace: Option<String>,
) -> Result<Reply, Refusal> {
    match asked.method {
        Method::GET if asked.flag("watch") => Ok(Reply::Watch(Box::new(asked.watch(resource, namespace)?))),
        Method::GET => list(store, asked, resource, namespace.as_deref()),
        Method::POST => create(store, now, asked, resource, namespace.as_deref()),
        _ => Err(Refusal::method()),
    }
}

/// Namespace and name: the order of lists.
type Position = (String, String);

/// Where a list goes on: the version of its first page, and the last object so far.
fn continuation(asked: &Asked) -> Result<Option<(u64, Position)>, Refusal> {
    let Some(token) = asked.parameters.get("continue").filter(|token| !token.is_empty()) else {
        return Ok(None);
    };
    let parsed = token.strip_prefix("after.").and_then(|rest| {
        let (version, last) = rest.split_once('.')?;
        let (namespace, name) = last.split_once('/')?;
        Some((version.parse().ok()?, (namespace.to_owned(), name.to_owned())))
    });
    parsed
        .map(Some)
        .ok_or_else(|| Refusal::bad_request("continue key is not valid"))
}

fn list(store: &Store, asked: &Asked, resource: &'static Resource, namespace: Option<&str>) -> Result<Reply, Refusal> {
    let refuse = |error: StoreError| Refusal::of_store(&error, resource);
    if asked.parameters.contains_key("sendInitialEvents") {
        let text = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list";
        return Err(Refusal::invalid(format!(
            "ListOptions.meta.k8s.io \"\" is invalid: {text}"
        )));
    }
    let selector = asked.selector(resource)?;
    let from = continuation(asked)?;
    let version = match (&from, asked.version()?) {
        (Some((version, _)), _) => {
            // Later pages show the present; a client that watches from the first page's version catches up.
            store.changes_since(*version, resource.storage).map_err(refuse)?;
            *version
        }
        (None, wanted) => {
            check_version(store, asked, wanted).map_err(refuse)?;
            store.version()
        }
    };
    let limit = asked
        .number("limit")?
        .filter(|limit| *limit > 0)
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(PAGE_MAX);
    let position = |key: &Key| (key.namespace.clone(), key.name.clone());
    let all: Vec<_> = store
        .list(resource.storage, namespace)
        .filter(|(_, object)| selector.matches(object))
        .filter(|(key, _)| from.as_ref().is_none_or(|(_, last)| position(key) > *last))
        .collect();
    let page = &all[..limit.min(all.len())];
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if let Some((last, _)) = page.last().filter(|_| page.len() < all.len()) {
        metadata["continue"] = format!("after.{version}.{}/{}", last.namespace, last.name).into();
        if selector.is_everything() {
            metadata["remainingItemCount"] = (all.len() - page.len()).into();
        }
    }
    let items: Vec<_> = page.iter().map(|(_, object)| shown_as(resource, object)).collect();
    if asked.form() == Form::Table {
        return Ok(Reply::Object(200, table::of(resource, &items, metadata)));
    }
    let kind = format!("{}List", resource.kind);
    let list = json!({"kind": kind, "apiVersion": resource.api_version(), "metadata": metadata, "items": items});
    Ok(Reply::Object(200, list))
}

fn check_version(store: &Store, asked: &Asked, wanted: Option<u64>) -> Result<(), StoreError> {
    let Some(wanted) = wanted else { return Ok(()) };
    store.check_not_future(wanted)?;
    let is_exact = asked
        .parameters
        .get("resourceVersionMatch")
        .is_some_and(|rule| rule == "Exact");
    if is_exact && wanted != store.version() {
        return Err(StoreError::TooOld {
            asked: wanted,
            oldest: store.version(),
        });
    }
    Ok(())
}

fn create(
    store: &mut Store,
    now: OffsetDateTime,
    asked: &Asked,
    resource: &'static Resource,
    namespace: Option<&str>,
) -> Result<Reply, Refusal> {
    if resource.scope == Scope::Namespaced && namespace.is_none() {
        return Err(Refusal::method());
    }
    let object = asked.object()?;
    let created = add(store, now, resource, namespace.unwrap_or_default(), object)?;
    Ok(Reply::Object(201, shown(asked, resource, &created)))
}

/// Adds an object to a namespace, after the checks that every object has to pass.
pub(super) fn add(
    store: &mut Store,
    now: OffsetDateTime,
    resource: &'static Resource,
    namespace: &str,
    object: Value,
) -> Result<Value, Refusal> {
    let mut object = checked(resource, namespace, object)?;
    if object["metadata"]["name"].as_str().unwrap_or_default().is_empty() {
        let prefix = object["metadata"]["generateName"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if prefix.is_empty() {
            return Err(Refusal::invalid(
                "metadata.name: Required value: name or generateName is required",
            ));
        }
        object["metadata"]["name"] = format!("{prefix}{}", store.new_suffix()).into();
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    check_name(&name)?;
    let seconds = now.replace_nanosecond(0).unwrap_or(now);
    let created = seconds.format(&Rfc3339).unwrap_or_default();
    let key = Key::new(resource.storage, namespace, &name);
    let stored = store.create(key, stored_form(resource, object), &created);
    stored
        .map(|object| object.as_ref().clone())
        .map_err(|error| Refusal::of_store(&error, resource))
}

/// Kind, version and namespace: filled in where absent, refused where they contradict the path.
fn checked(resource: &Resource, namespace: &str, mut object: Value) -> Result<Value, Refusal> {
    if !object.is_object() || !(object["metadata"].is_object() || object["metadata"].is_null()) {
        return Err(Refusal::bad_request("the body is no object of Kubernetes"));
    }
    if object["metadata"].is_null() {
        object["metadata"] = json!({});
    }
    let version = resource.api_version();
    let expected = [
        ("/kind", resource.kind),
        ("/apiVersion", version.as_str()),
        ("/metadata/namespace", namespace),
    ];
    for (pointer, wanted) in expected {
        let given = object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        if !given.is_empty() && given != wanted {
            let text = format!(
                "the {} of the object ({given}) does not match {wanted:?} of the request",
                &pointer[1..]
            );
            return Err(Refusal::bad_request(text));
        }
    }
    object["kind"] = resource.kind.into();
    object["apiVersion"] = version.into();
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = namespace.into();
    }
    Ok(object)
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let is_good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if name.len() <= 253 && name.chars().all(is_good) && name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Ok(());
    }
    let text = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'";
    Err(Refusal::invalid(format!(
        "metadata.name: Invalid value: {name:?}: {text}"
    )))
}

fn item(
    store: &mut Store,
    asked: &Asked,
    resource: &'static Resource,
    key: &Key,
    part: Part,
) -> Result<Reply, Refusal> {
    let refuse = |error: StoreError| Refusal::of_store(&error, resource);
    let object = match asked.method {
        Method::GET => {
            let version = asked.version()?.unwrap_or_default();
            store.check_not_future(version).map_err(refuse)?;
            store.get(key).map_err(refuse)?.as_ref().clone()
        }
        Method::PUT => replace(store, resource, key, part, asked.object()?)?,
        Method::PATCH => change(store, asked, resource, key, part)?,
        Method::DELETE if part == Part::Whole => {
            let last = store.delete(key).map_err(refuse)?;
            // As the API server answers a pod's deletion; clients of other kinds read no more than the status code.
            last.as_ref().clone()
        }
        _ => return Err(Refusal::method()),
    };
    Ok(Reply::Object(200, shown(asked, resource, &object)))
}

fn shown(asked: &Asked, resource: &Resource, object: &Value) -> Value {
    let object = shown_as(resource, object);
    if asked.form() == Form::Table {
        let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
        return table::of(resource, &[object], metadata);
    }
    object
}

/// What a write may not touch comes from the old object: the status from ordinary writes, all but status and metadata from
/// writes of the status.
fn keep_other_part(resource: &Resource, part: Part, old: &Value, new: &mut Value) {
    use super::resource::StatusPart;
    let Some(fields) = new.as_object_mut().filter(|_| resource.status == StatusPart::Own) else {
        return;
    };
    let foreign: &[&str] = match part {
        Part::Whole => &["status"],
        Part::Status => &["spec"],
    };
    for field in foreign {
        match old.get(field) {
            Some(value) => drop(fields.insert((*field).to_owned(), value.clone())),
            None => drop(fields.remove(*field)),
        }
    }
}

/// Replaces an object, or the part of it that the request is about.
pub(super) fn replace(
    store: &mut Store,
    resource: &'static Resource,
    key: &Key,
    part: Part,
    object: Value,
) -> Result<Value, Refusal> {
    let mut object = stored_form(resource, checked(resource, &key.namespace, object)?);
    if object["metadata"]["name"] != key.name.as_str() {
        return Err(Refusal::bad_request(
            "the name of the object does not match the name on the URL",
        ));
    }
    let updated = store.update(key, |old| {
        keep_other_part(resource, part, old, &mut object);
        Ok(object)
    });
    updated
        .map(|object| object.as_ref().clone())
        .map_err(|error: StoreError| Refusal::of_store(&error, resource))
}

/// A failure of a patch: the store's, or the patch's own.
enum Unpatched {
    Store(StoreError),
    Refused(Refusal),
}

impl From<StoreError> for Unpatched {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn change(
    store: &mut Store,
    asked: &Asked,
    resource: &'static Resource,
    key: &Key,
    part: Part,
) -> Result<Value, Refusal> {
    let kind = asked.content_type.split(';').next().unwrap_or_default().trim();
    let known = [
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/json-patch+json",
    ];
    if !known.contains(&kind) {
        return Err(Refusal::media_type(&known.join(", ")));
    }
    let body = asked.json()?;
    let patched = store.update(key, |old| {
        // Patches are written against the form that the client sees.
        let mut new = shown_as(resource, old);
        // Only a version that the patch itself names is a condition.
        if let Some(metadata) = new["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        match kind {
            "application/merge-patch+json" => patch::merge(&mut new, &body),
            "application/json-patch+json" => {
                patch::json_patch(&mut new, &body).map_err(|error| Unpatched::Refused(error.into()))?;
            }
            _ => patch::strategic(&mut new, &body),
        }
        let mut new = stored_form(resource, new);
        keep_other_part(resource, part, old, &mut new);
        for field in ["kind", "apiVersion"] {
            new[field] = old[field].clone();
        }
        if !new["metadata"].is_object() {
            return Err(Unpatched::Refused(Refusal::invalid("metadata: Required value")));
        }
        Ok(new)
    });
    match patched {
        Ok(object) => Ok(object.as_ref().clone()),
        Err(Unpatched::Store(error)) => Err(Refusal::of_store(&error, resource)),
        Err(Unpatched::Refused(refusal)) => Err(refusal),
    }
}
