//! What the plugin cannot do: an error object with the right code that says what and why, and nothing left behind.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ipnet::Ipv4Net;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vpc_fabric::node::PodNetns;

use super::world::{NODE, SMALL, World, vpc_of};
use super::{Bench, Scenario};
use crate::kernel::KernelState;
use crate::runtime::{Identity, Runtime, netns_name};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "bad input gets an error object with its code and its culprit, and changes nothing",
        bad_input,
    ),
    Scenario::new(
        "an absent or hung daemon costs an ADD its deadline, and leaves nothing",
        no_daemon,
    ),
    Scenario::new(
        "an exhausted subnet refuses the pod with the reason in numbers, until an address is free",
        exhausted_subnet,
    ),
    Scenario::new(
        "a full node refuses the pod with the reason in numbers, until a pod goes",
        full_node,
    ),
];

/// CNI's number for what a plugin itself reports.
const INTERNAL: u64 = 999;
/// Seconds that a plugin waits for a daemon that does not answer.
const SHORT: &str = "0.8";

/// One ADD to be refused: how it differs from a good one, and what it gets.
struct Case {
    what: &'static str,
    /// Variables to set, or to leave out.
    variables: &'static [(&'static str, Option<&'static str>)],
    /// Instead of the good configuration.
    input: Option<Value>,
    code: u64,
    culprit: &'static str,
}

fn case(what: &'static str, code: u64, culprit: &'static str) -> Case {
    Case {
        what,
        variables: &[],
        input: None,
        code,
        culprit,
    }
}

/// Text is passed as it is; anything else as JSON.
fn cases() -> Vec<Case> {
    let mut unknown_version = Runtime::config(None);
    unknown_version["cniVersion"] = json!("9.9.9");
    let mut bad_prefix = Runtime::config(None);
    bad_prefix["vethPrefix"] = json!("toolong");
    vec![
        Case {
            input: Some(json!("{\"cniVersion\":")),
            ..case("malformed JSON", 6, "stdin")
        },
        Case {
            input: Some(json!("")),
            ..case("no configuration", 6, "stdin")
        },
        Case {
            input: Some(unknown_version),
            ..case("an unknown version", 1, "9.9.9")
        },
        Case {
            input: Some(bad_prefix),
            ..case("a prefix that is too long", INTERNAL, "vethPrefix")
        },
        Case {
            variables: &[("CNI_CONTAINERID", None), ("CNI_IFNAME", None)],
            ..case("missing variables", 4, "[CNI_CONTAINERID,CNI_IFNAME]")
        },
        Case {
            variables: &[("CNI_NETNS", None)],
            ..case("no namespace named", 4, "CNI_NETNS")
        },
        Case {
            variables: &[("CNI_COMMAND", Some("FROB"))],
            ..case("an unknown verb", 4, "FROB")
        },
        Case {
            variables: &[("CNI_IFNAME", Some("a-name-with-16-c"))],
            ..case("an over-long interface name", 4, "too long")
        },
        Case {
            variables: &[("CNI_NETNS", Some("/run/netns/none-such"))],
            ..case("a namespace that does not exist", 8, "/run/netns/none-such")
        },
        Case {
            variables: &[("CNI_ARGS", Some("K8S_POD_NAME"))],
            ..case("malformed CNI_ARGS", INTERNAL, "CNI_ARGS")
        },
    ]
}

/// A pod's namespace, and the ADD that the runtime would make for it.
struct Attempt {
    identity: Identity,
    netns: PodNetns,
    environment: BTreeMap<String, String>,
    node_before: KernelState,
    pod_before: KernelState,
}

impl Attempt {
    fn new(world: &World, name: &str) -> Result<Self> {
        let node = world.node(NODE)?;
        let identity = Identity::pod(name);
        let netns = node.add_pod_netns(&netns_name(&identity))?;
        Ok(Self {
            environment: Runtime::call_environment("ADD", &identity, &netns.path),
            node_before: KernelState::of(node)?,
            pod_before: KernelState::of_netns(&netns.netns)?,
            identity,
            netns,
        })
    }

    /// Makes the ADD, which must be refused with `code` and a message that has all of `words`.
    fn refused(&self, world: &World, input: &[u8], code: u64, words: &[&str]) -> Result<Duration> {
        let result = world
            .cluster
            .runtime
            .call(world.node(NODE)?, &self.environment, input)?;
        ensure!(
            result.code == Some(1),
            "exit status {:?}: {}",
            result.code,
            result.stdout
        );
        let (found, message) = result.error()?;
        ensure!(found == code, "expected code {code}, got {found}: {message}");
        for word in words {
            ensure!(result.stdout.contains(word), "{word:?} is not in {}", result.stdout);
        }
        let after = KernelState::of(world.node(NODE)?)?;
        ensure!(
            after == self.node_before,
            "left on the node:\n{}",
            after.difference(&self.node_before)
        );
        let after = KernelState::of_netns(&self.netns.netns)?;
        ensure!(
            after == self.pod_before,
            "left in the pod:\n{}",
            after.difference(&self.pod_before)
        );
        Ok(result.took)
    }

    /// The kubelet's clean-up.
    fn forget(self, world: &World) -> Result<()> {
        world.cluster.runtime.forget(world.node(NODE)?, &self.identity)?;
        Ok(())
    }
}

fn good_input() -> Vec<u8> {
    Runtime::config(None).to_string().into_bytes()
}

fn bad_input(bench: &Bench) -> Result<()> {
    let world = World::start(bench, vpc_of(1, SMALL), &[], &[])?;
    for case in cases() {
        let mut attempt = Attempt::new(&world, "bad")?;
        for (name, value) in case.variables {
            match value {
                Some(value) => attempt.environment.insert((*name).to_owned(), (*value).to_owned()),
                None => attempt.environment.remove(*name),
            };
        }
        let input = match &case.input {
            Some(Value::String(text)) => text.clone().into_bytes(),
            Some(value) => value.to_string().into_bytes(),
            None => good_input(),
        };
        attempt
            .refused(&world, &input, case.code, &[case.culprit])
            .context(case.what)?;
        attempt.forget(&world)?;
    }
    ensure!(world.leases(NODE)?.is_empty(), "a refused ADD holds a lease");
    world.finish()
}

fn no_daemon(bench: &Bench) -> Result<()> {
    let mut world = World::start(bench, vpc_of(1, SMALL), &[], &[])?;
    world.cluster.runtime.set("VPC_CNI_ADD_DEADLINE", SHORT);
    let limit = Duration::from_secs(3);
    let hung = Attempt::new(&world, "hung")?;
    world.signal(NODE, Signal::SIGSTOP)?;
    let took = hung.refused(&world, &good_input(), INTERNAL, &["ipamd", "did not answer within"])?;
    world.signal(NODE, Signal::SIGCONT)?;
    ensure!(took <= limit, "a hung daemon cost {took:?}");
    hung.forget(&world)?;
    world.wait_for_pool(NODE, "the abandoned ADD holds nothing", |pool| pool["assigned"] == 0)?;
    world.cluster.daemon(NODE)?.stop(Signal::SIGTERM)?;
    let absent = Attempt::new(&world, "absent")?;
    let took = absent.refused(&world, &good_input(), INTERNAL, &["ipamd.sock"])?;
    ensure!(took <= limit, "an absent daemon cost {took:?}");
    absent.forget(&world)?;
    world.cluster.start_daemon(NODE)?;
    // A daemon that comes within the deadline is waited for.
    world.cluster.daemon(NODE)?.stop(Signal::SIGKILL)?;
    world.cluster.runtime.set("VPC_CNI_ADD_DEADLINE", "20");
    let (node, identity) = (NODE.to_owned(), Identity::pod("waiting"));
    let cluster = &mut world.cluster;
    let place = cluster.vpc.node(&node).context("there is a node")?;
    let (runtime, daemon) = (&cluster.runtime, cluster.daemons.get_mut(&node));
    let daemon = daemon.context("there is a daemon")?;
    let added = std::thread::scope(|scope| {
        let adding = scope.spawn(|| runtime.add(place, &identity));
        crate::wait::pause(Duration::from_millis(500));
        daemon.start(place)?;
        adding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    world.remove(&[added])?;
    world.finish()
}

/// Tries until the pool's owner gives up, which is before the plugin does.
const GIVING_UP: &[(&str, &str)] = &[
    ("add_deadline", "2"),
    ("subnet_retry_starving", "0.5"),
    ("subnet_retry_refill", "1"),
];
/// What every refusal says to those who search for it.
const NO_ADDRESS: &str = "failed to assign an IP address to container";

fn exhausted_subnet(bench: &Bench) -> Result<()> {
    let mut config = vpc_of(1, SMALL);
    // Eleven usable addresses, one of them the node's own.
    config.subnets[0].cidr = Ipv4Net::new(config.subnets[0].cidr.network(), 28)?;
    // Others take all but three: the first ENI's fill.
    let taken = 7;
    let world = World::prepare(bench, config, GIVING_UP, &[])?;
    world.take_from_subnet(taken)?;
    refused_until_a_pod_goes(world, &["SUBNET_FULL", "3 addresses (3 assigned", "1 waiting"])
}

fn full_node(bench: &Bench) -> Result<()> {
    let world = World::prepare(bench, vpc_of(1, SMALL), GIVING_UP, &[("MAX_ENI", "1")])?;
    refused_until_a_pod_goes(world, &["ENI_LIMIT", "3 addresses (3 assigned", "on 1 of 1 ENIs"])
}

/// Three pods fill the node; a fourth is refused with these words.
fn refused_until_a_pod_goes(mut world: World, words: &[&str]) -> Result<()> {
    world.cluster.start_daemons()?;
    let pods = world.add(NODE, "pod", 3)?;
    let attempt = Attempt::new(&world, "refused")?;
    let words = [&[NO_ADDRESS], words].concat();
    attempt.refused(&world, &good_input(), INTERNAL, &words)?;
    attempt.forget(&world)?;
    world.remove(&pods[..1])?;
    let next = world.add_one(NODE, "next").context("an address is free again")?;
    ensure!(
        next.address == pods[0].address,
        "{} is not the freed address",
        next.address
    );
    world.remove(&pods[1..])?;
    world.remove(&[next])?;
    world.give_back_to_subnet()?;
    world.finish()
}
