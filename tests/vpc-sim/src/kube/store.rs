//! The objects of a cluster, their versions, and what happened to them last: Kubernetes' storage as a pure data structure.
//!
//! Owns versions, uids and conflicts; knows nothing of HTTP and has no clock. One counter numbers all changes, as etcd's does.
//! Invariant: `history` holds the last changes without a gap; an object's `resourceVersion` is that of its last change.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use super::resource::Storage;

/// Changes remembered for watches that fell behind. The API server's own cache keeps about as many per resource.
const HISTORY_MAX: usize = 2_000;
/// Objects of all kinds together.
const OBJECTS_MAX: usize = 20_000;
/// Events go after the newest so many, as their time to live does it in a cluster.
const EVENTS_MAX: usize = 1_000;

/// Names an object. The namespace is empty for those of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Which kind.
    pub storage: Storage,
    /// In which namespace.
    pub namespace: String,
    /// Which one.
    pub name: String,
}

impl Key {
    /// A key; `namespace` is empty for objects of the cluster.
    pub fn new(storage: Storage, namespace: &str, name: &str) -> Self {
        Self {
            storage,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone)]
pub struct Change {
    /// Its number.
    pub version: u64,
    /// To which object.
    pub key: Key,
    /// The object before; `None` when it was created.
    pub before: Option<Arc<Value>>,
    /// The object after; `None` when it was deleted.
    pub after: Option<Arc<Value>>,
}

/// Why the store refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("{0} not found")]
    NotFound(String),
    /// There is one already.
    #[error("{0} already exists")]
    Exists(String),
    /// It has changed since the caller looked.
    #[error("{name} has version {actual}, not {wanted}")]
    Conflict {
        /// Which object.
        name: String,
        /// The caller's version.
        wanted: String,
        /// The object's.
        actual: String,
    },
    /// The changes after this version are not remembered any more.
    #[error("too old resource version: {asked} ({oldest})")]
    TooOld {
        /// From where changes were asked for.
        asked: u64,
        /// From where they are known.
        oldest: u64,
    },
    /// The version lies in the future.
    #[error("Too large resource version: {asked}, current: {current}")]
    TooLarge {
        /// The caller's.
        asked: u64,
        /// The store's.
        current: u64,
    },
    /// There are too many objects.
    #[error("the cluster holds {OBJECTS_MAX} objects already")]
    Full,
}

/// See the module's description.
#[derive(Debug)]
pub struct Store {
    version: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Change>,
    /// The newest change that is not in the history any more.
    forgotten: u64,
    uids: fastrand::Rng,
}

impl Store {
    /// An empty cluster; uids derive from the seed.
    pub fn new(seed: u64) -> Self {
        Self {
            version: 1,
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            forgotten: 1,
            uids: fastrand::Rng::with_seed(seed ^ 0x6b75_6265),
        }
    }

    /// Number of the last change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// An object.
    ///
    /// # Errors
    /// When there is none.
    pub fn get(&self, key: &Key) -> Result<&Arc<Value>, StoreError> {
        self.objects
            .get(key)
            .ok_or_else(|| StoreError::NotFound(key.name.clone()))
    }

    /// All objects of a kind, of one namespace if one is named, by namespace and name.
    pub fn list(&self, storage: Storage, namespace: Option<&str>) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        let first = Key::new(storage, namespace.unwrap_or_default(), "");
        let namespace = namespace.map(str::to_owned);
        self.objects.range(first..).take_while(move |(key, _)| {
            key.storage == storage && namespace.as_ref().is_none_or(|wanted| key.namespace == *wanted)
        })
    }

    /// What happened to a kind after a version, oldest first.
    ///
    /// # Errors
    /// When that is not remembered any more, or lies in the future.
    pub fn changes_since(&self, version: u64, storage: Storage) -> Result<Vec<Change>, StoreError> {
        if version < self.forgotten {
            return Err(StoreError::TooOld {
                asked: version,
                oldest: self.forgotten,
            });
        }
        self.check_not_future(version)?;
        let newer = self.history.iter().rev().take_while(|change| change.version > version);
        let mut changes: Vec<_> = newer.filter(|change| change.key.storage == storage).cloned().collect();
        changes.reverse();
        Ok(changes)
    }

    /// Whether the store has come to a version yet.
    ///
    /// # Errors
    /// When it has not.
    pub fn check_not_future(&self, asked: u64) -> Result<(), StoreError> {
        if asked > self.version {
            return Err(StoreError::TooLarge {
                asked,
                current: self.version,
            });
        }
        Ok(())
    }

    /// Adds an object. `created` is its creation time as text. Uid and version in the object are overwritten.
    ///
    /// # Errors
    /// When there is one of this name.
    pub fn create(&mut self, key: Key, mut object: Value, created: &str) -> Result<Arc<Value>, StoreError> {
        if self.objects.contains_key(&key) {
            return Err(StoreError::Exists(key.name));
        }
        if self.objects.len() >= OBJECTS_MAX {
            return Err(StoreError::Full);
        }
        object["metadata"]["uid"] = self.new_uid().into();
        object["metadata"]["creationTimestamp"] = created.into();
        let is_event = key.storage == Storage::Events;
        let stored = self.record(key, Some(object));
        if is_event {
            self.drop_old_events();
        }
        Ok(stored.expect("a created object exists"))
    }

    /// Changes an object by a function of its present state. Nothing happens when that returns an equal object.
    ///
    /// # Errors
    /// When there is none, or `wanted` (a `resourceVersion`, empty for any) is not its version; or those of the function.
    pub fn update<E: From<StoreError>>(
        &mut self,
        key: &Key,
        change: impl FnOnce(&Value) -> Result<Value, E>,
    ) -> Result<Arc<Value>, E> {
        let present = Arc::clone(self.get(key)?);
        let mut object = change(&present)?;
        let wanted = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        let actual = present["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if !wanted.is_empty() && wanted != actual {
            return Err(E::from(StoreError::Conflict {
                name: key.name.clone(),
                wanted: wanted.to_owned(),
                actual: actual.to_owned(),
            }));
        }
        for field in ["uid", "creationTimestamp", "resourceVersion", "name", "namespace"] {
            match present["metadata"].get(field) {
                Some(value) => object["metadata"][field] = value.clone(),
                None => drop(
                    object["metadata"]
                        .as_object_mut()
                        .and_then(|fields| fields.remove(field)),
                ),
            }
        }
        if object == *present {
            return Ok(present);
        }
        Ok(self.record(key.clone(), Some(object)).expect("a changed object exists"))
    }

    /// Removes an object and returns its last state.
    ///
    /// # Errors
    /// When there is none.
    pub fn delete(&mut self, key: &Key) -> Result<Arc<Value>, StoreError> {
        let last = Arc::clone(self.get(key)?);
        self.record(key.clone(), None);
        Ok(last)
    }

    /// Forgets all changes so far: watches from older versions end with `TooOld`, as after a compaction of etcd.
    pub fn forget_history(&mut self) {
        self.history.clear();
        self.forgotten = self.version;
    }

    /// A suffix for `generateName`.
    pub(super) fn new_suffix(&mut self) -> String {
        std::iter::repeat_with(|| self.uids.lowercase()).take(5).collect()
    }

    fn new_uid(&mut self) -> String {
        let hex = format!("{:032x}", self.uids.u128(..));
        format!(
            "{}-{}-4{}-8{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[13..16],
            &hex[17..20],
            &hex[20..]
        )
    }

    /// The one place where anything changes.
    fn record(&mut self, key: Key, after: Option<Value>) -> Option<Arc<Value>> {
        self.version += 1;
        let version = self.version;
        let after = after.map(|mut object| {
            object["metadata"]["resourceVersion"] = version.to_string().into();
            Arc::new(object)
        });
        let before = match &after {
            Some(object) => self.objects.insert(key.clone(), Arc::clone(object)),
            None => self.objects.remove(&key),
        };
        self.history.push_back(Change {
            version,
            key,
            before,
            after: after.clone(),
        });
        while self.history.len() > HISTORY_MAX {
            let gone = self.history.pop_front();
            self.forgotten = gone.map_or(self.forgotten, |change| change.version);
        }
        after
    }

    fn drop_old_events(&mut self) {
        let version = |object: &Value| {
            object["metadata"]["resourceVersion"]
                .as_str()
                .and_then(|text| text.parse::<u64>().ok())
        };
        let events: Vec<_> = self
            .list(Storage::Events, None)
            .map(|(key, object)| (version(object), key.clone()))
            .collect();
        let is_over = events.len() > EVENTS_MAX;
        if let Some((_, oldest)) = events.into_iter().min().filter(|_| is_over) {
            self.record(oldest, None);
        }
    }
}

/// The object of a deletion as watches show it: its last state with the version of the deletion.
pub(super) fn last_state(change: &Change) -> Option<Value> {
    let mut object = change.before.as_deref()?.clone();
    object["metadata"]["resourceVersion"] = json!(change.version.to_string());
    Some(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Key {
        Key::new(Storage::Pods, "default", name)
    }

    fn store_with(names: &[&str]) -> Store {
        let mut store = Store::new(1);
        for name in names {
            store
                .create(
                    pod(name),
                    json!({"metadata": {"name": name, "namespace": "default"}}),
                    "t",
                )
                .unwrap();
        }
        store
    }

    fn set(store: &mut Store, name: &str, label: &str) -> Result<Arc<Value>, StoreError> {
        store.update(&pod(name), |old| {
            let mut new = old.clone();
            new["metadata"]["labels"]["l"] = label.into();
            Ok(new)
        })
    }

    #[test]
    fn every_change_has_a_version_and_equal_objects_are_no_change() {
        let mut store = store_with(&["a"]);
        assert_eq!(store.version(), 2);
        let first = set(&mut store, "a", "1").unwrap();
        assert_eq!(
            (first["metadata"]["resourceVersion"].as_str(), store.version()),
            (Some("3"), 3)
        );
        set(&mut store, "a", "1").unwrap();
        assert_eq!(store.version(), 3);
        store.delete(&pod("a")).unwrap();
        let changes = store.changes_since(1, Storage::Pods).unwrap();
        let versions: Vec<_> = changes.iter().map(|change| change.version).collect();
        assert_eq!(versions, [2, 3, 4]);
        assert_eq!(last_state(&changes[2]).unwrap()["metadata"]["resourceVersion"], "4");
        assert!(store.changes_since(3, Storage::Nodes).unwrap().is_empty());
    }

    #[test]
    fn an_old_version_conflicts_and_a_missing_object_is_missed() {
        let mut store = store_with(&["a"]);
        let stale = store.get(&pod("a")).unwrap().as_ref().clone();
        set(&mut store, "a", "1").unwrap();
        let refused = store.update(&pod("a"), |_| Ok::<_, StoreError>(stale));
        assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
        assert_eq!(set(&mut store, "b", "1"), Err(StoreError::NotFound("b".into())));
        let again = store.create(pod("a"), json!({}), "t");
        assert_eq!(again, Err(StoreError::Exists("a".into())));
    }

    #[test]
    fn history_is_bounded_and_says_so() {
        let mut store = store_with(&["a"]);
        for n in 0..HISTORY_MAX + 5 {
            set(&mut store, "a", &n.to_string()).unwrap();
        }
        assert!(matches!(
            store.changes_since(2, Storage::Pods),
            Err(StoreError::TooOld { .. })
        ));
        let oldest = store.version() - HISTORY_MAX as u64;
        assert_eq!(store.changes_since(oldest, Storage::Pods).unwrap().len(), HISTORY_MAX);
        store.forget_history();
        assert!(store.changes_since(store.version() - 1, Storage::Pods).is_err());
        assert!(store.changes_since(store.version(), Storage::Pods).unwrap().is_empty());
        assert!(matches!(
            store.changes_since(store.version() + 1, Storage::Pods),
            Err(StoreError::TooLarge { .. })
        ));
    }

    #[test]
    fn a_list_is_sorted_and_of_one_namespace_if_wanted() {
        let mut store = store_with(&["b", "a"]);
        store
            .create(
                Key::new(Storage::Pods, "kube-system", "c"),
                json!({"metadata": {}}),
                "t",
            )
            .unwrap();
        let names = |namespace| -> Vec<_> {
            store
                .list(Storage::Pods, namespace)
                .map(|(key, _)| key.name.clone())
                .collect()
        };
        assert_eq!(names(None), ["a", "b", "c"]);
        assert_eq!(names(Some("kube-system")), ["c"]);
        assert_eq!(names(Some("other")), [""; 0]);
    }

    #[test]
    fn events_do_not_pile_up() {
        let mut store = Store::new(1);
        for n in 0..EVENTS_MAX + 3 {
            let key = Key::new(Storage::Events, "default", &format!("e{n}"));
            store.create(key, json!({"metadata": {}}), "t").unwrap();
        }
        assert_eq!(store.list(Storage::Events, None).count(), EVENTS_MAX);
        assert!(store.get(&Key::new(Storage::Events, "default", "e0")).is_err());
    }
}
