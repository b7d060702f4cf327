//! `networkInterface`, the structure that creates and describes share.

use std::net::Ipv4Addr;

use super::super::xml::Xml;
use super::Context;
use crate::model::{Attachment, Eni};

pub(super) fn encode_eni(eni: &Eni, context: &Context<'_>, xml: &mut Xml) {
    xml.text("networkInterfaceId", &eni.id);
    xml.text("subnetId", &eni.subnet);
    xml.text("vpcId", &eni.vpc);
    xml.text("availabilityZone", &eni.zone);
    xml.text("availabilityZoneId", zone_id(&eni.zone));
    xml.text("description", &eni.description);
    xml.text("ownerId", context.account());
    xml.text("requesterManaged", false);
    xml.text("status", eni.status().as_str());
    encode_addressing(eni, context, xml);
    if let Some(tie) = &eni.attachment {
        xml.element("attachment", |xml| {
            xml.text("instanceId", &tie.instance);
            xml.text("instanceOwnerId", context.account());
            encode_attachment(tie, context, xml);
        });
    }
    encode_tags("tagSet", &eni.tags, xml);
}

/// The same ENI inside an instance has fewer members, and no `tagSet`.
pub(super) fn encode_eni_of_instance(eni: &Eni, context: &Context<'_>, xml: &mut Xml) {
    xml.text("networkInterfaceId", &eni.id);
    xml.text("subnetId", &eni.subnet);
    xml.text("vpcId", &eni.vpc);
    xml.text("description", &eni.description);
    xml.text("ownerId", context.account());
    xml.text("status", eni.status().as_str());
    encode_addressing(eni, context, xml);
    if let Some(tie) = &eni.attachment {
        xml.element("attachment", |xml| encode_attachment(tie, context, xml));
    }
}

fn encode_addressing(eni: &Eni, context: &Context<'_>, xml: &mut Xml) {
    xml.text("macAddress", eni.mac);
    xml.text("privateIpAddress", eni.primary);
    xml.text("privateDnsName", private_dns_name(eni.primary));
    xml.text("sourceDestCheck", eni.source_dest_check.as_str());
    xml.text("interfaceType", eni.interface_type.as_str());
    xml.set("groupSet", &eni.groups, |xml, group| {
        xml.text("groupId", group);
        xml.maybe(
            "groupName",
            context.model.security_group(group).map(|group| &group.name),
        );
    });
    let addresses = std::iter::once((eni.primary, true)).chain(eni.secondary.iter().map(|address| (*address, false)));
    xml.set("privateIpAddressesSet", addresses, |xml, (address, primary)| {
        xml.text("privateIpAddress", address);
        xml.text("privateDnsName", private_dns_name(address));
        xml.text("primary", primary);
    });
    if !eni.prefixes.is_empty() {
        xml.set("ipv4PrefixSet", &eni.prefixes, |xml, prefix| {
            xml.text("ipv4Prefix", prefix.net())
        });
    }
    xml.set("ipv6AddressesSet", &eni.ipv6, |xml, address| {
        xml.text("ipv6Address", address);
        xml.text("isPrimaryIpv6", false);
    });
    if !eni.ipv6_prefixes.is_empty() {
        xml.set("ipv6PrefixSet", &eni.ipv6_prefixes, |xml, prefix| {
            xml.text("ipv6Prefix", prefix)
        });
    }
}

fn encode_attachment(tie: &Attachment, context: &Context<'_>, xml: &mut Xml) {
    xml.text("attachmentId", &tie.id);
    xml.text("deviceIndex", tie.device);
    xml.text("networkCardIndex", tie.card.0);
    xml.text("status", tie.status.as_str());
    xml.text("attachTime", context.time(tie.attached_at));
    xml.text("deleteOnTermination", tie.on_termination.as_str());
}

pub(super) fn encode_tags(name: &str, tags: &std::collections::BTreeMap<String, String>, xml: &mut Xml) {
    xml.set(name, tags, |xml, (key, value)| {
        xml.text("key", key);
        xml.text("value", value);
    });
}

pub(super) fn private_dns_name(address: Ipv4Addr) -> String {
    format!("ip-{}.ec2.internal", address.to_string().replace('.', "-"))
}

/// Zone ids differ from names per account; the letter's number is as good as any: `us-east-1a` → `use1-az1`.
pub(super) fn zone_id(zone: &str) -> String {
    let mut parts = zone.split('-');
    let (area, side, rest) = (
        parts.next().unwrap_or(""),
        parts.next().unwrap_or(""),
        parts.next().unwrap_or(""),
    );
    let number = rest.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let letter = rest.chars().last().filter(char::is_ascii_lowercase).unwrap_or('a');
    let side = side.chars().next().map(String::from).unwrap_or_default();
    format!("{area}{side}{number}-az{}", u32::from(letter) - u32::from('a') + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zone_ids_have_the_short_form() {
        assert_eq!(zone_id("us-east-1a"), "use1-az1");
        assert_eq!(zone_id("eu-central-1c"), "euc1-az3");
        assert_eq!(zone_id(""), "-az1");
    }
}
