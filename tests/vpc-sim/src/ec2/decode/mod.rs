//! From parameters to typed requests, one function per action.

mod describe;
mod mutate;

use vpc_types::{AttachmentId, EniId, InstanceId, SecurityGroupId, SubnetId, VpcId};

use super::params::Params;
use crate::model::{Ec2Error, ErrorCode, Operation};

/// A request as it comes over the wire.
pub(super) trait Decode: Operation + Sized {
    /// Takes all its parameters.
    fn decode(params: &mut Params) -> Result<Self, Ec2Error>;
}

/// Ids whose malformed form has a code of its own.
pub(super) trait WireId: Sized {
    fn parse_wire(text: &str) -> Result<Self, Ec2Error>;
}

macro_rules! wire_id {
    ($id:ty, $code:ident) => {
        impl WireId for $id {
            fn parse_wire(text: &str) -> Result<Self, Ec2Error> {
                Self::parse(text).map_err(|_| Ec2Error::new(ErrorCode::$code, format!("Invalid id: \"{text}\"")))
            }
        }
    };
}

wire_id!(EniId, InvalidEniMalformed);
wire_id!(AttachmentId, InvalidAttachmentMalformed);
wire_id!(InstanceId, InvalidInstanceMalformed);
wire_id!(SubnetId, InvalidSubnetMalformed);
wire_id!(VpcId, InvalidVpcMalformed);
wire_id!(SecurityGroupId, InvalidGroupMalformed);

impl WireId for String {
    fn parse_wire(text: &str) -> Result<Self, Ec2Error> {
        Ok(text.to_owned())
    }
}

fn require_id<T: WireId>(params: &mut Params, name: &str) -> Result<T, Ec2Error> {
    T::parse_wire(&params.require(name)?)
}

fn take_ids<T: WireId>(params: &mut Params, name: &str) -> Result<Vec<T>, Ec2Error> {
    params.take_list(name).iter().map(|text| T::parse_wire(text)).collect()
}
