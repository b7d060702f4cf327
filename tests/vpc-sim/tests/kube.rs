//! The Kubernetes API over real sockets: what discovery, watches and faults look like to a client.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use vpc_sim::Simulator;
use vpc_sim::config::Config;
use vpc_sim::kube::objects::{PodFacts, pod};
use vpc_sim::kube::{Kube, Reach};

const SOON: Duration = Duration::from_secs(10);

struct Running {
    kube: Kube,
    at: SocketAddr,
}

async fn start(config: &str) -> Running {
    let simulator = Simulator::of(Config::parse(config).unwrap().build().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let kube = simulator.kube().clone();
    tokio::spawn(async move { simulator.kube().serve(listener).await });
    Running { kube, at }
}

fn pod_on(node: &str, name: &str) -> Value {
    pod(&PodFacts {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        node: node.to_owned(),
        ..PodFacts::default()
    })
}

/// A body read line by line.
struct Lines {
    body: Incoming,
    rest: Vec<u8>,
}

impl Lines {
    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = timeout(SOON, self.body.frame()).await.expect("the stream moves");
            self.rest.extend(frame?.ok()?.into_data().unwrap());
        }
    }

    /// Type and name of the next event.
    async fn shown(&mut self) -> String {
        let event = self.next().await.expect("the stream goes on");
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or("-");
        format!("{} {name}", event["type"].as_str().unwrap())
    }
}

impl Running {
    async fn open(&self, path: &str) -> (StatusCode, Lines) {
        let stream = TcpStream::connect(self.at).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = Request::get(path)
            .header("host", "kube")
            .header("accept", "application/vnd.kubernetes.protobuf,application/json");
        let answer = sender
            .send_request(request.body(Full::<Bytes>::default()).unwrap())
            .await
            .unwrap();
        assert_eq!(answer.headers()["content-type"], "application/json");
        let status = answer.status();
        let lines = Lines {
            body: answer.into_body(),
            rest: Vec::new(),
        };
        (status, lines)
    }

    async fn get(&self, path: &str) -> Value {
        let (status, mut lines) = self.open(path).await;
        assert_eq!(status, 200, "{path}");
        lines.next().await.unwrap()
    }

    async fn watch(&self, path: &str) -> Lines {
        let (status, lines) = self.open(path).await;
        assert_eq!(status, 200, "{path}");
        lines
    }
}

#[tokio::test]
async fn version_and_discovery_documents_have_their_old_form() {
    let running = start("{}").await;
    let version = running.get("/version").await;
    assert_eq!((&version["major"], &version["minor"]), (&json!("1"), &json!("32")));
    assert!(version["gitVersion"].as_str().unwrap().starts_with("v1.32."));
    let api = running.get("/api").await;
    assert_eq!(
        (&api["kind"], &api["versions"]),
        (&json!("APIVersions"), &json!(["v1"]))
    );
    let groups = running.get("/apis").await;
    let names: Vec<_> = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group["name"].clone())
        .collect();
    assert_eq!(
        names,
        ["crd.k8s.amazonaws.com", "events.k8s.io", "vpcresources.k8s.aws"]
    );
    let core = running.get("/api/v1").await;
    let pods = core["resources"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == "pods")
        .unwrap();
    assert_eq!((&pods["kind"], &pods["namespaced"]), (&json!("Pod"), &json!(true)));
    assert!(pods["verbs"].as_array().unwrap().contains(&json!("watch")));
    for group in groups["groups"].as_array().unwrap() {
        let version = group["preferredVersion"]["groupVersion"].as_str().unwrap();
        let list = running.get(&format!("/apis/{version}")).await;
        assert_eq!(
            (&list["kind"], &list["groupVersion"]),
            (&json!("APIResourceList"), &json!(version))
        );
    }
}

#[tokio::test]
async fn the_watches_of_a_node_agent_sync_and_go_on() {
    let running = start("{}").await;
    running.kube.apply(pod_on("node-1", "a")).unwrap();
    running.kube.apply(pod_on("node-2", "b")).unwrap();
    let initial = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=300";
    let mut pods = running
        .watch(&format!("/api/v1/pods?{initial}&fieldSelector=spec.nodeName%3Dnode-1"))
        .await;
    assert_eq!(pods.shown().await, "ADDED a");
    let bookmark = pods.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    let mut nodes = running
        .watch(&format!("/api/v1/nodes?{initial}&fieldSelector=metadata.name%3Dnode-1"))
        .await;
    let node = nodes.next().await.unwrap();
    assert_eq!(
        (&node["object"]["kind"], &node["object"]["status"]["capacity"]["pods"]),
        (&json!("Node"), &json!("29"))
    );
    assert_eq!(nodes.next().await.unwrap()["type"], "BOOKMARK");
    running.kube.apply(pod_on("node-2", "c")).unwrap();
    running.kube.apply(pod_on("node-1", "d")).unwrap();
    running.kube.delete("pods", "default", "a").unwrap();
    assert_eq!(pods.shown().await, "ADDED d");
    assert_eq!(pods.shown().await, "DELETED a");
    assert_eq!(running.kube.counts()["WATCH pods"], 1);
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_over() {
    let running = start("{}").await;
    let started = Instant::now();
    let mut pods = running
        .watch("/api/v1/pods?watch=true&allowWatchBookmarks=true&timeoutSeconds=1")
        .await;
    assert_eq!(pods.shown().await, "BOOKMARK -", "the client may go on from there");
    assert_eq!(pods.next().await, None);
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(900) && took < SOON, "{took:?}");
}

#[tokio::test]
async fn a_burst_of_changes_reaches_a_slow_reader_in_order() {
    let running = start("{}").await;
    let mut pods = running.watch("/api/v1/pods?watch=true&resourceVersion=1").await;
    for number in 0..500 {
        running.kube.apply(pod_on("node-1", &format!("p{number}"))).unwrap();
    }
    for number in 0..500 {
        assert_eq!(pods.shown().await, format!("ADDED p{number}"));
    }
}

#[tokio::test]
async fn a_reader_that_has_stopped_reading_holds_its_watch_no_longer_than_asked() {
    let running = start("{}").await;
    let mut stalled = running.watch("/api/v1/pods?watch=true&timeoutSeconds=1").await;
    // Far more than sockets and queues take for a reader that does not read.
    let (count, padding) = (400, "x".repeat(100 << 10));
    for number in 0..count {
        let mut pod = pod_on("node-1", &format!("p{number}"));
        pod["metadata"]["annotations"] = json!({"padding": padding});
        running.kube.apply(pod).unwrap();
    }
    // A watch that begins later and is as long tells when the first one's time is over.
    let later = format!(
        "/api/v1/pods?watch=true&timeoutSeconds=1&resourceVersion={}",
        running.kube.version()
    );
    assert_eq!(running.watch(&later).await.next().await, None);
    let mut read = 0;
    while stalled.next().await.is_some() {
        read += 1;
    }
    assert!(read < count, "the watch waited for its reader");
}

#[tokio::test]
async fn a_reader_that_goes_away_frees_its_connection() {
    let running = start("{}").await;
    // More than the server has connections.
    for _ in 0..1_100 {
        drop(running.watch("/api/v1/pods?watch=true").await);
    }
    running.kube.apply(pod_on("node-1", "a")).unwrap();
    let list = timeout(SOON, running.get("/api/v1/pods")).await;
    assert_eq!(
        list.expect("a connection is free")["items"].as_array().unwrap().len(),
        1
    );
}

#[tokio::test]
async fn an_api_server_can_be_taken_away_and_comes_back() {
    let running = start("{}").await;
    let mut pods = running.watch("/api/v1/pods?watch=true").await;
    running.kube.set_reach(Reach::Refusing);
    assert_eq!(pods.next().await, None, "open connections are closed");
    let refused = timeout(SOON, async {
        loop {
            match TcpStream::connect(running.at).await {
                Err(error) => break error.kind(),
                Ok(_) => tokio::task::yield_now().await,
            }
        }
    });
    assert_eq!(refused.await.unwrap(), std::io::ErrorKind::ConnectionRefused);
    running.kube.apply(pod_on("node-1", "meanwhile")).unwrap();
    running.kube.set_reach(Reach::Serving);
    timeout(SOON, async {
        while TcpStream::connect(running.at).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(
        running.watch("/api/v1/pods?watch=true").await.shown().await,
        "ADDED meanwhile"
    );
}

#[tokio::test]
async fn latency_delays_every_answer() {
    let running = start("{}").await;
    running.kube.set_latency(Duration::from_millis(300));
    let started = Instant::now();
    running.get("/version").await;
    assert!(started.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn refusals_are_status_objects() {
    let running = start("{}").await;
    let (status, mut lines) = running.open("/api/v1/nodes/node-9").await;
    let object = lines.next().await.unwrap();
    assert_eq!(
        (status.as_u16(), &object["kind"], &object["status"]),
        (404, &json!("Status"), &json!("Failure"))
    );
    assert_eq!((&object["reason"], &object["code"]), (&json!("NotFound"), &json!(404)));
    assert_eq!(object["message"], r#"nodes "node-9" not found"#);
    assert_eq!(object["details"], json!({"name": "node-9", "kind": "nodes"}));
}

#[tokio::test]
async fn objects_come_from_the_configuration() {
    let running = start(
        r#"{
            "nodes": [
                {"name": "node-1", "type": "m5.24xlarge", "subnet": "subnet-1", "labels": {"vpc.amazonaws.com/externalEniConfig": "a"}},
                {"name": "node-2", "type": "t3.nano", "subnet": "subnet-2", "max_pods": 7}
            ],
            "objects": [
                {"apiVersion": "crd.k8s.amazonaws.com/v1alpha1", "kind": "ENIConfig", "metadata": {"name": "a"},
                 "spec": {"subnet": "subnet-2", "securityGroups": []}}
            ]
        }"#,
    )
    .await;
    let first = running.get("/api/v1/nodes/node-1").await;
    assert_eq!(first["metadata"]["labels"]["vpc.amazonaws.com/externalEniConfig"], "a");
    assert_eq!(
        first["status"]["capacity"],
        json!({"cpu": "96", "memory": "8Gi", "pods": "250"})
    );
    assert!(
        first["spec"]["providerID"]
            .as_str()
            .unwrap()
            .starts_with("aws:///us-east-1a/i-")
    );
    let second = running.get("/api/v1/nodes/node-2").await;
    assert_eq!(second["status"]["capacity"]["pods"], "7");
    let config = running.get("/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs/a").await;
    assert_eq!(config["spec"]["subnet"], "subnet-2");
    let nodes = running.get("/apis/vpcresources.k8s.aws/v1alpha1/cninodes").await;
    assert_eq!(nodes["items"].as_array().unwrap().len(), 2);
}
