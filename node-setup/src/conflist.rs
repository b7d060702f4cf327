//! The list of plugins that the runtime calls, `10-aws.conflist`. Pure, but for [`put`].
//!
//! A list is our own or one that the operator supplied, with the same placeholders. Every key of it is kept in its place.
//! Invariant: the list names a plugin only if that plugin has something to do, and nothing of the list is lost.

use std::net::IpAddr;
use std::path::Path;

use crate::install::{self, Change, InstallError};
use crate::json::Json;
use crate::settings::{Family, ListVersion, Settings, Switch};

/// Name of the file. The runtime takes the first of its directory; other network plugins begin with later letters.
pub const FILE: &str = "10-aws.conflist";
/// Others on the host may read it.
const MODE: u32 = 0o644;

/// Our own list, with all placeholders.
pub const TEMPLATE: &str = include_str!("10-aws.conflist");

/// The plugin for addresses of the other family.
const EGRESS: &str = "egress-cni";
/// What the operator's own list has in place of whether that plugin acts. Its other values would be a decision of theirs.
const EGRESS_ENABLED: [&str; 2] = ["__EGRESSPLUGINENABLED__", "__EGRESSV4PLUGINENABLED__"];

/// A list that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// No JSON.
    #[error("list of plugins: no valid JSON once the placeholders are filled")]
    Json(#[source] serde_json::Error),
    /// Something is missing or has another type.
    #[error("list of plugins: {0}")]
    Shape(&'static str),
    /// Egress is on, and the address that its SNAT needs is not known.
    #[error("egress for the other family needs the node's {0} address, and it has none")]
    NoNodeAddress(&'static str),
}

/// The list for these settings. `supplied` is the operator's own text, `node_address` the node's address of the family that
/// pods do not have.
pub fn render(settings: &Settings, supplied: Option<&str>, node_address: Option<IpAddr>) -> Result<String, ListError> {
    let egress = Egress::of(settings, node_address)?;
    let template = supplied.unwrap_or(TEMPLATE);
    let unfilled: Option<Json> = serde_json::from_str(template).ok();
    let mut list: Json = serde_json::from_str(&fill(template, settings, &egress)).map_err(ListError::Json)?;
    if let (Some(version), Json::Object(members)) = (settings.version, &mut list) {
        set_version(members, version);
    }
    if list.get("name").and_then(Json::as_text).is_none_or(str::is_empty) {
        return Err(ListError::Shape("`name` is missing"));
    }
    let idle = idle_egress(unfilled.as_ref(), egress.enabled);
    let Some(Json::List(plugins)) = list.get_mut("plugins") else {
        return Err(ListError::Shape("`plugins` is no list"));
    };
    let mut position = 0;
    plugins.retain(|_| {
        position += 1;
        !idle.contains(&(position - 1))
    });
    if plugins.is_empty() {
        return Err(ListError::Shape("`plugins` is empty"));
    }
    chain(plugins, settings);
    if plugins
        .iter()
        .any(|plugin| plugin.get("type").and_then(Json::as_text).is_none())
    {
        return Err(ListError::Shape("one of the `plugins` has no `type`"));
    }
    let text = serde_json::to_string_pretty(&list).expect("such values are always JSON");
    Ok(text + "\n")
}

/// Puts a list where the runtime looks: from then on the node accepts pods. Nothing is touched when it is there already.
pub fn put(directory: &Path, text: &str) -> Result<Change, InstallError> {
    install::replace(&directory.join(FILE), text.as_bytes(), MODE)
}

/// What egress-cni is told.
struct Egress {
    enabled: Switch,
    node_address: String,
    subnet: &'static str,
    destination: &'static str,
    directory: &'static str,
}

impl Egress {
    /// In a cluster with IPv4 pods egress needs a node with an IPv6 address, and is off elsewhere; a node without an IPv4
    /// address cannot be.
    fn of(settings: &Settings, node_address: Option<IpAddr>) -> Result<Self, ListError> {
        let (address, subnet, destination, directory) = match settings.family {
            Family::V6 => (
                node_address.filter(IpAddr::is_ipv4),
                "169.254.172.0/22",
                "0.0.0.0/0",
                "/run/cni/v6pd/egress-v4-ipam",
            ),
            Family::V4 => (
                node_address.filter(IpAddr::is_ipv6),
                "fd00::ac:00/118",
                "::/0",
                "/run/cni/v4pd/egress-v6-ipam",
            ),
        };
        let enabled = match (settings.egress, settings.family, address) {
            (Switch::On, Family::V6, None) => return Err(ListError::NoNodeAddress("IPv4")),
            (Switch::On, _, Some(_)) => Switch::On,
            (Switch::On, Family::V4, None) | (Switch::Off, _, _) => Switch::Off,
        };
        let address = address.filter(|_| enabled == Switch::On);
        Ok(Self {
            enabled,
            node_address: address.map(|address| address.to_string()).unwrap_or_default(),
            subnet,
            destination,
            directory,
        })
    }
}

/// Placeholders stand in the text, so that those outside quotes work as well.
fn fill(template: &str, settings: &Settings, egress: &Egress) -> String {
    let enabled = match egress.enabled {
        Switch::On => "true",
        Switch::Off => "false",
    };
    let mtu = settings.pod_mtu.to_string();
    let values = [
        ("__VETHPREFIX__", settings.veth_prefix.as_str()),
        ("__MTU__", &mtu),
        ("__PODSGENFORCINGMODE__", &settings.security_groups),
        ("__PLUGINLOGFILE__", &settings.plugin_log),
        ("__PLUGINLOGLEVEL__", &settings.plugin_log_level),
        (EGRESS_ENABLED[0], enabled),
        (EGRESS_ENABLED[1], enabled),
        ("__EGRESSPLUGINLOGFILE__", &settings.egress_log),
        ("__EGRESSV4PLUGINLOGFILE__", &settings.egress_log),
        ("__EGRESSPLUGINIPAMSUBNET__", egress.subnet),
        ("__EGRESSPLUGINIPAMDST__", egress.destination),
        ("__EGRESSPLUGINIPAMDATADIR__", egress.directory),
        ("__RANDOMIZESNAT__", &settings.random),
        ("__NODEIP__", &egress.node_address),
    ];
    let mut text = template.to_owned();
    for (placeholder, value) in values {
        let quoted = serde_json::to_string(value).expect("a text is always JSON");
        text = text.replace(placeholder, &quoted[1..quoted.len() - 1]);
    }
    text
}

fn set_version(members: &mut Vec<(String, Json)>, version: ListVersion) {
    const KEY: &str = "cniVersion";
    let value = Json::text(version.as_str());
    match members.iter_mut().find(|(key, _)| key == KEY) {
        Some((_, known)) => *known = value,
        None => members.insert(0, (KEY.to_owned(), value)),
    }
}

/// Positions of egress plugins that our variables switch off. One that the operator wrote out by hand stays.
fn idle_egress(unfilled: Option<&Json>, enabled: Switch) -> Vec<usize> {
    let Some(Json::List(plugins)) = unfilled.and_then(|list| list.get("plugins")) else {
        return Vec::new();
    };
    if enabled == Switch::On {
        return Vec::new();
    }
    let is_ours = |plugin: &Json| {
        let text = |key| plugin.get(key).and_then(Json::as_text);
        text("type") == Some(EGRESS) && text("enabled").is_some_and(|text| EGRESS_ENABLED.contains(&text))
    };
    let positions = plugins.iter().enumerate().filter(|(_, plugin)| is_ours(plugin));
    positions.map(|(position, _)| position).collect()
}

/// Appends what the variables ask for, unless the list has it.
fn chain(plugins: &mut Vec<Json>, settings: &Settings) {
    if settings.bandwidth == Switch::On {
        let capabilities = Json::object([("bandwidth", Json::Bool(true))]);
        add(
            plugins,
            Json::object([("type", Json::text("bandwidth")), ("capabilities", capabilities)]),
            |known| known.get("type").and_then(Json::as_text) == Some("bandwidth"),
        );
    }
    if settings.disable_pod_v6 == Switch::On {
        let off = |device| (format!("net.ipv6.conf.{device}.disable_ipv6"), Json::text("1"));
        let sysctl = Json::Object(["all", "default", "lo"].map(off).into());
        let tuning = Json::object([("type", Json::text("tuning")), ("sysctl", sysctl)]);
        let same = tuning.clone();
        add(plugins, tuning, |known| {
            known.get("type") == same.get("type") && known.get("sysctl") == same.get("sysctl")
        });
    }
}

fn add(plugins: &mut Vec<Json>, plugin: Json, is_it: impl Fn(&Json) -> bool) {
    if !plugins.iter().any(is_it) {
        plugins.push(plugin);
    }
}
