//! EC2's error codes with their HTTP status, and the error that every refused call carries.
//!
//! Owns codes and the message shapes that several operations share. Clients act on the code and, for
//! `InvalidParameterValue`, on the message, so the messages keep EC2's wording, quotes included.

use std::fmt;

use vpc_types::EniId;

macro_rules! codes {
    ($($name:ident $text:literal $status:literal),* $(,)?) => {
        /// The codes this EC2 can answer.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $(#[doc = concat!("`", $text, "`, HTTP ", stringify!($status), ".")] $name,)*
        }

        impl ErrorCode {
            /// All codes, for listings and fault injection.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code as it stands in the answer.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// HTTP status of an answer with this code.
            pub fn http_status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }
        }
    };
}

codes! {
    RequestLimitExceeded "RequestLimitExceeded" 503,
    InternalError "InternalError" 500,
    InternalFailure "InternalFailure" 500,
    Unavailable "Unavailable" 503,
    ServiceUnavailable "ServiceUnavailable" 503,
    UnauthorizedOperation "UnauthorizedOperation" 403,
    AuthFailure "AuthFailure" 401,
    InvalidClientTokenId "InvalidClientTokenId" 403,
    RequestExpired "RequestExpired" 400,
    DryRunOperation "DryRunOperation" 412,
    InvalidAction "InvalidAction" 400,
    MissingParameter "MissingParameter" 400,
    UnknownParameter "UnknownParameter" 400,
    InvalidParameter "InvalidParameter" 400,
    InvalidParameterCombination "InvalidParameterCombination" 400,
    InvalidParameterValue "InvalidParameterValue" 400,
    IdempotentParameterMismatch "IdempotentParameterMismatch" 400,
    InvalidEniNotFound "InvalidNetworkInterfaceID.NotFound" 400,
    InvalidEniMalformed "InvalidNetworkInterfaceID.Malformed" 400,
    InvalidEniInUse "InvalidNetworkInterface.InUse" 400,
    InvalidAttachmentNotFound "InvalidAttachmentID.NotFound" 400,
    InvalidAttachmentMalformed "InvalidAttachmentID.Malformed" 400,
    IncorrectState "IncorrectState" 400,
    IncorrectInstanceState "IncorrectInstanceState" 400,
    OperationNotPermitted "OperationNotPermitted" 400,
    UnsupportedOperation "UnsupportedOperation" 400,
    AttachmentLimitExceeded "AttachmentLimitExceeded" 400,
    PrivateIpAddressLimitExceeded "PrivateIpAddressLimitExceeded" 400,
    InsufficientFreeAddressesInSubnet "InsufficientFreeAddressesInSubnet" 400,
    InsufficientCidrBlocks "InsufficientCidrBlocks" 400,
    InvalidIpAddressInUse "InvalidIPAddress.InUse" 400,
    NetworkInterfaceLimitExceeded "NetworkInterfaceLimitExceeded" 400,
    SecurityGroupsPerInterfaceLimitExceeded "SecurityGroupsPerInterfaceLimitExceeded" 400,
    InvalidSubnetNotFound "InvalidSubnetID.NotFound" 400,
    InvalidSubnetMalformed "InvalidSubnetID.Malformed" 400,
    InvalidVpcNotFound "InvalidVpcID.NotFound" 400,
    InvalidVpcMalformed "InvalidVpcID.Malformed" 400,
    InvalidGroupNotFound "InvalidGroup.NotFound" 400,
    InvalidGroupMalformed "InvalidGroupId.Malformed" 400,
    InvalidSecurityGroupNotFound "InvalidSecurityGroupID.NotFound" 400,
    InvalidInstanceNotFound "InvalidInstanceID.NotFound" 400,
    InvalidInstanceMalformed "InvalidInstanceID.Malformed" 400,
    InvalidId "InvalidID" 400,
    InvalidInstanceType "InvalidInstanceType" 400,
    InvalidNextToken "InvalidNextToken" 400,
    InvalidPaginationToken "InvalidPaginationToken" 400,
}

impl ErrorCode {
    /// The code with this exact text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }

    /// What EC2 says with this code when nothing about the request is to be named.
    pub fn stock_message(self) -> &'static str {
        if self == Self::RequestLimitExceeded {
            "Request limit exceeded."
        } else if self == Self::UnauthorizedOperation {
            "You are not authorized to perform this operation. Encoded authorization failure message: simulated"
        } else if self == Self::InsufficientFreeAddressesInSubnet {
            "The specified subnet does not have enough free addresses to satisfy the request."
        } else if self == Self::InsufficientCidrBlocks {
            "The specified subnet does not have enough free cidr blocks to satisfy the request."
        } else if self == Self::PrivateIpAddressLimitExceeded {
            "Number of private addresses will exceed limit."
        } else if self == Self::DryRunOperation {
            "Request would have succeeded, but DryRun flag is set."
        } else {
            "An internal error has occurred"
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal as EC2 words it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Ec2Error {
    /// What clients match on.
    pub code: ErrorCode,
    /// What people read, and some clients parse.
    pub message: String,
}

impl Ec2Error {
    /// A refusal with its own wording.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// A refusal with EC2's general wording for the code.
    pub fn stock(code: ErrorCode) -> Self {
        Self::new(code, code.stock_message())
    }

    /// Clients parse the quoted id out of this message.
    pub(crate) fn eni_not_found(id: &EniId) -> Self {
        Self::new(
            ErrorCode::InvalidEniNotFound,
            format!("The networkInterface ID '{id}' does not exist"),
        )
    }

    pub(crate) fn value(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidParameterValue, message)
    }

    pub(crate) fn combination(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidParameterCombination, message)
    }

    pub(crate) fn missing(parameter: &str) -> Self {
        Self::new(
            ErrorCode::MissingParameter,
            format!("The request must contain the parameter {parameter}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip_and_are_distinct() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.as_str()), Some(*code));
            assert!((400..=503).contains(&code.http_status()));
        }
        assert_eq!(ErrorCode::parse("NoSuchCode"), None);
    }
}
