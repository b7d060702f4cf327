//! Runs EC2 work through the SDK and translates: core's words into calls, views and error classes into events.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::time::Duration;

use cloud::{AttachmentStatus, Class, ClientToken, CreateEni, Ec2, Ec2Error, EniKind, EniView, ErrorCode, TagFilter};
use ipam_core::{
    Applied, AttachmentFact, AttachmentState, Ec2View, EniFact, EniRole, Event, OnTermination, OpId, OpOutcome,
    Refusal, Scope, ViewSource, WallTime, Want, Work,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use vpc_types::{Allocation, DeviceNumber, InstanceId, MacAddress, NetworkCard, SecurityGroupId};

use crate::clock;
use crate::observe::Chain;
use crate::owner::{Inbox, Input};

const TAG_INSTANCE: &str = "node.k8s.amazonaws.com/instance_id";
const TAG_CREATED: &str = "node.k8s.amazonaws.com/createdAt";
const TAG_CLUSTER: &str = "cluster.k8s.amazonaws.com/name";
const TAG_NO_MANAGE: &str = "node.k8s.amazonaws.com/no_manage";
const TAG_OWNER: (&str, &str) = ("eks:eni:owner", "amazon-vpc-cni");

/// Tags of ENIs made on this node.
#[derive(Debug, Clone)]
pub struct EniTags {
    /// This instance.
    pub instance: InstanceId,
    /// Cluster, if known.
    pub cluster: Option<String>,
    /// The operator's own.
    pub additional: BTreeMap<String, String>,
}

impl EniTags {
    fn at(&self, created: WallTime) -> BTreeMap<String, String> {
        let mut tags = BTreeMap::from([
            (TAG_INSTANCE.to_owned(), self.instance.to_string()),
            (TAG_CREATED.to_owned(), rfc3339(created)),
        ]);
        if let Some(cluster) = &self.cluster {
            tags.insert(TAG_CLUSTER.to_owned(), cluster.clone());
            tags.insert(TAG_OWNER.0.to_owned(), TAG_OWNER.1.to_owned());
        }
        tags.extend(self.additional.clone());
        tags
    }
}

/// Whole seconds: EC2 compares tags of a repeated creation letter by letter.
fn rfc3339(at: WallTime) -> String {
    let seconds = i64::try_from(at.0.as_secs()).unwrap_or(i64::MAX);
    let time = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc3339).unwrap_or_default()
}

/// Runs EC2 work.
#[derive(Debug)]
pub struct Ec2Executor<E> {
    ec2: E,
    tags: EniTags,
    primary_mac: MacAddress,
    inbox: Inbox,
}

impl<E: Ec2> Ec2Executor<E> {
    /// An executor that tells `inbox` what came of its work.
    pub fn new(ec2: E, tags: EniTags, primary_mac: MacAddress, inbox: Inbox) -> Self {
        Self {
            ec2,
            tags,
            primary_mac,
            inbox,
        }
    }

    /// One list of ENIs.
    pub async fn describe(&self, scope: Scope) {
        let started_at = clock::now().boot;
        let listed = match scope {
            Scope::Attached => self.ec2.describe_instance_enis(&self.tags.instance).await,
            Scope::OwnAvailable => {
                let own = TagFilter::Equals {
                    key: TAG_INSTANCE.to_owned(),
                    value: self.tags.instance.to_string(),
                };
                self.ec2.describe_available_enis(&[own]).await
            }
            // Not asked for yet.
            Scope::Leaked | Scope::Subnets => return,
        };
        let event = match listed {
            Ok(views) => {
                let enis = views.iter().filter_map(|view| self.fact(view)).collect();
                Event::Ec2Viewed(Ec2View {
                    started_at,
                    scope,
                    source: ViewSource::Ec2,
                    enis,
                })
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "describe failed");
                Event::DescribeFailed {
                    scope,
                    refusal: refusal(&error),
                }
            }
        };
        self.inbox.send(Input::Event(event)).await;
    }

    /// One operation.
    pub async fn run(&self, op: OpId, work: Work) {
        let outcome = match self.call(&work).await {
            Ok(applied) => OpOutcome::Applied(applied),
            Err(error) => {
                tracing::warn!(op = op.0, work = work.kind(), error = %Chain(&error), "EC2 call failed");
                outcome_of(&error)
            }
        };
        self.inbox.send(Input::Event(Event::OpDone { op, outcome })).await;
    }

    async fn call(&self, work: &Work) -> Result<Applied, Ec2Error> {
        let ec2 = &self.ec2;
        match work {
            Work::CreateEni {
                token,
                subnet,
                groups,
                want,
                requested_at,
            } => {
                let request = CreateEni {
                    subnet: subnet.clone(),
                    groups: groups.iter().cloned().collect(),
                    description: format!("aws-K8S-{}", self.tags.instance),
                    tags: self.tags.at(*requested_at),
                    initial: asked(*want),
                    client_token: ClientToken::parse(token).expect("tokens are made of an instance id and numbers"),
                };
                let view = ec2.create_eni(&request).await?;
                Ok(self.fact(&view).map_or(Applied::Done, Applied::Created))
            }
            Work::Attach { eni, device, card } => ec2
                .attach_eni(eni, &self.tags.instance, *device, *card)
                .await
                .map(Applied::Attached),
            Work::DeleteOnTermination { eni, attachment } => ec2
                .set_delete_on_termination(eni, attachment)
                .await
                .map(|()| Applied::Done),
            Work::AllocateAddresses { eni, want } => {
                let Some(want) = asked(*want) else {
                    return Ok(Applied::Allocated(Vec::new()));
                };
                ec2.assign(eni, want).await.map(Applied::Allocated)
            }
            Work::SetGroups { eni, groups } => {
                let groups: Vec<SecurityGroupId> = groups.iter().cloned().collect();
                ec2.set_security_groups(eni, &groups).await.map(|()| Applied::Done)
            }
            Work::ReleaseAddresses { eni, allocations } => {
                let allocations: Vec<Allocation> = allocations.iter().copied().collect();
                ec2.unassign(eni, &allocations).await.map(|()| Applied::Done)
            }
            Work::Detach { attachment, .. } => ec2.detach_eni(attachment).await.map(|()| Applied::Done),
            Work::DeleteEni { eni } => ec2.delete_eni(eni).await.map(|()| Applied::Done),
            Work::SetupEni { .. } | Work::TeardownEni { .. } | Work::ClearPodState { .. } => {
                unreachable!("kernel work goes to the kernel executor")
            }
        }
    }

    /// `None` for ENIs without an IPv4 address (EFA-only): nothing here can use them.
    fn fact(&self, view: &EniView) -> Option<EniFact> {
        let primary_address = view.primary?;
        Some(EniFact {
            id: view.id.clone(),
            mac: view.mac,
            subnet: view.subnet.clone(),
            primary_address,
            allocations: view.allocations().collect(),
            role: self.role(view),
            groups: view.groups.clone(),
            attachment: view
                .attachment
                .as_ref()
                .filter(|a| a.status != AttachmentStatus::Detached)
                .map(attachment_fact),
            created_at: view.tags.get(TAG_CREATED).and_then(|text| parse_time(text)),
        })
    }

    fn role(&self, view: &EniView) -> EniRole {
        let slot = view.attachment.as_ref().map(|a| (a.card, a.device));
        let on_default_card = slot.is_none_or(|(card, _)| card == NetworkCard::DEFAULT);
        let opted_out = view.tags.get(TAG_NO_MANAGE).is_some_and(|text| text == "true");
        if view.mac == self.primary_mac || slot == Some((NetworkCard::DEFAULT, DeviceNumber::PRIMARY)) {
            EniRole::Primary
        } else if opted_out || !on_default_card || view.kind != EniKind::Interface {
            EniRole::Unmanaged
        } else {
            EniRole::Managed
        }
    }
}

/// Nothing, where an ENI is made without.
fn asked(want: Want) -> Option<cloud::Want> {
    match want {
        Want::Addresses(count) => NonZeroU16::new(count).map(cloud::Want::Addresses),
        Want::Prefixes(count) => NonZeroU16::new(count).map(cloud::Want::Prefixes),
    }
}

fn parse_time(text: &str) -> Option<WallTime> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(WallTime(Duration::from_secs(
        u64::try_from(time.unix_timestamp()).ok()?,
    )))
}

fn attachment_fact(view: &cloud::AttachmentView) -> AttachmentFact {
    AttachmentFact {
        id: view.id.clone(),
        device: view.device,
        card: view.card,
        on_termination: match view.delete_on_termination {
            cloud::DeleteOnTermination::Yes => OnTermination::Delete,
            cloud::DeleteOnTermination::No => OnTermination::Keep,
        },
        state: match view.status {
            AttachmentStatus::Detaching | AttachmentStatus::Detached => AttachmentState::Detaching,
            AttachmentStatus::Attaching | AttachmentStatus::Attached | AttachmentStatus::Other(_) => {
                AttachmentState::Attached
            }
        },
    }
}

fn outcome_of(error: &Ec2Error) -> OpOutcome {
    if error.class() == Class::Unknown {
        OpOutcome::Unknown
    } else {
        OpOutcome::Refused(refusal(error))
    }
}

fn refusal(error: &Ec2Error) -> Refusal {
    match error.class() {
        // The token is known with other parameters: something exists already.
        Class::Fatal if error.code() == Some(&ErrorCode::IdempotentParameterMismatch) => Refusal::Conflict,
        Class::Throttled => Refusal::Throttled,
        Class::Retry | Class::NotSent | Class::Unknown => Refusal::Unavailable,
        Class::SubnetFull => Refusal::SubnetFull,
        Class::SubnetFragmented => Refusal::SubnetFragmented,
        Class::LimitReached => Refusal::LimitReached,
        Class::Gone => Refusal::Gone,
        Class::Busy | Class::SlotTaken => Refusal::Conflict,
        Class::Denied => Refusal::Denied,
        Class::Fatal => Refusal::Other,
    }
}

#[cfg(test)]
mod tests;
