//! Requests and watches on the store, without sockets.

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Value, json};
use time::macros::datetime;

use super::api::answer;
use super::refusal::Refusal;
use super::request::{Asked, Reply};
use super::store::Store;
use super::watch::{Flow, Watch};

/// Type and object.
type Events = Vec<(String, Value)>;

struct Cluster(Store);

impl Cluster {
    /// Two pods on node-1, one on node-2.
    fn new() -> Self {
        let mut cluster = Self(Store::new(1));
        for (name, node) in [("a", "node-1"), ("b", "node-2"), ("c", "node-1")] {
            let pod = json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {"nodeName": node}});
            cluster
                .send(Method::POST, "/api/v1/namespaces/default/pods", &pod)
                .unwrap();
        }
        cluster
    }

    fn ask(&mut self, method: Method, uri: &str, kind: &str, body: &Value) -> Result<Reply, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", kind.parse().unwrap());
        let body = if body.is_null() {
            Bytes::new()
        } else {
            body.to_string().into()
        };
        let asked = Asked::new(method, &uri.parse().unwrap(), &headers, body);
        answer(
            &mut self.0,
            datetime!(2026-01-02 03:04:05.6 UTC),
            "10.0.0.2:6443",
            &asked,
        )
    }

    fn send(&mut self, method: Method, uri: &str, body: &Value) -> Result<(u16, Value), u16> {
        match self.ask(method, uri, "application/json", body) {
            Ok(Reply::Object(status, object)) => Ok((status, object)),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal.code()),
        }
    }

    fn get(&mut self, uri: &str) -> Result<Value, u16> {
        self.send(Method::GET, uri, &Value::Null).map(|(_, object)| object)
    }

    fn patch(&mut self, uri: &str, kind: &str, body: &Value) -> Result<Value, u16> {
        let kind = format!("application/{kind}+json");
        match self.ask(Method::PATCH, uri, &kind, body) {
            Ok(Reply::Object(_, object)) => Ok(object),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal.code()),
        }
    }

    fn watch(&mut self, uri: &str) -> Result<(Watch, Events, Flow), u16> {
        match self.ask(Method::GET, uri, "", &Value::Null) {
            Ok(Reply::Watch(order)) => {
                let (watch, lines, flow) = Watch::begin(*order, &self.0);
                Ok((watch, read(lines), flow))
            }
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal.code()),
        }
    }

    fn label(&mut self, name: &str, value: &str) {
        let patch = json!({"metadata": {"labels": {"app": value}}});
        let uri = format!("/api/v1/namespaces/default/pods/{name}");
        self.patch(&uri, "merge-patch", &patch).unwrap();
    }
}

fn read(lines: Vec<Bytes>) -> Events {
    lines
        .into_iter()
        .map(|line| {
            assert!(line.ends_with(b"\n"), "one event per line");
            let event: Value = serde_json::from_slice(&line).unwrap();
            (event["type"].as_str().unwrap().to_owned(), event["object"].clone())
        })
        .collect()
}

/// Types with names: `ADDED a`.
fn shown(events: &[(String, Value)]) -> Vec<String> {
    events
        .iter()
        .map(|(kind, object)| {
            let name = object["metadata"]["name"].as_str().unwrap_or("-");
            format!("{kind} {name}")
        })
        .collect()
}

const PODS: &str = "/api/v1/pods";
const POD: &str = "/api/v1/namespaces/default/pods/a";

#[test]
fn initial_events_are_all_objects_and_then_one_bookmark() {
    let mut cluster = Cluster::new();
    let uri = "/api/v1/pods?watch=true&fieldSelector=spec.nodeName%3Dnode-1&sendInitialEvents=true\
               &resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&resourceVersion=&timeoutSeconds=300";
    let (mut watch, events, flow) = cluster.watch(uri).unwrap();
    assert_eq!(shown(&events), ["ADDED a", "ADDED c", "BOOKMARK -"]);
    assert_eq!(flow, Flow::GoesOn);
    let bookmark = &events[2].1;
    assert_eq!(
        bookmark["metadata"]["annotations"],
        json!({"k8s.io/initial-events-end": "true"})
    );
    assert_eq!(bookmark["metadata"]["resourceVersion"], "4");
    assert_eq!(
        (&bookmark["kind"], &bookmark["apiVersion"]),
        (&json!("Pod"), &json!("v1"))
    );
    cluster.label("a", "x");
    cluster.label("b", "x");
    let (lines, _) = watch.more(&cluster.0);
    assert_eq!(shown(&read(lines)), ["MODIFIED a"]);
    assert!(watch.more(&cluster.0).0.is_empty(), "nothing is sent twice");
}

#[test]
fn without_bookmarks_none_is_sent() {
    let uri = "/api/v1/pods?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    let (watch, events, _) = Cluster::new().watch(uri).unwrap();
    assert_eq!(shown(&events), ["ADDED a", "ADDED b", "ADDED c"]);
    assert_eq!(watch.bookmark(), None);
}

#[test]
fn a_watch_from_a_version_sees_what_came_after_it() {
    let mut cluster = Cluster::new();
    cluster.label("b", "x");
    let (mut watch, events, _) = cluster.watch("/api/v1/pods?watch=true&resourceVersion=3").unwrap();
    assert_eq!(shown(&events), [""; 0]);
    assert_eq!(shown(&read(watch.more(&cluster.0).0)), ["ADDED c", "MODIFIED b"]);
    let (_, events, _) = cluster.watch("/api/v1/pods?watch=true").unwrap();
    assert_eq!(events.len(), 3, "without a version, the present objects come first");
}

#[test]
fn a_change_of_labels_moves_an_object_in_and_out_of_a_watch() {
    let mut cluster = Cluster::new();
    let (mut watch, events, _) = cluster.watch("/api/v1/pods?watch=true&labelSelector=app%3Dx").unwrap();
    assert_eq!(events.len(), 0);
    cluster.label("a", "x");
    cluster.label("a", "y");
    cluster.label("c", "x");
    cluster
        .send(Method::DELETE, "/api/v1/namespaces/default/pods/c", &Value::Null)
        .unwrap();
    let events = read(watch.more(&cluster.0).0);
    assert_eq!(shown(&events), ["ADDED a", "DELETED a", "ADDED c", "DELETED c"]);
    let versions: Vec<_> = events
        .iter()
        .map(|(_, object)| object["metadata"]["resourceVersion"].clone())
        .collect();
    assert_eq!(versions, ["5", "6", "7", "8"]);
    assert_eq!(
        events[1].1["metadata"]["labels"]["app"], "x",
        "the last state that matched"
    );
}

#[test]
fn a_watch_that_fell_behind_ends_with_410_and_one_from_the_future_with_504() {
    let mut cluster = Cluster::new();
    let (mut watch, _, _) = cluster.watch("/api/v1/pods?watch=true&resourceVersion=2").unwrap();
    cluster.0.forget_history();
    let (lines, flow) = watch.more(&cluster.0);
    let events = read(lines);
    assert_eq!(
        (events[0].0.as_str(), &events[0].1["code"], flow),
        ("ERROR", &json!(410), Flow::Ends)
    );
    assert_eq!(
        (&events[0].1["kind"], &events[0].1["reason"]),
        (&json!("Status"), &json!("Expired"))
    );
    let (mut watch, _, _) = cluster.watch("/api/v1/pods?watch=true&resourceVersion=99").unwrap();
    let (lines, flow) = watch.more(&cluster.0);
    assert_eq!((&read(lines)[0].1["code"], flow), (&json!(504), Flow::Ends));
}

#[test]
fn watch_options_that_contradict_each_other_are_invalid() {
    let mut cluster = Cluster::new();
    for options in [
        "watch=true&sendInitialEvents=true",
        "watch=true&sendInitialEvents=true&resourceVersionMatch=Exact",
        "watch=true&resourceVersionMatch=NotOlderThan",
    ] {
        assert_eq!(
            cluster.watch(&format!("{PODS}?{options}")).unwrap_err(),
            422,
            "{options}"
        );
    }
    assert_eq!(cluster.get("/api/v1/pods?sendInitialEvents=true"), Err(422));
    assert_eq!(cluster.get("/api/v1/pods?fieldSelector=spec.nodename%3Dx"), Err(400));
    assert_eq!(cluster.get("/api/v1/pods?limit=some"), Err(400));
}

#[test]
fn pages_of_a_list_go_on_where_they_ended() {
    let mut cluster = Cluster::new();
    let first = cluster.get("/api/v1/pods?limit=2").unwrap();
    assert_eq!(
        (&first["kind"], &first["metadata"]["resourceVersion"]),
        (&json!("PodList"), &json!("4"))
    );
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    cluster.label("a", "x");
    let next = first["metadata"]["continue"].as_str().unwrap();
    let second = cluster.get(&format!("{PODS}?limit=2&continue={next}")).unwrap();
    assert_eq!(second["items"][0]["metadata"]["name"], "c");
    assert_eq!(
        (
            second["items"].as_array().unwrap().len(),
            second["metadata"].get("continue")
        ),
        (1, None)
    );
    assert_eq!(
        second["metadata"]["resourceVersion"], "4",
        "a watch from there misses nothing"
    );
    cluster.0.forget_history();
    assert_eq!(cluster.get(&format!("{PODS}?limit=2&continue={next}")), Err(410));
    assert_eq!(cluster.get("/api/v1/pods?limit=2&continue=nonsense"), Err(400));
}

#[test]
fn versions_of_lists_are_minima_or_exact() {
    let mut cluster = Cluster::new();
    assert!(cluster.get("/api/v1/pods?resourceVersion=0").is_ok());
    assert!(
        cluster
            .get("/api/v1/pods?resourceVersion=2&resourceVersionMatch=NotOlderThan")
            .is_ok()
    );
    assert!(
        cluster
            .get("/api/v1/pods?resourceVersion=4&resourceVersionMatch=Exact")
            .is_ok()
    );
    assert_eq!(
        cluster.get("/api/v1/pods?resourceVersion=2&resourceVersionMatch=Exact"),
        Err(410)
    );
    assert_eq!(cluster.get("/api/v1/pods?resourceVersion=5"), Err(504));
    assert_eq!(
        cluster.get("/api/v1/namespaces/default/pods/a?resourceVersion=5"),
        Err(504)
    );
}

#[test]
fn patches_change_metadata_and_leave_the_other_part_alone() {
    let mut cluster = Cluster::new();
    let annotate =
        json!({"metadata": {"annotations": {"vpc.amazonaws.com/pod-ips": "10.0.1.5"}}, "status": {"phase": "X"}});
    for kind in ["merge-patch", "strategic-merge-patch"] {
        let pod = cluster.patch(POD, kind, &annotate).unwrap();
        assert_eq!(pod["metadata"]["annotations"]["vpc.amazonaws.com/pod-ips"], "10.0.1.5");
        assert_eq!(pod["metadata"]["labels"]["app"], "web");
        assert_eq!(pod.get("status"), None, "the status is a part of its own");
    }
    let status = json!({"status": {"phase": "Running"}, "spec": {"nodeName": "other"}});
    let pod = cluster
        .patch(&format!("{POD}/status"), "strategic-merge-patch", &status)
        .unwrap();
    assert_eq!(
        (&pod["status"]["phase"], &pod["spec"]["nodeName"]),
        (&json!("Running"), &json!("node-1"))
    );
    let operations = json!([{"op": "remove", "path": "/metadata/annotations"}]);
    assert_eq!(
        cluster.patch(POD, "json-patch", &operations).unwrap()["metadata"].get("annotations"),
        None
    );
    let again = cluster.patch(POD, "json-patch", &operations);
    assert_eq!(again, Err(422), "what is gone cannot be removed");
    assert_eq!(cluster.patch(POD, "apply-patch", &operations), Err(415));
}

#[test]
fn a_patch_with_an_old_version_is_a_conflict() {
    let mut cluster = Cluster::new();
    let uri = "/apis/vpcresources.k8s.aws/v1alpha1/cninodes";
    cluster
        .send(Method::POST, uri, &json!({"metadata": {"name": "node-1"}, "spec": {}}))
        .unwrap();
    let one = format!("{uri}/node-1");
    let version = cluster.get(&one).unwrap()["metadata"]["resourceVersion"].clone();
    let add = json!({
        "metadata": {"resourceVersion": version},
        "spec": {"features": [{"name": "SecurityGroupsForPods"}]},
    });
    assert_eq!(
        cluster.patch(&one, "merge-patch", &add).unwrap()["spec"]["features"][0]["name"],
        "SecurityGroupsForPods"
    );
    assert_eq!(
        cluster.patch(
            &one,
            "merge-patch",
            &json!({"metadata": {"resourceVersion": version}, "spec": {"x": 1}})
        ),
        Err(409)
    );
}

#[test]
fn objects_are_created_replaced_and_deleted() {
    let mut cluster = Cluster::new();
    let uri = "/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs";
    let config =
        json!({"metadata": {"name": "us-east-1a"}, "spec": {"subnet": "subnet-1", "securityGroups": ["sg-1"]}});
    let (status, created) = cluster.send(Method::POST, uri, &config).unwrap();
    assert_eq!(
        (status, &created["kind"], &created["apiVersion"]),
        (201, &json!("ENIConfig"), &json!("crd.k8s.amazonaws.com/v1alpha1"))
    );
    assert_eq!(created["metadata"]["creationTimestamp"], "2026-01-02T03:04:05Z");
    assert_eq!(created["metadata"]["uid"].as_str().unwrap().len(), 36);
    assert_eq!(cluster.send(Method::POST, uri, &config), Err(409));
    let one = format!("{uri}/us-east-1a");
    let mut changed = created.clone();
    changed["spec"]["subnet"] = "subnet-2".into();
    let (_, replaced) = cluster.send(Method::PUT, &one, &changed).unwrap();
    assert_eq!(
        (&replaced["spec"]["subnet"], &replaced["metadata"]["uid"]),
        (&json!("subnet-2"), &created["metadata"]["uid"])
    );
    assert_eq!(
        cluster.send(Method::PUT, &one, &changed),
        Err(409),
        "the version is that of before"
    );
    assert!(cluster.send(Method::DELETE, &one, &Value::Null).is_ok());
    assert_eq!(cluster.get(&one), Err(404));
    assert_eq!(cluster.send(Method::DELETE, &one, &Value::Null), Err(404));
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut cluster = Cluster::new();
    let pods = "/api/v1/namespaces/default/pods";
    for (method, uri, body, code) in [
        (Method::POST, pods, json!({"metadata": {}}), 422),
        (Method::POST, pods, json!({"metadata": {"name": "A b"}}), 422),
        (Method::POST, pods, json!([]), 400),
        (
            Method::POST,
            pods,
            json!({"kind": "Node", "metadata": {"name": "x"}}),
            400,
        ),
        (
            Method::POST,
            pods,
            json!({"metadata": {"name": "x", "namespace": "other"}}),
            400,
        ),
        (Method::POST, PODS, json!({"metadata": {"name": "x"}}), 405),
        (Method::DELETE, pods, Value::Null, 405),
        (Method::POST, POD, json!({}), 405),
        (Method::POST, "/version", json!({}), 405),
        (Method::GET, "/api/v1/secrets", Value::Null, 404),
        (Method::GET, "/api/v1/namespaces/other/pods/a", Value::Null, 404),
        (Method::PUT, POD, json!({"metadata": {"name": "b"}}), 400),
    ] {
        assert_eq!(
            cluster.send(method.clone(), uri, &body).map(|(status, _)| status),
            Err(code),
            "{method} {uri} {body}"
        );
    }
    let (_, made) = cluster
        .send(Method::POST, pods, &json!({"metadata": {"generateName": "x-"}}))
        .unwrap();
    assert_eq!(made["metadata"]["name"].as_str().unwrap().len(), 7);
}

#[test]
fn events_of_both_groups_are_the_same_events() {
    let mut cluster = Cluster::new();
    let event = json!({
        "metadata": {"name": "aws-node.1"}, "regarding": {"kind": "Pod", "name": "aws-node"}, "note": "no permission",
        "reason": "MissingIAMPermissions", "type": "Warning", "action": "ec2:CreateNetworkInterface",
    });
    let uri = "/apis/events.k8s.io/v1/namespaces/kube-system/events";
    let (status, created) = cluster.send(Method::POST, uri, &event).unwrap();
    assert_eq!((status, &created["note"]), (201, &json!("no permission")));
    let listed = cluster
        .get("/api/v1/events?fieldSelector=involvedObject.name%3Daws-node")
        .unwrap();
    assert_eq!(
        (&listed["items"][0]["message"], &listed["items"][0]["apiVersion"]),
        (&json!("no permission"), &json!("v1"))
    );
    assert_eq!(cluster.get(uri).unwrap()["items"][0]["regarding"]["name"], "aws-node");
}

#[test]
fn json_is_spoken_whatever_is_preferred() {
    let mut cluster = Cluster::new();
    let mut ask = |accept: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("accept", accept.parse().unwrap());
        let asked = Asked::new(Method::GET, &PODS.parse().unwrap(), &headers, Bytes::new());
        match answer(&mut cluster.0, datetime!(2026-01-02 03:04:05 UTC), "", &asked) {
            Ok(Reply::Object(_, object)) => object["kind"].as_str().unwrap().to_owned(),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => refusal.code().to_string(),
        }
    };
    assert_eq!(ask("application/vnd.kubernetes.protobuf,application/json"), "PodList");
    assert_eq!(
        ask("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"),
        "Table"
    );
    assert_eq!(ask("*/*"), "PodList");
    assert_eq!(ask("application/vnd.kubernetes.protobuf"), "406");
}
