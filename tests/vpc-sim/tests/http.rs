//! The servers over real sockets on the loopback: what is on the wire, what is counted, who may read metadata.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use vpc_sim::config::Config;
use vpc_sim::model::{Action, Delay, Effect, ErrorCode, Fault, ImdsFault};
use vpc_sim::{Asker, Simulator};
use vpc_types::InstanceId;

struct Running {
    simulator: Simulator,
    instance: InstanceId,
    ec2: SocketAddr,
    imds: SocketAddr,
}

/// Both servers on free ports; IMDS answers as the first node.
async fn start(config: &str) -> Running {
    let built = Config::parse(config).unwrap().build().unwrap();
    let instance = built.nodes[0].instance.clone();
    let simulator = Simulator::new(built.model, built.imds);
    let (ec2, imds) = (
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
    );
    let running = Running {
        simulator: simulator.clone(),
        instance: instance.clone(),
        ec2: ec2.local_addr().unwrap(),
        imds: imds.local_addr().unwrap(),
    };
    let for_imds = simulator.clone();
    tokio::spawn(async move { simulator.serve_ec2(ec2).await });
    tokio::spawn(async move { for_imds.serve_imds(imds, Asker::Fixed(instance)).await });
    running
}

async fn send(to: SocketAddr, request: Request<Full<Bytes>>) -> Result<Response<String>, hyper::Error> {
    let stream = TcpStream::connect(to).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Response::from_parts(parts, String::from_utf8(body.to_vec()).unwrap()))
}

async fn call(to: SocketAddr, form: &str) -> Result<Response<String>, hyper::Error> {
    send(
        to,
        Request::post("/")
            .header("host", "ec2")
            .body(Full::from(form.to_owned()))
            .unwrap(),
    )
    .await
}

async fn read(to: SocketAddr, path: &str, token: Option<&str>) -> Response<String> {
    let mut request = Request::get(path).header("host", "imds");
    if let Some(token) = token {
        request = request.header("x-aws-ec2-metadata-token", token);
    }
    send(to, request.body(Full::default()).unwrap()).await.unwrap()
}

async fn put_token(to: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Response<String> {
    let mut request = Request::put(path).header("host", "imds");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(to, request.body(Full::default()).unwrap()).await.unwrap()
}

async fn token(to: SocketAddr) -> String {
    put_token(
        to,
        "/latest/api/token",
        &[("x-aws-ec2-metadata-token-ttl-seconds", "60")],
    )
    .await
    .into_body()
}

#[tokio::test]
async fn post_and_get_reach_the_same_action_and_carry_a_request_id() {
    let running = start("{}").await;
    let form = "Action=DescribeSubnets&Version=2016-11-15";
    let posted = call(running.ec2, form).await.unwrap();
    let got = send(
        running.ec2,
        Request::get(format!("/?{form}")).body(Full::default()).unwrap(),
    )
    .await
    .unwrap();
    for answer in [&posted, &got] {
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/xml;charset=UTF-8");
        let id = answer.headers()["x-amzn-requestid"].to_str().unwrap();
        assert_eq!((id.len(), &id[14..15]), (36, "4"), "a version 4 UUID: {id}");
        assert!(answer.body().contains(&format!("<requestId>{id}</requestId>")));
        assert_eq!(answer.body().matches("<subnetId>").count(), 2);
    }
}

#[tokio::test]
async fn attempts_of_one_call_count_as_one_call() {
    let running = start("{}").await;
    for attempt in 1..=3 {
        let request = Request::post("/")
            .header("amz-sdk-invocation-id", "6f8e")
            .header("amz-sdk-request", format!("attempt={attempt}; max=3"))
            .body(Full::from("Action=DescribeVpcs"))
            .unwrap();
        send(running.ec2, request).await.unwrap();
    }
    call(running.ec2, "Action=DescribeVpcs").await.unwrap();
    let count = running.simulator.attempts().of(Action::DescribeVpcs);
    assert_eq!((count.calls, count.attempts), (2, 4));
    running.simulator.reset_counts();
    assert_eq!(running.simulator.attempts().of(Action::DescribeVpcs).attempts, 0);
}

#[tokio::test]
async fn a_lost_answer_closes_the_connection_and_latency_is_real() {
    let running = start(r#"{"latency_ms": {"DescribeVpcs": 120}}"#).await;
    let asked = Instant::now();
    assert_eq!(call(running.ec2, "Action=DescribeVpcs").await.unwrap().status(), 200);
    assert!(asked.elapsed() >= Duration::from_millis(120));
    running.simulator.with_model(|model, _| {
        model.settings_mut().latency.insert(Action::DescribeVpcs, Delay::None);
        model
            .faults_mut()
            .inject(Action::DescribeVpcs, &Fault::LoseAnswer(Effect::NotApplied), 1);
    });
    assert!(
        call(running.ec2, "Action=DescribeVpcs").await.is_err(),
        "the answer was to be lost"
    );
    assert_eq!(call(running.ec2, "Action=DescribeVpcs").await.unwrap().status(), 200);
}

#[tokio::test]
async fn throttled_calls_answer_503_at_once() {
    let running = start(r#"{"throttle_factor": 0.01}"#).await;
    assert_eq!(call(running.ec2, "Action=DescribeVpcs").await.unwrap().status(), 200);
    let refused = call(running.ec2, "Action=DescribeVpcs").await.unwrap();
    assert_eq!(refused.status(), 503);
    assert!(
        refused
            .body()
            .contains("<Code>RequestLimitExceeded</Code><Message>Request limit exceeded.</Message>")
    );
    let count = running
        .simulator
        .with_model(|model, _| model.counters().of(Action::DescribeVpcs));
    assert_eq!(
        (count.accepted, count.refused[&ErrorCode::RequestLimitExceeded]),
        (1, 1)
    );
}

#[tokio::test]
async fn many_keep_alive_requests_do_not_wait_for_delayed_acks() {
    let running = start("{}").await;
    let stream = TcpStream::connect(running.ec2).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let started = Instant::now();
    for _ in 0..50 {
        let request = Request::post("/")
            .body(Full::new(Bytes::from("Action=DescribeSubnets")))
            .unwrap();
        sender
            .send_request(request)
            .await
            .unwrap()
            .into_body()
            .collect()
            .await
            .unwrap();
    }
    // Each delayed ACK would add 40 ms: two seconds in all.
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test]
async fn tokens_have_their_rules() {
    let running = start("{}").await;
    let ttl = "x-aws-ec2-metadata-token-ttl-seconds";
    let put = async |path: &'static str, headers: &[(&str, &str)]| put_token(running.imds, path, headers).await;
    let good = put("/latest/api/token", &[(ttl, "21600")]).await;
    assert_eq!(
        (good.status().as_u16(), good.headers()[ttl].to_str().unwrap()),
        (200, "21600")
    );
    for bad in ["0", "21601", "soon"] {
        assert_eq!(put("/latest/api/token", &[(ttl, bad)]).await.status(), 400, "{bad}");
    }
    assert_eq!(put("/latest/api/token", &[]).await.status(), 400);
    assert_eq!(
        put("/latest/api/token", &[(ttl, "60"), ("x-forwarded-for", "1.2.3.4")])
            .await
            .status(),
        403
    );
    assert_eq!(put("/2021-07-15/api/token", &[(ttl, "60")]).await.status(), 403);
    let path = "/latest/meta-data/instance-id";
    assert_eq!(read(running.imds, path, None).await.status(), 401);
    assert_eq!(read(running.imds, path, Some("forged")).await.status(), 401);
    let answer = read(running.imds, path, Some(good.body())).await;
    assert_eq!(
        (answer.status().as_u16(), answer.body().as_str()),
        (200, running.instance.as_str())
    );
}

#[tokio::test]
async fn version_one_answers_only_where_tokens_are_optional() {
    let running = start(r#"{"imds": {"tokens_required": false}}"#).await;
    assert_eq!(
        read(running.imds, "/latest/meta-data/instance-type", None).await.body(),
        "m5.large"
    );
    assert_eq!(
        read(running.imds, "/latest/meta-data/instance-type", Some("forged"))
            .await
            .status(),
        401
    );
}

#[tokio::test]
async fn the_tree_lists_what_exists_and_nothing_else() {
    let running =
        start(r#"{"nodes": [{"name": "n", "subnet": "subnet-1", "address": "10.0.1.10", "prefixes": 1}]}"#).await;
    let token = token(running.imds).await;
    let get = async |path: &str| {
        let answer = read(running.imds, &format!("/latest/meta-data/{path}"), Some(&token)).await;
        (answer.status().as_u16(), answer.into_body())
    };
    let mac = get("mac").await.1;
    assert_eq!(get("network/interfaces/macs/").await, (200, format!("{mac}/")));
    assert_eq!(get("network/interfaces/macs").await, (200, format!("{mac}/")));
    let dir = format!("network/interfaces/macs/{mac}");
    let listed = get(&format!("{dir}/")).await.1;
    let keys: Vec<_> = listed.lines().collect();
    assert!(
        keys.contains(&"local-ipv4s") && keys.contains(&"ipv4-prefix"),
        "{listed}"
    );
    assert!(!keys.contains(&"ipv6s") && !keys.contains(&"network-card"), "{listed}");
    for (key, text) in [
        ("local-ipv4s", "10.0.1.10"),
        ("device-number", "0"),
        ("subnet-ipv4-cidr-block", "10.0.1.0/24"),
        ("vpc-ipv4-cidr-blocks", "10.0.0.0/16"),
    ] {
        assert_eq!(get(&format!("{dir}/{key}")).await, (200, text.to_owned()), "{key}");
    }
    assert!(get(&format!("{dir}/ipv4-prefix")).await.1.ends_with("/28"));
    for absent in [&format!("{dir}/ipv6s"), "ipv6", "no/such/path"] {
        assert_eq!(get(absent).await.0, 404, "{absent}");
    }
    assert_eq!(get("placement/region").await.1, "us-east-1");
    assert!(
        get("iam/security-credentials/vpc-sim-node")
            .await
            .1
            .contains("\"Type\": \"AWS-HMAC\"")
    );
    let document = read(running.imds, "/latest/dynamic/instance-identity/document", Some(&token))
        .await
        .into_body();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&document).unwrap()["region"],
        "us-east-1"
    );
}

#[tokio::test]
async fn imds_faults_show_halfway_states() {
    let running = start("{}").await;
    let token = token(running.imds).await;
    let (eni, mac) = running.simulator.with_model(|model, _| {
        let eni = model.enis_of(&running.instance).next().unwrap();
        (eni.id.clone(), eni.mac)
    });
    let path = format!("/latest/meta-data/network/interfaces/macs/{mac}");
    running
        .simulator
        .with_model(|model, _| model.break_imds(ImdsFault::HalfEntry(eni)));
    assert_eq!(
        read(running.imds, &format!("{path}/interface-id"), Some(&token))
            .await
            .status(),
        404
    );
    assert_eq!(
        read(running.imds, &format!("{path}/mac"), Some(&token)).await.status(),
        200
    );
    let instance = running.instance.clone();
    running
        .simulator
        .with_model(|model, _| model.break_imds(ImdsFault::Disabled(instance)));
    assert_eq!(read(running.imds, &path, Some(&token)).await.status(), 403);
    running.simulator.with_model(|model, _| model.heal_imds());
    assert_eq!(
        read(running.imds, &format!("{path}/interface-id"), Some(&token))
            .await
            .status(),
        200
    );
}
