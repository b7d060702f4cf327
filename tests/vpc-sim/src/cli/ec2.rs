//! `vpc-sim ec2`: the API alone.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::json;
use tokio::net::TcpListener;
use vpc_sim::config::{Built, Config};
use vpc_sim::ctl::{self, Target};
use vpc_sim::{Asker, Simulator};
use vpc_types::InstanceId;

use super::{ConfigFile, StateDir, end_wanted, print_line, say};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Where the EC2 API listens
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Where instance metadata listens, if it is wanted
    #[arg(long, value_name = "ADDRESS:PORT")]
    imds_listen: Option<SocketAddr>,
    /// Node name or instance id whose metadata is shown; the first node's without it
    #[arg(long, requires = "imds_listen", value_name = "NODE")]
    imds_instance: Option<String>,
    /// Where the Kubernetes API listens, if it is wanted
    #[arg(long, value_name = "ADDRESS:PORT")]
    kube_listen: Option<SocketAddr>,
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    instance: StateDir,
}

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let config = options.config.load()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(options, &config))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(options: &Options, config: &Config) -> anyhow::Result<()> {
    let built = config.build()?;
    let asker = asker(options, &built)?;
    let nodes: Vec<_> = built
        .nodes
        .iter()
        .map(|node| json!({"name": node.name, "instance": node.instance.as_str()}))
        .collect();
    let simulator = Simulator::of(built);
    let ec2 = listen(options.listen).await?;
    let ec2_at = ec2.local_addr()?;
    let imds = match options.imds_listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let kube = match options.kube_listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let kube_at = kube.as_ref().map(TcpListener::local_addr).transpose()?;
    let imds_at = imds.as_ref().map(TcpListener::local_addr).transpose()?;
    let state_dir = options.instance.path();
    let ctl = ctl::bind(&state_dir)
        .inspect_err(|_| {
            say(&format!(
                "another simulator runs for {}: no ctl for this one",
                state_dir.display()
            ))
        })
        .ok();
    let imds_url = imds_at.map(|at| format!("http://{at}"));
    print_line(
        &json!({
            "ready": true, "pid": std::process::id(), "ec2": format!("http://{ec2_at}"), "imds": imds_url,
            "kube": kube_at.map(|at| format!("http://{at}")),
            "state_dir": ctl.as_ref().map(|_| state_dir.display().to_string()), "nodes": nodes,
        })
        .to_string(),
    );
    say(&format!(
        "EC2 API at http://{ec2_at}; try: aws ec2 describe-instances --endpoint-url http://{ec2_at}"
    ));
    let target = Target {
        simulator: simulator.clone(),
        vpc: None,
    };
    tokio::select! {
        ended = end_wanted() => ended.context("cannot wait for signals"),
        ended = simulator.serve_ec2(ec2) => ended.context("the EC2 server ended"),
        ended = serve_or_wait(imds.map(|imds| simulator.serve_imds(imds, asker))) => ended.context("IMDS ended"),
        ended = serve_or_wait(kube.map(|kube| simulator.kube().serve(kube))) => ended.context("the Kubernetes API ended"),
        ended = serve_or_wait(ctl.map(|ctl| ctl::serve(ctl, target))) => ended.context("the ctl server ended"),
        () = forget_changes(&simulator) => Ok(()),
    }
}

fn asker(options: &Options, built: &Built) -> anyhow::Result<Asker> {
    let first = || built.nodes.first().map(|node| node.instance.clone());
    let found = match &options.imds_instance {
        None => first(),
        Some(name) => built
            .nodes
            .iter()
            .find(|node| node.name == *name)
            .map(|node| node.instance.clone())
            .or_else(|| {
                InstanceId::parse(name)
                    .ok()
                    .filter(|id| built.model.instance(id).is_some())
            }),
    };
    match (found, &options.imds_listen) {
        (Some(instance), _) => Ok(Asker::Fixed(instance)),
        (None, None) => Ok(Asker::ByAddress),
        (None, Some(_)) => anyhow::bail!("--imds-instance: the configuration has no such node"),
    }
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))
}

async fn serve_or_wait(server: Option<impl Future<Output = std::io::Result<()>>>) -> std::io::Result<()> {
    match server {
        Some(server) => server.await,
        None => std::future::pending().await,
    }
}

/// There is no data plane to tell, and the model would keep the changes for it.
async fn forget_changes(simulator: &Simulator) {
    loop {
        drop(simulator.next_changes().await);
    }
}
