//! Requests about the cluster: its objects, and its API server's reachability.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kube::objects::{self, PodFacts};
use crate::kube::{Kube, KubeError, Reach};

/// A request about the cluster. The same words are the command line of `vpc-sim ctl kube`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Subcommand)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum KubeRequest {
    /// Show the objects of a resource, or one of them.
    Get {
        /// For instance `pods`, `eniconfigs`.
        resource: String,
        /// One of them only.
        name: Option<String>,
        /// Its namespace, where there are such.
        #[arg(long, short, default_value = DEFAULT_NAMESPACE)]
        #[serde(default = "default_namespace")]
        namespace: String,
    },
    /// Create an object, or replace the one of its name.
    Apply {
        /// The object, in JSON.
        #[arg(value_parser = parse_json)]
        object: Value,
    },
    /// Create a pod object, or replace it.
    Pod {
        /// Its name.
        name: String,
        /// The node it was scheduled to.
        #[arg(long, default_value = "")]
        #[serde(default)]
        node: String,
        /// Its namespace.
        #[arg(long, short, default_value = DEFAULT_NAMESPACE)]
        #[serde(default = "default_namespace")]
        namespace: String,
        /// Its address.
        #[arg(long)]
        address: Option<Ipv4Addr>,
        /// A label, `NAME=VALUE`; may be given several times.
        #[arg(long = "label", value_name = "NAME=VALUE")]
        #[serde(default)]
        labels: Vec<String>,
    },
    /// Delete an object.
    Delete {
        /// Its resource.
        resource: String,
        /// Its name.
        name: String,
        /// Its namespace, where there are such.
        #[arg(long, short, default_value = DEFAULT_NAMESPACE)]
        #[serde(default = "default_namespace")]
        namespace: String,
    },
    /// Show requests by method and resource.
    Counts,
    /// Forget what happened so far: watches that begin before get 410.
    Forget,
    /// Refuse connections, and close those that are open.
    Refuse,
    /// Serve again.
    Serve,
    /// Answer that much later.
    Latency {
        /// Milliseconds.
        ms: u64,
    },
}

/// The namespace of those who name none.
const DEFAULT_NAMESPACE: &str = "default";

fn default_namespace() -> String {
    DEFAULT_NAMESPACE.to_owned()
}

fn parse_json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))
}

pub(super) fn apply(kube: &Kube, request: KubeRequest) -> Result<Value, KubeError> {
    match request {
        KubeRequest::Get {
            resource,
            name,
            namespace,
        } => match name {
            Some(name) => kube.get(&resource, &namespace, &name),
            None => kube.list(&resource).map(Value::Array),
        },
        KubeRequest::Apply { object } => kube.apply(object),
        KubeRequest::Pod {
            name,
            node,
            namespace,
            address,
            labels,
        } => kube.apply(objects::pod(&PodFacts {
            namespace,
            name,
            node,
            labels: pairs(&labels),
            address,
        })),
        KubeRequest::Delete {
            resource,
            name,
            namespace,
        } => done(kube.delete(&resource, &namespace, &name)),
        KubeRequest::Counts => Ok(json!(kube.counts())),
        KubeRequest::Forget => {
            kube.forget_history();
            Ok(Value::Null)
        }
        KubeRequest::Refuse => {
            kube.set_reach(Reach::Refusing);
            Ok(Value::Null)
        }
        KubeRequest::Serve => {
            kube.set_reach(Reach::Serving);
            Ok(Value::Null)
        }
        KubeRequest::Latency { ms } => {
            kube.set_latency(Duration::from_millis(ms));
            Ok(Value::Null)
        }
    }
}

fn done(result: Result<(), KubeError>) -> Result<Value, KubeError> {
    result.map(|()| Value::Null)
}

fn pairs(labels: &[String]) -> BTreeMap<String, String> {
    let pair = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        (name.to_owned(), value.to_owned())
    };
    labels.iter().map(pair).collect()
}
