//! What the daemon may ask of EC2. One method is one API call (a describe: one call per page) with one deadline.
//!
//! Dropping a future of a mutation leaves its outcome unknown, as a time-out does.

use std::future::Future;

use vpc_types::{
    Allocation, AttachmentId, DeviceNumber, EniId, InstanceId, InstanceLimits, NetworkCard, SecurityGroupId, SubnetId,
    VpcId,
};

use super::eni::{EniView, SubnetView};
use super::error::Ec2Error;
use super::request::{CreateEni, TagFilter, Want};

/// Questions that change nothing. The SDK attempts them twice.
pub trait ReadEc2: Send + Sync {
    /// All ENIs attached to an instance, in any attachment state.
    fn describe_instance_enis(
        &self,
        instance: &InstanceId,
    ) -> impl Future<Output = Result<Vec<EniView>, Ec2Error>> + Send;

    /// One ENI; `None` when EC2 does not know the id, which may also mean *not yet*: the API is eventually consistent.
    fn describe_eni(&self, eni: &EniId) -> impl Future<Output = Result<Option<EniView>, Ec2Error>> + Send;

    /// ENIs in status `available` that carry all these tags.
    fn describe_available_enis(
        &self,
        tags: &[TagFilter],
    ) -> impl Future<Output = Result<Vec<EniView>, Ec2Error>> + Send;

    /// The subnets of one zone of a VPC, in EC2's order.
    fn describe_subnets(&self, vpc: &VpcId, az: &str)
    -> impl Future<Output = Result<Vec<SubnetView>, Ec2Error>> + Send;

    /// One subnet; `None` when EC2 does not know the id.
    fn describe_subnet(&self, subnet: &SubnetId) -> impl Future<Output = Result<Option<SubnetView>, Ec2Error>> + Send;

    /// ENI and address limits of a type that the built-in table does not have.
    fn describe_instance_type(&self, name: &str) -> impl Future<Output = Result<InstanceLimits, Ec2Error>> + Send;
}

/// Birth, attachment and end of an ENI. Attempted once.
pub trait EniLifecycle: Send + Sync {
    /// Creates an ENI; the answer holds its MAC and all its addresses. Repeating with the same token and parameters
    /// gives the first ENI again.
    fn create_eni(&self, request: &CreateEni) -> impl Future<Output = Result<EniView, Ec2Error>> + Send;

    /// Puts an `available` ENI into a slot of the instance. The device appears on the node some seconds later.
    fn attach_eni(
        &self,
        eni: &EniId,
        instance: &InstanceId,
        device: DeviceNumber,
        card: NetworkCard,
    ) -> impl Future<Output = Result<AttachmentId, Ec2Error>> + Send;

    /// Makes the ENI end with the instance; an attachment made by the API does not do so by itself.
    fn set_delete_on_termination(
        &self,
        eni: &EniId,
        attachment: &AttachmentId,
    ) -> impl Future<Output = Result<(), Ec2Error>> + Send;

    /// Replaces the ENI's security groups.
    fn set_security_groups(
        &self,
        eni: &EniId,
        groups: &[SecurityGroupId],
    ) -> impl Future<Output = Result<(), Ec2Error>> + Send;

    /// Starts a detachment, never forced: a forced one may block the slot until reboot.
    fn detach_eni(&self, attachment: &AttachmentId) -> impl Future<Output = Result<(), Ec2Error>> + Send;

    /// Deletes an `available` ENI.
    fn delete_eni(&self, eni: &EniId) -> impl Future<Output = Result<(), Ec2Error>> + Send;
}

/// Addresses and prefixes of an ENI. Attempted once.
pub trait EniAllocations: Send + Sync {
    /// Asks for more; all or nothing. Returns exactly what was added. There is no token, so after an unknown outcome
    /// only a later view tells what was added.
    fn assign(&self, eni: &EniId, want: Want) -> impl Future<Output = Result<Vec<Allocation>, Ec2Error>> + Send;

    /// Gives back at once, used or not: EC2 does not know pods. Without allocations no call is made.
    fn unassign(&self, eni: &EniId, allocations: &[Allocation]) -> impl Future<Output = Result<(), Ec2Error>> + Send;
}

/// Everything the daemon asks of EC2.
pub trait Ec2: ReadEc2 + EniLifecycle + EniAllocations {}

impl<T: ReadEc2 + EniLifecycle + EniAllocations> Ec2 for T {}
