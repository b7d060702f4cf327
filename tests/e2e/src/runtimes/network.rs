//! The network configuration that a node's daemon installs, in the versions that callers can be given.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::runtime::Runtime;

/// Name of the network and of our plugin.
pub const NAME: &str = "aws-cni";
/// File name in the directory of configurations.
pub const FILE: &str = "10-aws.conflist";

/// Whether a caller runs CHECK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// It does.
    Enabled,
    /// As installed on nodes.
    Disabled,
}

/// The list as installed on nodes.
pub fn installed() -> Value {
    list(NAME, "0.4.0", Check::Disabled)
}

/// A list with our plugin alone.
pub fn list(name: &str, version: &str, check: Check) -> Value {
    let mut plugin = Runtime::config(None);
    if let Some(plugin) = plugin.as_object_mut() {
        // libcni sets both, to those of the list.
        plugin.remove("cniVersion");
        plugin.remove("name");
        plugin.insert(
            "capabilities".to_owned(),
            json!({"io.kubernetes.cri.pod-annotations": true}),
        );
    }
    json!({
        "cniVersion": version, "name": name, "disableCheck": check == Check::Disabled, "plugins": [plugin],
    })
}

/// Writes a list as the daemon's entrypoint does: complete or not at all.
pub fn install(directory: &Path, list: &Value) -> Result<()> {
    let (file, draft) = (directory.join(FILE), directory.join(".draft"));
    std::fs::write(&draft, format!("{list:#}")).with_context(|| format!("cannot write {}", draft.display()))?;
    std::fs::rename(&draft, &file).with_context(|| format!("cannot write {}", file.display()))
}
