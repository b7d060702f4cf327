//! Pages of describes.

use std::sync::Arc;

use super::super::xml::Xml;
use super::eni::{encode_eni, encode_eni_of_instance, encode_tags, private_dns_name, zone_id};
use super::{Context, Encode};
use crate::model::{Eni, InstanceType, InstanceView, Page, SecurityGroup, Subnet, Vpc};

fn encode_page<T>(
    set: &str,
    page: &Page<T>,
    context: &Context<'_>,
    xml: &mut Xml,
    encode: impl Fn(&T, &Context<'_>, &mut Xml),
) {
    xml.set(set, &page.items, |xml, item| encode(item, context, xml));
    xml.maybe("nextToken", page.next_token.as_ref());
}

macro_rules! page {
    ($item:ty, $set:literal, $encode:expr) => {
        impl Encode for Page<$item> {
            fn encode(&self, context: &Context<'_>, xml: &mut Xml) {
                encode_page($set, self, context, xml, $encode);
            }
        }
    };
}

page!(Arc<Eni>, "networkInterfaceSet", |eni, context, xml| encode_eni(
    eni, context, xml
));
page!(InstanceView, "reservationSet", encode_reservation);
page!(InstanceType, "instanceTypeSet", encode_type);
page!(Subnet, "subnetSet", encode_subnet);
page!(Vpc, "vpcSet", encode_vpc);
page!(SecurityGroup, "securityGroupInfo", encode_group);

/// Each instance comes in a reservation of its own.
fn encode_reservation(view: &InstanceView, context: &Context<'_>, xml: &mut Xml) {
    let id = view.instance.id.as_str().trim_start_matches("i-");
    xml.text("reservationId", format!("r-{id}"));
    xml.text("ownerId", context.account());
    xml.element("groupSet", |_| {});
    xml.set("instancesSet", [view], |xml, view| encode_instance(view, context, xml));
}

fn encode_instance(view: &InstanceView, context: &Context<'_>, xml: &mut Xml) {
    let instance = &view.instance;
    xml.text("instanceId", &instance.id);
    xml.element("instanceState", |xml| {
        xml.text("code", instance.state.code());
        xml.text("name", instance.state.as_str());
    });
    if let Some(primary) = view.enis.first() {
        xml.text("privateDnsName", private_dns_name(primary.primary));
        xml.text("privateIpAddress", primary.primary);
    }
    xml.text("instanceType", &instance.instance_type);
    xml.text("launchTime", context.time(instance.launched_at));
    xml.element("placement", |xml| xml.text("availabilityZone", &instance.zone));
    xml.text("subnetId", &instance.subnet);
    xml.text("vpcId", &instance.vpc);
    xml.set("networkInterfaceSet", &view.enis, |xml, eni| {
        encode_eni_of_instance(eni, context, xml)
    });
    encode_tags("tagSet", &instance.tags, xml);
}

fn encode_type(kind: &InstanceType, _: &Context<'_>, xml: &mut Xml) {
    let limits = &kind.limits;
    let total: u16 = limits.enis_per_card.iter().sum();
    xml.text("instanceType", &kind.name);
    xml.text("bareMetal", kind.is_bare_metal());
    xml.maybe("hypervisor", kind.hypervisor());
    if let Some(vcpus) = kind.shape.vcpus {
        xml.element("vCpuInfo", |xml| xml.text("defaultVCpus", vcpus));
    }
    xml.element("networkInfo", |xml| {
        xml.text("maximumNetworkInterfaces", total);
        xml.text("maximumNetworkCards", limits.enis_per_card.len());
        xml.text("defaultNetworkCardIndex", limits.default_card.0);
        xml.set(
            "networkCards",
            limits.enis_per_card.iter().enumerate(),
            |xml, (card, most)| {
                xml.text("networkCardIndex", card);
                xml.text("networkPerformance", "simulated");
                xml.text("maximumNetworkInterfaces", most);
            },
        );
        xml.text("ipv4AddressesPerInterface", limits.ipv4_per_eni);
        xml.maybe("ipv6AddressesPerInterface", kind.shape.ipv6_per_eni);
        xml.text("ipv6Supported", kind.shape.ipv6_per_eni.is_none_or(|most| most > 0));
    });
}

fn encode_subnet(subnet: &Subnet, context: &Context<'_>, xml: &mut Xml) {
    let account = context.account();
    let region = subnet.zone.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    xml.text("subnetId", &subnet.id);
    xml.text(
        "subnetArn",
        format!("arn:aws:ec2:{region}:{account}:subnet/{}", subnet.id),
    );
    xml.text("vpcId", &subnet.vpc);
    xml.text("state", "available");
    xml.text("ownerId", account);
    xml.text("cidrBlock", subnet.cidr);
    xml.text("availableIpAddressCount", subnet.available());
    xml.text("availabilityZone", &subnet.zone);
    xml.text("availabilityZoneId", zone_id(&subnet.zone));
    for flag in [
        "defaultForAz",
        "mapPublicIpOnLaunch",
        "assignIpv6AddressOnCreation",
        "ipv6Native",
    ] {
        xml.text(flag, false);
    }
    xml.set("ipv6CidrBlockAssociationSet", subnet.ipv6_cidr, |xml, cidr| {
        xml.text(
            "associationId",
            format!("subnet-cidr-assoc-{}", subnet.id.as_str().trim_start_matches("subnet-")),
        );
        xml.text("ipv6CidrBlock", cidr);
        xml.element("ipv6CidrBlockState", |xml| xml.text("state", "associated"));
    });
    encode_tags("tagSet", &subnet.tags, xml);
}

fn encode_vpc(vpc: &Vpc, context: &Context<'_>, xml: &mut Xml) {
    let digits = vpc.id.as_str().trim_start_matches("vpc-");
    xml.text("vpcId", &vpc.id);
    xml.text("state", "available");
    xml.maybe("cidrBlock", vpc.cidrs.first());
    xml.set(
        "cidrBlockAssociationSet",
        vpc.cidrs.iter().enumerate(),
        |xml, (number, cidr)| {
            xml.text("associationId", format!("vpc-cidr-assoc-{digits}{number}"));
            xml.text("cidrBlock", cidr);
            xml.element("cidrBlockState", |xml| xml.text("state", "associated"));
        },
    );
    xml.set(
        "ipv6CidrBlockAssociationSet",
        vpc.ipv6_cidrs.iter().enumerate(),
        |xml, (number, cidr)| {
            xml.text("associationId", format!("vpc-cidr-assoc-{digits}6{number}"));
            xml.text("ipv6CidrBlock", cidr);
            xml.element("ipv6CidrBlockState", |xml| xml.text("state", "associated"));
        },
    );
    xml.text("isDefault", false);
    xml.text("ownerId", context.account());
    encode_tags("tagSet", &vpc.tags, xml);
}

fn encode_group(group: &SecurityGroup, context: &Context<'_>, xml: &mut Xml) {
    xml.text("groupId", &group.id);
    xml.text("groupName", &group.name);
    xml.text("groupDescription", &group.description);
    xml.text("vpcId", &group.vpc);
    xml.text("ownerId", context.account());
    for direction in ["ipPermissions", "ipPermissionsEgress"] {
        // Rules are not modelled: everything passes.
        xml.set(direction, [()], |xml, ()| {
            xml.text("ipProtocol", "-1");
            xml.element("groups", |_| {});
            xml.set("ipRanges", [()], |xml, ()| xml.text("cidrIp", "0.0.0.0/0"));
            xml.element("ipv6Ranges", |_| {});
            xml.element("prefixListIds", |_| {});
        });
    }
    encode_tags("tagSet", &group.tags, xml);
}
