//! The daemon's health service, and two daemons at once.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use vpc_sim::model::Action;

use super::world::{IPAM_JSON, NODE, SHRINKING, SMALL, SOON, World, vpc_of};
use super::{Bench, Scenario};
use crate::node::Daemon;
use crate::wait;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "health is SERVING on the socket and on 127.0.0.1:50051, and silent when the daemon hangs",
        health,
    ),
    Scenario::new(
        "a successor that waits for its predecessor knows the leases granted meanwhile",
        successor,
    ),
    Scenario::new("a socket file left by a dead daemon is taken over", stale_socket),
    Scenario::new(
        "after three aborts in a row the daemon serves pods and gives nothing back",
        safe_mode,
    ),
    Scenario::new("a second daemon gives up while the first one serves", second_gives_up).slow(),
];

/// The daemon's socket, as programs on the node see it.
const SOCKET: &str = "/run/aws-node/ipamd.sock";
/// Where probes ask that cannot name a socket.
const LOOPBACK: &str = "http://127.0.0.1:50051";
/// Deployed probes wait 1 s.
const PROBE: Duration = Duration::from_secs(2);
/// Names under which deployed probes ask.
const SERVICES: [&str; 2] = ["", "grpc.health.v1.aws-node"];

/// Asks on the calling thread, which may be one of the node.
fn ask(uri: &str, service: &str) -> Result<ServingStatus> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = runtime.block_on(async {
        let endpoint = Endpoint::from_shared(uri.to_owned())?
            .connect_timeout(PROBE)
            .timeout(PROBE);
        let channel = endpoint.connect().await?;
        HealthClient::new(channel).check(request).await.context("no answer")
    })?;
    Ok(answer.into_inner().status())
}

fn health(bench: &Bench) -> Result<()> {
    let mut world = World::start(bench, vpc_of(1, SMALL), &[], &[])?;
    let socket = format!("unix://{}", world.node(NODE)?.outside(Path::new(SOCKET)).display());
    for service in SERVICES {
        let status = ask(&socket, service)?;
        ensure!(
            status == ServingStatus::Serving,
            "{service:?} on the socket: {status:?}"
        );
        let status = world.node(NODE)?.run(move || ask(LOOPBACK, service))??;
        ensure!(status == ServingStatus::Serving, "{service:?} on loopback: {status:?}");
    }
    ensure!(
        ask(&socket, "no.such.service").is_err(),
        "an unknown service is healthy"
    );
    world.signal(NODE, Signal::SIGSTOP)?;
    ensure!(ask(&socket, "").is_err(), "a stopped daemon is healthy");
    world.signal(NODE, Signal::SIGCONT)?;
    ensure!(ask(&socket, "")? == ServingStatus::Serving, "it does not come back");
    world.finish()
}

/// A second daemon on the node, with a log of its own.
fn second(world: &mut World) -> Result<Daemon> {
    let mut second = world.cluster.daemon(NODE)?.twin();
    second.set("AWS_VPC_K8S_CNI_LOG_FILE", "/var/log/aws-routed-eni/second.log");
    second.spawn(world.node(NODE)?)?;
    // Nothing tells how far it is; what it does before it waits takes a tenth of this.
    wait::pause(Duration::from_secs(1));
    Ok(second)
}

fn successor(bench: &Bench) -> Result<()> {
    let mut world = World::start(bench, vpc_of(1, SMALL), &[], &[])?;
    let mut pods = world.add(NODE, "before", 2)?;
    let second = second(&mut world)?;
    pods.extend(world.add(NODE, "meanwhile", 2)?);
    world.cluster.daemon(NODE)?.stop(Signal::SIGTERM)?;
    *world.cluster.daemon(NODE)? = second;
    wait::until("the successor serves", SOON, || Ok(world.leases(NODE).ok()))?;
    pods.extend(world.add(NODE, "after", 9 - pods.len())?);
    let distinct: BTreeSet<Ipv4Addr> = pods.iter().map(|pod| pod.address).collect();
    ensure!(
        distinct.len() == pods.len(),
        "the successor granted a live pod's address"
    );
    ensure!(world.leases(NODE)?.len() == pods.len(), "a lease was lost");
    ensure!(world.checkpointed(NODE)?.len() == pods.len(), "a lease is not on file");
    world.check_mesh(&pods)?;
    world.remove(&pods)?;
    world.finish()
}

fn stale_socket(bench: &Bench) -> Result<()> {
    let mut world = World::prepare(bench, vpc_of(1, SMALL), &[], &[])?;
    let socket = world.node(NODE)?.outside(Path::new(SOCKET));
    std::fs::create_dir_all(socket.parent().context("it lies in a directory")?)?;
    drop(UnixListener::bind(&socket).with_context(|| format!("cannot bind {}", socket.display()))?);
    ensure!(socket.exists(), "the stale socket is there");
    // The harness waits until the socket accepts connections.
    let took = world.cluster.start_daemon(NODE)?;
    ensure!(took < Duration::from_secs(10), "the stale socket cost {took:?}");
    let pods = world.add(NODE, "pod", 1)?;
    world.remove(&pods)?;
    world.finish()
}

fn second_gives_up(bench: &Bench) -> Result<()> {
    let mut world = World::start(bench, vpc_of(1, SMALL), &[], &[])?;
    let pods = world.add(NODE, "pod", 2)?;
    let mut second = second(&mut world)?;
    let child = second.child().context("it was started")?;
    let status = child.wait(Duration::from_secs(18))?.context("it does not give up")?;
    ensure!(!status.success(), "it ended with {status}");
    // The first one is unharmed.
    world.remove(&pods)?;
    let pods = world.add(NODE, "next", 2)?;
    world.check_mesh(&pods)?;
    world.finish()
}

/// The history says that the daemon aborted three times within a second, just now.
fn safe_mode(bench: &Bench) -> Result<()> {
    let mut world = World::prepare(bench, vpc_of(1, SMALL), SHRINKING, &[])?;
    let history = world
        .node(NODE)?
        .outside(IPAM_JSON.as_ref())
        .with_file_name("vpc-cni-aborts");
    std::fs::create_dir_all(history.parent().context("it lies in a directory")?)?;
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let boot = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?).as_millis();
    std::fs::write(
        &history,
        format!("{}\n{}\n{}\n{boot}\n", boot_id.trim(), boot - 1_000, boot - 500),
    )?;
    world.cluster.start_daemons()?;
    let pods = world.add(NODE, "pod", 4)?;
    world.check_mesh(&pods)?;
    let status = world.cluster.ask(NODE, "status")?;
    ensure!(status["safeMode"] == true, "{status:#}");
    world.wait_for_quiet()?;
    let enis = world.eni_count();
    world.remove(&pods)?;
    // Long against the shortened timers.
    wait::pause(Duration::from_secs(4));
    ensure!(world.eni_count() == enis, "an ENI was given back");
    ensure!(
        world.calls_of(Action::UnassignPrivateIpAddresses) == 0,
        "addresses were given back"
    );
    world.add(NODE, "next", 3)?;
    world.finish()
}
