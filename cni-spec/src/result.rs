//! The result of ADD in the form of each protocol version, and back.
//!
//! Only interfaces and addresses: this plugin never returns routes or DNS settings, and needs nothing else of an
//! earlier result. `dns` is always printed, because the Go library always does.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use serde_json::Value;

use crate::json::{FieldError, Fields};
use crate::version::{CniVersion, Shape};

/// What ADD made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CniResult {
    /// In the order that [`IpConfig::interface`] counts.
    pub interfaces: Vec<Interface>,
    /// Addresses.
    pub ips: Vec<IpConfig>,
}

/// One entry of `interfaces`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Name of the device.
    pub name: String,
    /// Link-layer address by the specification; see [`crate::carried`] for what it holds here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Path of the namespace; empty for the host's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
}

/// One entry of `ips`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpConfig {
    /// Index into `interfaces`.
    pub interface: Option<usize>,
    /// Address with prefix length.
    pub address: IpNet,
    /// Default gateway.
    pub gateway: Option<IpAddr>,
}

#[derive(Serialize)]
struct ListWire<'a> {
    #[serde(rename = "cniVersion")]
    cni_version: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    interfaces: &'a [Interface],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    ips: &'a [IpWire],
    dns: Empty,
}

#[derive(Serialize)]
struct IpWire {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<usize>,
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
}

#[derive(Serialize)]
struct FamilyWire {
    #[serde(rename = "cniVersion")]
    cni_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip4: Option<OneIpWire>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip6: Option<OneIpWire>,
    dns: Empty,
}

#[derive(Serialize)]
struct OneIpWire {
    ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
}

#[derive(Serialize)]
struct Empty {}

impl CniResult {
    /// The text for the runtime.
    pub fn encode(&self, version: CniVersion) -> String {
        let text = match version.shape() {
            Shape::Families => serde_json::to_string(&self.families(version)),
            Shape::Tagged | Shape::Plain => serde_json::to_string(&ListWire {
                cni_version: version.as_str(),
                interfaces: &self.interfaces,
                ips: &self.ips.iter().map(|ip| ip.wire(version.shape())).collect::<Vec<_>>(),
                dns: Empty {},
            }),
        };
        text.expect("strings and numbers always serialise")
    }

    /// Reads a result of that version. Unknown keys are ignored: chained plugins add theirs.
    pub(crate) fn decode(version: CniVersion, value: &Value) -> Result<Self, FieldError> {
        let fields = Fields::new(value, "prevResult")?;
        if version.shape() == Shape::Families {
            let ips = ["ip4", "ip6"]
                .into_iter()
                .filter_map(|key| fields.object(key).transpose());
            let ips = ips.map(|ip| IpConfig::decode(&ip?, "ip")).collect::<Result<_, _>>()?;
            return Ok(Self {
                interfaces: Vec::new(),
                ips,
            });
        }
        let interfaces = fields.objects("interfaces")?;
        let ips = fields.objects("ips")?;
        Ok(Self {
            interfaces: interfaces.iter().map(Interface::decode).collect::<Result<_, _>>()?,
            ips: ips
                .iter()
                .map(|ip| IpConfig::decode(ip, "address"))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The old form has room for the first address of each family and for nothing else.
    fn families(&self, version: CniVersion) -> FamilyWire {
        let first = |v4: bool| {
            let ip = self.ips.iter().find(|ip| matches!(ip.address, IpNet::V4(_)) == v4)?;
            Some(OneIpWire {
                ip: ip.address.to_string(),
                gateway: ip.gateway.map(|g| g.to_string()),
            })
        };
        FamilyWire {
            cni_version: version.as_str(),
            ip4: first(true),
            ip6: first(false),
            dns: Empty {},
        }
    }
}

impl Interface {
    fn decode(fields: &Fields<'_>) -> Result<Self, FieldError> {
        let text = |key| fields.text(key).map(|t| t.unwrap_or_default().to_owned());
        Ok(Self {
            name: text("name")?,
            mac: text("mac")?,
            sandbox: text("sandbox")?,
        })
    }
}

impl IpConfig {
    fn wire(&self, shape: Shape) -> IpWire {
        let family = match self.address {
            IpNet::V4(_) => "4",
            IpNet::V6(_) => "6",
        };
        IpWire {
            version: (shape == Shape::Tagged).then_some(family),
            interface: self.interface,
            address: self.address.to_string(),
            gateway: self.gateway.map(|g| g.to_string()),
        }
    }

    fn decode(fields: &Fields<'_>, key: &str) -> Result<Self, FieldError> {
        const EXPECTED: &str = "an address with prefix length";
        let address = fields
            .parsed(key, EXPECTED)?
            .ok_or_else(|| fields.missing(key, EXPECTED))?;
        // A negative index belongs to no interface.
        let interface = fields
            .integer("interface")?
            .and_then(|index| usize::try_from(index).ok());
        Ok(Self {
            interface,
            address,
            gateway: fields.parsed("gateway", "an address")?,
        })
    }
}
