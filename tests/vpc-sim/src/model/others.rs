//! What others do: users of the same subnets, and whoever ends instances. Not counted, not throttled, never refused by faults.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::Ipv4Net;
use vpc_types::{InstanceId, SubnetId};

use super::request::{CreateNetworkInterface, DeleteNetworkInterface, Ipv4Request};
use super::{Ec2Error, Eni, ErrorCode, Model};

/// Tag of somebody else's ENIs.
const TAG: &str = "vpc-sim/somebody-else";

/// What somebody else takes of a subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupancy {
    /// So many addresses, of EC2's choice.
    Addresses(u32),
    /// One address in each block of 16: none is left for a prefix, whatever else is free.
    OneInEachBlock,
}

/// Why an instance will end soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// EC2 wants its spot capacity back.
    Spot,
    /// Its Auto Scaling group removes it.
    AutoScaling,
}

impl Model {
    /// Somebody else takes addresses. How many.
    ///
    /// # Errors
    /// As a creation of an ENI has them; all or nothing but for [`Occupancy::OneInEachBlock`].
    pub fn occupy(&mut self, now: Duration, subnet: &SubnetId, what: Occupancy) -> Result<u32, Ec2Error> {
        let mut call = CreateNetworkInterface::new(subnet.clone());
        call.tags = BTreeMap::from([(TAG.to_owned(), String::new())]);
        match what {
            Occupancy::Addresses(0) => Ok(0),
            Occupancy::Addresses(count) => {
                call.ipv4 = (count > 1).then_some(Ipv4Request::Count(count - 1));
                self.call_directly(now, &call).map(|_| count)
            }
            Occupancy::OneInEachBlock => {
                let mut taken = 0;
                for address in self.one_in_each_block(subnet)? {
                    call.primary = Some(address);
                    self.call_directly(now, &call)?;
                    taken += 1;
                }
                Ok(taken)
            }
        }
    }

    fn one_in_each_block(&self, id: &SubnetId) -> Result<Vec<std::net::Ipv4Addr>, Ec2Error> {
        let subnet = self
            .subnet(id)
            .ok_or_else(|| Ec2Error::stock(ErrorCode::InvalidSubnetNotFound))?;
        let blocks = subnet.cidr.subnets(28).map_err(|_| Ec2Error::value("too small"))?;
        Ok(blocks
            .filter_map(|block| block.hosts().find(|address| subnet.is_free(*address)))
            .collect())
    }

    /// Somebody else leaves a subnet. How many ENIs went.
    ///
    /// # Errors
    /// As a deletion of an ENI has them.
    pub fn vacate(&mut self, now: Duration, subnet: &SubnetId) -> Result<usize, Ec2Error> {
        let theirs = |eni: &&std::sync::Arc<Eni>| eni.subnet == *subnet && self.is_somebody_elses(eni);
        let theirs: Vec<_> = self.enis().filter(theirs).map(|eni| eni.id.clone()).collect();
        for eni in &theirs {
            self.call_directly(now, &DeleteNetworkInterface { eni: eni.clone() })?;
        }
        Ok(theirs.len())
    }

    /// Whether an ENI was made by [`Model::occupy`].
    pub fn is_somebody_elses(&self, eni: &Eni) -> bool {
        eni.tags.contains_key(TAG)
    }

    /// Somebody gives every VPC one more range. IMDS and EC2 show it; the fabric keeps the ranges that it began with.
    pub fn widen_vpcs(&mut self, range: Ipv4Net) {
        for vpc in self.world.vpcs.values_mut() {
            vpc.cidrs.push(range);
        }
    }

    /// Announces in IMDS that an instance will end, or takes that back.
    pub fn announce(&mut self, instance: &InstanceId, notice: Option<Notice>) {
        match notice {
            Some(notice) => self.notices.insert(instance.clone(), notice),
            None => self.notices.remove(instance),
        };
    }

    /// What is announced to an instance.
    pub fn notice(&self, instance: &InstanceId) -> Option<Notice> {
        self.notices.get(instance).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::model::request::AssignPrivateIpAddresses;

    #[test]
    fn a_fragmented_subnet_has_addresses_and_no_prefix_until_the_others_leave() {
        let mut model = Config::default().build().unwrap().model;
        let eni = model.enis().next().cloned().unwrap();
        let now = Duration::from_secs(1);
        let assign = |model: &mut Model, want| {
            let call = AssignPrivateIpAddresses::new(eni.id.clone(), want);
            model.call_directly(now, &call).map(|_| ())
        };
        assert_eq!(model.occupy(now, &eni.subnet, Occupancy::OneInEachBlock), Ok(16));
        let refused = assign(&mut model, Ipv4Request::PrefixCount(1)).unwrap_err();
        assert_eq!(refused.code, ErrorCode::InsufficientCidrBlocks);
        assign(&mut model, Ipv4Request::Count(1)).unwrap();
        assert_eq!(model.vacate(now, &eni.subnet), Ok(16));
        assign(&mut model, Ipv4Request::PrefixCount(1)).unwrap();
        assert!(model.audit().is_empty());
    }
}
