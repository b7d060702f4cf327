//! The calls that change something.

use std::collections::BTreeMap;

use ipnet::Ipv6Net;
use vpc_types::{DeviceNumber, NetworkCard, Prefix28};

use super::super::params::Params;
use super::{Decode, require_id, take_ids};
use crate::model::request::{
    AssignIpv6Addresses, AssignPrivateIpAddresses, AttachNetworkInterface, CreateNetworkInterface, CreateTags,
    DeleteNetworkInterface, DetachMode, DetachNetworkInterface, EniAttribute, Ipv4Request, Ipv6Request,
    ModifyNetworkInterfaceAttribute, Reassignment, UnassignIpv6Addresses, UnassignPrivateIpAddresses,
};
use crate::model::{Ec2Error, InterfaceType, OnTermination, SourceDestCheck};

impl Decode for CreateNetworkInterface {
    fn decode(params: &mut Params) -> Result<Self, Ec2Error> {
        params.ignore(&["ConnectionTrackingSpecification", "EnablePrimaryIpv6", "Operator"]);
        let (primary, named) = created_addresses(params)?;
        let prefixes = prefixes_in(params, "Ipv4Prefix", ".Ipv4Prefix")?;
        let ipv4 = one_ipv4(params, named, prefixes)?;
        let interface_type = params.take("InterfaceType").map(|text| {
            InterfaceType::parse(&text).ok_or_else(|| Ec2Error::value(format!("Invalid interface type {text}")))
        });
        Ok(Self {
            subnet: require_id(params, "SubnetId")?,
            description: params.take("Description").unwrap_or_default(),
            groups: take_ids(params, "SecurityGroupId")?,
            primary,
            ipv4,
            ipv6: created_ipv6(params)?,
            interface_type: interface_type.transpose()?.unwrap_or(InterfaceType::Interface),
            tags: tag_specifications(params)?,
            client_token: params.take("ClientToken"),
        })
    }
}

type NamedAddresses = (Option<std::net::Ipv4Addr>, Vec<std::net::Ipv4Addr>);

/// `PrivateIpAddress`, or the list in which one may be marked as primary.
fn created_addresses(params: &mut Params) -> Result<NamedAddresses, Ec2Error> {
    let mut primary = params.take_parsed("PrivateIpAddress")?;
    let mut secondary = Vec::new();
    for number in params.numbers("PrivateIpAddresses") {
        let key = format!("PrivateIpAddresses.{number}");
        let address = params
            .take_parsed(&format!("{key}.PrivateIpAddress"))?
            .ok_or_else(|| Ec2Error::missing(&format!("{key}.PrivateIpAddress")))?;
        if params.take_flag(&format!("{key}.Primary"))? != Some(true) {
            secondary.push(address);
        } else if primary.replace(address).is_some() {
            return Err(Ec2Error::combination(
                "Only one primary private IP address can be specified.",
            ));
        }
    }
    Ok((primary, secondary))
}

fn created_ipv6(params: &mut Params) -> Result<Option<Ipv6Request>, Ec2Error> {
    let mut addresses = Vec::new();
    for number in params.numbers("Ipv6Addresses") {
        addresses.extend(params.take_parsed::<std::net::Ipv6Addr>(&format!("Ipv6Addresses.{number}.Ipv6Address"))?);
        params.ignore(&[format!("Ipv6Addresses.{number}").as_str()]);
    }
    let mut prefixes: Vec<Ipv6Net> = Vec::new();
    for number in params.numbers("Ipv6Prefix") {
        prefixes.extend(params.take_parsed::<Ipv6Net>(&format!("Ipv6Prefix.{number}.Ipv6Prefix"))?);
    }
    one_ipv6(params, addresses, prefixes)
}

/// `Ipv4Prefix.N` is a structure in creates and a scalar in assigns; `field` is what comes after the number.
fn prefixes_in(params: &mut Params, name: &str, field: &str) -> Result<Vec<Prefix28>, Ec2Error> {
    let mut prefixes = Vec::new();
    for number in params.numbers(name) {
        let key = format!("{name}.{number}{field}");
        let text = params.require(&key)?;
        let prefix = text.parse().ok().and_then(|net| Prefix28::new(net).ok());
        prefixes
            .push(prefix.ok_or_else(|| Ec2Error::value(format!("Value ({text}) for parameter {key} is invalid.")))?);
    }
    Ok(prefixes)
}

/// EC2 takes one way of asking for addresses per call.
fn exactly_one<T>(wanted: Vec<Option<T>>) -> Result<Option<T>, Ec2Error> {
    let mut given: Vec<_> = wanted.into_iter().flatten().collect();
    if given.len() > 1 {
        return Err(Ec2Error::combination(
            "The parameters for addresses and prefixes cannot be used together",
        ));
    }
    Ok(given.pop())
}

fn unless_empty<I, T>(list: Vec<I>, make: fn(Vec<I>) -> T) -> Option<T> {
    (!list.is_empty()).then(|| make(list))
}

fn one_ipv4(
    params: &mut Params,
    addresses: Vec<std::net::Ipv4Addr>,
    prefixes: Vec<Prefix28>,
) -> Result<Option<Ipv4Request>, Ec2Error> {
    // A count of zero means nothing is wanted, as the SDKs send it.
    let count = params
        .take_parsed("SecondaryPrivateIpAddressCount")?
        .filter(|count| *count > 0);
    let prefix_count = params.take_parsed("Ipv4PrefixCount")?.filter(|count| *count > 0);
    exactly_one(vec![
        count.map(Ipv4Request::Count),
        prefix_count.map(Ipv4Request::PrefixCount),
        unless_empty(addresses, Ipv4Request::Addresses),
        unless_empty(prefixes, Ipv4Request::Prefixes),
    ])
}

fn one_ipv6(
    params: &mut Params,
    addresses: Vec<std::net::Ipv6Addr>,
    prefixes: Vec<Ipv6Net>,
) -> Result<Option<Ipv6Request>, Ec2Error> {
    let count = params.take_parsed("Ipv6AddressCount")?.filter(|count| *count > 0);
    let prefix_count = params.take_parsed("Ipv6PrefixCount")?.filter(|count| *count > 0);
    exactly_one(vec![
        count.map(Ipv6Request::Count),
        prefix_count.map(Ipv6Request::PrefixCount),
        unless_empty(addresses, Ipv6Request::Addresses),
        unless_empty(prefixes, Ipv6Request::Prefixes),
    ])
}

fn tags(params: &mut Params, name: &str) -> Result<BTreeMap<String, String>, Ec2Error> {
    let mut tags = BTreeMap::new();
    for number in params.numbers(name) {
        let key = params.require(&format!("{name}.{number}.Key"))?;
        tags.insert(key, params.take(&format!("{name}.{number}.Value")).unwrap_or_default());
    }
    Ok(tags)
}

fn tag_specifications(params: &mut Params) -> Result<BTreeMap<String, String>, Ec2Error> {
    let mut all = BTreeMap::new();
    for number in params.numbers("TagSpecification") {
        let key = format!("TagSpecification.{number}");
        let kind = params.require(&format!("{key}.ResourceType"))?;
        if kind != "network-interface" {
            return Err(Ec2Error::value(format!(
                "'{kind}' is not a valid taggable resource type for this operation."
            )));
        }
        all.extend(tags(params, &format!("{key}.Tag"))?);
    }
    Ok(all)
}

impl Decode for AttachNetworkInterface {
    fn decode(params: &mut Params) -> Result<Self, Ec2Error> {
        params.ignore(&["EnaQueueCount", "EnaSrdSpecification"]);
        Ok(Self {
            eni: require_id(params, "NetworkInterfaceId")?,
            instance: require_id(params, "InstanceId")?,
            device: DeviceNumber(
                params
                    .take_parsed("DeviceIndex")?
                    .ok_or_else(|| Ec2Error::missing("deviceIndex"))?,
            ),
            card: params.take_parsed("NetworkCardIndex")?.map(NetworkCard),
        })
    }
}

impl Decode for DetachNetworkInterface {
    fn decode(params: &mut Params) -> Result<Self, Ec2Error> {
        let mode = if params.take_flag("Force")? == Some(true) {
            DetachMode::Force
        } else {
            DetachMode::Orderly
        };
        Ok(Self {
            attachment: require_id(params, "AttachmentId")?,
            mode,
        })
    }
}

impl Decode for DeleteNetworkInterface {
    fn decode(params: &mut Params) -> Result<Self, Ec2Error> {
        Ok(Self {
            eni: require_id(params, "NetworkInterfaceId")?,
        })
    }
}

impl Decode for ModifyNetworkInterfaceAttribute {
    fn decode(params: &mut Params) -> Result<Self, Ec2Error> {
        params.ignore(&["ConnectionTrackingSpecification", "EnablePrimaryIpv6"]);
        let eni = require_id(params, "NetworkInterfaceId")?;
        let on_termination = match params.take_flag("Attachment.DeleteOnTermination")? {
            Some(delete) => {
                let kind = if delete {
                    OnTermination::Delete
                } else {
                    OnTermination::Keep
                };
                Some(EniAttribute::OnTermination(
                    require_id(params, "Attachment.AttachmentId")?,
                    kind,
                ))
            }
            None => None,
        };
        let groups = unless_empty(take_ids(params, "SecurityGroupId")?, EniAttribute::Groups);
        let check = params
            .take_flag("SourceDestCheck.Value")?
            .map(|on| EniAttribute::SourceDestCheck(if on { SourceDestCheck::On } else { SourceDestCheck::Off }));
        let description = params.take("Description.Value").map(EniAttribute::Description);
        let attribute = exactly_one(vec![on_termination, groups, check, description])
            .map_err(|_| Ec2Error::combination("Fields for multiple attribute types specified"))?
            .ok_or_else(|| Ec2Error::combination("No attributes specified."))?;
        Ok(Self { eni, attribute })
    }
}

impl Decode for AssignPrivateIpAddresses {
    fn decode(params: &mut Params) -> Result<Self, Ec2Error> {
        let addresses = params.take_parsed_list("PrivateIpAddress")?;
        let prefixes = prefixes_in(params, "Ipv4Prefix", "")?;
        let wanted = one_ipv4(params, addresses, prefixes)?
            .ok_or_else(|| Ec2Error::missing("secondaryPrivateIpAddressCount"))?;
        let allowed = params.take_flag("AllowReassignment")? == Some(true);
        let reassignment = if allowed {
            Reassignment::Allowed
        } else {
            Reassignment::Refused
        };
        Ok(Self {
            eni: require_id(params, "NetworkInterfaceId")?,
            wanted,
            reassignment,
        })
    }
}

impl Decode for UnassignPrivateIpAddresses {
    fn decode(params: &mut Params) -> Result<Self, Ec2Error> {
        Ok(Self {
            eni: require_id(params, "NetworkInterfaceId")?,
            addresses: params.take_parsed_list("PrivateIpAddress")?,
            prefixes: prefixes_in(params, "Ipv4Prefix", "")?,
        })
    }
}

impl Decode for AssignIpv6Addresses {
    fn decode(params: &mut Params) -> Result<Self, Ec2Error> {
        let addresses = params.take_parsed_list("Ipv6Addresses")?;
        let prefixes = params.take_parsed_list("Ipv6Prefix")?;
        let wanted = one_ipv6(params, addresses, prefixes)?.ok_or_else(|| Ec2Error::missing("ipv6AddressCount"))?;
        Ok(Self {
            eni: require_id(params, "NetworkInterfaceId")?,
            wanted,
        })
    }
}

impl Decode for UnassignIpv6Addresses {
    fn decode(params: &mut Params) -> Result<Self, Ec2Error> {
        Ok(Self {
            eni: require_id(params, "NetworkInterfaceId")?,
            addresses: params.take_parsed_list("Ipv6Addresses")?,
            prefixes: params.take_parsed_list("Ipv6Prefix")?,
        })
    }
}

impl Decode for CreateTags {
    fn decode(params: &mut Params) -> Result<Self, Ec2Error> {
        Ok(Self {
            resources: params.take_list("ResourceId"),
            tags: tags(params, "Tag")?,
        })
    }
}
