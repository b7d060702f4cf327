//! Runs EC2 work through the SDK and translates: core's words into calls, views and error classes into events.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::time::Duration;

use cloud::{
    AttachmentStatus, Class, ClientToken, CreateEni, Ec2, Ec2Error, EniKind, EniView, ErrorCode, ImdsClient, ImdsEni,
    SubnetView, TagFilter,
};
use ipam_core::{
    Applied, AttachmentFact, AttachmentState, BootTime, Ec2View, EniFact, EniRole, Event, OnTermination, OpId,
    OpOutcome, Refusal, Scope, SubnetFact, SubnetsView, ViewSource, WallTime, Want, Work,
};
use ipnet::Ipv4Net;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use vpc_types::{Allocation, AttachmentId, DeviceNumber, InstanceId, MacAddress, NetworkCard, SecurityGroupId, VpcId};

use crate::clock;
use crate::config::UntaggedEnis;
use crate::exec::KernelExecutor;
use crate::observe::Chain;
use crate::owner::{Inbox, Input};

const TAG_INSTANCE: &str = "node.k8s.amazonaws.com/instance_id";
const TAG_CREATED: &str = "node.k8s.amazonaws.com/createdAt";
const TAG_CLUSTER: &str = "cluster.k8s.amazonaws.com/name";
const TAG_NO_MANAGE: &str = "node.k8s.amazonaws.com/no_manage";
const TAG_OWNER: (&str, &str) = ("eks:eni:owner", "amazon-vpc-cni");

/// IMDS has no ids of attachments, and where it stands in for EC2 nobody needs them.
const UNKNOWN_ATTACHMENT: &str = "eni-attach-00000000";
/// Descriptions of ENIs begin with it, ours and the reference's; nobody else's left-over ENIs are touched.
const DESCRIPTION: &str = "aws-K8S-";

/// What calls and views depend on, beside the core's words.
#[derive(Debug, Clone)]
pub struct Ec2Scope {
    /// MAC of the primary ENI.
    pub primary_mac: MacAddress,
    /// The VPC.
    pub vpc: VpcId,
    /// The node's zone.
    pub zone: String,
    /// Whose ENIs without a word on that are.
    pub untagged: UntaggedEnis,
    /// Whether EC2 may be asked at all.
    pub source: ViewSource,
}

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
    imds: ImdsClient,
    tags: EniTags,
    scope: Ec2Scope,
    kernel: Option<KernelExecutor>,
    inbox: Inbox,
}

impl<E: Ec2> Ec2Executor<E> {
    /// An executor that tells `inbox` what came of its work.
    pub fn new(ec2: E, imds: ImdsClient, tags: EniTags, scope: Ec2Scope, inbox: Inbox) -> Self {
        Self {
            ec2,
            imds,
            tags,
            scope,
            kernel: None,
            inbox,
        }
    }

    /// Tells `kernel` the ranges of subnets as they become known: new ENIs may go there.
    pub fn teaching(mut self, kernel: KernelExecutor) -> Self {
        self.kernel = Some(kernel);
        self
    }

    /// One list of ENIs or subnets.
    pub async fn describe(&self, scope: Scope) {
        let started_at = clock::now().boot;
        let event = match self.scope.source {
            ViewSource::Imds => self.describe_by_imds(scope, started_at).await,
            ViewSource::Ec2 => self.describe_by_ec2(scope, started_at).await,
        };
        self.inbox.send(Input::Event(event)).await;
    }

    async fn describe_by_ec2(&self, scope: Scope, started_at: BootTime) -> Event {
        let listed = match scope {
            Scope::Attached => self.ec2.describe_instance_enis(&self.tags.instance).await,
            Scope::OwnAvailable => {
                let own = TagFilter::Equals {
                    key: TAG_INSTANCE.to_owned(),
                    value: self.tags.instance.to_string(),
                };
                self.ec2.describe_available_enis(&[own]).await
            }
            Scope::Leaked => self.leaked().await,
            Scope::Subnets => return self.subnets(started_at).await,
        };
        match listed {
            Ok(views) => Event::Ec2Viewed(Ec2View {
                started_at,
                scope,
                source: ViewSource::Ec2,
                enis: views.iter().filter_map(|view| self.fact(view)).collect(),
            }),
            Err(error) => describe_failed(scope, &error),
        }
    }

    /// ENIs that nodes of this cluster left behind. Without a cluster's name they could be anybody's.
    async fn leaked(&self) -> Result<Vec<EniView>, Ec2Error> {
        let Some(cluster) = &self.tags.cluster else {
            return Ok(Vec::new());
        };
        let filters = [
            TagFilter::Present(TAG_INSTANCE.to_owned()),
            TagFilter::Equals {
                key: TAG_CLUSTER.to_owned(),
                value: cluster.clone(),
            },
        ];
        let mut views = self.ec2.describe_available_enis(&filters).await?;
        // A name with a wildcard in it would match other clusters.
        views.retain(|view| {
            view.vpc == self.scope.vpc
                && view.description.starts_with(DESCRIPTION)
                && view.tags.get(TAG_CLUSTER) == Some(cluster)
        });
        Ok(views)
    }

    async fn subnets(&self, started_at: BootTime) -> Event {
        let listed = self.ec2.describe_subnets(&self.scope.vpc, &self.scope.zone).await;
        let views = match listed {
            Ok(views) => views,
            Err(error) => return describe_failed(Scope::Subnets, &error),
        };
        // An IPv6-only subnet has nothing for us.
        let subnets = views.into_iter().filter_map(|view| Some((view.cidr?, view)));
        let fact = |(range, view): (Ipv4Net, SubnetView)| {
            if let Some(kernel) = &self.kernel {
                kernel.learn_subnet(view.id.clone(), range);
            }
            SubnetFact {
                id: view.id,
                free: view.available_addresses,
                size: assignable(range),
                tags: view.tags,
            }
        };
        Event::SubnetsViewed(SubnetsView {
            started_at,
            subnets: subnets.map(fact).collect(),
        })
    }

    /// Where EC2 may not be asked, IMDS stands in; what it cannot know is refused, so that nothing is built on it.
    async fn describe_by_imds(&self, scope: Scope, started_at: BootTime) -> Event {
        let refused = |refusal| Event::DescribeFailed { scope, refusal };
        if scope != Scope::Attached {
            return refused(Refusal::Denied);
        }
        match self.imds.enis().await {
            Ok(enis) => Event::Ec2Viewed(Ec2View {
                started_at,
                scope,
                source: ViewSource::Imds,
                enis: enis.into_iter().filter_map(|eni| self.imds_fact(eni)).collect(),
            }),
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "IMDS not read");
                refused(Refusal::Unavailable)
            }
        }
    }

    /// IMDS has no tags, so every ENI on the default card is ours to use; nothing is changed there anyhow.
    fn imds_fact(&self, eni: ImdsEni) -> Option<EniFact> {
        let slot = (eni.card, eni.device);
        let role = if eni.mac == self.scope.primary_mac || slot == (NetworkCard::DEFAULT, DeviceNumber::PRIMARY) {
            EniRole::Primary
        } else if eni.card == NetworkCard::DEFAULT {
            EniRole::Managed
        } else {
            EniRole::Unmanaged
        };
        let (primary_address, secondaries) = eni.addresses.split_first()?;
        let singles = secondaries.iter().copied().map(Allocation::Ip);
        let prefixes = eni.prefixes.iter().copied().map(Allocation::Prefix);
        Some(EniFact {
            mac: eni.mac,
            subnet: eni.subnet,
            primary_address: *primary_address,
            allocations: singles.chain(prefixes).collect(),
            role,
            groups: eni.groups,
            attachment: Some(AttachmentFact {
                id: AttachmentId::parse(UNKNOWN_ATTACHMENT).expect("the constant is an id (tested)"),
                device: eni.device,
                card: eni.card,
                on_termination: OnTermination::Delete,
                state: AttachmentState::Attached,
            }),
            created_at: None,
            owner: None,
            id: eni.id,
        })
    }

    /// One operation.
    pub async fn run(&self, op: OpId, work: Work) {
        let outcome = match self.call(&work).await {
            Ok(applied) => OpOutcome::Applied(applied),
            Err(error) => {
                tracing::warn!(op = op.0, work = work.kind(), error = %Chain(&error), "EC2 call failed");
                outcome_of(&work, &error)
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
                    description: format!("{DESCRIPTION}{}", self.tags.instance),
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

    /// `None` for IPv6-only ENIs: nothing here can use them. Those for EFA only have no address either, but take a slot.
    fn fact(&self, view: &EniView) -> Option<EniFact> {
        let no_address = (view.kind == EniKind::EfaOnly).then_some(Ipv4Addr::UNSPECIFIED);
        let primary_address = view.primary.or(no_address)?;
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
            owner: view.tags.get(TAG_INSTANCE).and_then(|text| text.parse().ok()),
        })
    }

    fn role(&self, view: &EniView) -> EniRole {
        let slot = view.attachment.as_ref().map(|a| (a.card, a.device));
        let on_default_card = slot.is_none_or(|(card, _)| card == NetworkCard::DEFAULT);
        if view.mac == self.scope.primary_mac || slot == Some((NetworkCard::DEFAULT, DeviceNumber::PRIMARY)) {
            return EniRole::Primary;
        }
        match view.kind {
            EniKind::Trunk => EniRole::Trunk,
            EniKind::Interface | EniKind::Efa if !on_default_card || !self.is_managed(view) => EniRole::Unmanaged,
            EniKind::Interface => EniRole::Managed,
            EniKind::Efa => EniRole::Efa,
            EniKind::EfaOnly | EniKind::Branch | EniKind::Other(_) => EniRole::Unmanaged,
        }
    }

    /// The operator's word on the ENI comes first, then our own tag, then the operator's word on ENIs without either.
    fn is_managed(&self, view: &EniView) -> bool {
        match view.tags.get(TAG_NO_MANAGE) {
            Some(text) => text != "true",
            None if view.tags.get(TAG_INSTANCE).map(String::as_str) == Some(self.tags.instance.as_str()) => true,
            None => self.scope.untagged == UntaggedEnis::Managed,
        }
    }
}

fn describe_failed(scope: Scope, error: &Ec2Error) -> Event {
    tracing::warn!(?scope, error = %Chain(error), "describe failed");
    Event::DescribeFailed {
        scope,
        refusal: refusal(error),
    }
}

/// Addresses of a range less the five that EC2 keeps.
fn assignable(range: Ipv4Net) -> u32 {
    let all = 1_u32.checked_shl(32 - u32::from(range.prefix_len()));
    all.unwrap_or(u32::MAX).saturating_sub(5)
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

fn outcome_of(work: &Work, error: &Ec2Error) -> OpOutcome {
    if error.class() == Class::Unknown {
        return OpOutcome::Unknown;
    }
    let asks_prefixes = matches!(
        work,
        Work::CreateEni {
            want: Want::Prefixes(_),
            ..
        } | Work::AllocateAddresses {
            want: Want::Prefixes(_),
            ..
        }
    );
    let refusal = refusal(error);
    if refusal == Refusal::SubnetFull && asks_prefixes {
        // EC2 has several words for "no free block". Single addresses may be left, whatever the word.
        return OpOutcome::Refused(Refusal::SubnetFragmented);
    }
    OpOutcome::Refused(refusal)
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
