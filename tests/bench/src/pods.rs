//! Pods of the contestants: each a namespace of its own, with what is needed to start its ADD and its DEL.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bench_floor::launch::{Job, Run};
use e2e::runtime::{Identity, Runtime, netns_name};
use e2e::wait;
use serde_json::{Value, json};
use vpc_fabric::Node;
use vpc_fabric::node::PodNetns;
use vpc_fabric::probe::Vantage;
use vpc_types::{IpamKey, PodName, VethPrefix, host_veth_name};

use crate::figures::Who;
use crate::machine::Programs;
use crate::world::{ROUTER, SOCKET, World};

/// Where inputs and outputs of plugins lie, on the node.
const FILES: &str = "/run/bench";
/// Plugins of the distribution's package.
pub(crate) const GO_PLUGINS: &str = "/usr/lib/cni";
/// For one answer to a ping.
const ANSWER: Duration = Duration::from_millis(200);
/// The kernel takes deleted namespaces apart in the background.
const TAKEN_APART: Duration = Duration::from_secs(60);

/// One pod of one contestant.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) who: Who,
    identity: Identity,
    netns: PodNetns,
}

impl Subject {
    fn make(world: &World, who: Who) -> Result<Self> {
        let node = node_of(world, who)?;
        let mut identity = Identity::pod("x");
        identity.pod = Some(("default".to_owned(), format!("pod-{}", &identity.container_id[..12])));
        let netns = node.add_pod_netns(&netns_name(&identity))?;
        std::fs::create_dir_all(node.outside(Path::new(FILES)))?;
        Ok(Self { who, identity, netns })
    }

    fn file(&self, kind: &str) -> String {
        format!("{FILES}/{}.{kind}", self.identity.container_id)
    }

    fn write(&self, node: &Node, kind: &str, value: &Value) -> Result<String> {
        let file = self.file(kind);
        std::fs::write(node.outside(Path::new(&file)), value.to_string())?;
        Ok(file)
    }

    /// What ADD printed.
    fn answer(&self, node: &Node) -> Result<String> {
        Ok(std::fs::read_to_string(node.outside(Path::new(&self.file("result"))))?)
    }

    /// How to start its ADD.
    pub(crate) fn add(&self, world: &World) -> Result<Job> {
        let node = node_of(world, self.who)?;
        let stdin = match self.who {
            Who::Ours => self.write(node, "add", &Runtime::config(None))?,
            Who::Go => self.write(node, "add", &go_config(None))?,
            Who::Floor => String::new(),
        };
        Ok(Job {
            stdin,
            stdout: self.file("result"),
            ..self.job("ADD", &world.programs)
        })
    }

    /// How to start its DEL, with the result of its ADD.
    pub(crate) fn del(&self, world: &World) -> Result<Job> {
        let node = node_of(world, self.who)?;
        let stdin = match self.who {
            Who::Floor => String::new(),
            who @ (Who::Ours | Who::Go) => {
                let result: Value = serde_json::from_str(&self.answer(node)?).context("the result of an ADD")?;
                let config = if who == Who::Ours {
                    Runtime::config(Some(&result))
                } else {
                    go_config(Some(&result))
                };
                self.write(node, "del", &config)?
            }
        };
        Ok(Job {
            stdin,
            stdout: self.file("end"),
            ..self.job("DEL", &world.programs)
        })
    }

    fn job(&self, verb: &str, programs: &Programs) -> Job {
        if self.who == Who::Floor {
            return Job {
                program: programs.floor.display().to_string(),
                args: self.floor_words(verb),
                ..Job::default()
            };
        }
        let environment = Runtime::call_environment(verb, &self.identity, &self.netns.path);
        let mut env: Vec<String> = environment
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let program = if self.who == Who::Go {
            env.push(format!("CNI_PATH={GO_PLUGINS}"));
            format!("{GO_PLUGINS}/ptp")
        } else {
            programs.plugin.display().to_string()
        };
        Job {
            program,
            env,
            ..Job::default()
        }
    }

    fn floor_words(&self, verb: &str) -> Vec<String> {
        let (namespace, name) = self.identity.pod.clone().unwrap_or_default();
        let id = &self.identity.container_id;
        let key = IpamKey::new("aws-cni", id, "eth0").expect("the parts are not empty");
        let pod = PodName::new(&namespace, &name);
        let veth = host_veth_name(&VethPrefix::default(), pod.as_ref(), &key);
        let netns = self.netns.path.display().to_string();
        [&verb.to_lowercase(), SOCKET, &namespace, &name, id, &netns, &veth]
            .map(str::to_owned)
            .to_vec()
    }

    /// Whether its ENI is the primary one, as its answer tells; `false` for the plugin in Go, which has no ENI.
    pub(crate) fn is_on_primary(&self, world: &World) -> Result<bool> {
        let answer = self.answer(node_of(world, self.who)?)?;
        Ok(match self.who {
            Who::Ours => serde_json::from_str::<Value>(&answer)?["interfaces"][1]["mac"] == "254",
            Who::Floor => answer.trim_end().ends_with(" 254"),
            Who::Go => false,
        })
    }

    /// A run that failed is an error with what the program printed.
    pub(crate) fn judge(&self, world: &World, verb: &str, run: Run) -> Result<Run> {
        if run.status == 0 {
            return Ok(run);
        }
        let node = node_of(world, self.who)?;
        let kind = if verb == "ADD" { "result" } else { "end" };
        let text = std::fs::read_to_string(node.outside(Path::new(&self.file(kind)))).unwrap_or_default();
        bail!("{verb} of {:?} ended with {}: {text}", self.who, run.status)
    }

    /// Its packets leave the node and answers come back: the floor has done all that it is timed for.
    pub(crate) fn check_wired(&self) -> Result<()> {
        let vantage = Vantage::new(&self.netns.netns).within(ANSWER);
        // The first packet through a new ENI may meet a device that is not up yet.
        wait::until("a pod reaches the subnet's router", TAKEN_APART, || {
            Ok(vantage.ping(&[ROUTER])?.first().copied().flatten().map(drop))
        })
        .with_context(|| format!("{:?}", self.who))
    }

    fn forget(self, world: &World) -> Result<()> {
        let node = node_of(world, self.who)?;
        for kind in ["add", "del", "result", "end"] {
            // Not all of them exist for every contestant.
            let _ = std::fs::remove_file(node.outside(Path::new(&self.file(kind))));
        }
        node.delete_pod_netns(&netns_name(&self.identity))?;
        Ok(())
    }
}

/// The node a contestant works on.
pub(crate) fn node_of(world: &World, who: Who) -> Result<&Node> {
    match who {
        Who::Ours | Who::Floor => world.node(),
        Who::Go => world.go_node(),
    }
}

/// So many pods of a contestant.
pub(crate) fn make(world: &World, who: Who, count: usize) -> Result<Vec<Subject>> {
    (0..count).map(|_| Subject::make(world, who)).collect()
}

/// Takes away the pods' namespaces, and waits until the kernel has removed their devices from our node. The other plugin's
/// devices go with its DEL.
pub(crate) fn forget(world: &World, subjects: Vec<Subject>) -> Result<()> {
    let own = subjects.iter().filter(|subject| subject.who != Who::Go).count();
    let goal = World::devices(world.node()?)?.saturating_sub(own);
    for subject in subjects {
        subject.forget(world)?;
    }
    wait::until("the kernel has removed the pods' devices", TAKEN_APART, || {
        Ok((World::devices(world.node()?)? <= goal).then_some(()))
    })
}

fn go_config(prev_result: Option<&Value>) -> Value {
    let mut config = json!({
        "cniVersion": "0.4.0", "name": "bench", "type": "ptp", "mtu": 9001,
        "ipam": {"type": "host-local", "dataDir": "/run/cni", "subnet": "10.200.0.0/16"},
    });
    if let Some(result) = prev_result {
        config["prevResult"] = result.clone();
    }
    config
}
