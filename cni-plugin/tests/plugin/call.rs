//! One execution of the plugin, as a runtime does it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Seconds that an ADD or DEL may take in tests that want it to run out of time.
pub(crate) const SHORT: &str = "0.6";

/// Root of the node's files.
pub(crate) fn root() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A call to be made.
#[derive(Clone)]
pub(crate) struct Call {
    env: BTreeMap<&'static str, String>,
    stdin: String,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Call {
    /// `verb` for the container `id` of pod default/nginx.
    pub(crate) fn new(verb: &str, id: &str, root: &Path) -> Self {
        let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=nginx;K8S_POD_UID=u1;\
                    K8S_POD_INFRA_CONTAINER_ID=c";
        let env = [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", id),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/opt/cni/bin"),
            ("CNI_ARGS", args),
            ("VPC_CNI_ROOT", root.to_str().unwrap()),
        ];
        let conf = json!({"cniVersion": "0.4.0", "name": "aws-cni", "type": "aws-cni", "mtu": "9001",
            "pluginLogFile": "/var/log/aws-routed-eni/plugin.log", "pluginLogLevel": "DEBUG"});
        Self {
            env: env.map(|(name, value)| (name, value.to_owned())).into(),
            stdin: conf.to_string(),
        }
    }

    pub(crate) fn add(id: &str, root: &Path, netns: &Path) -> Self {
        Self::new("ADD", id, root).netns(netns)
    }

    pub(crate) fn del(id: &str, root: &Path) -> Self {
        Self::new("DEL", id, root)
    }

    pub(crate) fn netns(self, path: &Path) -> Self {
        self.var("CNI_NETNS", path.to_str().unwrap())
    }

    pub(crate) fn var(mut self, name: &'static str, value: &str) -> Self {
        self.env.insert(name, value.to_owned());
        self
    }

    pub(crate) fn without(mut self, name: &'static str) -> Self {
        self.env.remove(name);
        self
    }

    pub(crate) fn stdin(mut self, text: &str) -> Self {
        self.stdin = text.to_owned();
        self
    }

    pub(crate) fn conf(mut self, key: &str, value: impl Into<Value>) -> Self {
        let mut conf: Value = serde_json::from_str(&self.stdin).unwrap();
        conf[key] = value.into();
        self.stdin = conf.to_string();
        self
    }

    /// Hands back the result of an earlier ADD.
    pub(crate) fn prev(self, result: &Done) -> Self {
        let prev: Value = serde_json::from_str(&result.stdout).unwrap();
        self.conf("prevResult", prev)
    }

    /// Runs in the namespace of the calling thread.
    pub(crate) fn run(&self) -> Done {
        let mut child = Command::new(env!("CARGO_BIN_EXE_aws-cni"))
            .env_clear()
            .envs(&self.env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // VERSION does not read its input.
        let _ = child.stdin.take().unwrap().write_all(self.stdin.as_bytes());
        let output = child.wait_with_output().unwrap();
        Done {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Done {
    /// The result's text, once it is sure that there is one.
    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.status, Some(0), "{self:?}");
        self
    }

    /// Code and message of the error object, once it is sure that there is one and nothing else.
    #[track_caller]
    pub(crate) fn failed(&self) -> (u64, String) {
        assert_eq!(self.status, Some(1), "{self:?}");
        let object: Value = serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        let details = object["details"].as_str().unwrap_or_default();
        assert!(object.get("cniVersion").is_none(), "{self:?}");
        (
            object["code"].as_u64().unwrap(),
            format!("{} {details}", object["msg"].as_str().unwrap()),
        )
    }
}
