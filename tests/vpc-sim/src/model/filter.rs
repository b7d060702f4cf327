//! Filters and paging, the same for all describes.
//!
//! A kind of resource tells how its values are read by filter name ([`Filterable`]); unknown names are refused as EC2 does,
//! so that a typing error in a client does not read as "no match".

use std::collections::BTreeMap;
use std::sync::Arc;

use vpc_types::{EniId, InstanceId};

use super::ops::{InstanceType, InstanceView, Page};
use super::record::{Attachment, Eni, SecurityGroup, Vpc};
use super::request::{Filter, Query};
use super::subnet::Subnet;
use super::{Ec2Error, ErrorCode};

/// Reads a resource's values under one filter name.
type Reader<T> = Box<dyn Fn(&T) -> Vec<String>>;

/// A resource that filters can be applied to.
pub(super) trait Filterable: Sized {
    /// How its values under this filter name are read; `None` when the name means nothing for this kind.
    fn reader(name: &str) -> Option<Reader<Self>>;
    /// Its id, for paging.
    fn key(&self) -> &str;
}

/// A filter on exactly one value.
fn one<T, V: ToString>(value: impl Fn(&T) -> V + 'static) -> Option<Reader<T>> {
    Some(Box::new(move |item| vec![value(item).to_string()]))
}

/// A filter on any number of values.
fn many<T>(values: impl Fn(&T) -> Vec<String> + 'static) -> Option<Reader<T>> {
    Some(Box::new(values))
}

/// `tag:KEY` and `tag-key`.
fn tags<T: 'static>(name: &str, tags: fn(&T) -> &BTreeMap<String, String>) -> Option<Reader<T>> {
    if name == "tag-key" {
        return many(move |item| tags(item).keys().cloned().collect());
    }
    let key = name.strip_prefix("tag:")?.to_owned();
    many(move |item| tags(item).get(&key).into_iter().cloned().collect())
}

/// A filter on an attachment, which not every ENI has.
fn tie<V: ToString>(value: impl Fn(&Attachment) -> V + 'static) -> Option<Reader<Arc<Eni>>> {
    many(move |eni: &Arc<Eni>| eni.attachment.iter().map(|tie| value(tie).to_string()).collect())
}

impl Filterable for Arc<Eni> {
    fn reader(name: &str) -> Option<Reader<Self>> {
        match name {
            "network-interface-id" => one(|eni: &Self| eni.id.clone()),
            "subnet-id" => one(|eni: &Self| eni.subnet.clone()),
            "vpc-id" => one(|eni: &Self| eni.vpc.clone()),
            "availability-zone" => one(|eni: &Self| eni.zone.clone()),
            "status" => one(|eni: &Self| eni.status().as_str()),
            "description" => one(|eni: &Self| eni.description.clone()),
            "mac-address" => one(|eni: &Self| eni.mac),
            "interface-type" => one(|eni: &Self| eni.interface_type.as_str()),
            "private-ip-address" => one(|eni: &Self| eni.primary),
            "source-dest-check" => one(|eni: &Self| eni.source_dest_check.as_str()),
            "addresses.private-ip-address" => many(|eni: &Self| {
                let all = std::iter::once(&eni.primary).chain(&eni.secondary);
                all.map(ToString::to_string).collect()
            }),
            "group-id" => many(|eni: &Self| eni.groups.iter().map(ToString::to_string).collect()),
            "attachment.attachment-id" => tie(|tie| tie.id.clone()),
            "attachment.instance-id" => tie(|tie| tie.instance.clone()),
            "attachment.device-index" => tie(|tie| tie.device),
            "attachment.status" => tie(|tie| tie.status.as_str()),
            "attachment.delete-on-termination" => tie(|tie| tie.on_termination.as_str()),
            _ => tags(name, |eni| &eni.tags),
        }
    }

    fn key(&self) -> &str {
        self.id.as_str()
    }
}

impl Filterable for InstanceView {
    fn reader(name: &str) -> Option<Reader<Self>> {
        match name {
            "instance-id" => one(|view: &Self| view.instance.id.clone()),
            "instance-type" => one(|view: &Self| view.instance.instance_type.clone()),
            "instance-state-name" => one(|view: &Self| view.instance.state.as_str()),
            "subnet-id" => one(|view: &Self| view.instance.subnet.clone()),
            "vpc-id" => one(|view: &Self| view.instance.vpc.clone()),
            "availability-zone" => one(|view: &Self| view.instance.zone.clone()),
            "private-ip-address" => {
                many(|view: &Self| view.enis.iter().take(1).map(|eni| eni.primary.to_string()).collect())
            }
            "network-interface.network-interface-id" => {
                many(|view: &Self| view.enis.iter().map(|eni| eni.id.to_string()).collect())
            }
            _ => tags(name, |view| &view.instance.tags),
        }
    }

    fn key(&self) -> &str {
        self.instance.id.as_str()
    }
}

impl Filterable for InstanceType {
    fn reader(name: &str) -> Option<Reader<Self>> {
        match name {
            "instance-type" => one(|kind: &Self| kind.name.clone()),
            "bare-metal" => one(Self::is_bare_metal),
            "hypervisor" => many(|kind: &Self| kind.hypervisor().into_iter().map(str::to_owned).collect()),
            "network-info.maximum-network-interfaces" => {
                one(|kind: &Self| kind.limits.enis_per_card.iter().sum::<u16>())
            }
            "network-info.maximum-network-cards" => one(|kind: &Self| kind.limits.enis_per_card.len()),
            "network-info.ipv4-addresses-per-interface" => one(|kind: &Self| kind.limits.ipv4_per_eni),
            "vcpu-info.default-vcpus" => many(|kind: &Self| kind.shape.vcpus.iter().map(ToString::to_string).collect()),
            _ => None,
        }
    }

    fn key(&self) -> &str {
        &self.name
    }
}

impl Filterable for Subnet {
    fn reader(name: &str) -> Option<Reader<Self>> {
        match name {
            "subnet-id" => one(|subnet: &Self| subnet.id.clone()),
            "vpc-id" => one(|subnet: &Self| subnet.vpc.clone()),
            "availability-zone" | "availabilityZone" => one(|subnet: &Self| subnet.zone.clone()),
            "available-ip-address-count" => one(Self::available),
            "cidr-block" | "cidr" | "cidrBlock" => one(|subnet: &Self| subnet.cidr),
            "state" => one(|_: &Self| "available"),
            _ => tags(name, |subnet| &subnet.tags),
        }
    }

    fn key(&self) -> &str {
        self.id.as_str()
    }
}

impl Filterable for Vpc {
    fn reader(name: &str) -> Option<Reader<Self>> {
        match name {
            "vpc-id" => one(|vpc: &Self| vpc.id.clone()),
            "cidr" => many(|vpc: &Self| vpc.cidrs.iter().take(1).map(ToString::to_string).collect()),
            "cidr-block-association.cidr-block" => {
                many(|vpc: &Self| vpc.cidrs.iter().map(ToString::to_string).collect())
            }
            "state" => one(|_: &Self| "available"),
            "is-default" => one(|_: &Self| false),
            _ => tags(name, |vpc| &vpc.tags),
        }
    }

    fn key(&self) -> &str {
        self.id.as_str()
    }
}

impl Filterable for SecurityGroup {
    fn reader(name: &str) -> Option<Reader<Self>> {
        match name {
            "group-id" => one(|group: &Self| group.id.clone()),
            "group-name" => one(|group: &Self| group.name.clone()),
            "vpc-id" => one(|group: &Self| group.vpc.clone()),
            "description" => one(|group: &Self| group.description.clone()),
            _ => tags(name, |group| &group.tags),
        }
    }

    fn key(&self) -> &str {
        self.id.as_str()
    }
}

/// Items that pass all filters, one page of them. `items` come in the order of their keys.
pub(super) fn select<T: Filterable>(items: impl Iterator<Item = T>, query: &Query) -> Result<Page<T>, Ec2Error> {
    // Before any item is looked at: an unknown name is refused also where nothing could match.
    let filters = query
        .filters
        .iter()
        .map(readable)
        .collect::<Result<Vec<(Reader<T>, &[String])>, _>>()?;
    let passes = |item: &T| {
        filters.iter().all(|(read, patterns)| {
            let values = read(item);
            values
                .iter()
                .any(|value| patterns.iter().any(|pattern| matches_glob(pattern, value)))
        })
    };
    page(items.filter(passes).collect(), query)
}

fn readable<T: Filterable>(filter: &Filter) -> Result<(Reader<T>, &[String]), Ec2Error> {
    let reader =
        T::reader(&filter.name).ok_or_else(|| Ec2Error::value(format!("The filter '{}' is invalid", filter.name)))?;
    Ok((reader, &filter.values))
}

fn page<T: Filterable>(mut items: Vec<T>, query: &Query) -> Result<Page<T>, Ec2Error> {
    if let Some(token) = &query.next_token {
        let last = token
            .strip_prefix(TOKEN)
            .ok_or_else(|| Ec2Error::new(ErrorCode::InvalidNextToken, format!("The token '{token}' is invalid")))?;
        items.retain(|item| item.key() > last);
    }
    let size = query.max_results.map_or(usize::MAX, |max| max as usize);
    let more = items.len() > size;
    items.truncate(size);
    let next_token = items
        .last()
        .filter(|_| more)
        .map(|item| format!("{TOKEN}{}", item.key()));
    Ok(Page { items, next_token })
}

/// Names the last item of the page before: items that come or go in between shift nothing.
const TOKEN: &str = "after:";

/// `*` any run, `?` any one character, everything else itself.
fn matches_glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<_>, Vec<_>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut retry = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    (p, t) = (star + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Page sizes EC2 takes; ids and a page size exclude each other.
pub(super) fn check_paging(query: &Query, ids: usize, most: u32) -> Result<(), Ec2Error> {
    let Some(size) = query.max_results else { return Ok(()) };
    if ids > 0 {
        return Err(Ec2Error::combination(
            "The parameter MaxResults cannot be used with ids in the same request",
        ));
    }
    if !(5..=most).contains(&size) {
        return Err(Ec2Error::value(format!(
            "Value ( {size} ) for parameter maxResults is invalid. Expecting a value between 5 and {most}."
        )));
    }
    Ok(())
}

/// Orders and looks up by id; kept here so that all describes name the first missing id only.
pub(super) trait Named {
    fn not_found(&self) -> Ec2Error;
}

impl Named for EniId {
    fn not_found(&self) -> Ec2Error {
        Ec2Error::eni_not_found(self)
    }
}

impl Named for InstanceId {
    fn not_found(&self) -> Ec2Error {
        Ec2Error::new(
            ErrorCode::InvalidInstanceNotFound,
            format!("The instance ID '{self}' does not exist"),
        )
    }
}

impl Named for vpc_types::SubnetId {
    fn not_found(&self) -> Ec2Error {
        Ec2Error::new(
            ErrorCode::InvalidSubnetNotFound,
            format!("The subnet ID '{self}' does not exist"),
        )
    }
}

impl Named for vpc_types::VpcId {
    fn not_found(&self) -> Ec2Error {
        Ec2Error::new(
            ErrorCode::InvalidVpcNotFound,
            format!("The vpc ID '{self}' does not exist"),
        )
    }
}

impl Named for vpc_types::SecurityGroupId {
    fn not_found(&self) -> Ec2Error {
        Ec2Error::new(
            ErrorCode::InvalidGroupNotFound,
            format!("The security group '{self}' does not exist"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_ec2_filters_do() {
        for (pattern, text, matches) in [
            ("in-use", "in-use", true),
            ("in-use", "in-used", false),
            ("aws-K8S-*", "aws-K8S-i-0123", true),
            ("*", "", true),
            ("?", "", false),
            ("*-?", "a-b-c", true),
            ("*b*d", "abcbd", true),
            ("*b*d", "abcb", false),
            ("Web", "web", false),
        ] {
            assert_eq!(matches_glob(pattern, text), matches, "{pattern} ~ {text}");
        }
    }

    #[test]
    fn an_unknown_filter_is_refused_even_where_nothing_could_match() {
        let query = Query::filtered("vpc-idd", "vpc-1");
        let refusal = select(std::iter::empty::<Subnet>(), &query).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::InvalidParameterValue);
        assert!(select(std::iter::empty::<Subnet>(), &Query::filtered("vpc-id", "vpc-1")).is_ok());
    }

    #[test]
    fn page_sizes_have_bounds_and_exclude_ids() {
        let query = |max| Query {
            max_results: Some(max),
            ..Query::default()
        };
        let code = |result: Result<(), Ec2Error>| result.map_err(|refusal| refusal.code);
        assert_eq!(code(check_paging(&query(5), 0, 1_000)), Ok(()));
        assert_eq!(
            code(check_paging(&query(4), 0, 1_000)),
            Err(ErrorCode::InvalidParameterValue)
        );
        assert_eq!(
            code(check_paging(&query(1_001), 0, 1_000)),
            Err(ErrorCode::InvalidParameterValue)
        );
        assert_eq!(
            code(check_paging(&query(5), 1, 1_000)),
            Err(ErrorCode::InvalidParameterCombination)
        );
    }
}
