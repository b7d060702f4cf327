//! Commands of others: libcni's `cnitool` and `grpcurl`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use vpc_fabric::Node;
use vpc_fabric::node::CommandSpec;

use super::containerd::{NETWORKS, PLUGINS};

/// Both answer in milliseconds; an ADD that waits for an address takes some seconds.
const DEADLINE: Duration = Duration::from_secs(30);
/// Where proto files are put, as the node sees it.
const PROTOS: &str = "/run/e2e/proto";

/// The health interface, and the interface of plugin and daemon.
const PROTO_FILES: [(&str, &str); 2] = [
    ("health.proto", include_str!("../../proto/health.proto")),
    ("rpc.proto", include_str!("../../../../proto/proto/rpc.proto")),
];

/// What a command gave.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Exit status; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it printed on stdout.
    pub stdout: String,
    /// What it printed on stderr.
    pub stderr: String,
}

impl Answer {
    /// The JSON on stdout of a command that succeeded.
    pub fn json(&self) -> Result<Value> {
        self.succeeded()?;
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON: {}", self.stdout))
    }

    /// An error unless it succeeded.
    pub fn succeeded(&self) -> Result<()> {
        anyhow::ensure!(self.code == Some(0), "{:?}: {}{}", self.code, self.stdout, self.stderr);
        Ok(())
    }

    fn of(node: &Node, command: &CommandSpec, input: &[u8]) -> Result<Self> {
        let output = node.output(command, input, DEADLINE)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Self {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        })
    }
}

/// `cnitool VERB NETWORK NETNS` with the node's configurations and plugins.
pub fn cnitool(node: &Node, program: &Path, verb: &str, network: &str, netns: &Path) -> Result<Answer> {
    let command = CommandSpec::new(program)
        .args([verb, network])
        .arg(netns)
        .env("NETCONFPATH", NETWORKS)
        .env("CNI_PATH", PLUGINS);
    Answer::of(node, &command, b"")
}

/// `grpcurl` in one node.
#[derive(Debug)]
pub struct Grpcurl<'a> {
    node: &'a Node,
    program: PathBuf,
}

/// Where a server listens.
#[derive(Debug, Clone, Copy)]
pub enum Server<'a> {
    /// On a Unix socket.
    Socket(&'a str),
    /// On host and port.
    Tcp(&'a str),
}

impl<'a> Grpcurl<'a> {
    /// Puts the proto files where it finds them.
    pub fn new(node: &'a Node, program: PathBuf) -> Result<Self> {
        let directory = node.outside(Path::new(PROTOS));
        std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        for (name, text) in PROTO_FILES {
            let file = directory.join(name);
            std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(Self { node, program })
    }

    /// Calls a method with a message in JSON.
    pub fn call(&self, server: Server<'_>, method: &str, message: &Value) -> Result<Answer> {
        self.run(&[], server, method, message)
    }

    /// The same; the output also has the metadata, so it is no JSON.
    pub fn call_with_metadata(&self, server: Server<'_>, method: &str, message: &Value) -> Result<Answer> {
        self.run(&["-v"], server, method, message)
    }

    fn run(&self, extra: &[&str], server: Server<'_>, method: &str, message: &Value) -> Result<Answer> {
        let (options, address): (&[&str], &str) = match server {
            Server::Socket(path) => (&["-unix"], path),
            Server::Tcp(address) => (&[], address),
        };
        let protos = PROTO_FILES.map(|(name, _)| ["-proto", name]);
        let command = CommandSpec::new(&self.program)
            .args(["-plaintext", "-max-time", "10", "-import-path", PROTOS])
            .args(protos.as_flattened())
            .args(options)
            .args(extra)
            // The message comes on stdin: an argument may have 128 KiB at most.
            .args(["-d", "@", address, method]);
        Answer::of(self.node, &command, message.to_string().as_bytes())
    }
}
