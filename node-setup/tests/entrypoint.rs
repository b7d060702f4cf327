//! The entrypoint from its variables to the daemon's end, on a host made of directories.

#![expect(clippy::unwrap_used, reason = "helpers of tests may unwrap like the tests")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use node_setup::entrypoint::{self, EntrypointError, Places};
use node_setup::sequence::{Health, Limits};
use node_setup::supervise::Daemon;

const LIMITS: Limits = Limits {
    health_pause: Duration::from_millis(5),
    health: Duration::from_secs(20),
    grace: Duration::from_millis(200),
};

/// What the daemon sees when it starts: is the plugin there, and is the list not? Then it serves for a while.
const DAEMON: &str =
    "test -x host/opt/cni/bin/aws-cni && test ! -e host/etc/cni/net.d/10-aws.conflist && echo in-order > order
: > serving; sleep 0.2; exit 9";

/// A program that was just written cannot be executed while a fork of another test still has it open.
static TURN: Mutex<()> = Mutex::new(());

struct Host {
    root: tempfile::TempDir,
    places: Places,
    _turn: MutexGuard<'static, ()>,
}

impl Host {
    fn new(daemon: &str) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let root = tempfile::tempdir().unwrap();
        for directory in ["app", "host/opt/cni/bin", "host/etc/cni/net.d"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        let app = root.path().join("app");
        let script = format!("#!/bin/sh\ncd {}\n{daemon}\n", root.path().display());
        let places = Places {
            plugins: vec![program(&app, "aws-cni", "plugin")],
            daemon: Daemon::in_directory(&app),
            list: app.join("10-aws.conflist"),
        };
        program(&app, "aws-k8s-agent", &script);
        Self {
            root,
            places,
            _turn: turn,
        }
    }

    fn run(&self, pairs: &[(&str, &str)]) -> (Result<u8, EntrypointError>, Vec<String>) {
        let mut environment: BTreeMap<String, String> = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        environment.insert("VPC_CNI_ROOT".to_owned(), self.root.path().display().to_string());
        let serving = self.root.path().join("serving");
        let health = async || {
            if serving.exists() {
                Health::Serving
            } else {
                Health::NotYet
            }
        };
        let mut said = Vec::new();
        let say = |text: &str| said.push(text.to_owned());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let ended = runtime.block_on(entrypoint::run(
            &environment,
            &self.places,
            LIMITS,
            health,
            || None,
            say,
        ));
        (ended, said)
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.root.path().join(name)).ok()
    }
}

fn program(directory: &Path, name: &str, content: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

const LIST: &str = "host/etc/cni/net.d/10-aws.conflist";

#[test]
fn plugins_daemon_and_list_come_in_this_order_and_the_daemons_status_is_the_end() {
    let host = Host::new(DAEMON);
    let (ended, said) = host.run(&[("POD_MTU", "1400"), ("ENABLE_BANDWIDTH_PLUGIN", "maybe")]);
    assert_eq!(ended.unwrap(), 9, "{said:?}");
    assert_eq!(host.read("order").as_deref(), Some("in-order\n"));
    assert!(host.read(LIST).unwrap().contains("\"mtu\": \"1400\""));
    assert!(said[0].starts_with("ENABLE_BANDWIDTH_PLUGIN"), "{said:?}");
    assert_eq!(said.last().map(String::as_str), Some("the node accepts pods"));
}

#[test]
fn the_operators_list_is_used_where_there_is_one() {
    let host = Host::new(DAEMON);
    fs::write(
        &host.places.list,
        r#"{"name":"mine","plugins":[{"type":"aws-cni","mtu":"__MTU__"}]}"#,
    )
    .unwrap();
    assert_eq!(host.run(&[]).0.unwrap(), 9);
    let list = host.read(LIST).unwrap();
    assert!(list.contains("\"mine\"") && list.contains("\"9001\""), "{list}");
}

#[test]
fn with_a_bad_variable_nothing_is_done_and_with_a_bad_list_the_node_accepts_no_pods() {
    let host = Host::new(DAEMON);
    let (ended, _) = host.run(&[("AWS_VPC_K8S_PLUGIN_LOG_FILE", "stdout"), ("POD_MTU", "1")]);
    assert!(matches!(ended, Err(EntrypointError::Settings(refused)) if refused.0.len() == 2));
    assert!(host.read("host/opt/cni/bin/aws-cni").is_none() && host.read("serving").is_none());

    drop(host);
    let host = Host::new(": > serving; exec sleep 30");
    fs::write(&host.places.list, "{").unwrap();
    let (ended, said) = host.run(&[]);
    assert_eq!((ended.unwrap(), host.read(LIST)), (1, None));
    assert!(said.iter().any(|text| text.contains("no valid JSON")), "{said:?}");
}
