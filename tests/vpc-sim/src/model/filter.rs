//! Filters and paging, the same for all describes.
//!
//! A resource tells its values by filter name ([`Filterable`]); unknown names are refused as EC2 does, so that a
//! typing error in a client does not read as "no match".

use vpc_types::{EniId, InstanceId};

use super::ops::{InstanceView, Page};
use super::record::{Eni, SecurityGroup, Vpc};
use super::request::{Filter, Query};
use super::subnet::Subnet;
use super::{Ec2Error, ErrorCode};

/// A resource that filters can be applied to.
pub(super) trait Filterable {
    /// Its values under this filter name; `None` when the name means nothing for this kind.
    fn values(&self, name: &str) -> Option<Vec<String>>;
    /// Its id, for paging.
    fn key(&self) -> &str;
}

fn tag_values(tags: &std::collections::BTreeMap<String, String>, name: &str) -> Option<Vec<String>> {
    if name == "tag-key" {
        return Some(tags.keys().cloned().collect());
    }
    if name == "tag-value" {
        return Some(tags.values().cloned().collect());
    }
    let key = name.strip_prefix("tag:")?;
    Some(tags.get(key).into_iter().cloned().collect())
}

impl Filterable for std::sync::Arc<Eni> {
    fn values(&self, name: &str) -> Option<Vec<String>> {
        let one = |value: &dyn ToString| Some(vec![value.to_string()]);
        let tie = |value: fn(&super::record::Attachment) -> String| Some(self.attachment.iter().map(value).collect());
        match name {
            "network-interface-id" => one(&self.id),
            "subnet-id" => one(&self.subnet),
            "vpc-id" => one(&self.vpc),
            "availability-zone" => one(&self.zone),
            "status" => one(&self.status().as_str()),
            "description" => one(&self.description),
            "mac-address" => one(&self.mac),
            "interface-type" => one(&self.interface_type.as_str()),
            "private-ip-address" => one(&self.primary),
            "source-dest-check" => one(&self.source_dest_check.as_str()),
            "addresses.private-ip-address" => Some(
                std::iter::once(&self.primary)
                    .chain(&self.secondary)
                    .map(ToString::to_string)
                    .collect(),
            ),
            "group-id" => Some(self.groups.iter().map(ToString::to_string).collect()),
            "attachment.attachment-id" => tie(|tie| tie.id.to_string()),
            "attachment.instance-id" => tie(|tie| tie.instance.to_string()),
            "attachment.device-index" => tie(|tie| tie.device.to_string()),
            "attachment.status" => tie(|tie| tie.status.as_str().to_owned()),
            "attachment.delete-on-termination" => tie(|tie| tie.on_termination.as_str().to_owned()),
            _ => tag_values(&self.tags, name),
        }
    }

    fn key(&self) -> &str {
        self.id.as_str()
    }
}

impl Filterable for InstanceView {
    fn values(&self, name: &str) -> Option<Vec<String>> {
        let one = |value: &dyn ToString| Some(vec![value.to_string()]);
        match name {
            "instance-id" => one(&self.instance.id),
            "instance-type" => one(&self.instance.instance_type),
            "instance-state-name" => one(&self.instance.state.as_str()),
            "subnet-id" => one(&self.instance.subnet),
            "vpc-id" => one(&self.instance.vpc),
            "availability-zone" => one(&self.instance.zone),
            "private-ip-address" => Some(
                self.enis
                    .first()
                    .map(|eni| eni.primary.to_string())
                    .into_iter()
                    .collect(),
            ),
            "network-interface.network-interface-id" => Some(self.enis.iter().map(|eni| eni.id.to_string()).collect()),
            _ => tag_values(&self.instance.tags, name),
        }
    }

    fn key(&self) -> &str {
        self.instance.id.as_str()
    }
}

impl Filterable for Subnet {
    fn values(&self, name: &str) -> Option<Vec<String>> {
        let one = |value: &dyn ToString| Some(vec![value.to_string()]);
        match name {
            "subnet-id" => one(&self.id),
            "vpc-id" => one(&self.vpc),
            "availability-zone" | "availabilityZone" => one(&self.zone),
            "cidr-block" | "cidr" => one(&self.cidr),
            "state" => one(&"available"),
            _ => tag_values(&self.tags, name),
        }
    }

    fn key(&self) -> &str {
        self.id.as_str()
    }
}

impl Filterable for Vpc {
    fn values(&self, name: &str) -> Option<Vec<String>> {
        let one = |value: &dyn ToString| Some(vec![value.to_string()]);
        match name {
            "vpc-id" => one(&self.id),
            "cidr" | "cidr-block" => Some(self.cidrs.first().map(ToString::to_string).into_iter().collect()),
            "state" => one(&"available"),
            _ => tag_values(&self.tags, name),
        }
    }

    fn key(&self) -> &str {
        self.id.as_str()
    }
}

impl Filterable for SecurityGroup {
    fn values(&self, name: &str) -> Option<Vec<String>> {
        let one = |value: &dyn ToString| Some(vec![value.to_string()]);
        match name {
            "group-id" => one(&self.id),
            "group-name" => one(&self.name),
            "vpc-id" => one(&self.vpc),
            "description" => one(&self.description),
            _ => tag_values(&self.tags, name),
        }
    }

    fn key(&self) -> &str {
        self.id.as_str()
    }
}

/// Items that pass all filters, one page of them. `items` come in the order of their keys.
pub(super) fn select<T: Filterable>(items: impl Iterator<Item = T>, query: &Query) -> Result<Page<T>, Ec2Error> {
    let mut passed = Vec::new();
    for item in items {
        if passes(&item, &query.filters)? {
            passed.push(item);
        }
    }
    page(passed, query)
}

fn passes(item: &impl Filterable, filters: &[Filter]) -> Result<bool, Ec2Error> {
    for filter in filters {
        let values = item
            .values(&filter.name)
            .ok_or_else(|| Ec2Error::value(format!("The filter '{}' is invalid", filter.name)))?;
        if !values
            .iter()
            .any(|value| filter.values.iter().any(|pattern| matches_glob(pattern, value)))
        {
            return Ok(false);
        }
    }
    Ok(true)
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
