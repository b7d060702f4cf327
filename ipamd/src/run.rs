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
use datapath::{Monitor, NftEvents, RouteSocket, SnatPolicy, apply_node};
use ipam_core::{Event, Provisioning, ViewSource};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};

use crate::aborts;
use crate::boot::{self, Node};
use crate::config::Config;
use crate::data_plane::DataPlane;
use crate::exec::{Ec2Executor, Ec2Scope, EniTags, Executors, KernelExecutor, NodeState, Writer};
use crate::metadata::Metadata;
use crate::observe::{Calls, Observer};
use crate::owner::{self, Inbox, Input, Owner};
use crate::repair::{Disturbance, Repairs};
use crate::serve::{self, Context, ExternalSnat, NodeReply, PoolReply};
use crate::{monitor, observe, takeover};

/// Pause before a broken source of kernel notices is replaced.
const RESUBSCRIBE: Duration = Duration::from_secs(1);
/// The same for notices of rulesets, which a kernel may not have.
const RESUBSCRIBE_RULESETS: Duration = Duration::from_secs(30);
/// After this, open connections are cut: plugins find the socket gone and wait for our successor.
const DRAIN: Duration = Duration::from_millis(200);

/// Runs until SIGTERM or SIGINT.
pub async fn run(config: Config) -> Result<()> {
    aborts::end_the_process_on_panic(&config.paths);
    // Monitoring agents count these words: several within minutes mean a daemon that restarts again and again.
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "Starting L-IPAMD");
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
    let node = boot::learn(&imds, &ec2, config.pool.provisioning).await?;
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
    let rules = node.datapath(&config, vpc_cidrs.clone());
    let applied = apply_node(&mut socket, &rules).context("cannot set up the node's rules")?;
    takeover::start(config.paths.xtables_lock()).context("cannot start a thread")?;
    let core = boot::restore(&node, &config)?;

    let (inbox, queue) = owner::queue();
    let (unknown_subnet, repairs) = (Arc::new(Notify::new()), Repairs::default());
    let state = NodeState {
        config: rules,
        devices: applied.devices,
    };
    let data_plane = DataPlane::default();
    let kernel = KernelExecutor::start(
        socket,
        node.subnets(),
        state,
        inbox.clone(),
        Arc::clone(&unknown_subnet),
        data_plane.clone(),
        repairs.clone(),
    )?;
    let writer = Writer::start(config.paths.clone(), inbox.clone())?;
    let ec2 = ec2_executor(&config, &node, ec2, imds.clone(), inbox.clone()).teaching(kernel.clone());
    let owner = Owner::new(
        core,
        config.add_deadline,
        Executors::new(writer, kernel.clone(), ec2, repairs.clone()),
        Observer,
    );
    let owner = tokio::spawn(owner.run(queue));
    tokio::spawn(watch_kernel(monitor, config.mtu, inbox.clone(), repairs.clone()));
    tokio::spawn(watch_rulesets(repairs.clone()));
    tokio::spawn(repairs.clone().run(inbox.clone(), kernel.clone()));

    let (ranges, vpc_cidrs) = watch::channel(vpc_cidrs);
    let metadata = Metadata {
        imds,
        node: node.clone(),
        config: config.clone(),
        kernel,
        ranges,
        inbox: inbox.clone(),
        unknown_subnet,
    };
    tokio::spawn(metadata.run());
    let context = Context {
        inbox: inbox.clone(),
        calls,
        repairs,
        node: Arc::new(node_reply(&node, &config)),
        vpc_cidrs,
        data_plane,
        add_deadline: config.add_deadline,
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

fn ec2_executor(
    config: &Config,
    node: &Node,
    ec2: Ec2Client,
    imds: ImdsClient,
    inbox: Inbox,
) -> Ec2Executor<Ec2Client> {
    let tags = EniTags {
        instance: node.facts.instance_id.clone(),
        cluster: config.cluster_name.clone(),
        additional: config.additional_tags.clone(),
    };
    let scope = Ec2Scope {
        primary_mac: node.facts.mac,
        vpc: node.facts.vpc_id.clone(),
        zone: node.facts.az.clone(),
        untagged: config.pool.untagged,
        source: match config.pool.provisioning {
            Provisioning::ImdsOnly => ViewSource::Imds,
            Provisioning::Full | Provisioning::Disabled => ViewSource::Ec2,
        },
    };
    Ec2Executor::new(ec2, imds, tags, scope, inbox)
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
        pool: PoolReply::new(&node.core_config(config), &config.warnings),
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
async fn watch_kernel(mut monitor: Monitor, mtu: u16, inbox: Inbox, repairs: Repairs) {
    while let Err(error) = monitor::run(monitor, mtu, inbox.clone(), repairs.clone()).await {
        tracing::error!(error = %observe::Chain(&error), "notices from the kernel broke off; subscribing again");
        monitor = loop {
            tokio::time::sleep(RESUBSCRIBE).await;
            if let Ok(fresh) = Monitor::subscribe() {
                break fresh;
            }
        };
        repairs.wish(Disturbance::everything());
        inbox.send(Input::Event(Event::KernelChanged)).await;
    }
}

/// Without notices the table is still compared now and then, with the node's other rules.
async fn watch_rulesets(repairs: Repairs) {
    loop {
        let ended: Box<dyn std::error::Error + Send + Sync> = match NftEvents::subscribe() {
            Ok(events) => match monitor::run_rulesets(events, repairs.clone()).await {
                Ok(()) => return,
                Err(error) => error.into(),
            },
            Err(error) => error.into(),
        };
        tracing::warn!(error = %observe::Chain(ended.as_ref()), "no notices of changed rulesets; trying again");
        tokio::time::sleep(RESUBSCRIBE_RULESETS).await;
        repairs.wish_ruleset("unknown".to_owned());
    }
}
