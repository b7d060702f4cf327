//! What a path is about.

use super::refusal::Refusal;
use super::resource::{RESOURCES, Resource, Scope, StatusPart};

/// The object itself, or its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Status,
}

/// See the module's description.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    Version,
    Health,
    Core,
    Groups,
    Group(&'static str),
    Resources(&'static str, &'static str),
    /// All objects, of one namespace if one is named.
    Collection(&'static Resource, Option<String>),
    Item {
        resource: &'static Resource,
        /// Empty for objects of the cluster.
        namespace: String,
        name: String,
        part: Part,
    },
}

pub(super) fn route(path: &str) -> Result<Route, Refusal> {
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        ["version"] => Ok(Route::Version),
        ["healthz" | "livez" | "readyz", ..] => Ok(Route::Health),
        ["api"] => Ok(Route::Core),
        ["apis"] => Ok(Route::Groups),
        ["api", version, rest @ ..] => within("", version, rest),
        ["apis", group] => known(|one| one.group == *group && !one.group.is_empty()).map(|one| Route::Group(one.group)),
        ["apis", group, version, rest @ ..] if !group.is_empty() => within(group, version, rest),
        _ => Err(Refusal::no_such_path()),
    }
}

fn known(is: impl Fn(&Resource) -> bool) -> Result<&'static Resource, Refusal> {
    RESOURCES.iter().find(|one| is(one)).ok_or_else(Refusal::no_such_path)
}

fn within(group: &str, version: &str, rest: &[&str]) -> Result<Route, Refusal> {
    let one = known(|one| one.group == group && one.version == version)?;
    let find = |plural: &str| Resource::find(group, version, plural).ok_or_else(Refusal::no_such_path);
    match rest {
        [] => Ok(Route::Resources(one.group, one.version)),
        ["namespaces", namespace, plural, rest @ ..] if !is_namespace_itself(plural, rest) => {
            let resource = find(plural)?;
            if resource.scope == Scope::Cluster {
                return Err(Refusal::no_such_path());
            }
            object(resource, namespace, rest)
        }
        [plural, rest @ ..] => {
            let resource = find(plural)?;
            if resource.scope == Scope::Namespaced && !rest.is_empty() {
                return Err(Refusal::no_such_path());
            }
            object(resource, "", rest)
        }
    }
}

/// `namespaces/NAME/status` is about the namespace.
fn is_namespace_itself(plural: &str, rest: &[&str]) -> bool {
    rest.is_empty() && matches!(plural, "status" | "finalize")
}

fn object(resource: &'static Resource, namespace: &str, rest: &[&str]) -> Result<Route, Refusal> {
    let item = |name: &str, part| Route::Item {
        resource,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        part,
    };
    match rest {
        [] => Ok(Route::Collection(
            resource,
            (!namespace.is_empty()).then(|| namespace.to_owned()),
        )),
        [name] => Ok(item(name, Part::Whole)),
        [name, "status"] if resource.status == StatusPart::Own => Ok(item(name, Part::Status)),
        _ => Err(Refusal::no_such_path()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_resources() {
        let shown = |path: &str| match route(path) {
            Ok(Route::Collection(resource, namespace)) => format!("{} in {namespace:?}", resource.qualified()),
            Ok(Route::Item {
                resource,
                namespace,
                name,
                part,
            }) => format!("{} {namespace}/{name} {part:?}", resource.qualified()),
            Ok(other) => format!("{other:?}"),
            Err(refusal) => refusal.code().to_string(),
        };
        for (path, expected) in [
            ("/version", "Version"),
            ("/api", "Core"),
            ("/apis/", "Groups"),
            ("/apis/crd.k8s.amazonaws.com", "Group(\"crd.k8s.amazonaws.com\")"),
            ("/api/v1", "Resources(\"\", \"v1\")"),
            ("/api/v1/nodes/n", "nodes /n Whole"),
            ("/api/v1/nodes/n/status", "nodes /n Status"),
            ("/api/v1/pods", "pods in None"),
            ("/api/v1/namespaces/a/pods", "pods in Some(\"a\")"),
            ("/api/v1/namespaces/a/pods/p", "pods a/p Whole"),
            ("/api/v1/namespaces/a", "namespaces /a Whole"),
            (
                "/apis/vpcresources.k8s.aws/v1alpha1/cninodes/n",
                "cninodes.vpcresources.k8s.aws /n Whole",
            ),
            (
                "/apis/events.k8s.io/v1/namespaces/a/events",
                "events.events.k8s.io in Some(\"a\")",
            ),
            ("/api/v1/pods/p", "404"),
            ("/api/v1/namespaces/a/nodes", "404"),
            ("/api/v1/namespaces/a/pods/p/log", "404"),
            ("/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs/e/status", "404"),
            ("/api/v2", "404"),
            ("/apis/apps/v1/deployments", "404"),
            ("/", "404"),
        ] {
            assert_eq!(shown(path), expected, "{path}");
        }
    }
}
