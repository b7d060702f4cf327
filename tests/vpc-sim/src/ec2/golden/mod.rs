//! Requests as foreign clients send them, word for word: each must be understood as the same.
//!
//! `boto3.txt` is written by the suite in `tests/foreign/ec2`, which makes the same calls; `aws-sdk-rust.txt` was captured from the
//! SDK's own HTTP requests.

use std::collections::BTreeMap;

use super::*;

const BOTO3: &str = include_str!("boto3.txt");
const RUST: &str = include_str!("aws-sdk-rust.txt");

/// Bodies by the name of the call.
fn bodies(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(' ').unwrap())
        .collect()
}

fn parsed<O: Decode + std::fmt::Debug>(mut params: Params) -> String {
    let request: O = decode(&mut params).unwrap();
    params.finish().unwrap();
    format!("{request:?}")
}

/// The typed request, as text.
fn understood(body: &str) -> String {
    let mut params = Params::decode(body.as_bytes());
    match action_of(&mut params).unwrap() {
        Action::DescribeNetworkInterfaces => parsed::<DescribeNetworkInterfaces>(params),
        Action::DescribeInstances => parsed::<DescribeInstances>(params),
        Action::DescribeInstanceTypes => parsed::<DescribeInstanceTypes>(params),
        Action::DescribeSubnets => parsed::<DescribeSubnets>(params),
        Action::DescribeVpcs => parsed::<DescribeVpcs>(params),
        Action::DescribeSecurityGroups => parsed::<DescribeSecurityGroups>(params),
        Action::CreateNetworkInterface => parsed::<CreateNetworkInterface>(params),
        Action::AttachNetworkInterface => parsed::<AttachNetworkInterface>(params),
        Action::DetachNetworkInterface => parsed::<DetachNetworkInterface>(params),
        Action::DeleteNetworkInterface => parsed::<DeleteNetworkInterface>(params),
        Action::ModifyNetworkInterfaceAttribute => parsed::<ModifyNetworkInterfaceAttribute>(params),
        Action::AssignPrivateIpAddresses => parsed::<AssignPrivateIpAddresses>(params),
        Action::UnassignPrivateIpAddresses => parsed::<UnassignPrivateIpAddresses>(params),
        Action::AssignIpv6Addresses => parsed::<AssignIpv6Addresses>(params),
        Action::UnassignIpv6Addresses => parsed::<UnassignIpv6Addresses>(params),
        Action::CreateTags => parsed::<CreateTags>(params),
    }
}

#[test]
fn boto3_and_the_sdk_for_rust_are_understood_alike() {
    let (boto3, rust) = (bodies(BOTO3), bodies(RUST));
    assert!(boto3.keys().eq(rust.keys()), "the same calls");
    for (name, body) in &boto3 {
        assert_eq!(understood(body), understood(rust[name]), "{name}");
    }
}

#[test]
fn every_action_is_among_the_calls() {
    let bodies = bodies(BOTO3);
    for action in Action::ALL {
        let begin = format!("Action={action}&");
        assert!(bodies.values().any(|body| body.starts_with(&begin)), "{action}");
    }
}

#[test]
fn what_was_sent_is_what_is_understood() {
    let bodies = bodies(BOTO3);
    let created = understood(bodies["create-with-count"]);
    for part in [
        r#"description: "aws-K8S-i-0 (ä+b)""#,
        r#""empty & odd=": """#,
        "Some(Count(9))",
        r#"client_token: Some("token")"#,
    ] {
        assert!(created.contains(part), "{part} in {created}");
    }
    let page = understood(bodies["describe-enis-next-page"]);
    for part in [r#""tag:a b/c""#, r#"["x*?"]"#, "Some(5)", r#"Some("after:eni-1+/=")"#] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(understood(bodies["detach-by-force"]).contains("Force"));
    assert!(understood(bodies["modify-check"]).contains("SourceDestCheck(Off)"));
}
