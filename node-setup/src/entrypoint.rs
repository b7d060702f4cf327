//! The entrypoint as a whole: variables, plugins, daemon, list.
//!
//! What only others know is handed in: whether the daemon serves, and the node's address of the family that pods do not have.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::conflist;
use crate::install::{self, Change};
use crate::sequence::{Health, Limits};
use crate::settings::{Refused, Settings};
use crate::supervise::{self, Daemon, Effects};

/// Where things are.
#[derive(Debug, Clone)]
pub struct Places {
    /// Plugins of ours that are copied to the host.
    pub plugins: Vec<PathBuf>,
    /// The daemon.
    pub daemon: Daemon,
    /// The operator's list; where there is no such file, ours is used.
    pub list: PathBuf,
}

/// The entrypoint did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum EntrypointError {
    /// A variable; nothing was done.
    #[error(transparent)]
    Settings(#[from] Refused),
    /// Signals cannot be listened for; nothing was done.
    #[error("listen for signals")]
    Signals(#[source] io::Error),
}

/// Runs to the daemon's end. The answer is the status to exit with.
pub async fn run(
    environment: &BTreeMap<String, String>,
    places: &Places,
    limits: Limits,
    health: impl AsyncFnMut() -> Health,
    node_address: impl FnMut() -> Option<IpAddr>,
    say: impl FnMut(&str),
) -> Result<u8, EntrypointError> {
    let mut node = Node {
        settings: Settings::from_environment(environment)?,
        places,
        health,
        node_address,
        say,
    };
    for warning in std::mem::take(&mut node.settings.warnings) {
        (node.say)(&warning.to_string());
    }
    supervise::run(&places.daemon, limits, &mut node)
        .await
        .map_err(EntrypointError::Signals)
}

struct Node<'a, H, A, S> {
    settings: Settings,
    places: &'a Places,
    health: H,
    node_address: A,
    say: S,
}

impl<H: AsyncFnMut() -> Health, A: FnMut() -> Option<IpAddr>, S: FnMut(&str)> Effects for Node<'_, H, A, S> {
    fn install(&mut self) -> Result<(), String> {
        let done = install::copy(&self.places.plugins, &self.settings.bin_dir).map_err(|error| chain(&error))?;
        for (path, _) in done.iter().filter(|(_, change)| *change == Change::Replaced) {
            self.say(&format!("installed {}", path.display()));
        }
        Ok(())
    }

    async fn ask_health(&mut self) -> Health {
        (self.health)().await
    }

    fn put_list(&mut self) -> Result<(), String> {
        let supplied = match fs::read_to_string(&self.places.list) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(format!("read {}: {error}", self.places.list.display())),
        };
        let address = (self.node_address)();
        let text = conflist::render(&self.settings, supplied.as_deref(), address).map_err(|error| chain(&error))?;
        match conflist::put(&self.settings.conf_dir, &text).map_err(|error| chain(&error))? {
            Change::Replaced => self.say("the node accepts pods"),
            Change::Unchanged => self.say("the node accepts pods, as before"),
        }
        Ok(())
    }

    fn say(&mut self, text: &str) {
        (self.say)(text);
    }
}

/// An error with its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
