//! The metadata of one instance as a map from paths to texts. Directories exist where something is below them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use vpc_types::InstanceId;

use super::Launch;
use crate::model::{Eni, ImdsAnswer, ImdsEni, Model, Notice};

/// The role every instance has.
const ROLE: &str = "vpc-sim-node";

/// Why there is nothing to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// No such path.
    NotFound,
    /// IMDS is switched off for the instance.
    Disabled,
    /// IMDS does not answer at all.
    Gone,
}

/// What times in the tree come from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// The model's time zero.
    pub(super) epoch: OffsetDateTime,
    pub(super) launch: Launch,
}

/// Reads a path below the version: `meta-data/mac`, `dynamic/…`. A directory reads as the list of its entries.
pub(super) fn read(
    model: &mut Model,
    now: Duration,
    clock: Clock,
    instance: &InstanceId,
    path: &str,
) -> Result<String, Unreadable> {
    let enis = match model.imds(now, instance) {
        ImdsAnswer::Gone => return Err(Unreadable::Gone),
        ImdsAnswer::Disabled => return Err(Unreadable::Disabled),
        ImdsAnswer::Enis(enis) => enis,
    };
    let tree = Tree::of(model, clock, instance, &enis).ok_or(Unreadable::NotFound)?;
    tree.read(path).ok_or(Unreadable::NotFound)
}

#[derive(Debug, Default)]
struct Tree(BTreeMap<String, String>);

impl Tree {
    fn of(model: &Model, clock: Clock, id: &InstanceId, enis: &[ImdsEni]) -> Option<Self> {
        let instance = model.instance(id)?;
        let region = instance.zone.trim_end_matches(|c: char| c.is_ascii_lowercase());
        let mut tree = Self::default();
        let mut scalars = vec![
            ("instance-id", id.to_string()),
            ("instance-type", instance.instance_type.clone()),
            ("placement/availability-zone", instance.zone.clone()),
            ("placement/region", region.to_owned()),
            ("services/domain", "amazonaws.com".to_owned()),
            ("services/partition", "aws".to_owned()),
        ];
        if let Some(primary) = enis.first().map(|entry| &entry.eni) {
            scalars.push(("mac", primary.mac.to_string()));
            scalars.push(("local-ipv4", primary.primary.to_string()));
            scalars.push(("local-hostname", host_name(primary)));
            scalars.push(("hostname", host_name(primary)));
            scalars.push(("security-groups", group_names(model, primary)));
            scalars.extend(primary.ipv6.first().map(|address| ("ipv6", address.to_string())));
        }
        for (key, text) in scalars {
            tree.put(&format!("meta-data/{key}"), text);
        }
        for entry in enis {
            tree.put_eni(model, entry);
        }
        let account = &model.settings().account;
        let launched = clock
            .launch
            .moment(clock.epoch + instance.launched_at)
            .replace_nanosecond(0)
            .ok()?
            .format(&Rfc3339)
            .ok()?;
        tree.put_role(account, &launched);
        match model.notice(id) {
            // EC2 gives two minutes; nobody here reads the time.
            Some(Notice::Spot) => tree.put(
                "meta-data/spot/instance-action",
                json!({"action": "terminate", "time": launched}),
            ),
            Some(Notice::AutoScaling) => tree.put("meta-data/autoscaling/target-lifecycle-state", "Terminated"),
            None => {}
        }
        let document = json!({
            "accountId": account, "architecture": "x86_64", "availabilityZone": instance.zone,
            "imageId": "ami-00000000000000000", "instanceId": id.as_str(), "instanceType": instance.instance_type,
            "pendingTime": launched, "privateIp": enis.first().map(|entry| entry.eni.primary.to_string()),
            "region": region, "version": "2017-09-30",
        });
        tree.put("dynamic/instance-identity/document", format!("{document:#}"));
        Some(tree)
    }

    fn put(&mut self, path: &str, text: impl ToString) {
        self.0.insert(path.to_owned(), text.to_string());
    }

    fn put_role(&mut self, account: &str, since: &str) {
        let arn = format!("arn:aws:iam::{account}:instance-profile/{ROLE}");
        let info = json!({"Code": "Success", "LastUpdated": since, "InstanceProfileArn": arn});
        self.put("meta-data/iam/info", format!("{info:#}"));
        // Signatures are not checked, so the keys never change and never end.
        let keys = json!({
            "Code": "Success", "LastUpdated": since, "Type": "AWS-HMAC", "AccessKeyId": "ASIASIMULATED0000000",
            "SecretAccessKey": "simulated", "Token": "simulated", "Expiration": "2099-01-01T00:00:00Z",
        });
        self.put(
            &format!("meta-data/iam/security-credentials/{ROLE}"),
            format!("{keys:#}"),
        );
    }

    /// The keys of one ENI. Those without a value are absent, and so read as 404.
    fn put_eni(&mut self, model: &Model, entry: &ImdsEni) {
        let eni = &entry.eni;
        let Some(tie) = &eni.attachment else { return };
        let (Some(subnet), Some(vpc)) = (model.subnet(&eni.subnet), model.vpc(&eni.vpc)) else {
            return;
        };
        let cards = model
            .instance(&tie.instance)
            .map_or(1, |instance| instance.limits.enis_per_card.len());
        let ids = (!entry.is_half).then(|| [eni.id.to_string(), tie.device.to_string()]);
        let [id, device] = ids.map_or([None, None], |ids| ids.map(Some));
        let card = (cards > 1).then(|| tie.card.0.to_string());
        let singles = std::iter::once(&eni.primary).chain(&eni.secondary);
        let keys = [
            ("mac", Some(eni.mac.to_string())),
            ("interface-id", id),
            ("device-number", device),
            // Old documentation has the longer name; clients read either.
            ("network-card", card.clone()),
            ("network-card-index", card),
            ("owner-id", Some(model.settings().account.clone())),
            ("local-hostname", Some(host_name(eni))),
            ("security-groups", Some(group_names(model, eni))),
            ("security-group-ids", lines(&eni.groups)),
            ("subnet-id", Some(eni.subnet.to_string())),
            ("vpc-id", Some(eni.vpc.to_string())),
            ("local-ipv4s", lines(singles)),
            ("ipv4-prefix", lines(eni.prefixes.iter().map(|prefix| prefix.net()))),
            ("ipv6s", lines(&eni.ipv6)),
            ("ipv6-prefix", lines(&eni.ipv6_prefixes)),
            ("subnet-ipv4-cidr-block", Some(subnet.cidr.to_string())),
            ("subnet-ipv6-cidr-blocks", lines(subnet.ipv6_cidr)),
            ("vpc-ipv4-cidr-block", vpc.cidrs.first().map(ToString::to_string)),
            ("vpc-ipv4-cidr-blocks", lines(&vpc.cidrs)),
            ("vpc-ipv6-cidr-blocks", lines(&vpc.ipv6_cidrs)),
        ];
        for (key, text) in keys {
            if let Some(text) = text {
                self.put(&format!("meta-data/network/interfaces/macs/{}/{key}", eni.mac), text);
            }
        }
    }

    fn read(&self, path: &str) -> Option<String> {
        let path = path.trim_end_matches('/');
        if let Some(text) = self.0.get(path) {
            return Some(text.clone());
        }
        let directory = if path.is_empty() {
            String::new()
        } else {
            format!("{path}/")
        };
        let below = self
            .0
            .range(directory.clone()..)
            .map_while(|(key, _)| key.strip_prefix(&directory));
        let mut entries: Vec<_> = below
            .map(|rest| {
                rest.split_once('/')
                    .map_or_else(|| rest.to_owned(), |(name, _)| format!("{name}/"))
            })
            .collect();
        entries.dedup();
        (!entries.is_empty()).then(|| entries.join("\n"))
    }
}

/// One per line; `None` for an empty list.
fn lines(items: impl IntoIterator<Item = impl ToString>) -> Option<String> {
    let lines: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn host_name(eni: &Eni) -> String {
    format!("ip-{}.ec2.internal", eni.primary.to_string().replace('.', "-"))
}

fn group_names(model: &Model, eni: &Eni) -> String {
    let names: Vec<_> = eni
        .groups
        .iter()
        .filter_map(|id| model.security_group(id))
        .map(|group| group.name.clone())
        .collect();
    names.join("\n")
}
