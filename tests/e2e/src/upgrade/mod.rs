//! A node changes hands under load: from the reference to us, and back, while a thousand connections exchange bytes.
//!
//! Owns the reference's state of a node, the traffic and the judgement; cluster, runtime and nodes are the harness's.
//! Invariant: connections are made under the reference's state, never under ours, so what we take over is what it left.
//! Called by `vpc-upgrade` alone.

mod connections;
mod prober;
mod reference;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use vpc_fabric::NetnsRef;

use self::connections::{Plan, Traffic};
use self::prober::Probers;
use self::reference::{Site, Variant, run as run_in};
use crate::runtime::Pod;
use crate::scenarios::Bench;
use crate::scenarios::adoption::turn_into_the_references;
use crate::scenarios::runner::say;
use crate::scenarios::world::{NODE, OTHER, SOON, World, vpc_of};
use crate::wait;

/// Nine slots for pods on each of three ENIs: 25 pods fill more than two.
const INSTANCE_TYPE: &str = "m5.large";
const PODS_PER_NODE: usize = 25;
/// Everybody's echo server.
const PORT: u16 = 7007;
/// Node ports of a node's pods, in their order.
const NODE_PORTS: u16 = 30_000;
const VPC: &str = "10.0.0.0/16";

/// Where an answer does not come for this long, something was lost. A segment that is lost is sent again after 0.2 s, then after 0.4,
/// 0.8 and 1.6 s, so this is four losses in a row; on two busy cores a turn of the driver takes up to a second.
const STALL: Duration = Duration::from_secs(3);
/// Waiting for a thousand connections.
const ROUND: Duration = Duration::from_secs(20);
/// Exchanges of every connection after a change is complete: they follow each other by 0.2 s.
const AFTERWARDS: u64 = 5;

/// The whole test.
pub fn run(bench: &Bench) -> Result<()> {
    let mut world = World::start(bench, vpc_of(2, INSTANCE_TYPE), &[("sweep_grace", "2")], &[])?;
    let mut pods = world.add(NODE, "one", PODS_PER_NODE)?;
    pods.extend(world.add(OTHER, "two", PODS_PER_NODE)?);
    world.wait_for_carrier(&pods)?;
    world.wait_for_quiet()?;
    let elsewhere = pods.iter().filter(|pod| pod.device > 0).count();
    ensure!(
        elsewhere >= PODS_PER_NODE,
        "only {elsewhere} pods are on secondary ENIs"
    );
    say(&format!("{} pods, {elsewhere} of them on secondary ENIs", pods.len()));
    for variant in [Variant::Legacy, Variant::Nft, Variant::Native] {
        change_hands(&mut world, &pods, variant).with_context(|| format!("{variant:?}"))?;
    }
    lose_and_mend(&mut world, &pods)?;
    world.remove(&pods)?;
    world.finish()
}

/// Packets that the VPC dropped, for whatever reason: a wrong source, or none that the internet knows.
fn drops(world: &World) -> Result<u64> {
    Ok(world.cluster.vpc.handle().drop_totals()?.values().sum())
}

fn sites<'a>(world: &'a World, pods: &'a [Pod]) -> Result<Vec<Site<'a>>> {
    let of = |name: &str| Site::of(world.node(name)?, world.primary(name)?, pods);
    [NODE, OTHER].into_iter().map(of).collect()
}

/// From the reference to us and back, under load.
fn change_hands(world: &mut World, pods: &[Pod], variant: Variant) -> Result<()> {
    lay_the_ground(world, pods, variant)?;
    let (traffic, probers) = (start_traffic(world, pods)?, start_probers(world, pods)?);
    traffic.wait_for_all(2, ROUND)?;
    let dropped = drops(world)?;

    begin(&traffic, &probers);
    let started = Instant::now();
    world.cluster.start_daemons()?;
    wait_until_clean(world, pods)?;
    let took = started.elapsed();
    settle(&traffic, &probers)?;
    report(variant, "taken over", took, &traffic, &probers)?;
    let lost = drops(world)? - dropped;
    ensure!(lost == 0, "the VPC dropped {lost} packets while we took over");
    check_agreement(world, pods)?;
    check_marks(world)?;

    begin(&traffic, &probers);
    let started = Instant::now();
    give_back(world, pods, variant)?;
    let took = started.elapsed();
    settle(&traffic, &probers)?;
    report(variant, "given back", took, &traffic, &probers)?;

    check_marks(world)?;
    // Probers first: they need the servers.
    let connections = probers.end()?;
    let exchanges = traffic.end()?;
    say(&format!(
        "{variant:?}: {exchanges} exchanges compared, {connections} new connections, none failed"
    ));
    Ok(())
}

/// The proof that the judge can say no: without anybody's marks the same traffic is lost, and comes back with our daemon.
fn lose_and_mend(world: &mut World, pods: &[Pod]) -> Result<()> {
    lay_the_ground(world, pods, Variant::Nft)?;
    let traffic = start_traffic(world, pods)?;
    traffic.wait_for_all(2, ROUND)?;
    let before = drops(world)?;
    for site in sites(world, pods)? {
        // Only marks: without any chain of type nat the kernel would give up the translation of open connections.
        run_in(
            site.node,
            "iptables-nft -w -t mangle -F; iptables-legacy -w -t mangle -F",
        )?;
    }
    wait::until("packets are lost without marks", SOON, || {
        Ok((drops(world)? > before).then_some(()))
    })?;
    world.cluster.start_daemons()?;
    traffic.wait_for_all(AFTERWARDS, ROUND)?;
    traffic.end()?;
    let lost = drops(world)? - before;
    say(&format!(
        "without marks the VPC dropped {lost} packets, and ours mended it"
    ));
    Ok(())
}

/// The reference has wired the pods and keeps the node.
fn lay_the_ground(world: &mut World, pods: &[Pod], variant: Variant) -> Result<()> {
    stop_daemons(world)?;
    for name in [NODE, OTHER] {
        let of_node: Vec<Pod> = pods.iter().filter(|pod| pod.node == name).cloned().collect();
        turn_into_the_references(world, name, &of_node)?;
    }
    for site in sites(world, pods)? {
        for former in [Variant::Legacy, Variant::Nft] {
            site.wipe(former)?;
        }
        if variant == Variant::Nft {
            // A node that changed from one kind to the other keeps the rules of the first.
            site.start(Variant::Legacy, VPC)?;
        }
        site.start(variant, VPC)?;
        site.node_ports(variant, NODE_PORTS, PORT)?;
        if variant == Variant::Legacy {
            site.old_pod_rules(VPC)?;
        }
        let ours = run_in(site.node, "nft list ruleset")?;
        ensure!(!ours.contains("vpc-cidrs"), "our table is still there: {ours}");
    }
    Ok(())
}

fn stop_daemons(world: &mut World) -> Result<()> {
    for name in [NODE, OTHER] {
        let daemon = world.cluster.daemon(name)?;
        if daemon.child().is_some() {
            daemon.stop(Signal::SIGTERM)?;
        }
    }
    Ok(())
}

/// Our daemon goes, the reference comes, and then what only we use is cleaned up.
fn give_back(world: &mut World, pods: &[Pod], variant: Variant) -> Result<()> {
    for name in [NODE, OTHER] {
        let (status, answer) = ask(world, name, &["cleanup"])?;
        ensure!(status == Some(1), "a cleanup while the daemon runs: {answer:#}");
    }
    stop_daemons(world)?;
    for name in [NODE, OTHER] {
        let (status, answer) = ask(world, name, &["cleanup"])?;
        ensure!(status == Some(1), "a cleanup before the reference runs: {answer:#}");
    }
    for site in sites(world, pods)? {
        site.start(variant, VPC)?;
    }
    for name in [NODE, OTHER] {
        let (status, answer) = ask(world, name, &["cleanup"])?;
        ensure!(status == Some(0), "{answer:#}");
        let left = run_in(world.node(name)?, "nft list ruleset")?;
        ensure!(
            !left.contains("vpc-cidrs") && !left.contains("nat-postrouting"),
            "{left}"
        );
    }
    Ok(())
}

fn ask(world: &mut World, name: &str, arguments: &[&str]) -> Result<(Option<i32>, serde_json::Value)> {
    let cluster = &world.cluster;
    let daemon = cluster.daemons.get(name).context("nodes have daemons")?;
    daemon.ask_for_status(cluster.node(name)?, arguments)
}

fn wait_until_clean(world: &World, pods: &[Pod]) -> Result<()> {
    for site in sites(world, pods)? {
        let mut left = Vec::new();
        wait::until("the reference's rules are gone", SOON, || {
            left = site.leftovers()?;
            Ok(left.is_empty().then_some(()))
        })
        .with_context(|| format!("{left:#?}"))?;
    }
    Ok(())
}

/// What the daemon believes is what the kernel shows, and node ports are still there.
fn check_agreement(world: &mut World, pods: &[Pod]) -> Result<()> {
    for name in [NODE, OTHER] {
        wait::until("the audit agrees", SOON, || {
            let (status, answer) = ask(world, name, &["audit"])?;
            let text = format!("{answer:#}");
            let again = text.contains("\"incomplete\"") || text.contains("\"mismatch\"");
            ensure!(status == Some(0) || again, "{text}");
            Ok((status == Some(0)).then_some(()))
        })
        .with_context(|| format!("{:?}", ask(world, name, &["audit"])))?;
    }
    for site in sites(world, pods)? {
        let text = run_in(
            site.node,
            "iptables-nft-save 2>/dev/null; iptables-legacy-save 2>/dev/null",
        )?;
        // The daemon waits for a view of the kernel that shows the pods.
        wait::until("rules of an older release have become one per pod", SOON, || {
            let rules = run_in(site.node, "ip rule list priority 1536")?;
            Ok((!rules.contains(" to ")).then_some(()))
        })?;
        let kept = text.matches("-A KUBE-NODEPORTS").count();
        ensure!(kept >= PODS_PER_NODE, "{kept} rules of node ports are left");
    }
    Ok(())
}

/// Connections with the internet carry the mark by which their packets find the primary ENI.
fn check_marks(world: &World) -> Result<()> {
    let (_, outside) = internet(world)?;
    for name in [NODE, OTHER] {
        let table = run_in(world.node(name)?, "cat /proc/net/nf_conntrack")?;
        let open = table
            .lines()
            .filter(|line| line.contains("ESTABLISHED") && line.contains(&outside.to_string()));
        let (marked, others): (Vec<&str>, Vec<&str>) = open.partition(|line| line.contains("mark=128 "));
        ensure!(others.is_empty(), "{name}: without the mark: {others:#?}");
        ensure!(
            marked.len() >= 8 * PODS_PER_NODE,
            "{name}: {} connections have the mark",
            marked.len()
        );
    }
    Ok(())
}

fn begin(traffic: &Traffic, probers: &Probers) {
    traffic.begin();
    probers.begin();
}

fn settle(traffic: &Traffic, probers: &Probers) -> Result<()> {
    traffic.wait_for_all(AFTERWARDS, ROUND)?;
    traffic.check()?;
    probers.check()
}

fn report(variant: Variant, what: &str, took: Duration, traffic: &Traffic, probers: &Probers) -> Result<()> {
    let longest = traffic.longest();
    let worst = longest.values().max().copied().unwrap_or_default();
    let each: Vec<String> = longest
        .iter()
        .map(|(kind, longest)| format!("{kind} {}", longest.as_millis()))
        .collect();
    say(&format!(
        "{variant:?}: {what} in {:.1} s; longest exchange {} ms ({}); longest new connection {} ms",
        took.as_secs_f64(),
        worst.as_millis(),
        each.join(", "),
        probers.longest().as_millis(),
    ));
    ensure!(worst <= STALL, "{what}: a connection stood still for {worst:?}");
    ensure!(
        probers.longest() <= STALL,
        "{what}: a new connection took {:?}",
        probers.longest()
    );
    Ok(())
}

fn address(world: &World, name: &str) -> Result<Ipv4Addr> {
    world.primary(name)
}

fn internet(world: &World) -> Result<(NetnsRef, Ipv4Addr)> {
    let host = world.config.internet.first().context("there is an internet")?;
    let netns = world
        .cluster
        .vpc
        .handle()
        .internet_host(&host.name)
        .context("it has a host")?;
    Ok((netns, *host.addresses.first().context("it has an address")?))
}

/// Twenty connections per pod.
fn start_traffic(world: &World, pods: &[Pod]) -> Result<Traffic> {
    let (internet, outside) = internet(world)?;
    let mut servers: Vec<NetnsRef> = pods.iter().map(|pod| pod.netns.netns.clone()).collect();
    servers.push(internet.clone());
    let mut plans = Vec::new();
    for (node, other) in [(NODE, OTHER), (OTHER, NODE)] {
        let here: Vec<&Pod> = pods.iter().filter(|pod| pod.node == node).collect();
        let there: Vec<&Pod> = pods.iter().filter(|pod| pod.node == other).collect();
        let (host, other_host) = (world.node(node)?.netns(), world.node(other)?.netns());
        for (index, pod) in here.iter().enumerate() {
            let from = |kind, from: &NetnsRef, to: Ipv4Addr, port| Plan {
                kind,
                from: from.clone(),
                to: SocketAddrV4::new(to, port),
            };
            let mine = &pod.netns.netns;
            for step in 1..=3 {
                let neighbour = here[(index + step) % here.len()];
                let far = there[(index + step) % there.len()];
                plans.push(from("pod to pod of the node", mine, neighbour.address, PORT));
                plans.push(from("pod to pod elsewhere", mine, far.address, PORT));
                plans.push(from("host to pod", host, pod.address, PORT));
                plans.push(from("other host to pod", other_host, pod.address, PORT));
            }
            let node_port = NODE_PORTS + u16::try_from(index)?;
            for _ in 0..4 {
                plans.push(from("pod to internet", mine, outside, PORT));
                plans.push(from(
                    "internet to node port",
                    &internet,
                    address(world, node)?,
                    node_port,
                ));
            }
        }
    }
    ensure!(plans.len() == 1_000, "{} connections", plans.len());
    Traffic::start(&servers, PORT, &plans)
}

/// New connections of pods on the primary and on a secondary ENI.
fn start_probers(world: &World, pods: &[Pod]) -> Result<Probers> {
    let (internet, outside) = internet(world)?;
    let mut plans = Vec::new();
    for (node, other) in [(NODE, OTHER), (OTHER, NODE)] {
        let here: Vec<&Pod> = pods.iter().filter(|pod| pod.node == node).collect();
        let far = pods
            .iter()
            .find(|pod| pod.node == other)
            .context("there are pods elsewhere")?;
        let on = |device: fn(u32) -> bool| {
            let found = here.iter().enumerate().find(|(_, pod)| device(pod.device));
            found.context("pods are on all ENIs")
        };
        for (index, pod) in [on(|device| device == 0)?, on(|device| device > 0)?] {
            let mine = &pod.netns.netns;
            let node_port = NODE_PORTS + u16::try_from(index)?;
            let to = |kind, from: &NetnsRef, address, port| Plan {
                kind,
                from: from.clone(),
                to: SocketAddrV4::new(address, port),
            };
            plans.push(to("pod to internet", mine, outside, PORT));
            plans.push(to("pod to pod elsewhere", mine, far.address, PORT));
            plans.push(to("host to pod", world.node(node)?.netns(), pod.address, PORT));
            plans.push(to("internet to node port", &internet, address(world, node)?, node_port));
        }
    }
    Ok(Probers::start(plans))
}
