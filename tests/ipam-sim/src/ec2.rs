//! Calls to EC2: from the core's work to the model's requests, from the model's answers to the core's classes, and what
//! goes wrong on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipam_core::{
    Applied, AttachmentFact, AttachmentState, BootTime, Ec2View, EniFact, EniRole, Event, OnTermination, OpId,
    OpOutcome, Refusal, Scope, SubnetFact, SubnetsView, ViewSource, WallTime, Want, Work,
};
use vpc_sim::model::request::{
    AssignPrivateIpAddresses, AttachNetworkInterface, CreateNetworkInterface, DeleteNetworkInterface,
    DescribeNetworkInterfaces, DescribeSubnets, DetachMode, DetachNetworkInterface, EniAttribute, Filter, Ipv4Request,
    ModifyNetworkInterfaceAttribute, Query, UnassignPrivateIpAddresses,
};
use vpc_sim::model::{self, Answer, AttachmentStatus, Ec2Error, ErrorCode, InterfaceType};
use vpc_types::{Allocation, DeviceNumber, EniId, NetworkCard};

use crate::fault::Fault;
use crate::outage::DESCRIBE;
use crate::queue::{Happening, Life};
use crate::world::World;

/// The client's time-out.
const TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const INSTANCE_TAG: &str = "node.k8s.amazonaws.com/instance_id";
const CREATED_TAG: &str = "node.k8s.amazonaws.com/createdAt";
/// ENIs with this tag are somebody else's.
pub(crate) const FOREIGN_TAG: &str = "node.k8s.amazonaws.com/no_manage";

impl World {
    fn answer(&mut self, life: Life, delay: Duration, event: Event) {
        if self.strikes(Fault::RepeatedAnswer) {
            let late = delay + self.luck.millis(1, 90_000);
            let event = event.clone();
            self.after(late, Happening::Deliver { life, event });
        }
        self.after(delay, Happening::Deliver { life, event });
    }

    /// A refusal that strikes before EC2 does anything.
    fn early_refusal(&mut self, call: &'static str) -> Option<Refusal> {
        let outage = self.outage_of(call);
        if outage.is_some() {
            return outage;
        }
        [
            (Fault::Throttled, Refusal::Throttled),
            (Fault::Unavailable, Refusal::Unavailable),
        ]
        .into_iter()
        .find(|(fault, _)| self.strikes(*fault))
        .map(|(_, refusal)| refusal)
    }

    pub(crate) fn send_work(&mut self, op: OpId, work: Work) {
        self.count_call(work.kind());
        self.check_work(op, &work);
        if let Work::CreateEni { token, .. } = &work
            && !self.tokens.insert(token.clone())
        {
            self.coverage.hit("repeat", "CreateEni");
        }
        let life = self.life;
        let way = self.pace.millis(5, 40);
        if let Some(refusal) = self.early_refusal(work.kind()) {
            return self.answer(
                life,
                way * 4,
                Event::OpDone {
                    op,
                    outcome: OpOutcome::Refused(refusal),
                },
            );
        }
        let limited = matches!(work, Work::Attach { .. });
        if limited && self.strikes(Fault::LimitReached) {
            let outcome = OpOutcome::Refused(Refusal::LimitReached);
            return self.answer(life, way * 4, Event::OpDone { op, outcome });
        }
        self.send_over_a_bad_line(op, work, way);
    }

    /// The request goes out; what becomes of it and of its answer is luck.
    fn send_over_a_bad_line(&mut self, op: OpId, work: Work, way: Duration) {
        let life = self.life;
        let unknown = Event::OpDone {
            op,
            outcome: OpOutcome::Unknown,
        };
        if self.strikes(Fault::ServerError) {
            if self.luck.chance(500) {
                self.after(
                    way,
                    Happening::Ec2Work {
                        life,
                        op,
                        work,
                        answered: false,
                    },
                );
            }
            self.answer(life, way * 8, unknown);
        } else if self.strikes(Fault::LostRequest) {
            self.answer(life, TIMEOUT, unknown);
        } else if self.strikes(Fault::LostAnswer) {
            self.after(
                way,
                Happening::Ec2Work {
                    life,
                    op,
                    work,
                    answered: false,
                },
            );
            self.answer(life, TIMEOUT, unknown);
        } else if self.strikes(Fault::LateEffect) {
            let late = self.luck.millis(500, 9_900);
            self.after(
                late,
                Happening::Ec2Work {
                    life,
                    op,
                    work,
                    answered: false,
                },
            );
            self.answer(life, TIMEOUT, unknown);
        } else {
            self.after(
                way,
                Happening::Ec2Work {
                    life,
                    op,
                    work,
                    answered: true,
                },
            );
        }
    }

    pub(crate) fn ec2_work(&mut self, life: Life, op: OpId, work: &Work, answered: bool) {
        let (latency, outcome) = self.call(work);
        self.note(|| format!("ec2: {} {op:?} = {outcome:?}", work.kind()));
        if life == self.life {
            self.check_refusal(work, &outcome);
        } else {
            // It took effect after its daemon's death: the next one cannot have known.
            self.memory_lost_at = Some(self.now);
        }
        if answered {
            let slow = if self.strikes(Fault::SlowAnswer) {
                self.luck.millis(1_000, 9_000)
            } else {
                Duration::ZERO
            };
            self.answer(life, latency + slow, Event::OpDone { op, outcome });
        }
    }

    fn call(&mut self, work: &Work) -> (Duration, OpOutcome) {
        let now = self.now;
        match work {
            Work::CreateEni {
                token,
                subnet,
                groups,
                want,
                requested_at,
            } => {
                let mut request = CreateNetworkInterface::new(subnet.clone());
                request.groups = groups.iter().cloned().collect();
                request.ipv4 = (want.slots() > 0).then(|| asked(*want));
                request.client_token = Some(token.clone());
                request.tags = self.own_tags(*requested_at);
                let answer = self.ec2.call(now, &request);
                let instance = self.instance.clone();
                outcome(answer, |created| Applied::Created(fact(&created.eni, &instance)))
            }
            Work::Attach { eni, device, card } => self.call_attach(eni, *device, *card),
            Work::DeleteOnTermination { eni, attachment } => {
                let attribute = EniAttribute::OnTermination(attachment.clone(), model::OnTermination::Delete);
                let request = ModifyNetworkInterfaceAttribute {
                    eni: eni.clone(),
                    attribute,
                };
                outcome(self.ec2.call(now, &request), |()| Applied::Done)
            }
            Work::AllocateAddresses { eni, want } => {
                let request = AssignPrivateIpAddresses::new(eni.clone(), asked(*want));
                outcome(self.ec2.call(now, &request), |assigned| {
                    let addresses = assigned.addresses.into_iter().map(Allocation::Ip);
                    let prefixes = assigned.prefixes.into_iter().map(Allocation::Prefix);
                    Applied::Allocated(addresses.chain(prefixes).collect())
                })
            }
            Work::SetGroups { eni, groups } => {
                let request = ModifyNetworkInterfaceAttribute {
                    eni: eni.clone(),
                    attribute: EniAttribute::Groups(groups.iter().cloned().collect()),
                };
                outcome(self.ec2.call(now, &request), |()| Applied::Done)
            }
            Work::ReleaseAddresses { eni, allocations } => {
                let request = release(eni, allocations);
                outcome(self.ec2.call(now, &request), |()| Applied::Done)
            }
            Work::Detach { attachment, .. } => {
                let request = DetachNetworkInterface {
                    attachment: attachment.clone(),
                    mode: DetachMode::Orderly,
                };
                outcome(self.ec2.call(now, &request), |()| Applied::Done)
            }
            Work::DeleteEni { eni } => {
                outcome(self.ec2.call(now, &DeleteNetworkInterface { eni: eni.clone() }), |()| {
                    Applied::Done
                })
            }
            Work::SetupEni { .. } | Work::TeardownEni { .. } | Work::ClearPodState { .. } => {
                unreachable!("the kernel's work does not come here")
            }
        }
    }

    fn own_tags(&self, requested_at: WallTime) -> BTreeMap<String, String> {
        BTreeMap::from([
            (INSTANCE_TAG.to_owned(), self.instance.to_string()),
            (CREATED_TAG.to_owned(), requested_at.as_nanos().to_string()),
        ])
    }

    fn call_attach(&mut self, eni: &EniId, device: DeviceNumber, card: NetworkCard) -> (Duration, OpOutcome) {
        if self.strikes(Fault::SlowAttach) {
            let slow = Duration::from_secs(u64::from(self.luck.number(5, 90)));
            self.ec2.settings_mut().attach = model::Delay::Fixed(slow);
        }
        if self.strikes(Fault::StuckAttach) {
            let stuck = Duration::from_secs(u64::from(self.luck.number(120, 2_400)));
            self.ec2.settings_mut().attach = model::Delay::Fixed(stuck);
        }
        let request = AttachNetworkInterface {
            eni: eni.clone(),
            instance: self.instance.clone(),
            device,
            card: Some(card),
        };
        let answer = self.ec2.call(self.now, &request);
        self.ec2.settings_mut().attach = self.scenario.attach;
        outcome(answer, |attached| Applied::Attached(attached.attachment))
    }

    pub(crate) fn send_describe(&mut self, scope: Scope) {
        if self.sees_imds_only(scope) {
            let (started_at, delay) = (self.boot_time(), self.pace.millis(2, 30));
            let event = self.view_through_imds(started_at);
            return self.answer(self.life, delay, event);
        }
        self.count_call(crate::names::of_scope(scope));
        let (life, started_at, way) = (self.life, self.boot_time(), self.pace.millis(5, 60));
        let refusal = self
            .early_refusal(DESCRIBE)
            .or_else(|| self.strikes(Fault::ServerError).then_some(Refusal::Unavailable));
        match refusal {
            Some(refusal) => self.answer(life, way * 3, Event::DescribeFailed { scope, refusal }),
            None => self.after(
                way,
                Happening::Ec2Describe {
                    life,
                    scope,
                    started_at,
                },
            ),
        }
    }

    /// Not twice within the time in which two views that agree would be proof.
    fn is_cut_short(&mut self) -> bool {
        let rare = self
            .cut_short_at
            .is_none_or(|at| self.now - at > Duration::from_secs(600));
        let cut = rare && self.strikes(Fault::ShortView);
        if cut {
            self.cut_short_at = Some(self.now);
        }
        cut
    }

    fn describe_subnets(&mut self, life: Life, started_at: BootTime) {
        let answer = self.ec2.call(self.now, &DescribeSubnets::default());
        let event = match answer.outcome {
            model::Outcome::Done(page) => {
                let fact = |subnet: &model::Subnet| SubnetFact {
                    id: subnet.id.clone(),
                    free: subnet.available(),
                    size: (1 << (32 - u32::from(subnet.cidr.prefix_len()))) - 5,
                    tags: subnet.tags.clone(),
                };
                let subnets = page
                    .items
                    .iter()
                    .filter(|one| self.is_in_zone(&one.id))
                    .map(fact)
                    .collect();
                Event::SubnetsViewed(SubnetsView { started_at, subnets })
            }
            model::Outcome::Refused(error) => Event::DescribeFailed {
                scope: Scope::Subnets,
                refusal: class(&error),
            },
            model::Outcome::Lost => Event::DescribeFailed {
                scope: Scope::Subnets,
                refusal: Refusal::Unavailable,
            },
        };
        self.answer(life, answer.latency, event);
    }

    pub(crate) fn ec2_describe(&mut self, life: Life, scope: Scope, started_at: BootTime) {
        let instance = self.instance.clone();
        let filters = match scope {
            Scope::Attached => vec![Filter::new("attachment.instance-id", instance.as_str())],
            Scope::OwnAvailable => vec![
                Filter::new(&format!("tag:{INSTANCE_TAG}"), instance.as_str()),
                Filter::new("status", "available"),
            ],
            Scope::Leaked => vec![Filter::new("tag-key", INSTANCE_TAG), Filter::new("status", "available")],
            Scope::Subnets => return self.describe_subnets(life, started_at),
        };
        let request = DescribeNetworkInterfaces::from(Query {
            filters,
            ..Query::default()
        });
        let answer = self.ec2.call(self.now, &request);
        let event = match answer.outcome {
            model::Outcome::Done(page) => {
                let mut enis: Vec<EniFact> = page.items.iter().map(|eni| fact(eni, &instance)).collect();
                if scope == Scope::Attached && self.is_cut_short() {
                    enis.pop_if(|eni| eni.role != EniRole::Primary);
                }
                Event::Ec2Viewed(Ec2View {
                    started_at,
                    scope,
                    source: ViewSource::Ec2,
                    enis,
                })
            }
            model::Outcome::Refused(error) => Event::DescribeFailed {
                scope,
                refusal: class(&error),
            },
            model::Outcome::Lost => Event::DescribeFailed {
                scope,
                refusal: Refusal::Unavailable,
            },
        };
        let slow = if self.strikes(Fault::SlowAnswer) {
            self.luck.millis(500, 6_000)
        } else {
            Duration::ZERO
        };
        self.answer(life, answer.latency + slow, event);
    }
}

pub(crate) fn asked(want: Want) -> Ipv4Request {
    match want {
        Want::Addresses(count) => Ipv4Request::Count(u32::from(count)),
        Want::Prefixes(count) => Ipv4Request::PrefixCount(u32::from(count)),
    }
}

pub(crate) fn release(eni: &EniId, allocations: &BTreeSet<Allocation>) -> UnassignPrivateIpAddresses {
    let (mut addresses, mut prefixes) = (Vec::new(), Vec::new());
    for allocation in allocations {
        match allocation {
            Allocation::Ip(address) => addresses.push(*address),
            Allocation::Prefix(prefix) => prefixes.push(*prefix),
        }
    }
    UnassignPrivateIpAddresses {
        eni: eni.clone(),
        addresses,
        prefixes,
    }
}

fn outcome<T>(answer: Answer<T>, applied: impl FnOnce(T) -> Applied) -> (Duration, OpOutcome) {
    let outcome = match answer.outcome {
        model::Outcome::Done(output) => OpOutcome::Applied(applied(output)),
        model::Outcome::Refused(error) => OpOutcome::Refused(class(&error)),
        model::Outcome::Lost => OpOutcome::Unknown,
    };
    (answer.latency, outcome)
}

pub(crate) fn class(error: &Ec2Error) -> Refusal {
    let hidden = |text| error.code == ErrorCode::InvalidParameterValue && error.message.contains(text);
    if hidden("currently in use") || hidden("already has an interface") {
        return Refusal::Conflict;
    }
    // Too few addresses for a prefix wears this disguise.
    if hidden("sufficient free") {
        return Refusal::SubnetFragmented;
    }
    if hidden("not assigned to") {
        return Refusal::Gone;
    }
    let table = [
        (ErrorCode::RequestLimitExceeded, Refusal::Throttled),
        (ErrorCode::InvalidEniNotFound, Refusal::Gone),
        (ErrorCode::InvalidAttachmentNotFound, Refusal::Gone),
        (ErrorCode::InvalidEniInUse, Refusal::Conflict),
        (ErrorCode::IncorrectState, Refusal::Conflict),
        (ErrorCode::IdempotentParameterMismatch, Refusal::Conflict),
        (ErrorCode::AttachmentLimitExceeded, Refusal::LimitReached),
        (ErrorCode::PrivateIpAddressLimitExceeded, Refusal::LimitReached),
        (ErrorCode::NetworkInterfaceLimitExceeded, Refusal::LimitReached),
        (ErrorCode::InsufficientFreeAddressesInSubnet, Refusal::SubnetFull),
        (ErrorCode::InsufficientCidrBlocks, Refusal::SubnetFragmented),
    ];
    table
        .iter()
        .find(|(code, _)| *code == error.code)
        .map_or(Refusal::Other, |(_, refusal)| *refusal)
}

/// An ENI as the daemon reads it from an answer.
pub(crate) fn fact(eni: &model::Eni, instance: &vpc_types::InstanceId) -> EniFact {
    let tie = eni.attachment.as_ref().filter(|tie| tie.instance == *instance);
    let role = match tie {
        Some(tie) if tie.is_primary() => EniRole::Primary,
        _ if eni.tags.contains_key(FOREIGN_TAG) => EniRole::Unmanaged,
        _ if eni.interface_type == InterfaceType::Trunk => EniRole::Trunk,
        _ if eni.interface_type == InterfaceType::Efa => EniRole::Efa,
        _ => EniRole::Managed,
    };
    let created = eni.tags.get(CREATED_TAG).and_then(|nanos| nanos.parse().ok());
    EniFact {
        id: eni.id.clone(),
        mac: eni.mac,
        subnet: eni.subnet.clone(),
        primary_address: eni.primary,
        allocations: eni.allocations().collect(),
        role,
        groups: eni.groups.iter().cloned().collect(),
        attachment: tie.map(|tie| AttachmentFact {
            id: tie.id.clone(),
            device: tie.device,
            card: tie.card,
            on_termination: match tie.on_termination {
                model::OnTermination::Delete => OnTermination::Delete,
                model::OnTermination::Keep => OnTermination::Keep,
            },
            state: match tie.status {
                AttachmentStatus::Attaching | AttachmentStatus::Attached => AttachmentState::Attached,
                AttachmentStatus::Detaching => AttachmentState::Detaching,
            },
        }),
        created_at: created.map(|nanos| WallTime(Duration::from_nanos(nanos))),
        owner: eni.tags.get(INSTANCE_TAG).and_then(|text| text.parse().ok()),
    }
}
