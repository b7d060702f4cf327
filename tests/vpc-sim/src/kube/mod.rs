//! A small Kubernetes API: nodes, pods, namespaces, events, ENIConfigs and CNINodes, kept as they are written.
//!
//! Owns the objects and how they are served; no controller runs, so nothing changes by itself. [`Store`] is the cluster as a pure
//! data structure, `api` the requests on it, `watch` what watches send, `server` the HTTP around them. JSON only, no
//! authentication, no admission. Enough for kubectl, for client-go's informers, and for node agents.
//! Invariant: a watch misses no change and sends none twice, or ends with 410.

mod api;
mod discovery;
pub mod objects;
mod patch;
mod refusal;
mod request;
mod resource;
mod route;
mod selector;
mod server;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;

pub use resource::{RESOURCES, Resource, Scope, StatusPart, Storage};
pub use store::{Change, Key, Store, StoreError};

use request::Asked;
use route::Route;

/// A cluster's API server. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Kube(Arc<Shared>);

/// Whether clients can connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// They can.
    #[default]
    Serving,
    /// Connections are refused, and those that were open are closed.
    Refusing,
}

#[derive(Debug, Clone, Copy, Default)]
struct Conduct {
    reach: Reach,
    /// Before every answer, and before a watch begins.
    latency: Duration,
}

#[derive(Debug)]
struct Shared {
    store: Mutex<Store>,
    /// Wakes watches. Holds the version of the last change.
    versions: tokio::sync::watch::Sender<u64>,
    conduct: tokio::sync::watch::Sender<Conduct>,
    counts: Mutex<BTreeMap<String, u64>>,
}

/// A write by hand that the API would refuse.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// No resource has this name.
    #[error("there is no resource {0:?}; there are {known}", known = known())]
    Resource(String),
    /// The object does not say what it is, or is no object.
    #[error("{0}")]
    Object(String),
    /// The store's reason.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn known() -> String {
    let names: Vec<_> = RESOURCES.iter().map(|one| one.plural).collect();
    names.join(", ")
}

impl Shared {
    fn with_store<R>(&self, work: impl FnOnce(&mut Store) -> R) -> R {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut store);
        let version = store.version();
        drop(store);
        self.versions.send_if_modified(|known| {
            let is_new = *known != version;
            *known = version;
            is_new
        });
        result
    }

    /// Requests by method and what they are about; paths that lead nowhere count together.
    fn count(&self, asked: &Asked) {
        let what = match route::route(&asked.path) {
            Ok(Route::Collection(resource, _)) if asked.flag("watch") => format!("WATCH {}", resource.qualified()),
            Ok(Route::Collection(resource, _) | Route::Item { resource, .. }) => {
                format!("{} {}", asked.method, resource.qualified())
            }
            Ok(_) => format!("{} {}", asked.method, asked.path.trim_end_matches('/')),
            Err(_) => "unknown".to_owned(),
        };
        *self
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(what)
            .or_default() += 1;
    }
}

impl Kube {
    /// A cluster with the namespaces that every cluster has; uids derive from the seed.
    pub fn new(seed: u64) -> Self {
        let kube = Self(Arc::new(Shared {
            store: Mutex::new(Store::new(seed)),
            versions: tokio::sync::watch::Sender::new(1),
            conduct: tokio::sync::watch::Sender::default(),
            counts: Mutex::default(),
        }));
        for namespace in objects::namespaces() {
            kube.apply(namespace).expect("an empty cluster takes its namespaces");
        }
        kube
    }

    /// Creates an object, or replaces the one of its name, status included. Its kind says where it goes.
    ///
    /// # Errors
    /// When it is no object that this API has, or names a version that it has not.
    pub fn apply(&self, object: Value) -> Result<Value, KubeError> {
        let resource = Resource::of(&object).ok_or_else(|| {
            let (version, kind) = (&object["apiVersion"], &object["kind"]);
            KubeError::Object(format!("there is no kind {kind} of {version} here"))
        })?;
        let namespace = match resource.scope {
            Scope::Cluster => String::new(),
            Scope::Namespaced => object["metadata"]["namespace"].as_str().unwrap_or("default").to_owned(),
        };
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let key = Key::new(resource.storage, &namespace, name);
        self.0.with_store(|store| {
            if store.get(&key).is_ok() {
                let updated = store.update(&key, |_| Ok::<_, StoreError>(resource::stored_form(resource, object)))?;
                return Ok(updated.as_ref().clone());
            }
            let added = api::add(store, OffsetDateTime::now_utc(), resource, &namespace, object);
            added.map_err(|refusal| {
                KubeError::Object(refusal.status()["message"].as_str().unwrap_or_default().to_owned())
            })
        })
    }

    /// An object of a resource by any of its names (`pods`, `po`); the namespace is ignored where there is none.
    ///
    /// # Errors
    /// When there is no such resource or object.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Result<Value, KubeError> {
        let key = key_of(resource, namespace, name)?;
        self.0.with_store(|store| Ok(store.get(&key)?.as_ref().clone()))
    }

    /// All objects of a resource, by namespace and name.
    ///
    /// # Errors
    /// When there is no such resource.
    pub fn list(&self, resource: &str) -> Result<Vec<Value>, KubeError> {
        let storage = named(resource)?.storage;
        let all = |store: &mut Store| {
            store
                .list(storage, None)
                .map(|(_, object)| object.as_ref().clone())
                .collect()
        };
        Ok(self.0.with_store(all))
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// When there is no such resource or object.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) -> Result<(), KubeError> {
        let key = key_of(resource, namespace, name)?;
        self.0
            .with_store(|store| store.delete(&key).map(drop).map_err(KubeError::from))
    }

    /// Forgets what happened so far: watches from before get 410, as after a compaction.
    pub fn forget_history(&self) {
        self.0.with_store(Store::forget_history);
    }

    /// Number of the last change.
    pub fn version(&self) -> u64 {
        self.0.with_store(|store| store.version())
    }

    /// Lets clients connect, or refuses them.
    pub fn set_reach(&self, reach: Reach) {
        self.0.conduct.send_modify(|conduct| conduct.reach = reach);
    }

    /// Answers that much later from here on.
    pub fn set_latency(&self, latency: Duration) {
        self.0.conduct.send_modify(|conduct| conduct.latency = latency);
    }

    /// Requests so far, by method and resource: `WATCH pods`, `GET /version`.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn named(resource: &str) -> Result<&'static Resource, KubeError> {
    Resource::named(resource).ok_or_else(|| KubeError::Resource(resource.to_owned()))
}

fn key_of(resource: &str, namespace: &str, name: &str) -> Result<Key, KubeError> {
    let resource = named(resource)?;
    let namespace = match resource.scope {
        Scope::Cluster => "",
        Scope::Namespaced => namespace,
    };
    Ok(Key::new(resource.storage, namespace, name))
}
