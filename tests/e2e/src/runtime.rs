//! The part of a container runtime: makes a pod's namespace, calls the plugin as libcni does, keeps the result for DEL.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use vpc_fabric::Node;
use vpc_fabric::node::{CommandSpec, PodNetns};

/// The kubelet's own limit for a sandbox is minutes; a plugin that takes this long hangs.
const DEADLINE: Duration = Duration::from_secs(60);

/// The table of pods on the primary ENI.
const MAIN: u32 = 254;

/// Where pods' namespaces are named.
const NETNS_DIR: &str = "/run/netns";

/// What a call of the plugin gave.
#[derive(Debug, Clone)]
pub struct CallResult {
    /// Exit status; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it printed on stdout.
    pub stdout: String,
    /// What it printed on stderr.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

impl CallResult {
    /// The JSON on stdout.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON: {:?} {:?}", self.stdout, self.stderr))
    }

    /// The CNI error's code and message.
    pub fn error(&self) -> Result<(u64, String)> {
        let json = self.json()?;
        let code = json["code"].as_u64().context("no error code")?;
        Ok((code, json["msg"].as_str().unwrap_or_default().to_owned()))
    }
}

/// Who a pod is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Kubernetes namespace and name; absent for runtimes without Kubernetes.
    pub pod: Option<(String, String)>,
    /// The runtime's id of the sandbox.
    pub container_id: String,
}

impl Identity {
    /// A Kubernetes pod in namespace `default` with a random container id.
    pub fn pod(name: &str) -> Self {
        Self {
            pod: Some(("default".to_owned(), name.to_owned())),
            container_id: random_id(),
        }
    }

    /// A container without a pod.
    pub fn container() -> Self {
        Self {
            pod: None,
            container_id: random_id(),
        }
    }

    /// `namespace/name`, or the container id.
    pub fn label(&self) -> String {
        self.pod.as_ref().map_or_else(
            || self.container_id.clone(),
            |(namespace, name)| format!("{namespace}/{name}"),
        )
    }

    fn cni_args(&self) -> String {
        let Some((namespace, name)) = &self.pod else {
            return "IgnoreUnknown=1".to_owned();
        };
        format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID=uid-{}",
            self.container_id, self.container_id
        )
    }
}

fn random_id() -> String {
    format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..))
}

/// A pod that got its address.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Who it is.
    pub identity: Identity,
    /// The node it runs on.
    pub node: String,
    /// Its namespace.
    pub netns: PodNetns,
    /// The result that the runtime caches.
    pub result: Value,
    /// Its address.
    pub address: Ipv4Addr,
    /// Slot of the ENI.
    pub device: u32,
    /// Route table, as carried in the result.
    pub table: u32,
    /// How long ADD took.
    pub took: Duration,
}

/// What a DEL is given.
#[derive(Debug, Clone, Copy, Default)]
pub struct LateDel<'a> {
    /// The cached result.
    pub result: Option<&'a Value>,
    /// What `CNI_NETNS` says.
    pub netns: NetnsPath,
}

/// What a late DEL says about the sandbox's namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NetnsPath {
    /// Its path, whether it is there or not.
    #[default]
    Named,
    /// Nothing: the runtime knows that it is gone.
    Empty,
}

/// Calls the plugin on one node.
#[derive(Debug, Clone)]
pub struct Runtime {
    plugin: PathBuf,
    /// A program with arguments that runs the plugin, instead of the plugin itself.
    wrapper: Vec<String>,
    environment: BTreeMap<String, String>,
}

impl Runtime {
    /// A runtime with this plugin.
    pub fn new(plugin: PathBuf) -> Self {
        Self {
            plugin,
            wrapper: Vec::new(),
            environment: BTreeMap::new(),
        }
    }

    /// The same with each call under another program, such as strace; `wrapper` is its path and its arguments.
    #[must_use]
    pub fn under(&self, wrapper: Vec<String>) -> Self {
        Self {
            wrapper,
            ..self.clone()
        }
    }

    /// Sets a variable for the plugin.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    /// The network configuration that the daemon installs, with what libcni adds for this plugin.
    pub fn config(prev_result: Option<&Value>) -> Value {
        let mut config = json!({
            "cniVersion": "0.4.0", "name": "aws-cni", "type": "aws-cni", "vethPrefix": "eni", "mtu": "9001",
            "podSGEnforcingMode": "strict", "pluginLogFile": "/var/log/aws-routed-eni/plugin.log",
            "pluginLogLevel": "DEBUG",
        });
        if let Some(result) = prev_result {
            config["prevResult"] = result.clone();
        }
        config
    }

    /// The variables of a call.
    pub fn call_environment(verb: &str, identity: &Identity, netns: &Path) -> BTreeMap<String, String> {
        let pairs = [
            ("CNI_COMMAND", verb.to_owned()),
            ("CNI_CONTAINERID", identity.container_id.clone()),
            ("CNI_NETNS", netns.display().to_string()),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_PATH", "/opt/cni/bin".to_owned()),
            ("CNI_ARGS", identity.cni_args()),
        ];
        pairs
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// Calls the plugin with exactly this environment and input.
    pub fn call(&self, node: &Node, environment: &BTreeMap<String, String>, input: &[u8]) -> Result<CallResult> {
        let command = match self.wrapper.as_slice() {
            [] => CommandSpec::new(&self.plugin),
            [program, arguments @ ..] => CommandSpec::new(program).args(arguments).arg(&self.plugin),
        };
        let command = command.envs(environment.iter()).envs(self.environment.iter());
        let started = Instant::now();
        let output = node.output(&command, input, DEADLINE)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(CallResult {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
            took: started.elapsed(),
        })
    }

    /// Makes the namespace and adds the pod; a refusal is an error with the plugin's message.
    pub fn add(&self, node: &Node, identity: &Identity) -> Result<Pod> {
        let netns = node.add_pod_netns(&netns_name(identity))?;
        let result = self.add_in(node, identity, &netns)?;
        pod_of(identity, node, netns, &result)
    }

    /// ADD in a namespace that is there.
    pub fn add_in(&self, node: &Node, identity: &Identity, netns: &PodNetns) -> Result<CallResult> {
        let environment = Self::call_environment("ADD", identity, &netns.path);
        self.call(node, &environment, Self::config(None).to_string().as_bytes())
    }

    /// DEL as it may come: with or without the cached result, with the path of a namespace that may be gone, or with none.
    pub fn del_late(&self, node: &Node, identity: &Identity, late: &LateDel<'_>) -> Result<CallResult> {
        let path = match late.netns {
            NetnsPath::Named => Path::new(NETNS_DIR).join(netns_name(identity)),
            NetnsPath::Empty => PathBuf::new(),
        };
        let environment = Self::call_environment("DEL", identity, &path);
        let result = self.call(node, &environment, Self::config(late.result).to_string().as_bytes())?;
        if result.code != Some(0) {
            bail!("DEL of {}: {}{}", identity.label(), result.stdout, result.stderr);
        }
        Ok(result)
    }

    /// DEL with the cached result, as the runtime does while the namespace is there.
    pub fn del(&self, node: &Node, pod: &Pod) -> Result<CallResult> {
        let environment = Self::call_environment("DEL", &pod.identity, &pod.netns.path);
        let result = self.call(
            node,
            &environment,
            Self::config(Some(&pod.result)).to_string().as_bytes(),
        )?;
        if result.code != Some(0) {
            bail!("DEL of {}: {}{}", pod.identity.label(), result.stdout, result.stderr);
        }
        Ok(result)
    }

    /// DEL, and then the end of the namespace.
    pub fn remove(&self, node: &Node, pod: &Pod) -> Result<CallResult> {
        let result = self.del(node, pod)?;
        node.delete_pod_netns(&netns_name(&pod.identity))?;
        Ok(result)
    }

    /// What the kubelet does about an ADD that failed: DEL without a result, and the end of the namespace if there is one.
    pub fn forget(&self, node: &Node, identity: &Identity) -> Result<CallResult> {
        let name = netns_name(identity);
        let environment = Self::call_environment("DEL", identity, &Path::new(NETNS_DIR).join(&name));
        let result = self.call(node, &environment, Self::config(None).to_string().as_bytes())?;
        if result.code != Some(0) {
            bail!("DEL of {}: {}{}", identity.label(), result.stdout, result.stderr);
        }
        node.delete_pod_netns(&name)?;
        Ok(result)
    }

    /// The namespace goes without a DEL.
    pub fn lose(&self, node: &Node, pod: &Pod) -> Result<()> {
        node.delete_pod_netns(&netns_name(&pod.identity))?;
        Ok(())
    }
}

/// Name of a sandbox's namespace.
pub fn netns_name(identity: &Identity) -> String {
    format!("cni-{}", identity.container_id)
}

/// The pod that a successful ADD made.
pub fn pod_of(identity: &Identity, node: &Node, netns: PodNetns, call: &CallResult) -> Result<Pod> {
    if call.code != Some(0) {
        bail!(
            "ADD of {} on {}: {}{}",
            identity.label(),
            node.name(),
            call.stdout,
            call.stderr
        );
    }
    let result = call.json()?;
    let address = result["ips"][0]["address"]
        .as_str()
        .and_then(|text| text.strip_suffix("/32"));
    let address = address
        .and_then(|text| text.parse().ok())
        .context("the result has no /32 address")?;
    let interfaces = result["interfaces"]
        .as_array()
        .context("the result has no interfaces")?;
    let number = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
    // For a container without a pod the result names the table with the host's end, and no device.
    let place = if identity.pod.is_some() { 1 } else { 0 };
    let table: u32 = interfaces
        .get(place)
        .and_then(|i| number(&i["mac"]))
        .context("the result carries no table")?;
    let device = match identity.pod {
        Some(_) => interfaces.last().and_then(|i| number(&i["sandbox"])),
        None => Some(if table == MAIN { 0 } else { table - 1 }),
    };
    let device = device.context("the result carries no device")?;
    Ok(Pod {
        identity: identity.clone(),
        node: node.name().to_owned(),
        netns,
        address,
        device,
        table,
        took: call.took,
        result,
    })
}
