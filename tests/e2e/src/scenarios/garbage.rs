//! The real plugin and daemon with bytes that no runtime should send: nothing breaks, nothing is left, nobody else is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cni_spec::{Document, LogTarget, NetConf};
use fuzz::corpus;
use fuzz::mutate::Mutator;
use serde_json::Value;

use super::world::{NODE, SOON, World, vpc_of};
use super::{Bench, Scenario};
use crate::kernel::KernelState;
use crate::runtime::{CallResult, Identity, Pod, Runtime, netns_name};
use crate::wait;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario::new(
    "whatever bytes the plugin is given, it answers, leaves nothing, and touches no other pod",
    garbage,
)
.within(120)];

/// Enough addresses for callers that come and go faster than addresses rest.
const ROOMY: (&str, &[(&str, &str)]) = (
    "m5.large",
    &[("ENABLE_PREFIX_DELEGATION", "true"), ("WARM_PREFIX_TARGET", "4")],
);
/// Inputs besides the committed ones.
const INPUTS: usize = 120;
/// A busy machine may take this long for them; then fewer are enough.
const TIME: Duration = Duration::from_secs(60);
const FEWEST: usize = 30;
const SEED: u64 = 4;
/// What the real program is not given: it is longer than an argument may be, and read in the tests of its parser.
const LONGEST: usize = 64 * 1024;

fn garbage(bench: &Bench) -> Result<()> {
    let world = World::start(bench, vpc_of(1, ROOMY.0), &[], ROOMY.1)?;
    world.wait_for_quiet()?;
    let baseline = KernelState::of(world.node(NODE)?)?;
    let others = world.add(NODE, "other", 2)?;
    let quiet = KernelState::of(world.node(NODE)?)?;
    let (configs, arguments) = inputs(&others[0])?;
    let started = Instant::now();
    let (mut done, mut granted) = (0, 0);
    for (config, arguments) in configs.iter().zip(arguments.iter().cycle()) {
        if started.elapsed() > TIME && done >= FEWEST {
            break;
        }
        let call = Call {
            world: &world,
            config,
            arguments,
            identity: Identity::pod(&format!("garbage-{done}")),
        };
        let added = call.check(&quiet).with_context(|| call.label())?;
        done += 1;
        granted += usize::from(added);
    }
    ensure!(granted >= 3, "only {granted} of {done} were granted: nothing is shown");
    ensure!(done - granted >= 3, "only {} of {done} were refused", done - granted);
    world.check_mesh(&others)?;
    world.remove(&others)?;
    drop(others);
    world.wait_for_kernel(NODE, &baseline)?;
    let leases = world.leases(NODE)?;
    ensure!(leases.is_empty(), "leases are left: {leases:?}");
    world.finish()
}

/// Configurations and `CNI_ARGS`. Some configurations hold the result of a living pod, for callers that are not that pod.
fn inputs(living: &Pod) -> Result<(Vec<Vec<u8>>, Vec<String>)> {
    let of = |target: &str| -> Result<Vec<Vec<u8>>> {
        let inputs = corpus::of(target).context("no corpus")?;
        Ok(inputs.into_iter().map(|(_, input)| input).collect())
    };
    let mut configs = of("stdin")?;
    configs.push(Runtime::config(None).to_string().into_bytes());
    configs.push(Runtime::config(Some(&living.result)).to_string().into_bytes());
    let pool = configs.clone();
    let mut mutator = Mutator::new(SEED, &[b"null", b"\"\"", b"{}", b"\xff", b"\"cniVersion\":\"1.1.0\""]);
    configs.extend((0..INPUTS).map(|_| mutator.next_input(&pool)));
    configs.retain(|config| config.len() <= LONGEST && writes_no_file(config));
    let mut arguments = of("cni-args")?;
    let pool = arguments.clone();
    arguments.extend((0..INPUTS).map(|_| mutator.next_input(&pool)));
    // A variable holds no NUL byte.
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).replace('\0', "");
    Ok((configs, arguments.iter().map(text).collect()))
}

/// The log file that a configuration names is written to: one with another name is none of the sandbox's.
fn writes_no_file(config: &[u8]) -> bool {
    match Document::parse(config).and_then(NetConf::from_document) {
        Ok(conf) => match conf.log_target {
            LogTarget::Stderr => true,
            LogTarget::File(path) => path.to_str() == Some("/var/log/aws-routed-eni/plugin.log"),
        },
        Err(_) => true,
    }
}

/// One sandbox with a disorderly runtime.
struct Call<'a> {
    world: &'a World,
    config: &'a [u8],
    arguments: &'a str,
    identity: Identity,
}

impl Call<'_> {
    fn label(&self) -> String {
        format!(
            "stdin {:?}, CNI_ARGS {:?}",
            String::from_utf8_lossy(self.config),
            self.arguments
        )
    }

    /// ADD, the verbs that only look, and DEL, with the same bytes. Whether the ADD was granted.
    fn check(&self, quiet: &KernelState) -> Result<bool> {
        let node = self.world.node(NODE)?;
        let name = netns_name(&self.identity);
        let netns = node.add_pod_netns(&name)?;
        let mut environment = Runtime::call_environment("ADD", &self.identity, &netns.path);
        // Every other one comes with proper arguments, so that what lies behind them is reached.
        if self.config.len() % 2 == 1 {
            environment.insert("CNI_ARGS".to_owned(), self.arguments.to_owned());
        }
        let added = self.call(&mut environment, "ADD")?;
        if !added {
            self.check_nothing_is_left(quiet)?;
        }
        self.call(&mut environment, "CHECK")?;
        self.call(&mut environment, "STATUS")?;
        if !self.call(&mut environment, "DEL")? && added {
            // A result that cannot be read is refused before anything is done; a runtime that has none left calls like this.
            let mut config: Value = serde_json::from_slice(self.config)?;
            let result = config.as_object_mut().and_then(|config| config.remove("prevResult"));
            ensure!(result.is_some(), "what an ADD was granted for a DEL refuses");
            let deleted = self.call_with(&mut environment, "DEL", config.to_string().as_bytes())?;
            ensure!(
                deleted,
                "what an ADD was granted for a DEL refuses without a result too"
            );
        }
        node.delete_pod_netns(&name)?;
        drop(netns);
        self.check_nothing_is_left(quiet)?;
        Ok(added)
    }

    /// Rules and veths as before. Routes go with their devices, and those a moment after the namespace of their other end.
    fn check_nothing_is_left(&self, quiet: &KernelState) -> Result<()> {
        let veths = |state: &KernelState| state.host_veths().cloned().collect::<BTreeSet<_>>();
        let mut now = KernelState::default();
        let waited = wait::until("rules and veths are as before", SOON, || {
            now = KernelState::of(self.world.node(NODE)?)?;
            Ok((now.rules == quiet.rules && veths(&now) == veths(quiet)).then_some(()))
        });
        waited.with_context(|| format!("something is left:\n{}", now.difference(quiet)))
    }

    /// Whether it succeeded. A failure must be the plugin's own answer.
    fn call(&self, environment: &mut BTreeMap<String, String>, verb: &str) -> Result<bool> {
        self.call_with(environment, verb, self.config)
    }

    fn call_with(&self, environment: &mut BTreeMap<String, String>, verb: &str, config: &[u8]) -> Result<bool> {
        environment.insert("CNI_COMMAND".to_owned(), verb.to_owned());
        let runtime = &self.world.cluster.runtime;
        let CallResult {
            code, stdout, stderr, ..
        } = runtime.call(self.world.node(NODE)?, environment, config)?;
        match code {
            Some(0) => Ok(true),
            Some(1) => {
                let answer: Value =
                    serde_json::from_str(&stdout).with_context(|| format!("{verb} answers {stdout:?}"))?;
                let text = answer["msg"].as_str().context("an error has a msg")?;
                ensure!(answer["code"].as_u64().is_some_and(|code| code > 0), "{answer}");
                ensure!(!text.contains("failed by a bug"), "{verb}: {text}");
                Ok(false)
            }
            other => anyhow::bail!("{verb} ends with {other:?}: {stdout}{stderr}"),
        }
    }
}
