//! What failures become: class, attempts, words.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use tokio::net::TcpListener;
use vpc_types::{AttachmentId, EniId, InstanceId, SubnetId};

use super::{Bench, answer_body, client, credentials, error_body};
use crate::canned::{Canned, Reply};
use crate::ec2::error::{Action, Class, Ec2Error, ErrorCode};
use crate::ec2::request::{ClientToken, CreateEni};
use crate::ec2::traits::{EniLifecycle, ReadEc2};

fn eni() -> EniId {
    EniId::parse("eni-1").unwrap()
}

fn instance() -> InstanceId {
    InstanceId::parse("i-1").unwrap()
}

fn create() -> CreateEni {
    CreateEni {
        subnet: SubnetId::parse("subnet-1").unwrap(),
        groups: Vec::new(),
        description: String::new(),
        tags: BTreeMap::new(),
        initial: None,
        client_token: ClientToken::parse("t").unwrap(),
    }
}

#[tokio::test]
async fn a_throttled_mutation_is_attempted_once() {
    let bench = Bench::refusing(503, "RequestLimitExceeded", "Request limit exceeded.").await;
    let error = bench.client.delete_eni(&eni()).await.unwrap_err();
    assert_eq!(error.class(), Class::Throttled);
    assert_eq!((error.status(), error.request_id()), (Some(503), Some("req-1")));
    assert_eq!(error.code(), Some(&ErrorCode::RequestLimitExceeded));
    let text = error.to_string();
    assert!(
        text.contains("DeleteNetworkInterface: RequestLimitExceeded (HTTP 503, request req-1)"),
        "{text}"
    );
    assert_eq!(bench.server.requests().len(), 1);
    assert_eq!(
        bench.reports(),
        [(Action::DeleteNetworkInterface, Some(Class::Throttled), 1)]
    );
}

#[tokio::test]
async fn a_throttled_describe_is_attempted_twice() {
    let count = AtomicU32::new(0);
    let bench = Bench::new(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::text(503, error_body("RequestLimitExceeded", "Request limit exceeded.")),
        _ => Reply::text(200, answer_body("DescribeNetworkInterfaces", "")),
    })
    .await;
    assert_eq!(bench.client.describe_instance_enis(&instance()).await.unwrap(), []);
    assert_eq!(bench.reports(), [(Action::DescribeNetworkInterfaces, None, 2)]);

    let bench = Bench::refusing(503, "Unavailable", "").await;
    let error = bench.client.describe_instance_enis(&instance()).await.unwrap_err();
    assert_eq!((error.class(), bench.server.requests().len()), (Class::Retry, 2));
}

#[tokio::test]
async fn a_refusal_keeps_code_and_words() {
    let message = "Network interface 'eni-1' is currently in use.";
    let bench = Bench::refusing(400, "InvalidParameterValue", message).await;
    let error = bench.client.delete_eni(&eni()).await.unwrap_err();
    assert_eq!((error.class(), error.message()), (Class::Busy, Some(message)));
    assert_eq!(
        bench.reports(),
        [(Action::DeleteNetworkInterface, Some(Class::Busy), 1)]
    );
}

#[tokio::test]
async fn an_absent_eni_is_no_error_for_a_view_and_gone_for_a_mutation() {
    let message = "The networkInterface ID 'eni-1' does not exist";
    let bench = Bench::refusing(400, "InvalidNetworkInterfaceID.NotFound", message).await;
    assert_eq!(bench.client.describe_eni(&eni()).await.unwrap(), None);
    assert_eq!(bench.client.delete_eni(&eni()).await.unwrap_err().class(), Class::Gone);
}

#[tokio::test]
async fn silence_leaves_a_mutation_unknown() {
    let server = Canned::start(|_| Reply::Hang).await;
    let (client, reports) = client(&server.url, Duration::from_millis(100), Some(credentials()));
    let error = client.create_eni(&create()).await.unwrap_err();
    assert_eq!(error.class(), Class::Unknown, "{error:?}");
    assert_eq!(server.requests().len(), 1);
    assert_eq!(
        reports.lock().unwrap()[..],
        [(Action::CreateNetworkInterface, Some(Class::Unknown), 1)]
    );
}

#[tokio::test]
async fn a_connection_lost_after_the_request_leaves_a_mutation_unknown() {
    let bench = Bench::new(|_| Reply::Close).await;
    let error = bench.client.create_eni(&create()).await.unwrap_err();
    assert_eq!(error.class(), Class::Unknown, "{error:?}");
    assert_eq!(bench.server.requests().len(), 1);
    assert_eq!(
        bench.client.describe_eni(&eni()).await.unwrap_err().class(),
        Class::Retry
    );
}

#[tokio::test]
async fn a_refused_connection_was_surely_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (client, _) = client(&url, Duration::from_secs(10), Some(credentials()));
    let error = client.create_eni(&create()).await.unwrap_err();
    assert_eq!(error.class(), Class::NotSent, "{error:?}");
}

#[derive(Debug)]
struct NoCredentials;

impl ProvideCredentials for NoCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("none here")))
    }
}

#[tokio::test]
async fn without_credentials_nothing_was_sent() {
    let server = Canned::start(|_| Reply::Close).await;
    for provider in [None, Some(SharedCredentialsProvider::new(NoCredentials))] {
        let (client, reports) = client(&server.url, Duration::from_secs(10), provider);
        let error = client.create_eni(&create()).await.unwrap_err();
        assert_eq!(error.class(), Class::NotSent, "{error:?}");
        assert_eq!(
            reports.lock().unwrap()[..],
            [(Action::CreateNetworkInterface, Some(Class::NotSent), 0)]
        );
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn an_answer_to_something_else_is_no_answer() {
    let bench = Bench::answering(answer_body("DescribeVpcs", "")).await;
    let error = bench.client.create_eni(&create()).await.unwrap_err();
    assert!(matches!(error, Ec2Error::Unreadable { status: 200, .. }), "{error:?}");
    assert_eq!(error.class(), Class::Unknown);
    assert_eq!(
        bench.client.describe_eni(&eni()).await.unwrap_err().class(),
        Class::Retry
    );
}

#[tokio::test]
async fn an_answer_that_breaks_off_leaves_a_mutation_unknown() {
    let bench = Bench::new(|_| Reply::Cut(answer_body("CreateNetworkInterface", ""))).await;
    let error = bench.client.create_eni(&create()).await.unwrap_err();
    assert_eq!(error.class(), Class::Unknown, "{error:?}");
    let error = bench.client.describe_eni(&eni()).await.unwrap_err();
    assert_eq!(error.class(), Class::Retry, "{error:?}");
}

#[tokio::test]
async fn a_page_of_a_proxy_is_no_refusal_by_ec2() {
    let bench = Bench::new(|_| Reply::text(502, "<html>Bad Gateway</html>")).await;
    let error = bench.client.create_eni(&create()).await.unwrap_err();
    assert_eq!(
        (error.class(), error.status()),
        (Class::Unknown, Some(502)),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_missing_value_is_named() {
    let set = "<networkInterfaceSet><item><networkInterfaceId>eni-1</networkInterfaceId><subnetId>subnet-1</subnetId>\
        <vpcId>vpc-1</vpcId><status>available</status></item></networkInterfaceSet>";
    let bench = Bench::answering(answer_body("DescribeNetworkInterfaces", set)).await;
    let error = bench.client.describe_instance_enis(&instance()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("macAddress of eni-1 is missing"), "{text}");
    assert_eq!(error.class(), Class::Fatal);
    assert_eq!(
        bench.reports(),
        [(Action::DescribeNetworkInterfaces, Some(Class::Fatal), 1)]
    );

    let bench = Bench::answering(answer_body("CreateNetworkInterface", "")).await;
    let error = bench.client.create_eni(&create()).await.unwrap_err();
    assert_eq!(error.class(), Class::Unknown, "{error:?}");
}

#[tokio::test]
async fn pages_without_end_are_given_up() {
    let bench = Bench::answering(answer_body("DescribeNetworkInterfaces", "<nextToken>again</nextToken>")).await;
    let error = bench.client.describe_instance_enis(&instance()).await.unwrap_err();
    assert!(matches!(error, Ec2Error::Endless { pages: 20, .. }), "{error:?}");
    assert_eq!(bench.server.requests().len(), 20);
}

#[tokio::test]
async fn an_empty_answer_to_a_mutation_without_result_is_success() {
    let bench = Bench::answering("").await;
    let attachment = AttachmentId::parse("eni-attach-1").unwrap();
    assert!(bench.client.detach_eni(&attachment).await.is_ok());
}
