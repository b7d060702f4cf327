//! The client against canned metadata on a local socket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::TcpListener;
use vpc_types::{DeviceNumber, NetworkCard};

use super::client::{ImdsClient, ImdsError};
use crate::canned::{Canned, Reply, Request};
use crate::config::CloudConfig;

const MAC: &str = "02:00:00:00:00:01";

fn metadata() -> BTreeMap<String, String> {
    let mut paths: BTreeMap<String, String> = [
        ("mac", MAC),
        ("instance-id", "i-1"),
        ("instance-type", "m5.large"),
        ("local-ipv4", "10.0.1.10"),
        ("placement/availability-zone", "us-west-2a"),
        ("placement/region", "us-west-2"),
        ("network/interfaces/macs/", "02:00:00:00:00:01/\n02:00:00:00:00:02/\n"),
    ]
    .map(|(path, text)| (path.to_owned(), text.to_owned()))
    .into();
    let eni = |mac: &str, leaf: &str, text: &str| (format!("network/interfaces/macs/{mac}/{leaf}"), text.to_owned());
    paths.extend([
        eni(MAC, "interface-id", "eni-1\n"),
        eni(MAC, "device-number", "0"),
        eni(MAC, "subnet-id", "subnet-1"),
        eni(MAC, "vpc-id", "vpc-1"),
        eni(MAC, "subnet-ipv4-cidr-block", "10.0.1.0/24"),
        eni(MAC, "vpc-ipv4-cidr-blocks", "10.0.0.0/16\n100.64.0.0/16"),
        eni(MAC, "security-group-ids", "sg-2\nsg-1"),
        eni(MAC, "local-ipv4s", "10.0.1.10\n10.0.1.11"),
        eni(MAC, "ipv4-prefix", "10.0.1.32/28"),
        // Half an entry: it comes or goes.
        eni("02:00:00:00:00:02", "device-number", "1"),
    ]);
    paths
}

/// Version 2 only: no token, no answer.
fn imds(paths: BTreeMap<String, String>) -> impl Fn(&Request) -> Reply + Send + Sync {
    move |request| {
        if request.method == "PUT" && request.path == "/latest/api/token" {
            let ttl = request
                .header("x-aws-ec2-metadata-token-ttl-seconds")
                .unwrap_or_default()
                .to_owned();
            return Reply::Http(
                200,
                vec![("x-aws-ec2-metadata-token-ttl-seconds", ttl)],
                "token-1".into(),
            );
        }
        if request.header("x-aws-ec2-metadata-token") != Some("token-1") {
            return Reply::text(401, "");
        }
        let found = request
            .path
            .strip_prefix("/latest/meta-data/")
            .or_else(|| request.path.strip_prefix("/latest/"))
            .and_then(|path| paths.get(path));
        found.map_or_else(|| Reply::text(404, "<html/>"), |text| Reply::text(200, text.clone()))
    }
}

fn client(url: &str) -> ImdsClient {
    ImdsClient::new(&CloudConfig {
        imds_endpoint: Some(url.to_owned()),
        ..CloudConfig::default()
    })
    .unwrap()
}

#[tokio::test]
async fn facts_cost_one_token_and_one_question_each() {
    let server = Canned::start(imds(metadata())).await;
    let facts = client(&server.url).facts().await.unwrap();
    assert_eq!(
        (facts.instance_id.as_str(), facts.instance_type.as_str()),
        ("i-1", "m5.large")
    );
    assert_eq!((facts.az.as_str(), facts.region.as_str()), ("us-west-2a", "us-west-2"));
    assert_eq!(
        (facts.mac.to_string().as_str(), facts.local_ipv4.to_string().as_str()),
        (MAC, "10.0.1.10")
    );
    assert_eq!(
        (facts.interface_id.as_str(), facts.subnet_id.as_str()),
        ("eni-1", "subnet-1")
    );
    assert_eq!(facts.vpc_cidrs.len(), 2);
    assert_eq!(
        facts
            .security_groups
            .iter()
            .map(|group| group.as_str())
            .collect::<Vec<_>>(),
        ["sg-1", "sg-2"]
    );
    let requests = server.requests();
    assert_eq!(requests.iter().filter(|request| request.method == "PUT").count(), 1);
    assert_eq!(requests.len(), 13);
}

#[tokio::test]
async fn a_half_listed_eni_is_left_out() {
    let server = Canned::start(imds(metadata())).await;
    let enis = client(&server.url).enis().await.unwrap();
    assert_eq!(enis.len(), 1);
    assert_eq!(
        (enis[0].id.as_str(), enis[0].device, enis[0].card),
        ("eni-1", DeviceNumber(0), NetworkCard::DEFAULT)
    );
    assert_eq!((enis[0].addresses.len(), enis[0].prefixes.len()), (2, 1));
}

#[tokio::test]
async fn a_glance_costs_two_questions_and_two_for_each_eni() {
    let mut paths = metadata();
    paths.insert(
        "network/interfaces/macs/02:00:00:00:00:02/local-ipv4s".into(),
        "10.0.1.20".into(),
    );
    let server = Canned::start(imds(paths)).await;
    let primary = MAC.parse().unwrap();
    let glance = client(&server.url).glance(primary).await.unwrap();
    assert_eq!((glance.groups.len(), glance.enis.len()), (2, 2));
    let shown: Vec<String> = glance.enis[&primary].iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.1.11", "10.0.1.32/28"]);
    let asked = server
        .requests()
        .iter()
        .filter(|request| request.method == "GET")
        .count();
    assert_eq!(asked, 2 + 2 * 2);
}

#[tokio::test]
async fn the_launch_is_in_the_identity_document() {
    let mut paths = metadata();
    let launched = async |paths| {
        client(&Canned::start(imds(paths)).await.url)
            .launched_at()
            .await
            .unwrap()
    };
    assert_eq!(launched(paths.clone()).await, None);
    let document = r#"{"region" : "us-west-2", "pendingTime" : "2026-01-02T03:04:05Z", "version" : "2017-09-30"}"#;
    paths.insert("dynamic/instance-identity/document".into(), document.into());
    assert_eq!(launched(paths).await.as_deref(), Some("2026-01-02T03:04:05Z"));
}

#[tokio::test]
async fn a_notice_of_the_end_is_either_of_two() {
    let leaving = async |path: &str, text: &str| {
        let mut paths = metadata();
        paths.insert(path.to_owned(), text.to_owned());
        let server = Canned::start(imds(paths)).await;
        client(&server.url).is_leaving().await.unwrap()
    };
    assert!(!leaving("autoscaling/target-lifecycle-state", "InService").await);
    assert!(leaving("autoscaling/target-lifecycle-state", "Terminated").await);
    assert!(
        leaving(
            "spot/instance-action",
            r#"{"action":"terminate","time":"2026-01-01T00:00:00Z"}"#
        )
        .await
    );
}

#[tokio::test]
async fn an_error_names_path_and_status() {
    let mut paths = metadata();
    paths.remove("placement/availability-zone");
    let server = Canned::start(imds(paths)).await;
    let error = client(&server.url).facts().await.unwrap_err();
    assert_eq!(error.to_string(), "imds placement/availability-zone: HTTP status 404");
}

#[tokio::test]
async fn a_malformed_answer_is_shown() {
    let mut paths = metadata();
    paths.insert("instance-id".into(), "<html>".into());
    let server = Canned::start(imds(paths)).await;
    let error = client(&server.url).facts().await.unwrap_err();
    assert!(
        matches!(&error, ImdsError::Malformed { path, .. } if path == "instance-id"),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_overloaded_service_is_asked_again() {
    let (answer, failures) = (imds(metadata()), Arc::new(AtomicU32::new(0)));
    let server = Canned::start(move |request| match request.method.as_str() {
        "GET" if failures.fetch_add(1, Ordering::Relaxed) == 0 => Reply::text(503, ""),
        _ => answer(request),
    })
    .await;
    assert_eq!(client(&server.url).region().await.unwrap(), "us-west-2");
}

#[tokio::test]
async fn nobody_there_is_an_error_that_names_the_question() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = client(&url).region().await.unwrap_err();
    assert_eq!(error.to_string(), "imds placement/region: no answer");
}

#[tokio::test]
async fn facts_wait_for_a_service_that_comes_up() {
    let (answer, lost) = (imds(metadata()), AtomicU32::new(0));
    let server = Canned::start(move |request| match lost.fetch_add(1, Ordering::Relaxed) {
        0..3 => Reply::Close,
        _ => answer(request),
    })
    .await;
    assert_eq!(client(&server.url).facts().await.unwrap().instance_id.as_str(), "i-1");
}
