//! The calls that the reference's pool manager makes, one at a time, and what it learns from their answers.

use std::time::Duration;

use ipam_core::SubnetFact;
use vpc_sim::model::request::{
    AssignPrivateIpAddresses, AttachNetworkInterface, CreateNetworkInterface, CreateTags, DeleteNetworkInterface,
    DescribeInstances, DescribeNetworkInterfaces, DetachMode, DetachNetworkInterface, EniAttribute, Ipv4Request,
    ModifyNetworkInterfaceAttribute, Query, UnassignPrivateIpAddresses,
};
use vpc_sim::model::{AssignedIpv4, Created, Ec2Error, ErrorCode, OnTermination};
use vpc_types::{Allocation, AttachmentId, DeviceNumber, EniId, InstanceId, SubnetId};

use super::super::account::Account;
use super::super::plan::Mode;

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    View(EniId),
    Tag(EniId),
    Subnets,
    Groups(EniId),
    Assign(EniId, u32),
    Create(SubnetId, u32),
    Index,
    Attach(EniId, DeviceNumber),
    KeepWithInstance(EniId, AttachmentId),
    Unassign(EniId, Vec<Allocation>),
    Detach(AttachmentId),
    Delete(EniId),
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Got {
    Done,
    Created(EniId, Vec<Allocation>),
    Attached(AttachmentId),
    Allocated(Vec<Allocation>),
    /// Most free addresses first.
    Subnets(Vec<SubnetId>),
    Throttled,
    Insufficient,
    /// The ENI takes no more.
    Full,
    Refused,
}

/// Who calls.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) instance: InstanceId,
    pub(crate) mode: Mode,
}

fn got<T>(result: Result<T, Ec2Error>, done: impl FnOnce(T) -> Got) -> Got {
    match result {
        Ok(output) => done(output),
        Err(error) if error.code == ErrorCode::RequestLimitExceeded => Got::Throttled,
        Err(error) if error.code == ErrorCode::PrivateIpAddressLimitExceeded => Got::Full,
        Err(error)
            if [
                ErrorCode::InsufficientCidrBlocks,
                ErrorCode::InsufficientFreeAddressesInSubnet,
            ]
            .contains(&error.code) =>
        {
            Got::Insufficient
        }
        Err(_) => Got::Refused,
    }
}

fn done<T>(_: T) -> Got {
    Got::Done
}

impl Caller {
    fn wanted(&self, slots: u32) -> Ipv4Request {
        match self.mode {
            Mode::Addresses => Ipv4Request::Count(slots),
            Mode::Prefixes => Ipv4Request::PrefixCount(slots),
        }
    }

    fn assign(&self, account: &mut Account, now: Duration, eni: &EniId, slots: u32) -> (Duration, Got) {
        let request = AssignPrivateIpAddresses::new(eni.clone(), self.wanted(slots));
        let (latency, result) = account.call(now, &request);
        let allocated = |assigned: AssignedIpv4| {
            let singles = assigned.addresses.into_iter().map(Allocation::Ip);
            Got::Allocated(
                singles
                    .chain(assigned.prefixes.into_iter().map(Allocation::Prefix))
                    .collect(),
            )
        };
        (latency, got(result, allocated))
    }

    fn create(&self, account: &mut Account, now: Duration, subnet: &SubnetId, slots: u32) -> (Duration, Got) {
        let mut request = CreateNetworkInterface::new(subnet.clone());
        request.ipv4 = Some(self.wanted(slots));
        let (latency, result) = account.call(now, &request);
        let created = |created: Created| Got::Created(created.eni.id.clone(), created.eni.allocations().collect());
        (latency, got(result, created))
    }

    pub(crate) fn make(&self, account: &mut Account, now: Duration, call: &Call) -> (Duration, Got) {
        match call {
            Call::View(eni) => {
                let request = DescribeNetworkInterfaces {
                    ids: vec![eni.clone()],
                    query: Query::default(),
                };
                plain(account.call(now, &request))
            }
            Call::Tag(eni) => plain(
                account.call(
                    now,
                    &CreateTags {
                        resources: vec![eni.to_string()],
                        tags: [(
                            "node.k8s.amazonaws.com/instance_id".to_owned(),
                            self.instance.to_string(),
                        )]
                        .into(),
                    },
                ),
            ),
            Call::Subnets => {
                let (latency, result) = account.subnets_of_zone(now);
                let sorted = |mut subnets: Vec<SubnetFact>| {
                    subnets.sort_by_key(|subnet| std::cmp::Reverse(subnet.free));
                    Got::Subnets(subnets.into_iter().map(|subnet| subnet.id).collect())
                };
                (latency, got(result, sorted))
            }
            Call::Groups(eni) => {
                let groups = account.model.eni(eni).map(|eni| eni.groups.clone()).unwrap_or_default();
                plain(account.call(now, &modify(eni, EniAttribute::Groups(groups))))
            }
            Call::Assign(eni, slots) => self.assign(account, now, eni, *slots),
            Call::Create(subnet, slots) => self.create(account, now, subnet, *slots),
            Call::Index => {
                let request = DescribeInstances {
                    ids: vec![self.instance.clone()],
                    query: Query::default(),
                };
                plain(account.call(now, &request))
            }
            Call::Attach(eni, device) => {
                let request = AttachNetworkInterface {
                    eni: eni.clone(),
                    instance: self.instance.clone(),
                    device: *device,
                    card: None,
                };
                let (latency, result) = account.attach(now, &request);
                (latency, got(result, Got::Attached))
            }
            Call::KeepWithInstance(eni, attachment) => {
                let attribute = EniAttribute::OnTermination(attachment.clone(), OnTermination::Delete);
                plain(account.call(now, &modify(eni, attribute)))
            }
            Call::Unassign(eni, allocations) => plain(account.call(now, &unassign(eni, allocations))),
            Call::Detach(attachment) => plain(account.call(
                now,
                &DetachNetworkInterface {
                    attachment: attachment.clone(),
                    mode: DetachMode::Orderly,
                },
            )),
            Call::Delete(eni) => plain(account.call(now, &DeleteNetworkInterface { eni: eni.clone() })),
        }
    }
}

fn plain<T>((latency, result): (Duration, Result<T, Ec2Error>)) -> (Duration, Got) {
    (latency, got(result, done))
}

fn modify(eni: &EniId, attribute: EniAttribute) -> ModifyNetworkInterfaceAttribute {
    ModifyNetworkInterfaceAttribute {
        eni: eni.clone(),
        attribute,
    }
}

fn unassign(eni: &EniId, allocations: &[Allocation]) -> UnassignPrivateIpAddresses {
    let addresses = allocations.iter().filter_map(|one| match one {
        Allocation::Ip(address) => Some(*address),
        Allocation::Prefix(_) => None,
    });
    let prefixes = allocations.iter().filter_map(|one| match one {
        Allocation::Ip(_) => None,
        Allocation::Prefix(prefix) => Some(*prefix),
    });
    UnassignPrivateIpAddresses {
        eni: eni.clone(),
        addresses: addresses.collect(),
        prefixes: prefixes.collect(),
    }
}
