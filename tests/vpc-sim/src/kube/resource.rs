//! The kinds of objects the API server has: names, groups, scopes. A table, and look-ups in it.

use serde_json::{Value, json};

/// Where objects are kept. Two resources may show the same objects in different forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Storage {
    /// Nodes.
    Nodes,
    /// Pods.
    Pods,
    /// Namespaces.
    Namespaces,
    /// Events, of both groups that have them.
    Events,
    /// Subnets and security groups for custom networking.
    EniConfigs,
    /// What node agents and the VPC resource controller tell each other.
    CniNodes,
}

/// Whether objects have a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// They belong to the cluster.
    Cluster,
    /// They belong to a namespace.
    Namespaced,
}

/// Whether the status is a part of its own, which ordinary writes leave alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusPart {
    /// `…/status` exists.
    Own,
    /// The object is one.
    None,
}

/// One resource of one group and version.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    /// Empty for the core group.
    pub group: &'static str,
    /// Version in the group.
    pub version: &'static str,
    /// Name in paths.
    pub plural: &'static str,
    /// Name on command lines.
    pub singular: &'static str,
    /// Name in objects.
    pub kind: &'static str,
    /// Short names on command lines.
    pub short: &'static [&'static str],
    /// With or without namespace.
    pub scope: Scope,
    /// With or without `…/status`.
    pub status: StatusPart,
    /// Where its objects are.
    pub storage: Storage,
}

const CORE: Resource = Resource {
    group: "",
    version: "v1",
    plural: "",
    singular: "",
    kind: "",
    short: &[],
    scope: Scope::Cluster,
    status: StatusPart::None,
    storage: Storage::Nodes,
};

/// All of them, the stored form of each storage first.
pub const RESOURCES: &[Resource] = &[
    Resource {
        plural: "nodes",
        singular: "node",
        kind: "Node",
        short: &["no"],
        status: StatusPart::Own,
        ..CORE
    },
    Resource {
        plural: "pods",
        singular: "pod",
        kind: "Pod",
        short: &["po"],
        scope: Scope::Namespaced,
        status: StatusPart::Own,
        storage: Storage::Pods,
        ..CORE
    },
    Resource {
        plural: "namespaces",
        singular: "namespace",
        kind: "Namespace",
        short: &["ns"],
        storage: Storage::Namespaces,
        ..CORE
    },
    Resource {
        plural: "events",
        singular: "event",
        kind: "Event",
        short: &["ev"],
        scope: Scope::Namespaced,
        storage: Storage::Events,
        ..CORE
    },
    Resource {
        group: "events.k8s.io",
        plural: "events",
        singular: "event",
        kind: "Event",
        short: &["ev"],
        scope: Scope::Namespaced,
        storage: Storage::Events,
        ..CORE
    },
    Resource {
        group: "crd.k8s.amazonaws.com",
        version: "v1alpha1",
        plural: "eniconfigs",
        singular: "eniconfig",
        kind: "ENIConfig",
        storage: Storage::EniConfigs,
        ..CORE
    },
    Resource {
        group: "vpcresources.k8s.aws",
        version: "v1alpha1",
        plural: "cninodes",
        singular: "cninode",
        kind: "CNINode",
        short: &["cnd"],
        storage: Storage::CniNodes,
        ..CORE
    },
];

/// What may be done with every resource.
const VERBS: [&str; 7] = ["create", "delete", "get", "list", "patch", "update", "watch"];

impl Resource {
    /// By the names in a path.
    pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Self> {
        RESOURCES
            .iter()
            .find(|one| one.group == group && one.version == version && one.plural == plural)
    }

    /// By what an object says it is.
    pub fn of(object: &Value) -> Option<&'static Self> {
        let (version, kind) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
        RESOURCES
            .iter()
            .find(|one| one.api_version() == version && one.kind == kind)
    }

    /// By any of its names, as people type them; the core group's where two have the same.
    pub fn named(name: &str) -> Option<&'static Self> {
        let name = name.to_ascii_lowercase();
        RESOURCES
            .iter()
            .find(|one| one.plural == name || one.singular == name || one.short.contains(&name.as_str()))
    }

    /// As in objects: `v1`, `crd.k8s.amazonaws.com/v1alpha1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// As errors name it: `pods`, `eniconfigs.crd.k8s.amazonaws.com`.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// Lines of a discovery document: itself, and its status if that is a part of its own.
    pub(super) fn discovery(&self) -> Vec<Value> {
        let namespaced = self.scope == Scope::Namespaced;
        let mut lines = vec![json!({
            "name": self.plural, "singularName": self.singular, "namespaced": namespaced, "kind": self.kind,
            "verbs": VERBS, "shortNames": self.short,
        })];
        if self.status == StatusPart::Own {
            lines.push(json!({
                "name": format!("{}/status", self.plural), "singularName": "", "namespaced": namespaced,
                "kind": self.kind, "verbs": ["get", "patch", "update"],
            }));
        }
        lines
    }
}

/// Pairs of fields that hold the same in the core group's events and in those of `events.k8s.io`.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// The object as this resource shows it.
pub(super) fn shown_as(resource: &Resource, object: &Value) -> Value {
    let mut shown = object.clone();
    shown["apiVersion"] = resource.api_version().into();
    shown["kind"] = resource.kind.into();
    // Events are kept in the core group's form.
    if resource.storage == Storage::Events && !resource.group.is_empty() {
        rename(&mut shown, |pair| pair);
    }
    shown
}

/// The object as it is stored.
pub(super) fn stored_form(resource: &Resource, mut object: Value) -> Value {
    if resource.storage == Storage::Events {
        rename(&mut object, |(core, new)| (new, core));
    }
    object
}

fn rename(object: &mut Value, from_to: fn((&'static str, &'static str)) -> (&'static str, &'static str)) {
    let Some(fields) = object.as_object_mut() else { return };
    for pair in EVENT_FIELDS {
        let (from, to) = from_to(pair);
        if let Some(value) = fields.remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_found_by_path_object_and_name() {
        let pods = Resource::find("", "v1", "pods").unwrap();
        assert_eq!(Resource::of(&json!({"apiVersion": "v1", "kind": "Pod"})), Some(pods));
        assert_eq!(
            (Resource::named("po"), Resource::named("Pod")),
            (Some(pods), Some(pods))
        );
        assert_eq!(Resource::find("apps", "v1", "pods"), None);
        let config = Resource::named("eniconfigs").unwrap();
        assert_eq!(config.api_version(), "crd.k8s.amazonaws.com/v1alpha1");
        assert_eq!(config.qualified(), "eniconfigs.crd.k8s.amazonaws.com");
    }

    #[test]
    fn events_have_two_forms() {
        let core = Resource::find("", "v1", "events").unwrap();
        let new = Resource::find("events.k8s.io", "v1", "events").unwrap();
        let stored = stored_form(new, json!({"note": "n", "regarding": {"name": "p"}, "reason": "r"}));
        assert_eq!(
            stored,
            json!({"message": "n", "involvedObject": {"name": "p"}, "reason": "r"})
        );
        assert_eq!(shown_as(core, &stored)["message"], "n");
        let shown = shown_as(new, &stored);
        assert_eq!(
            (&shown["note"], &shown["apiVersion"]),
            (&json!("n"), &json!("events.k8s.io/v1"))
        );
        assert_eq!(shown.get("message"), None);
    }
}
