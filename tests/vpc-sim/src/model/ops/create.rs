//! `CreateNetworkInterface`, and the birth of ENIs in general.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use vpc_types::{Allocation, SecurityGroupId, VpcId};

use super::super::record::{Eni, SourceDestCheck};
use super::super::request::{CreateNetworkInterface, Ipv4Request};
use super::super::{Action, Ec2Error, ErrorCode, World};
use super::Operation;
use super::assign::sort_out;

/// EC2 keeps security groups per ENI to this many by default.
pub(super) const GROUPS_MAX: usize = 5;
/// EC2's documented bound on a client token.
const TOKEN_LEN_MAX: usize = 64;
/// EC2 promises idempotency for at least a day; older tokens are forgotten here.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3_600);

/// The new ENI with all its addresses.
#[derive(Debug, Clone)]
pub struct Created {
    /// As it was made: a repeat with the same token shows the first state again.
    pub eni: Arc<Eni>,
    /// The token of the request.
    pub client_token: Option<String>,
}

#[derive(Debug, Clone)]
struct Remembered {
    request: CreateNetworkInterface,
    eni: Arc<Eni>,
    at: Duration,
}

/// Client tokens with what they made.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Tokens(BTreeMap<String, Remembered>);

impl Operation for CreateNetworkInterface {
    type Output = Created;
    const ACTION: Action = Action::CreateNetworkInterface;

    fn execute(&self, world: &mut World, now: Duration) -> Result<Created, Ec2Error> {
        let created = |eni| Created {
            eni,
            client_token: self.client_token.clone(),
        };
        if let Some(token) = &self.client_token {
            if token.len() > TOKEN_LEN_MAX || !token.is_ascii() {
                return Err(Ec2Error::value("ClientToken must be at most 64 ASCII characters"));
            }
            world
                .tokens
                .0
                .retain(|_, entry| now.saturating_sub(entry.at) < TOKEN_LIFE);
            if let Some(first) = world.tokens.0.get(token) {
                return if first.request == *self {
                    Ok(created(Arc::clone(&first.eni)))
                } else {
                    let text = format!(
                        "Arguments on this idempotent request are inconsistent with arguments used in previous request(s): {token}"
                    );
                    Err(Ec2Error::new(ErrorCode::IdempotentParameterMismatch, text))
                };
            }
        }
        if world.eni_count() >= world.settings.eni_quota {
            let text = "The maximum number of network interfaces has been reached.";
            return Err(Ec2Error::new(ErrorCode::NetworkInterfaceLimitExceeded, text));
        }
        let eni = new_eni(world, now, self)?;
        if let Some(token) = &self.client_token {
            let remembered = Remembered {
                request: self.clone(),
                eni: Arc::clone(&eni),
                at: now,
            };
            world.tokens.0.insert(token.clone(), remembered);
        }
        Ok(created(eni))
    }
}

/// Makes an ENI that is attached to nothing.
pub(in super::super) fn new_eni(
    world: &mut World,
    now: Duration,
    request: &CreateNetworkInterface,
) -> Result<Arc<Eni>, Ec2Error> {
    let subnet = world.get_subnet(&request.subnet)?;
    let (vpc, zone) = (subnet.vpc.clone(), subnet.zone.clone());
    let groups = check_groups(world, &vpc, &request.groups)?;
    let ipv6 = match &request.ipv6 {
        Some(wanted) => super::assign6::choose(world, &request.subnet, wanted)?,
        None => Vec::new(),
    };
    let mut dice = world.picks.clone();
    let allocations = take_all(world, request, &mut dice)?;
    world.picks = dice;
    let Some((Allocation::Ip(primary), rest)) = allocations.split_first() else {
        unreachable!("the primary address is taken first")
    };
    let (secondary, prefixes) = sort_out(rest);
    let (ipv6, ipv6_prefixes) = super::assign6::sort_out(&ipv6);
    let eni = Eni {
        id: world.new_id("eni-").parse().expect("generated ids are well formed"),
        subnet: request.subnet.clone(),
        vpc,
        zone,
        description: request.description.clone(),
        mac: world.new_mac(),
        primary: *primary,
        secondary,
        prefixes,
        ipv6,
        ipv6_prefixes,
        groups,
        source_dest_check: SourceDestCheck::On,
        interface_type: request.interface_type,
        tags: request.tags.clone(),
        attachment: None,
    };
    Ok(world.insert_eni(now, eni))
}

/// The primary address and all others, or nothing.
fn take_all(
    world: &mut World,
    request: &CreateNetworkInterface,
    dice: &mut fastrand::Rng,
) -> Result<Vec<Allocation>, Ec2Error> {
    let subnet = world.get_subnet(&request.subnet)?;
    let primary = request
        .primary
        .map_or(Ipv4Request::Count(1), |address| Ipv4Request::Addresses(vec![address]));
    let mut taken = subnet.take(&primary, dice)?;
    if let Some(wanted) = &request.ipv4 {
        match subnet.take(wanted, dice) {
            Ok(more) => taken.extend(more),
            Err(refusal) => {
                taken.into_iter().for_each(|allocation| subnet.give_back(allocation));
                return Err(refusal);
            }
        }
    }
    Ok(taken)
}

/// The groups to use: those named, else the VPC's default one.
pub(super) fn check_groups(
    world: &World,
    vpc: &VpcId,
    groups: &[SecurityGroupId],
) -> Result<Vec<SecurityGroupId>, Ec2Error> {
    if groups.len() > GROUPS_MAX {
        let text = format!(
            "You have exceeded the maximum number of security groups allowed per network interface: {GROUPS_MAX}"
        );
        return Err(Ec2Error::new(ErrorCode::SecurityGroupsPerInterfaceLimitExceeded, text));
    }
    let foreign = groups
        .iter()
        .find(|id| world.groups.get(*id).is_none_or(|group| group.vpc != *vpc));
    if let Some(id) = foreign {
        let text = format!("The security group '{id}' does not exist");
        return Err(Ec2Error::new(ErrorCode::InvalidGroupNotFound, text));
    }
    if groups.is_empty() {
        return Ok(vec![world.vpcs[vpc].default_group.clone()]);
    }
    Ok(groups.to_vec())
}
