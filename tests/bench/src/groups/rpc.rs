//! The daemon's answers over a connection that is kept: one at a time, and many at once.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use bench_floor::grpc::Client;
use bench_floor::launch;
use bench_floor::pod::{self, ADD_NETWORK, DEL_NETWORK, Pod};

use super::Setup;
use crate::daemons;
use crate::figures::{Figures, Who};
use crate::launcher::millis;
use crate::world::{self, BIG, NODE, SOCKET, World};

/// A node whose pool holds more than is asked for, so that no answer waits for EC2.
pub(super) struct Size {
    instance_type: &'static str,
    /// Free addresses before the first call.
    pool: u64,
    environment: &'static [(&'static str, &'static str)],
    /// Calls one at a time.
    calls: usize,
    /// How often many call at once.
    bursts: usize,
    /// Figures' names begin with this.
    name: &'static str,
}

/// The reference's figures are of 100 calls on such a node.
pub(super) const USUAL: Size = Size {
    instance_type: "m5.4xlarge",
    pool: 225,
    environment: &[("MINIMUM_IP_TARGET", "225"), ("WARM_IP_TARGET", "1")],
    calls: 100,
    bursts: 2,
    name: "rpc",
};
/// The most addresses that a node can have without prefixes.
pub(super) const LARGE: Size = Size {
    instance_type: BIG,
    pool: 450,
    environment: &[("MINIMUM_IP_TARGET", "450"), ("WARM_IP_TARGET", "1")],
    calls: 250,
    bursts: 3,
    name: "rpc.large",
};
/// Calls at once, and at either end of those one at a time.
const AT_ONCE: usize = 50;

pub(super) fn measure(setup: &Setup, size: &Size) -> Result<Figures> {
    let config = world::config(size.instance_type, 1);
    let mut world = World::prepare(
        &setup.sandbox,
        &setup.binaries,
        &setup.programs,
        &config,
        size.environment,
    )?;
    world.cluster.start_daemon(NODE)?;
    world.wait_for_free(size.pool)?;
    world.wait_for_quiet(std::time::Duration::from_secs(2))?;
    daemons::go_first(&mut world, NODE)?;
    // Without the right to it the figures are those of the usual class; the report says so.
    let _ = launch::make_realtime(0);
    let mut figures = Figures::default();
    one_at_a_time(&world, size, &mut figures)?;
    at_once(&world, size, &mut figures)?;
    Ok(figures)
}

fn pod(number: usize) -> Pod {
    Pod {
        namespace: "default".to_owned(),
        name: format!("rpc-{number}"),
        container_id: format!("{number:032x}"),
        netns: format!("/run/netns/cni-{number:032x}"),
        host_veth: String::new(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "there are less than 2^52 calls")]
fn one_at_a_time(world: &World, size: &Size, figures: &mut Figures) -> Result<()> {
    let socket = world.node()?.outside(Path::new(SOCKET));
    let mut client = Client::connect(&socket).context("cannot reach the daemon")?;
    let (calls, sent) = (world.ec2_calls(), World::sent(world.node()?)?);
    let mut adds = Vec::new();
    for number in 0..size.calls {
        let request = pod(number).add_request();
        let begun = Instant::now();
        let reply = client.call(ADD_NETWORK, &request).context("AddNetwork")?;
        adds.push(millis(begun.elapsed()));
        pod::granted(&reply).context("AddNetwork")?;
    }
    let name = |figure: &str| format!("{}.{figure}", size.name);
    figures.value(&name("add.ec2"), (world.ec2_calls() - calls) as f64);
    figures.value(&name("add.sent"), (World::sent(world.node()?)? - sent) as f64);
    let mut dels = Vec::new();
    for number in 0..size.calls {
        let request = pod(number).del_request();
        let begun = Instant::now();
        client.call(DEL_NETWORK, &request).context("DelNetwork")?;
        dels.push(millis(begun.elapsed()));
    }
    figures.series(&name("add"), Who::Ours, &adds);
    figures.series(&name("add.few"), Who::Ours, &adds[..AT_ONCE]);
    figures.series(&name("add.many"), Who::Ours, &adds[size.calls - AT_ONCE..]);
    figures.series(&name("del"), Who::Ours, &dels);
    Ok(())
}

/// Each call has a connection of its own, as each plugin has.
fn at_once(world: &World, size: &Size, figures: &mut Figures) -> Result<()> {
    let socket = world.node()?.outside(Path::new(SOCKET));
    let mut totals = Vec::new();
    for round in 1..=size.bursts {
        let clients: std::io::Result<Vec<Client>> = (0..AT_ONCE).map(|_| Client::connect(&socket)).collect();
        let mut clients = clients.context("cannot reach the daemon")?;
        let begun = Instant::now();
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(ADD_NETWORK, &pod(1000 * round + number).add_request())?;
        }
        for client in &mut clients {
            pod::granted(&client.receive()?).context("AddNetwork")?;
        }
        totals.push(millis(begun.elapsed()));
    }
    figures.series(&format!("{}.add.50", size.name), Who::Ours, &totals);
    Ok(())
}
