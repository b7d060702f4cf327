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

/// The pool holds more than are asked for, so that no answer waits for EC2.
const ENVIRONMENT: &[(&str, &str)] = &[("MINIMUM_IP_TARGET", "450"), ("WARM_IP_TARGET", "1")];
const POOL: u64 = 450;
/// Calls one at a time.
const CALLS: usize = 250;
/// Calls at once, and at either end of those one at a time.
const AT_ONCE: usize = 50;

pub(super) fn measure(setup: &Setup) -> Result<Figures> {
    let config = world::config(BIG, 1);
    let mut world = World::prepare(&setup.sandbox, &setup.binaries, &setup.programs, &config, ENVIRONMENT)?;
    world.cluster.start_daemon(NODE)?;
    world.wait_for_free(POOL)?;
    world.wait_for_quiet(std::time::Duration::from_secs(2))?;
    daemons::go_first(&mut world, NODE)?;
    // Without the right to it the figures are those of the usual class; the report says so.
    let _ = launch::make_realtime(0);
    let mut figures = Figures::default();
    one_at_a_time(&world, &mut figures)?;
    at_once(&world, &mut figures)?;
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
fn one_at_a_time(world: &World, figures: &mut Figures) -> Result<()> {
    let socket = world.node()?.outside(Path::new(SOCKET));
    let mut client = Client::connect(&socket).context("cannot reach the daemon")?;
    let (calls, sent) = (world.ec2_calls(), World::sent(world.node()?)?);
    let mut adds = Vec::new();
    for number in 0..CALLS {
        let request = pod(number).add_request();
        let begun = Instant::now();
        let reply = client.call(ADD_NETWORK, &request).context("AddNetwork")?;
        adds.push(millis(begun.elapsed()));
        pod::granted(&reply).context("AddNetwork")?;
    }
    figures.value("rpc.add.ec2", (world.ec2_calls() - calls) as f64);
    figures.value("rpc.add.sent", (World::sent(world.node()?)? - sent) as f64);
    let mut dels = Vec::new();
    for number in 0..CALLS {
        let request = pod(number).del_request();
        let begun = Instant::now();
        client.call(DEL_NETWORK, &request).context("DelNetwork")?;
        dels.push(millis(begun.elapsed()));
    }
    figures.series("rpc.add", Who::Ours, &adds);
    figures.series("rpc.add.few", Who::Ours, &adds[..AT_ONCE]);
    figures.series("rpc.add.many", Who::Ours, &adds[CALLS - AT_ONCE..]);
    figures.series("rpc.del", Who::Ours, &dels);
    Ok(())
}

/// Each call has a connection of its own, as each plugin has.
fn at_once(world: &World, figures: &mut Figures) -> Result<()> {
    let socket = world.node()?.outside(Path::new(SOCKET));
    let mut totals = Vec::new();
    for round in 1..=3 {
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
    figures.series("rpc.add.50", Who::Ours, &totals);
    Ok(())
}
