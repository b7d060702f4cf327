//! `vpc-sim up`: the whole VPC, in a sandbox, until it is told to end.

use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};
use vpc_fabric::sandbox::enter;
use vpc_fabric::{Entry, Privilege, Sandbox, SandboxConfig};
use vpc_sim::config::Config;
use vpc_sim::ctl::{self, Target};
use vpc_sim::vpc::{ENVIRONMENT_FILE, Vpc};

use super::{ConfigFile, StateDir, end_wanted, print_line, say};

/// Ending means closing sockets and dropping namespaces; whatever hangs longer is killed.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    instance: StateDir,
    /// Use a user namespace even as root
    #[arg(long)]
    user_namespace: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let config = options.config.load()?;
    // Complaints about the file come before anything is made.
    drop(config.build()?);
    let state_dir = options.instance.path();
    let ctl = ctl::bind(&state_dir).with_context(|| {
        format!(
            "a simulator runs for {} already; choose another --state-dir",
            state_dir.display()
        )
    })?;
    let supervisor = std::process::id();
    let privilege = if options.user_namespace {
        Privilege::UserNamespace
    } else {
        Privilege::Detect
    };
    match enter(&SandboxConfig {
        privilege,
        grace: GRACE,
    })
    .context("cannot make a sandbox")?
    {
        Entry::Ended(status) => Ok(ExitCode::from(status)),
        Entry::Inside(sandbox) => {
            let facts = json!({"pid": supervisor, "state_dir": state_dir});
            inside(&config, &sandbox, ctl, facts)
        }
    }
}

fn inside(config: &Config, sandbox: &Sandbox, ctl: UnixListener, facts: Value) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let vpc = Vpc::start(config, sandbox)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let target = Target {
        simulator: vpc.simulator().clone(),
        vpc: Some(vpc.handle().clone()),
    };
    runtime.block_on(async {
        // The handlers are in place before anybody is told that there is something to end.
        let mut end = std::pin::pin!(end_wanted());
        let poll = std::future::poll_fn(|context| std::task::Poll::Ready(end.as_mut().poll(context)));
        if poll.await.is_pending() {
            print_line(&ready(config, &vpc, facts).to_string());
            greet(config, &vpc, started.elapsed());
            tokio::select! {
                ended = &mut end => ended.context("cannot wait for signals")?,
                ended = ctl::serve(ctl, target) => ended.context("the ctl server ended")?,
            }
        }
        anyhow::Ok(())
    })?;
    for problem in vpc.handle().errors() {
        say(&format!("data plane: {problem}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything a program needs to use the VPC.
fn ready(config: &Config, vpc: &Vpc, mut facts: Value) -> Value {
    let nodes: Vec<_> = config
        .nodes
        .iter()
        .filter_map(|node| {
            let instance = vpc.handle().instance(&node.name)?;
            let address = primary_address(vpc, &node.name);
            let outside = vpc.node(&node.name)?.outside(std::path::Path::new("/run"));
            Some(json!({
                "name": node.name, "instance": instance.as_str(), "type": node.instance_type, "address": address,
                "pid": vpc.handle().thread_in(&node.name), "run_dir": outside,
                "environment": vpc.environment(&node.name),
            }))
        })
        .collect();
    let internet: Vec<_> = config
        .internet
        .iter()
        .map(|host| json!({"name": host.name, "addresses": host.addresses}))
        .collect();
    facts["ready"] = json!(true);
    facts["host_init_pid"] = json!(vpc.handle().host_init_pid());
    facts["ec2"] = json!(vpc.ec2_url());
    facts["imds"] = json!(vpc.imds_url());
    facts["kube"] = json!(vpc.kube_url());
    facts["nodes"] = json!(nodes);
    facts["internet"] = json!(internet);
    facts
}

fn primary_address(vpc: &Vpc, node: &str) -> Option<std::net::Ipv4Addr> {
    let instance = vpc.handle().instance(node)?;
    vpc.simulator().with_model(|model, _| {
        let primary = |eni: &&std::sync::Arc<vpc_sim::model::Eni>| {
            eni.attachment
                .as_ref()
                .is_some_and(vpc_sim::model::Attachment::is_primary)
        };
        model.enis_of(instance).find(primary).map(|eni| eni.primary)
    })
}

fn greet(config: &Config, vpc: &Vpc, took: Duration) {
    let cidrs: Vec<_> = config.vpc_cidrs.iter().map(ToString::to_string).collect();
    say(&format!(
        "VPC {} with {} subnets is up after {took:.1?}",
        cidrs.join(", "),
        config.subnets.len()
    ));
    for node in &config.nodes {
        let address = primary_address(vpc, &node.name)
            .map(|address| address.to_string())
            .unwrap_or_default();
        say(&format!("  {:<12} {:<12} {address}", node.name, node.instance_type));
    }
    for host in &config.internet {
        let addresses: Vec<_> = host.addresses.iter().map(ToString::to_string).collect();
        say(&format!(
            "  {:<12} {:<12} {}",
            host.name,
            "internet",
            addresses.join(", ")
        ));
    }
    say(&format!(
        "EC2 at {}, IMDS at {}, Kubernetes at {}, from within the nodes; variables: {ENVIRONMENT_FILE}",
        vpc.ec2_url(),
        vpc.imds_url(),
        vpc.kube_url()
    ));
    if let Some(node) = config.nodes.first() {
        say(&format!(
            "try: vpc-sim exec {} -- ip addr      vpc-sim ctl state      end: Ctrl-C",
            node.name
        ));
    }
}
