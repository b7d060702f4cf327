//! The daemon from start to end.
//!
//! Order of start: signals, configuration, node facts, the end of a predecessor, node rules, files, then the socket: whoever finds
//! it can be served. The first EC2 view and the first fill come after that. SIGTERM ends everything at once: the state is on file already.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cloud::{Ec2Client, ImdsClient};
use datapath::{Monitor, RouteSocket, SnatPolicy, apply_node};
use ipam_core::Event;
use ipnet::Ipv4Net;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::boot::{self, Node};
use crate::config::Config;
use crate::exec::{Ec2Executor, EniTags, Executors, KernelExecutor, Writer};
use crate::observe::{Calls, Observer};
use crate::owner::{self, Inbox, Input, Owner};
use crate::serve::{self, Context, ExternalSnat, NodeReply};
use crate::{monitor, observe};

/// How often the VPC's ranges are read again and the node's rules compared; the reference does both every 30 s.
const NODE_CHECK: Duration = Duration::from_secs(30);
/// Pause before a broken source of kernel notices is replaced.
const RESUBSCRIBE: Duration = Duration::from_secs(1);
/// After this, open connections are cut: plugins find the socket gone and wait for our successor.
const DRAIN: Duration = Duration::from_millis(200);

/// Runs until SIGTERM or SIGINT.
pub async fn run(config: Config) -> Result<()> {
    // First of all: as process 1 of a container it would not even notice a signal that it has no handler for.
    let mut stop = StopSignals::listen()?;
    let calls = Calls::default();
    let found = tokio::select! {
        found = find_out(&config, &calls) => found?,
        () = stop.wait() => return Ok(()),
    };
    run_as(config, calls, found, stop).await
}

/// SIGTERM and SIGINT.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn listen() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => tracing::info!("SIGTERM"),
            _ = self.interrupt.recv() => tracing::info!("SIGINT"),
        }
    }
}

/// What must be asked or waited for before anything is done. Held while the daemon acts.
struct Found {
    imds: ImdsClient,
    ec2: Ec2Client,
    node: Node,
    lock: File,
}

async fn find_out(config: &Config, calls: &Calls) -> Result<Found> {
    let imds = ImdsClient::new(&config.cloud)?;
    let ec2 = Ec2Client::connect(&config.cloud, &imds, Arc::new(calls.clone())).await?;
    let node = boot::learn(&imds, &ec2).await?;
    tracing::info!(instance = %node.facts.instance_id, kind = node.facts.instance_type, address = %node.facts.local_ipv4, "node");
    // What a predecessor grants until it ends must be in the files when we read them.
    let lock = serve::take_over(&config.paths.socket).await?;
    Ok(Found { imds, ec2, node, lock })
}

async fn run_as(config: Config, calls: Calls, found: Found, stop: StopSignals) -> Result<()> {
    let Found { imds, ec2, node, lock } = found;
    // Subscribed before the first look, so that no change falls between.
    let monitor = Monitor::subscribe().context("cannot listen to the kernel")?;
    let mut socket = RouteSocket::open().context("cannot open a netlink socket")?;
    let vpc_cidrs = node.facts.vpc_cidrs.clone();
    apply_node(&mut socket, &node.datapath(&config, vpc_cidrs.clone())).context("cannot set up the node's rules")?;
    let core = boot::restore(&node, &config)?;

    let (inbox, queue) = owner::queue();
    let kernel = KernelExecutor::start(
        socket,
        node.subnets(),
        config.mtu,
        config.veth_prefix.clone(),
        inbox.clone(),
    )?;
    let writer = Writer::start(config.paths.clone(), inbox.clone())?;
    let tags = EniTags {
        instance: node.facts.instance_id.clone(),
        cluster: config.cluster_name.clone(),
        additional: config.additional_tags.clone(),
    };
    let ec2 = Ec2Executor::new(ec2, tags, node.facts.mac, inbox.clone());
    let owner = Owner::new(
        core,
        config.add_deadline,
        Executors::new(writer, kernel.clone(), ec2),
        Observer,
    );
    let owner = tokio::spawn(owner.run(queue));
    tokio::spawn(watch_kernel(monitor, inbox.clone()));

    let (ranges, vpc_cidrs) = watch::channel(vpc_cidrs);
    tokio::spawn(check_node(imds, node.clone(), config.clone(), kernel, ranges));
    let context = Context {
        inbox: inbox.clone(),
        calls,
        node: Arc::new(node_reply(&node, &config)),
        vpc_cidrs,
        requests: Arc::new(AtomicU64::new(1)),
    };
    let ended = serve_until_told(&config, context, stop).await;
    let last = async {
        inbox.send(Input::Shutdown).await;
        let _ = owner.await;
    };
    let _ = tokio::time::timeout(DRAIN, last).await;
    // The thread that writes the files may still be at work: the kernel unlocks when the process is gone.
    std::mem::forget(lock);
    ended
}

fn node_reply(node: &Node, config: &Config) -> NodeReply {
    NodeReply {
        network_policy_mode: config.network_policy_mode.clone(),
        external_snat: if config.snat == SnatPolicy::External {
            ExternalSnat::Yes
        } else {
            ExternalSnat::No
        },
        exclude_cidrs: config.exclude_cidrs.clone(),
        instance_id: node.facts.instance_id.to_string(),
        region: node.facts.region.clone(),
        address: node.facts.local_ipv4,
        rules: node.datapath(config, node.facts.vpc_cidrs.clone()),
    }
}

async fn serve_until_told(config: &Config, context: Context, mut told: StopSignals) -> Result<()> {
    let (listener, guard) = serve::bind(&config.paths.socket)?;
    let (stop, stopped) = watch::channel(false);
    if let Some(address) = config.health_address {
        tokio::spawn(serve::serve_health(address, context.inbox.clone(), stopped.clone()));
    }
    let server = tokio::spawn(serve::serve(listener, context, stopped));
    tracing::info!(socket = %config.paths.socket.display(), "serving");
    told.wait().await;
    // The file goes first: plugins that come now wait for the successor instead of being cut off.
    drop(guard);
    let _ = stop.send(true);
    match tokio::time::timeout(DRAIN, server).await {
        Ok(served) => served?.context("the gRPC server ended"),
        Err(_) => Ok(()),
    }
}

/// A source that breaks off is replaced, and everything is looked at again: notices were lost.
async fn watch_kernel(mut monitor: Monitor, inbox: Inbox) {
    while let Err(error) = monitor::run(monitor, inbox.clone()).await {
        tracing::error!(error = %observe::Chain(&error), "notices from the kernel broke off; subscribing again");
        monitor = loop {
            tokio::time::sleep(RESUBSCRIBE).await;
            if let Ok(fresh) = Monitor::subscribe() {
                break fresh;
            }
        };
        inbox.send(Input::Event(Event::KernelChanged)).await;
    }
}

/// ENIs that somebody made in other subnets: their masks and gateways are asked for once, ours are all in the primary's.
async fn learn_subnets(imds: &ImdsClient, kernel: &KernelExecutor) {
    match imds.enis().await {
        Ok(enis) => {
            for eni in enis {
                if let Some(range) = eni.subnet_cidr {
                    kernel.learn_subnet(eni.subnet, range);
                }
            }
        }
        Err(error) => tracing::warn!(error = %observe::Chain(&error), "ranges of other subnets not read"),
    }
}

/// Keeps the node's rules in line: the VPC may gain ranges, and other programs flush rules.
async fn check_node(
    imds: ImdsClient,
    node: Node,
    config: Config,
    kernel: KernelExecutor,
    ranges: watch::Sender<Vec<Ipv4Net>>,
) {
    learn_subnets(&imds, &kernel).await;
    loop {
        tokio::time::sleep(NODE_CHECK).await;
        match imds.vpc_cidrs(node.facts.mac).await {
            Ok(found) if !found.is_empty() => {
                ranges.send_if_modified(|known| {
                    let changed = *known != found;
                    known.clone_from(&found);
                    changed
                });
            }
            Ok(_) => tracing::warn!("IMDS shows no range of the VPC; keeping the known ones"),
            Err(error) => tracing::debug!(error = %observe::Chain(&error), "VPC ranges not read"),
        }
        let cidrs = ranges.borrow().clone();
        kernel.apply_node(node.datapath(&config, cidrs));
    }
}
