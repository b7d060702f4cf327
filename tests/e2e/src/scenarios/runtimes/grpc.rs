//! The daemon's two servers, asked by a client that shares no code with them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::site::Site;
use crate::runtimes::tools::{Answer, Grpcurl, Server};
use crate::scenarios::world::{NODE, SMALL, vpc_of};
use crate::scenarios::{Bench, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "grpcurl: both servers answer health by the protocol's rules, and only the socket serves plugins",
        health,
    ),
    Scenario::new(
        "grpcurl: messages that are too large, unknown or no messages at all are refused, and the daemon serves on",
        malformed,
    ),
];

const SOCKET: Server<'_> = Server::Socket("/run/aws-node/ipamd.sock");
const LOOPBACK: Server<'_> = Server::Tcp("127.0.0.1:50051");
const CHECK: &str = "grpc.health.v1.Health/Check";
/// An answer to nonsense comes at once, if at all.
const NONSENSE: Duration = Duration::from_secs(5);

/// grpcurl's exit status is 64 and the code of gRPC.
#[derive(Debug, Clone, Copy)]
enum Code {
    NotFound = 5,
    ResourceExhausted = 8,
    OutOfRange = 11,
    Unimplemented = 12,
}

fn ensure_code(answer: &Answer, allowed: &[Code], what: &str) -> Result<()> {
    let is_allowed = allowed.iter().any(|code| answer.code == Some(64 + *code as i32));
    ensure!(is_allowed, "{what}: {allowed:?} expected, not {answer:?}");
    Ok(())
}

fn ensure_serving(grpcurl: &Grpcurl<'_>, server: Server<'_>) -> Result<()> {
    for service in ["", "grpc.health.v1.aws-node"] {
        let answer = grpcurl.call(server, CHECK, &json!({"service": service}))?.json();
        let answer = answer.with_context(|| format!("{server:?}, service {service:?}"))?;
        ensure!(
            answer["status"] == "SERVING",
            "{server:?}, service {service:?}: {answer}"
        );
    }
    Ok(())
}

fn add_network(container: &str) -> Value {
    json!({
        "ContainerID": container, "IfName": "eth0", "NetworkName": "aws-cni",
        "K8S_POD_NAME": "pod", "K8S_POD_NAMESPACE": "default", "K8S_POD_INFRA_CONTAINER_ID": container,
    })
}

fn health(bench: &Bench) -> Result<()> {
    let site = Site::bare(bench, vpc_of(1, SMALL), &[], &[("MAX_ENI", "1")])?;
    let grpcurl = Grpcurl::new(site.node(NODE)?, bench.tools.grpcurl()?)?;
    for server in [SOCKET, LOOPBACK] {
        ensure_serving(&grpcurl, server)?;
        let answer = grpcurl.call(server, CHECK, &json!({"service": "no.such.service"}))?;
        ensure_code(&answer, &[Code::NotFound], "an unknown service")?;
        let answer = grpcurl.call(server, "grpc.health.v1.Health/Guess", &json!({}))?;
        ensure_code(&answer, &[Code::Unimplemented], "an unknown method")?;
    }
    let answer = grpcurl.call(LOOPBACK, "rpc.CNIBackend/AddNetwork", &add_network("on-loopback"))?;
    ensure_code(&answer, &[Code::Unimplemented], "plugins on loopback")?;
    ensure!(site.world.leases(NODE)?.is_empty(), "loopback gave a lease");
    let answer = grpcurl.call(SOCKET, "rpc.NPBackend/EnforceNpToPod", &json!({}))?;
    ensure_code(&answer, &[Code::Unimplemented], "a service of somebody else")?;
    // The interface of deployed plugins, by the names in its proto file.
    let answer = grpcurl
        .call(SOCKET, "rpc.CNIBackend/AddNetwork", &add_network("by-hand"))?
        .json()?;
    let lease = site.lease(NODE, "by-hand")?.context("no lease")?;
    ensure!(
        answer["Success"] == true && answer["IPAllocationMetadata"][0]["IPv4Addr"] == lease["address"],
        "{answer}, lease {lease}"
    );
    let answer = grpcurl.call_with_metadata(SOCKET, "rpc.CNIBackend/DelNetwork", &add_network("by-hand"))?;
    // By this the plugin knows that nothing is left for it to remove.
    let cleared = answer.stdout.contains("vpc-cni-cleared: yes");
    ensure!(cleared && answer.stdout.contains(r#""Success": true"#), "{answer:?}");
    site.check_no_trace(NODE, &[])?;
    site.finish()
}

fn malformed(bench: &Bench) -> Result<()> {
    let mut site = Site::bare(bench, vpc_of(1, SMALL), &[], &[("MAX_ENI", "1")])?;
    let (mebibyte, limit) = (1 << 20, [Code::ResourceExhausted, Code::OutOfRange]);
    {
        let grpcurl = Grpcurl::new(site.node(NODE)?, bench.tools.grpcurl()?)?;
        let answer = grpcurl.call(
            SOCKET,
            "rpc.CNIBackend/AddNetwork",
            &add_network(&"x".repeat(2 * mebibyte)),
        )?;
        ensure_code(&answer, &limit, "an ADD of two mebibytes")?;
        for server in [SOCKET, LOOPBACK] {
            let answer = grpcurl.call(server, CHECK, &json!({"service": "x".repeat(8 * mebibyte)}))?;
            ensure_code(&answer, &limit, "a health check of eight mebibytes")?;
            ensure_serving(&grpcurl, server)?;
        }
    }
    for nonsense in nonsense() {
        let node = site.node(NODE)?;
        let socket = node.outside(Path::new("/run/aws-node/ipamd.sock"));
        let stream = UnixStream::connect(&socket).context("connect to the daemon")?;
        stream.set_read_timeout(Some(NONSENSE))?;
        send_nonsense(stream, &nonsense).context("on the socket")?;
        let text = nonsense.clone();
        node.run(move || -> Result<()> {
            let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], 50051)))?;
            stream.set_read_timeout(Some(NONSENSE))?;
            send_nonsense(stream, &text).context("on loopback")
        })??;
        let grpcurl = Grpcurl::new(node, bench.tools.grpcurl()?)?;
        ensure_serving(&grpcurl, SOCKET)?;
        ensure_serving(&grpcurl, LOOPBACK)?;
    }
    ensure!(site.world.leases(NODE)?.is_empty(), "nonsense gave a lease");
    let child = site.world.cluster.daemon(NODE)?.child().context("the daemon runs")?;
    ensure!(child.try_wait()?.is_none(), "the daemon ended");
    site.finish()
}

/// Not HTTP/2 at all; a frame longer than allowed; frames on streams that cannot be; half a frame.
fn nonsense() -> Vec<Vec<u8>> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let framed = |frame: &[u8]| [PREFACE, &SETTINGS, frame].concat();
    vec![
        b"GET / HTTP/1.1\r\nHost: ipamd\r\n\r\n".to_vec(),
        vec![0xff; 4096],
        framed(&[&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1][..], &[0; 1024]].concat()),
        framed(&[0, 0, 4, 0, 1, 0, 0, 0, 2, 1, 2, 3, 4]),
        framed(&[0, 0, 4, 1, 4, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]),
        framed(&[0, 1]),
    ]
}

/// Whatever the daemon answers, it must end the connection or wait for more; half a frame is ended by us.
fn send_nonsense(mut stream: impl Read + Write, bytes: &[u8]) -> Result<()> {
    // The daemon may close while we write.
    let _ = stream.write_all(bytes);
    let mut answer = [0; 4096];
    // A reset, an end, an error frame: all the same. A silent daemon waits for the rest.
    let _ = stream.read(&mut answer);
    Ok(())
}
