//! From the SDK's all-optional structures to checked views. A missing or malformed value is an error that names it.

use std::collections::BTreeMap;
use std::str::FromStr;

use aws_sdk_ec2::types as sdk;
use vpc_types::limits::PrefixDelegation;
use vpc_types::{Allocation, DeviceNumber, InstanceLimits, NetworkCard, Prefix28};

use super::eni::{
    AttachmentStatus, AttachmentView, DeleteOnTermination, EniKind, EniStatus, EniView, SourceDestCheck, SubnetView,
};
use super::error::{Action, Ec2Error};

/// Takes values out of one object of one answer.
pub(super) struct Fields {
    action: Action,
    object: String,
}

impl Fields {
    pub(super) fn of(action: Action, object: Option<&str>) -> Self {
        Self {
            action,
            object: object.unwrap_or("an unnamed object").to_owned(),
        }
    }

    fn malformed(&self, field: &'static str, value: Option<&str>) -> Ec2Error {
        let (action, object) = (self.action, self.object.clone());
        Ec2Error::Malformed {
            action,
            field,
            object,
            value: value.map(str::to_owned),
        }
    }

    pub(super) fn need<T>(&self, field: &'static str, value: Option<T>) -> Result<T, Ec2Error> {
        value.ok_or_else(|| self.malformed(field, None))
    }

    pub(super) fn parse<T: FromStr>(&self, field: &'static str, text: Option<&str>) -> Result<T, Ec2Error> {
        text.and_then(|text| text.parse().ok())
            .ok_or_else(|| self.malformed(field, text))
    }

    fn parse_optional<T: FromStr>(&self, field: &'static str, text: Option<&str>) -> Result<Option<T>, Ec2Error> {
        text.map(|text| self.parse(field, Some(text))).transpose()
    }

    fn number<T: TryFrom<i32>>(&self, field: &'static str, number: i32) -> Result<T, Ec2Error> {
        T::try_from(number).map_err(|_| self.malformed(field, Some(&number.to_string())))
    }

    pub(super) fn prefix(&self, text: Option<&str>) -> Result<Prefix28, Ec2Error> {
        Prefix28::new(self.parse("ipv4Prefix", text)?).map_err(|_| self.malformed("ipv4Prefix", text))
    }
}

pub(super) fn eni(action: Action, eni: &sdk::NetworkInterface) -> Result<EniView, Ec2Error> {
    let fields = Fields::of(action, eni.network_interface_id());
    let secondaries = eni
        .private_ip_addresses()
        .iter()
        .filter(|address| address.primary() != Some(true));
    Ok(EniView {
        id: fields.parse("networkInterfaceId", eni.network_interface_id())?,
        mac: fields.parse("macAddress", eni.mac_address())?,
        subnet: fields.parse("subnetId", eni.subnet_id())?,
        vpc: fields.parse("vpcId", eni.vpc_id())?,
        az: eni.availability_zone().map(str::to_owned),
        status: EniStatus::parse(fields.need("status", eni.status())?.as_str()),
        kind: eni
            .interface_type()
            .map_or(EniKind::Interface, |kind| EniKind::parse(kind.as_str())),
        description: eni.description().unwrap_or_default().to_owned(),
        source_dest_check: match eni.source_dest_check() {
            Some(false) => SourceDestCheck::Off,
            Some(true) | None => SourceDestCheck::On,
        },
        primary: fields.parse_optional("privateIpAddress", eni.private_ip_address())?,
        secondaries: secondaries
            .map(|address| fields.parse("privateIpAddress", address.private_ip_address()))
            .collect::<Result<_, _>>()?,
        prefixes: eni
            .ipv4_prefixes()
            .iter()
            .map(|prefix| fields.prefix(prefix.ipv4_prefix()))
            .collect::<Result<_, _>>()?,
        groups: eni
            .groups()
            .iter()
            .map(|group| fields.parse("groupId", group.group_id()))
            .collect::<Result<_, _>>()?,
        tags: tags(eni.tag_set()),
        attachment: eni.attachment().map(|given| attachment(&fields, given)).transpose()?,
    })
}

fn attachment(fields: &Fields, given: &sdk::NetworkInterfaceAttachment) -> Result<AttachmentView, Ec2Error> {
    let device = fields.need("deviceIndex", given.device_index())?;
    Ok(AttachmentView {
        id: fields.parse("attachmentId", given.attachment_id())?,
        instance: fields.parse_optional("instanceId", given.instance_id())?,
        device: DeviceNumber(fields.number("deviceIndex", device)?),
        card: NetworkCard(fields.number("networkCardIndex", given.network_card_index().unwrap_or_default())?),
        status: AttachmentStatus::parse(fields.need("attachment.status", given.status())?.as_str()),
        delete_on_termination: match given.delete_on_termination() {
            Some(true) => DeleteOnTermination::Yes,
            Some(false) | None => DeleteOnTermination::No,
        },
    })
}

fn tags(given: &[sdk::Tag]) -> BTreeMap<String, String> {
    let pair = |tag: &sdk::Tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned()));
    given.iter().filter_map(pair).collect()
}

pub(super) fn subnet(action: Action, subnet: &sdk::Subnet) -> Result<SubnetView, Ec2Error> {
    let fields = Fields::of(action, subnet.subnet_id());
    let available = fields.need("availableIpAddressCount", subnet.available_ip_address_count())?;
    Ok(SubnetView {
        id: fields.parse("subnetId", subnet.subnet_id())?,
        vpc: fields.parse("vpcId", subnet.vpc_id())?,
        az: fields.need("availabilityZone", subnet.availability_zone())?.to_owned(),
        cidr: fields.parse_optional("cidrBlock", subnet.cidr_block().filter(|cidr| !cidr.is_empty()))?,
        // Below zero where an implementation hands out reserved addresses: nothing is free then.
        available_addresses: u32::try_from(available).unwrap_or_default(),
        tags: tags(subnet.tags()),
    })
}

pub(super) fn limits(action: Action, name: &str, given: &sdk::InstanceTypeInfo) -> Result<InstanceLimits, Ec2Error> {
    let fields = Fields::of(action, Some(name));
    let network = fields.need("networkInfo", given.network_info())?;
    let ipv4 = fields.need("ipv4AddressesPerInterface", network.ipv4_addresses_per_interface())?;
    let bare_metal = given.bare_metal() == Some(true);
    let nitro = given.hypervisor() == Some(&sdk::InstanceTypeHypervisor::Nitro);
    Ok(InstanceLimits {
        enis_per_card: enis_per_card(&fields, network)?,
        default_card: NetworkCard(fields.number(
            "defaultNetworkCardIndex",
            network.default_network_card_index().unwrap_or_default(),
        )?),
        ipv4_per_eni: fields.number("ipv4AddressesPerInterface", ipv4)?,
        prefix_delegation: if nitro || bare_metal {
            PrefixDelegation::Supported
        } else {
            PrefixDelegation::Unsupported
        },
    })
}

/// By card index; without a list of cards all ENIs sit on one.
fn enis_per_card(fields: &Fields, network: &sdk::NetworkInfo) -> Result<Vec<u16>, Ec2Error> {
    let mut by_index = BTreeMap::new();
    for card in network.network_cards() {
        let index: u16 = fields.number("networkCardIndex", card.network_card_index().unwrap_or_default())?;
        let count = fields.need("maximumNetworkInterfaces", card.maximum_network_interfaces())?;
        by_index.insert(index, fields.number::<u16>("maximumNetworkInterfaces", count)?);
    }
    if by_index.is_empty() {
        let count = fields.need("maximumNetworkInterfaces", network.maximum_network_interfaces())?;
        return Ok(vec![fields.number("maximumNetworkInterfaces", count)?]);
    }
    Ok(by_index.into_values().collect())
}

pub(super) fn assigned(
    answer: &aws_sdk_ec2::operation::assign_private_ip_addresses::AssignPrivateIpAddressesOutput,
) -> Result<Vec<Allocation>, Ec2Error> {
    let fields = Fields::of(Action::AssignPrivateIpAddresses, answer.network_interface_id());
    let addresses = answer.assigned_private_ip_addresses().iter().map(|address| {
        fields
            .parse("assignedPrivateIpAddressesSet", address.private_ip_address())
            .map(Allocation::Ip)
    });
    let prefixes = answer.assigned_ipv4_prefixes().iter();
    addresses
        .chain(prefixes.map(|prefix| fields.prefix(prefix.ipv4_prefix()).map(Allocation::Prefix)))
        .collect()
}
